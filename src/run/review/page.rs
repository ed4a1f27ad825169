//! A run as one web page that needs nothing else: no network, no server.

use serde_json::{Value, json};

use super::read::Problem;
use super::summary::{InstanceSummary, Totals};
use crate::error::{Error, Result};

const TEMPLATE: &str = include_str!("page.html");
/// Where the template wants the data, as the whole content of a script element of type JSON.
const PLACE: &str = "{{data}}";

/// The page. All text of the run is in one JSON value, which the page's script writes into text nodes only.
pub(super) fn page(totals: &Totals, problems: &[Problem], instances: &[InstanceSummary]) -> Result<String> {
    let data =
        json!({"totals": value(totals)?, "problems": value(&problems)?, "instances": value(&instances)?});
    Ok(TEMPLATE.replace(PLACE, &inert(&data.to_string())))
}

fn value(part: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(part)
        .map_err(|source| Error::internal("a report has no JSON form").with_source(source))
}

/// JSON that no HTML parser takes for anything but text: without `<`, `>` and `&`, which only strings have.
fn inert(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_run_is_markup() {
        let hostile = "</script><script>alert(1)</script><!-- & \u{2028}";
        let inert_text = inert(&json!(hostile).to_string());
        assert!(!inert_text.contains(['<', '>', '&', '\u{2028}']), "{inert_text}");
        assert_eq!(serde_json::from_str::<String>(&inert_text).unwrap(), hostile);
    }

    #[test]
    fn the_template_has_one_place_and_asks_nobody() {
        assert_eq!(TEMPLATE.matches(PLACE).count(), 1);
        for word in ["http:", "https:", "src=", "innerHTML", "insertAdjacentHTML", "document.write", "eval("]
        {
            assert!(!TEMPLATE.contains(word), "{word}");
        }
        assert!(TEMPLATE.contains("default-src 'none'"));
    }
}
