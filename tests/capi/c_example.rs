//! The C example compiles without a warning, streams, cancels, and leaks nothing.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{repository, run, shared_library};

/// Compiles `bindings/c/generate.c` against the shared library, as a user does.
fn compile(dir: &Path) -> PathBuf {
    // The loader looks for the SONAME.
    for name in ["libswebench_infer.so", "libswebench_infer.so.0"] {
        symlink(shared_library(), dir.join(name)).unwrap();
    }
    let program = dir.join("generate");
    run(Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-g", "-I"])
        .arg(repository("include"))
        .arg(repository("bindings/c/generate.c"))
        .arg(format!("-L{0}", dir.display()))
        .arg(format!("-Wl,-rpath,{}", dir.display()))
        .args(["-lswebench_infer", "-o"])
        .arg(&program));
    program
}

fn check(output: &Output) {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let results: Vec<serde_json::Value> = stderr
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(results.len(), 2, "{stderr}");
    assert!(
        matches!(results[0]["samples"][0]["finish_reason"].as_str(), Some("length" | "stop")),
        "{stderr}"
    );
    assert_eq!(results[1]["samples"][0]["finish_reason"], "cancelled", "{stderr}");
    // What was streamed is what the results say.
    let text = |result: &serde_json::Value| result["samples"][0]["text"].as_str().unwrap().to_owned();
    assert_eq!(stdout, format!("{}\n{}\n", text(&results[0]), text(&results[1])));
}

#[test]
fn c_example_streams_and_cancels() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path());
    check(&run(Command::new(&program).arg(repository("tests/data/demo")).arg("Fix the parser.")));

    let missing = Command::new(&program).args(["/nowhere", "x"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).starts_with("error -2: /nowhere"), "{missing:?}");
}

/// CI sets `SWEBENCH_REQUIRE_VALGRIND`; elsewhere a machine without valgrind passes.
#[test]
fn c_example_is_clean_under_valgrind() {
    let is_installed = Command::new("valgrind").arg("--version").output().is_ok();
    if !is_installed && std::env::var_os("SWEBENCH_REQUIRE_VALGRIND").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path());
    let output = run(Command::new("valgrind")
        .args(["--quiet", "--leak-check=full", "--errors-for-leak-kinds=definite", "--error-exitcode=99"])
        .arg(&program)
        .arg(repository("tests/data/demo"))
        .arg("Fix."));
    check(&output);
}

#[test]
fn c_example_is_short() {
    let text = std::fs::read_to_string(repository("bindings/c/generate.c")).unwrap();
    assert!(text.lines().count() <= 60, "{} lines", text.lines().count());
}
