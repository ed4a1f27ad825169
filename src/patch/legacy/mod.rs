//! The reference's own rules for patches, byte for byte, faults included.

mod extract;
mod rewrite;

pub use extract::extract_diff;
pub use rewrite::{minimal_patch, repair_patch};

use regex::Regex;

/// Compiles a pattern that is a constant of this module.
fn constant(pattern: &str) -> Regex {
    match Regex::new(pattern) {
        Ok(regex) => regex,
        Err(error) => unreachable!("a constant pattern compiles: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::goldens;

    #[test]
    fn equals_the_reference_on_recorded_responses() {
        let mut patches = 0;
        for record in goldens::responses() {
            let Some(response) = record["response"].as_str() else {
                assert!(record["extract_diff"].is_null());
                continue;
            };
            let patch = extract_diff(response);
            assert_eq!(patch, record["extract_diff"].as_str().unwrap(), "{record:#}");
            for (made, recorded) in
                [(minimal_patch(patch), &record["minimal"]), (repair_patch(patch), &record["repair"])]
            {
                assert_eq!(made.unwrap(), recorded["ok"].as_str().unwrap(), "{record:#}");
                patches += usize::from(recorded["ok"] != "");
            }
        }
        assert_eq!((goldens::responses().count(), patches), (145, 248));
    }
}
