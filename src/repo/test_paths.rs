//! Which files of a repository are its tests, by their names.

/// Whether a word of the path is `test`, `tests` or `testing`. The path is relative to the repository: where that is cloned
/// to says nothing about its files.
pub fn is_test(path: &str) -> bool {
    path.split([' ', '_', '/', '.'])
        .any(|word| ["test", "tests", "testing"].iter().any(|test| word.eq_ignore_ascii_case(test)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_compared_whole() {
        for path in ["test_a.py", "src/Tests/a.py", "src/a_testing.py", "a.test.py", "my test/a.py"] {
            assert!(is_test(path), "{path}");
        }
        for path in ["src/contest.py", "src/test-data/a.py", "attest/testers.py", ""] {
            assert!(!is_test(path), "{path}");
        }
    }
}
