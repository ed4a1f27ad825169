//! Files to documents: what of a file is searched.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{python_docs, python_names};
use crate::repo::is_test;

/// What of a file is searched besides its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DocumentEncoding {
    /// All of it.
    #[default]
    FileNameAndContents,
    /// The docstrings of the module and of its functions and classes, with their names.
    FileNameAndDocumentation,
    /// The full names that the module defines, with signatures and docstrings.
    FileNameAndDocsJedi,
}

impl DocumentEncoding {
    /// Its name, as the reference spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::FileNameAndContents => "file_name_and_contents",
            Self::FileNameAndDocumentation => "file_name_and_documentation",
            Self::FileNameAndDocsJedi => "file_name_and_docs_jedi",
        }
    }

    /// Whether the same content is another document at another path, apart from the path itself.
    pub(super) fn depends_on_path(self) -> bool {
        self == Self::FileNameAndDocsJedi
    }

    /// Whether files are parsed, on a stack of [`PARSER_STACK`](super::python_depth::PARSER_STACK) bytes.
    pub(super) fn parses(self) -> bool {
        self != Self::FileNameAndContents
    }

    /// What follows the path's line in a file's document: the whole content where that is no Python that can be parsed.
    pub(super) fn body<'a>(self, path: &str, content: &'a str) -> Cow<'a, str> {
        let is_python = path.ends_with(".py");
        let parsed = match self {
            Self::FileNameAndDocumentation if is_python => python_docs::docstrings(content),
            Self::FileNameAndDocsJedi if is_python => python_names::names(path, content),
            _ => None,
        };
        parsed.map_or(Cow::Borrowed(content), Cow::Owned)
    }
}

impl fmt::Display for DocumentEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which files are documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFilter {
    extensions: Vec<String>,
}

impl FileFilter {
    /// Files whose names end in one of `extensions`, such as `.py`, apart from tests.
    pub fn new(extensions: &[String]) -> Self {
        Self { extensions: extensions.to_vec() }
    }

    /// Whether the file `path`, relative to the repository, is a document.
    pub fn takes(&self, path: &str) -> bool {
        self.extensions.iter().any(|extension| path.ends_with(extension)) && !is_test(path)
    }

    /// Whether a directory may hold documents.
    pub(super) fn enters(directory: &str) -> bool {
        !is_test(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_files_without_tests_are_documents() {
        let filter = FileFilter::new(&[".py".into(), ".pyi".into()]);
        for (path, expected) in [
            ("setup.py", true),
            ("src/a.pyi", true),
            ("src/contest.py", true),
            ("src/test-data/a.py", true),
            ("src/a.js", false),
            ("src/a.py.txt", false),
            ("test_a.py", false),
            ("src/Tests/a.py", false),
            ("src/a_testing.py", false),
            ("a.test.py", false),
        ] {
            assert_eq!(filter.takes(path), expected, "{path}");
        }
        assert!(FileFilter::enters("src") && !FileFilter::enters("src/tests"));
    }

    #[test]
    fn names_are_those_of_the_configuration() {
        for encoding in [
            DocumentEncoding::FileNameAndContents,
            DocumentEncoding::FileNameAndDocumentation,
            DocumentEncoding::FileNameAndDocsJedi,
        ] {
            assert_eq!(serde_json::to_value(encoding).unwrap(), encoding.name());
        }
    }

    #[test]
    fn only_python_is_parsed() {
        let source = "def f():\n    'doc'\n";
        let body = |encoding: DocumentEncoding, path: &str| encoding.body(path, source).into_owned();
        assert_eq!(body(DocumentEncoding::FileNameAndContents, "a.py"), source);
        assert_eq!(body(DocumentEncoding::FileNameAndDocumentation, "a.py"), "\n\nf\ndoc");
        assert_eq!(body(DocumentEncoding::FileNameAndDocumentation, "a.js"), source);
        assert_eq!(DocumentEncoding::FileNameAndDocumentation.body("a.py", "def f(:"), "def f(:");
    }
}
