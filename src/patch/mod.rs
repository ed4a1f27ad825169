//! Unified diffs in model answers: finding them, making them fit, and the reference's own rules for it.
//!
//! Pure functions of texts, except for `at_commit`, which reads a repository and asks git.

mod answer;
mod at_commit;
mod compare;
mod diff;
mod edits;
mod extract;
#[cfg(test)]
mod goldens;
pub mod legacy;
mod locate;
mod minimal;
mod path;
mod repair;
mod scan;

pub use answer::{FileReport, Mode, Report, Steps, model_patch, process};
pub use at_commit::{AtCommit, Judge, Verdict};
pub use diff::{FileDiff, Hunk, Line, LineKind, Range, to_text};
pub use extract::{Empty, Extraction, Found, Refusal, extract};
pub use minimal::minimize;
pub use path::{Unsafe, check_name};
pub use repair::{Change, Entry, Tree, Unplaced, What, recount, repair};
pub use scan::Place;

#[cfg(test)]
mod tests;
