//! Strict reading of JSON: unknown keys name the nearest known one, and wrong values name their key.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::Config;
use crate::error::{Error, Result};

/// Reads a configuration; absent keys take their defaults.
///
/// # Errors
/// `InvalidArgument` for JSON that does not parse, unknown keys, wrong types and values that [`Config::check`] refuses.
pub(in crate::capi) fn parse<T: Config>(json: &str) -> Result<T> {
    let what = T::KIND;
    let value: Value = serde_json::from_str(json).map_err(|source| {
        Error::invalid_argument(format!("the `{what}` configuration is not valid JSON")).with_source(source)
    })?;
    let Value::Object(map) = &value else {
        return Err(Error::invalid_argument(format!("the `{what}` configuration is not an object"))
            .with_expected("a JSON object", kind_of(&value)));
    };
    check_keys(what, map, &schema::<T>())?;
    let config: T = serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let message = match path.as_str() {
            "." => format!("the `{what}` configuration is incomplete"),
            key => format!("the value of `{key}` in the `{what}` configuration is wrong"),
        };
        Error::invalid_argument(message).with_source(error.into_inner())
    })?;
    config.check()?;
    Ok(config)
}

/// The JSON Schema of a configuration, closed to unknown keys.
pub(super) fn schema<T: Config>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.insert("title".into(), Value::from(T::KIND));
    schema.insert("additionalProperties".into(), Value::Bool(false));
    schema.to_value()
}

fn check_keys(what: &str, map: &Map<String, Value>, schema: &Value) -> Result<()> {
    let known: Vec<&str> = schema["properties"]
        .as_object()
        .map(|properties| properties.keys().map(String::as_str).collect())
        .unwrap_or_default();
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            Err(Error::invalid_argument(format!("unknown key `{key}` in the `{what}` configuration"))
                .with_hint(match nearest(key, &known) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("the known keys are {}", known.join(", ")),
                }))
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The known key with the fewest edits to `key`, when these are at most half of its length.
fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    // Keys are short; a hostile one of many megabytes is not worth measuring.
    const LONGEST: usize = 64;
    if key.len() > LONGEST {
        return None;
    }
    let key = key.replace('-', "_").to_lowercase();
    let limit = key.chars().count().max(2) / 2;
    known
        .iter()
        .map(|name| (edit_distance(&key, name), *name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= limit)
        .map(|(_, name)| name)
}

/// Levenshtein distance in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substitution = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substitution.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::super::GenerateConfig;
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "", 0), ("kitten", "sitting", 3), ("", "abc", 3), ("top_p", "top_k", 1)]
        {
            assert_eq!(edit_distance(a, b), expected, "{a} {b}");
            assert_eq!(edit_distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("{\"temprature\": 0}", "unknown key `temprature`", "did you mean `temperature`?"),
            ("{\"max-new-tokens\": 1}", "unknown key `max-new-tokens`", "did you mean `max_new_tokens`?"),
            ("{\"zzzzzzzz\": 1}", "unknown key `zzzzzzzz`", "the known keys are prompt, "),
            ("{\"temperature\": \"hot\"}", "the value of `temperature`", ""),
            ("{\"stop\": [1]}", "the value of `stop[0]`", ""),
            ("{\"n\": -1}", "the value of `n`", ""),
            ("[]", "expected a JSON object, got an array", ""),
            ("{", "not valid JSON", ""),
        ];
        for (json, message, hint) in cases {
            let error = parse::<GenerateConfig>(json).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains(message), "{json}: {error}");
            assert!(error.hint().unwrap_or("").contains(hint), "{json}: {:?}", error.hint());
        }
    }
}
