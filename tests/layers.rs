//! The structure that ARCHITECTURE.md promises: imports go down, `unsafe` stays in its places, files stay readable.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Every top-level module with the modules it may import, bottom layer first.
const LAYERS: [(&str, &[&str]); 16] = [
    ("error", &[]),
    ("cancel", &[]),
    ("hub", &[]),
    ("client", &[]),
    ("backend", &[]),
    ("model", &["backend"]),
    ("tokenizer", &[]),
    ("engine", &["backend", "model", "tokenizer"]),
    ("dataset", &["hub"]),
    ("repo", &[]),
    ("patch", &["repo"]),
    ("prompt", &["dataset", "patch", "repo", "tokenizer"]),
    ("retrieval", &["repo"]),
    ("run", &BELOW_RUN),
    ("capi", &BELOW_CAPI),
    ("lib", &["capi"]),
];

/// Runs bring everything below them together.
const BELOW_RUN: [&str; 11] = [
    "hub",
    "client",
    "backend",
    "model",
    "tokenizer",
    "engine",
    "dataset",
    "repo",
    "patch",
    "prompt",
    "retrieval",
];

/// So do the exported functions.
const BELOW_CAPI: [&str; 12] = [
    "run",
    "hub",
    "client",
    "backend",
    "model",
    "tokenizer",
    "engine",
    "dataset",
    "repo",
    "patch",
    "prompt",
    "retrieval",
];

/// What every module may import.
const ANYWHERE: [&str; 2] = ["error", "cancel"];

/// Where `unsafe` may be written.
const UNSAFE: [&str; 4] = ["src/backend/", "src/capi/", "src/model/weights/", "bindings/rust/"];

/// Lines of a source file, and of a kernel.
const MAX_LINES: [(&str, usize); 3] = [("rs", 800), ("cu", 600), ("cuh", 600)];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `dir`, relative to the root, with `/` separators.
fn files(dir: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![root().join(dir)];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/"));
            }
        }
    }
    found.sort();
    found
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

/// The code of a file: comments are cut, and so is everything from the unit tests on.
fn code(file: &str) -> String {
    let text = read(file);
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The top-level modules that a piece of code names after `crate::`, `use crate::{…}` included.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in code.split("crate::").skip(1) {
        let names = match part.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default().split(',').collect(),
            None => vec![part],
        };
        for name in names {
            let name = name.trim_start();
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
            found.push(name[..end].to_owned());
        }
    }
    found
}

#[test]
fn imports_go_down() {
    // What lib.rs lifts to the top belongs to these modules.
    let lifted = [("Error", "error"), ("ErrorKind", "error"), ("Result", "error"), ("CancelToken", "cancel")];
    for file in files("src").iter().filter(|file| !file.starts_with("src/bin/")) {
        let layer = file["src/".len()..].split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        let allowed = LAYERS.iter().find(|(name, _)| *name == layer);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{file}: no layer `{layer}` in this test"));
        for import in imports(&code(file)) {
            let import =
                lifted.iter().find(|(name, _)| *name == import).map_or(&*import, |(_, module)| module);
            assert!(
                import == layer || ANYWHERE.contains(&import) || allowed.contains(&import),
                "{file}: `{layer}` may not import `{import}`, only {allowed:?}"
            );
        }
    }
}

#[test]
fn every_module_is_in_a_layer() {
    for line in read("src/lib.rs").lines() {
        let line = line.trim_start_matches("pub ");
        if let Some(module) = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            assert!(LAYERS.iter().any(|(name, _)| *name == module), "`{module}` has no layer");
        }
    }
}

#[test]
fn the_command_line_goes_through_the_header_alone() {
    for file in files("src/bin").iter().chain(&files("bindings/rust")).filter(|file| file.ends_with(".rs")) {
        let code = code(file).replace("use swebench_infer as _;", "");
        assert!(!code.contains("swebench_infer::"), "{file} reaches around the C ABI");
    }
}

#[test]
fn unsafe_code_stays_in_its_places() {
    for file in files("src").iter().filter(|file| !UNSAFE.iter().any(|place| file.starts_with(place))) {
        assert!(!code(file).contains("unsafe "), "{file} has unsafe code; its places are {UNSAFE:?}");
    }
}

#[test]
fn files_stay_readable() {
    for file in ["src", "kernels", "bindings", "tests", "benches"].iter().flat_map(|dir| files(dir)) {
        let extension = Path::new(&file).extension().and_then(|e| e.to_str()).unwrap_or_default();
        if let Some((_, max)) = MAX_LINES.iter().find(|(name, _)| *name == extension) {
            let lines = read(&file).lines().count();
            assert!(lines <= *max, "{file} has {lines} lines, more than {max}");
        }
        if extension == "rs" {
            assert!(read(&file).starts_with("//!"), "{file} does not open with a `//!` sentence");
        }
    }
}

#[test]
fn json_and_http_stay_out_of_the_model() {
    for file in files("src/backend").iter().chain(&files("src/engine")) {
        assert!(!code(file).contains("serde_json"), "{file}: JSON exists only in file formats and the C ABI");
    }
}

#[test]
fn the_tests_of_this_file_can_fail() {
    assert_eq!(imports("use crate::{engine::Engine, model};"), ["engine", "model"]);
    assert_eq!(imports("fn f() -> crate::error::Result<()>"), ["error"]);
}
