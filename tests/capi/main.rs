//! Tests of the C ABI from outside: the header, the symbols, the C example, and misuse.
//!
//! - `header`: the committed header is the generated one, and compiles as C99 and C++17
//! - `declarations`: `bindings/rust/sys.rs` says what the header says
//! - `exports`: the shared library exports what the header declares, and nothing else
//! - `c_example`: `bindings/c` compiles, runs, and is clean under valgrind
//! - `clients`: requests to services on loopback: streaming, costs, failures, cancelling, wrong use
//! - `misuse`: NULL, invalid UTF-8, unknown keys
//! - `jobs`: streaming, cancelling, several samples and threads, two threads in one job, shutdown, log lines

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

// Links the library behind the declarations of `bindings/rust`.
use swebench_infer as _;

#[path = "../../bindings/rust/mod.rs"]
mod swebench;

mod c_example;
mod clients;
mod declarations;
mod exports;
mod header;
mod jobs;
mod misuse;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A path in the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The committed header.
fn header_text() -> String {
    std::fs::read_to_string(repository("include/swebench_infer.h")).unwrap()
}

/// The shared library of this build, beside the test program.
fn shared_library() -> PathBuf {
    let library = std::env::current_exe().unwrap().with_file_name("libswebench_infer.so");
    assert!(library.exists(), "{} is missing: cargo builds it with the tests", library.display());
    library
}

/// Runs a program that must be installed and must succeed.
#[track_caller]
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

/// The header without comments and preprocessor lines, in single spaces.
fn declarations() -> String {
    let header = header_text();
    let mut code = String::new();
    let mut rest = header.as_str();
    while let Some((before, comment)) = rest.split_once("/*") {
        code.push_str(before);
        rest = comment.split_once("*/").expect("comments end").1;
    }
    code.push_str(rest);
    let lines = code.lines().filter(|line| !line.starts_with('#'));
    let text = lines.collect::<Vec<_>>().join(" ").replace("extern \"C\" {", " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every function of the header: return type, name, parameters.
fn functions() -> Vec<(String, String, Vec<String>)> {
    let text = declarations();
    let functions = text.split(';').filter(|statement| !statement.contains("typedef"));
    let functions = functions.filter_map(|statement| {
        let (head, parameters) = statement.trim().split_once('(')?;
        let name = head.rfind("swebench_")?;
        let parameters = parameters.trim_end_matches(')').split(',').map(|text| text.trim().to_owned());
        let parameters = parameters.filter(|text| text != "void").collect();
        Some((head[..name].trim().to_owned(), head[name..].to_owned(), parameters))
    });
    functions.collect()
}
