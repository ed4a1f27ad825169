//! `--model-args`: typed parameters of requests, written as `key=value,key=value`.

use serde_json::{Map, Value};

use crate::client::Sampling;
use crate::error::{Error, Result};

/// Parameters that the user gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ModelArgs {
    pub(super) sampling: Sampling,
    pub(super) max_tokens: Option<u32>,
    /// What has no place of its own.
    pub(super) extra: Map<String, Value>,
}

impl ModelArgs {
    /// Reads the parameters: the first `=` ends a key, commas within brackets and quotes are part of a value. A value is
    /// JSON, Python's `True`, `False` or `None`, or else text.
    ///
    /// # Errors
    /// `InvalidArgument` that shows the part which is wrong.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut args = Self::default();
        for part in split_at_commas(text).into_iter().map(str::trim).filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| wrong("key=value,…", part))?;
            let (key, value) = (key.trim(), typed(value.trim()));
            match key {
                "" => return Err(wrong("a key before `=`", part)),
                "temperature" | "top_p" => {
                    let number = value.as_f64().filter(|number| *number >= 0.0);
                    let number = number.ok_or_else(|| wrong("a number, 0 or more", part))?;
                    let sampling = &mut args.sampling;
                    *(if key == "top_p" { &mut sampling.top_p } else { &mut sampling.temperature }) =
                        Some(number);
                }
                "max_tokens" | "max_completion_tokens" | "max_output_tokens" | "max_tokens_to_sample" => {
                    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
                    let number = number.filter(|number| *number > 0);
                    args.max_tokens =
                        Some(number.ok_or_else(|| wrong("a number of tokens, at least 1", part))?);
                }
                "n" => return Err(wrong("no `n`, which has a flag of its own", part)),
                "model" => return Err(wrong("no `model`, which `model_name_or_path` names", part)),
                "messages" | "system" | "input" | "instructions" | "prompt" => {
                    return Err(wrong("no prompt, which is the dataset's", part));
                }
                _ => drop(args.extra.insert(key.to_owned(), value)),
            }
        }
        Ok(args)
    }
}

/// Parameters by which a request's tokens cost something else than the price tables say, or more than tokens are billed.
const REPRICING: [&str; 9] = [
    "service_tier",
    "speed",
    "inference_geo",
    "best_of",
    "tools",
    "web_search_options",
    "prediction",
    "modalities",
    "audio",
];
/// The values of `service_tier` that mean the listed prices.
const LISTED_TIERS: [&str; 2] = ["default", "standard_only"];

impl ModelArgs {
    /// The first parameter that makes the price another one, as it was given.
    pub(super) fn repricing(&self) -> Option<String> {
        let is_listed = |key: &str, value: &Value| {
            value.is_null()
                || key == "service_tier" && value.as_str().is_some_and(|tier| LISTED_TIERS.contains(&tier))
        };
        let found = |key: &&str| self.extra.get(*key).filter(|value| !is_listed(key, value)).is_some();
        let key = REPRICING.into_iter().find(found)?;
        Some(format!("{key}={}", self.extra[key]))
    }
}

fn wrong(expected: &str, part: &str) -> Error {
    Error::invalid_argument("`model_args` cannot be read")
        .with_expected(expected, format!("`{}`", part.escape_debug()))
}

fn typed(text: &str) -> Value {
    match text {
        "True" => true.into(),
        "False" => false.into(),
        "None" => Value::Null,
        _ => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
    }
}

fn split_at_commas(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quoted, mut escaped) = (Vec::new(), 0, 0_usize, false, false);
    for (index, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth = depth.saturating_sub(1),
            ',' if !quoted && depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_have_types() {
        let args = ModelArgs::parse(
            r#"temperature=0.2, top_p=1e-1,max_tokens=5,seed=-3,a=b=c,stop=["x,y","\",z"],on=True,off=false,none=None,w=hi"#,
        )
        .unwrap();
        assert_eq!(args.sampling, Sampling { temperature: Some(0.2), top_p: Some(0.1) });
        assert_eq!(args.max_tokens, Some(5));
        let expected = json!({"seed": -3, "a": "b=c", "stop": ["x,y", "\",z"], "on": true, "off": false,
            "none": null, "w": "hi"});
        assert_eq!(Value::Object(args.extra), expected);
        assert_eq!(ModelArgs::parse("").unwrap(), ModelArgs::default());
    }

    #[test]
    fn what_changes_the_price_is_known() {
        for (text, expected) in [
            ("seed=1", None),
            ("service_tier=default", None),
            ("service_tier=standard_only,tools=null", None),
            ("service_tier=flex", Some("service_tier=\"flex\"")),
            ("seed=1,best_of=3", Some("best_of=3")),
        ] {
            assert_eq!(ModelArgs::parse(text).unwrap().repricing().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_shown() {
        for (text, part) in [
            ("temperature", "`temperature`"),
            ("a=1,temperature=warm", "`temperature=warm`"),
            ("temperature=-1", "`temperature=-1`"),
            ("max_tokens=0", "`max_tokens=0`"),
            ("=3", "`=3`"),
            ("n=3", "`n=3`"),
            ("model=gpt-4o", "`model=gpt-4o`"),
            ("seed=1,messages=[]", "`messages=[]`"),
        ] {
            let error = ModelArgs::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
