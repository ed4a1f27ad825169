//! Diffs: the patch in a model's answer, made to fit, cut, and checked.

use serde_json::Value;

use super::boundary::{OK, Out, enter};
use super::buf::Buf;
use super::config::{DiffConfig, parse};
use super::error::ErrorObject;
use super::text::Str;
use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::patch::{AtCommit, Mode, Steps, Tree, legacy, process};

/// Finds the diff in a model's answer.
///
/// `mode` is "robust", or "legacy": byte for byte what the reference implementation's `extract_diff` returns, faults included.
/// The result is empty when nothing was found; swebench_diff() says why. A robust result ends in exactly one newline. Free
/// `out` with swebench_buf_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_extract_diff(
    response: Str,
    mode: Str,
    out: *mut Buf,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: texts, output and error are valid by contract.
    unsafe { rewrite((response, "response"), mode, out, error, Steps::default()) }
}

/// Makes the numbers of a patch's hunks fit their lines; `mode` as of swebench_extract_diff().
///
/// With a repository swebench_diff() does more. Free `out` with swebench_buf_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_repair_patch(
    patch: Str,
    mode: Str,
    out: *mut Buf,
    error: *mut *mut ErrorObject,
) -> i32 {
    let steps = Steps { repair: true, ..Steps::default() };
    // SAFETY: texts, output and error are valid by contract.
    unsafe { rewrite((patch, "patch"), mode, out, error, steps) }
}

/// Cuts the context of a patch's hunks to one line after each change; `mode` as of swebench_extract_diff().
///
/// Free `out` with swebench_buf_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_minimal_patch(
    patch: Str,
    mode: Str,
    out: *mut Buf,
    error: *mut *mut ErrorObject,
) -> i32 {
    let steps = Steps { minimal: true, ..Steps::default() };
    // SAFETY: texts, output and error are valid by contract.
    unsafe { rewrite((patch, "patch"), mode, out, error, steps) }
}

/// Takes an answer, or a patch, through all steps that `config_json` asks for, a configuration of kind "diff".
///
/// `out` is JSON: `patch`; why there is none in `empty` and `reason`; `truncated`, whether the answer was cut off in it;
/// `files` with `path`, `source` (where in the answer: "tag", "fence", "text", "search_replace", "whole_file", "fenced_file"),
/// `added` and `removed`; `refused` paths; the number of `superseded` drafts; the `changes` that repairing made or could not; and, when
/// asked for, `check` with `applies`, `by` and `reason`. The repository is only read. Free `out` with swebench_buf_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_diff(
    answer: Str,
    config_json: Str,
    out: *mut Buf,
    error: *mut *mut ErrorObject,
) -> i32 {
    enter(error, || {
        // SAFETY: texts and output are valid by contract.
        let (answer, config_json, out) =
            unsafe { (answer.get("answer")?, config_json.get("config_json")?, Out::new(out, "out")?) };
        out.write(Buf::new(diff(answer, &parse(config_json)?)?.to_string()));
        OK
    })
}

fn diff(answer: &str, config: &DiffConfig) -> Result<Value> {
    let cancel = CancelToken::new();
    let at_commit = match &config.repository {
        Some(path) => Some(AtCommit::open(path, &config.commit, &cancel)?),
        None => None,
    };
    let tree = at_commit.as_ref().map(|tree| tree as &dyn Tree);
    let steps = Steps { mode: config.mode, repair: config.repair, minimal: config.minimal, tree };
    let report = process(answer, &steps)?;
    let no_json = |source| Error::internal("a report has no JSON form").with_source(source);
    let mut json = serde_json::to_value(&report).map_err(no_json)?;
    if let (Some(judge), Some(tree)) = (config.check, &at_commit) {
        let verdict = tree.check(&report.patch, judge, &cancel)?;
        json["check"] = serde_json::to_value(verdict).map_err(no_json)?;
    }
    Ok(json)
}

/// Writes the patch that is left of `text` after `steps`.
///
/// # Safety
/// All arguments are as the entry's caller gave them, by the header's contract.
unsafe fn rewrite(
    (text, name): (Str, &str),
    mode: Str,
    out: *mut Buf,
    error: *mut *mut ErrorObject,
    steps: Steps<'_>,
) -> i32 {
    enter(error, || {
        // SAFETY: texts and output are valid by contract.
        let (text, mode, out) = unsafe { (text.get(name)?, mode.get("mode")?, Out::new(out, "out")?) };
        let patch = match Mode::parse(mode)? {
            Mode::Legacy if name == "patch" => legacy_rewrite(text, &steps)?,
            mode => process(text, &Steps { mode, ..steps })?.patch,
        };
        out.write(Buf::new(patch));
        OK
    })
}

/// The reference's functions take a patch as it is: nothing is looked for in it.
fn legacy_rewrite(patch: &str, steps: &Steps<'_>) -> Result<String> {
    if steps.minimal { legacy::minimal_patch(patch) } else { legacy::repair_patch(patch) }
}
