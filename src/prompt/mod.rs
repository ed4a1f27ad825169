//! Prompts: an issue and files of its repository in the words that SWE-bench's models were trained on.
//!
//! The text of every style is the reference's, byte for byte. Where the reference is at fault, [`Fidelity`] chooses.

mod code_text;
mod edits;
mod pack;
mod sources;
mod styles;

pub use code_text::file_text;
pub use edits::{EditedFile, edited_files};
pub use pack::pack;
pub use sources::{all, named, oracle, readmes};

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Files of a prompt by their paths, in the order in which prompts show them.
pub type Files = BTreeMap<String, String>;

/// What a prompt asks for, and how it shows files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum PromptStyle {
    /// A patch; numbered files.
    #[serde(rename = "style-2")]
    Style2,
    /// A patch, with the example explained; numbered files.
    #[default]
    #[serde(rename = "style-3")]
    Style3,
    /// Whole files again; files without numbers.
    #[serde(rename = "full_file_gen")]
    FullFileGen,
    /// As `style-2`, with only the lines around the gold patch's edits.
    #[serde(rename = "style-2-edits-only")]
    Style2EditsOnly,
}

impl PromptStyle {
    /// The name as flags and files have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Style2 => "style-2",
            Self::Style3 => "style-3",
            Self::FullFileGen => "full_file_gen",
            Self::Style2EditsOnly => "style-2-edits-only",
        }
    }
}

/// Whether the reference's faults are mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fidelity {
    /// Edits are shown with 15 lines on both sides, and a file that a patch adds is not shown, as it is not there yet.
    #[default]
    Mended,
    /// The reference's bytes: edits near a file's top vanish, windows end a line after their edit, and a file that a patch
    /// adds is an empty `/dev/null`.
    Reference,
}

/// What a prompt is made of.
#[derive(Debug, Clone, Copy)]
pub struct PromptInput<'a> {
    /// The issue.
    pub problem_statement: &'a str,
    /// The READMEs in the repository's root.
    pub readmes: &'a Files,
    /// The files to show.
    pub files: &'a Files,
    /// The gold patch, for [`PromptStyle::Style2EditsOnly`] alone.
    pub patch: &'a str,
}
