//! As many retrieved files as a context takes.

use super::{Files, file_text};
use crate::error::Result;

/// The files that fit: in order of retrieval, each is taken when the prompt stays shorter than `max_len` tokens with it, and
/// passed over otherwise.
///
/// `prompt_len` is the length of the prompt without files, and `count` that of a file as the prompt shows it.
///
/// # Errors
/// As `count`.
pub fn pack(
    files: impl IntoIterator<Item = (String, String)>,
    prompt_len: usize,
    max_len: usize,
    mut count: impl FnMut(&str) -> Result<usize>,
) -> Result<Files> {
    let mut packed = Files::new();
    let mut len = prompt_len;
    for (path, content) in files {
        let tokens = count(&file_text(&path, &content))?;
        if len.saturating_add(tokens) < max_len {
            len += tokens;
            packed.insert(path, content);
        }
    }
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_passed_over() {
        let files =
            || ["c", "a", "b"].map(|path| (path.to_owned(), path.repeat(if path == "a" { 50 } else { 1 })));
        let fit = |max_len| -> Vec<String> {
            let packed = pack(files(), 10, max_len, |text| Ok(text.len())).unwrap();
            packed.into_keys().collect()
        };
        let one = file_text("c", "c").len();
        assert_eq!(fit(10 + one), [""; 0]);
        assert_eq!(fit(10 + one + 1), ["c"]);
        assert_eq!(fit(10 + 2 * one + 1), ["b", "c"]);
        assert_eq!(fit(1000), ["a", "b", "c"]);
        assert_eq!(fit(0), [""; 0]);
    }
}
