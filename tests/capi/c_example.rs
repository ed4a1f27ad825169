//! The C examples compile without a warning, stream, cancel, and leak nothing.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::clients::{self, Server};
use super::{repository, run, shared_library};

/// Compiles `bindings/c/NAME.c` against the shared library, as a user does.
fn compile(dir: &Path, name: &str) -> PathBuf {
    // The loader looks for the SONAME.
    for library in ["libswebench_infer.so", "libswebench_infer.so.0"] {
        symlink(shared_library(), dir.join(library)).unwrap();
    }
    let program = dir.join(name);
    run(Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-g", "-I"])
        .arg(repository("include"))
        .arg(repository(&format!("bindings/c/{name}.c")))
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
    let program = compile(dir.path(), "generate");
    check(&run(Command::new(&program).arg(repository("tests/data/demo")).arg("Fix the parser.")));

    let missing = Command::new(&program).args(["/nowhere", "x"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).starts_with("error -2: /nowhere"), "{missing:?}");
}

#[test]
fn c_example_asks_a_service_and_prints_the_reason_of_a_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), "complete");
    let ask = |program: &mut Command, server: &Server, model: &str| {
        let client = format!(r#"{{"base_url": "{}", "model": "{model}", "key": "none"}}"#, server.url);
        let request = r#"{"user": "Hello", "stream": true}"#;
        program.args([&client, request]).env("NO_PROXY", "127.0.0.1").output().unwrap()
    };
    let server = Server::start(|stream, _| clients::stream_text(stream, &["Hel", "lo, \u{1f600}"]));
    let answered = ask(&mut Command::new(&program), &server, "gpt-4o");
    let stderr = String::from_utf8_lossy(&answered.stderr);
    assert_eq!(
        (answered.status.code(), &*String::from_utf8_lossy(&answered.stdout)),
        (Some(0), "Hello, \u{1f600}")
    );
    let result: serde_json::Value = serde_json::from_str(stderr.trim_end()).unwrap();
    // 1000 tokens at $2.5 a million and 100 at $10.
    assert_eq!(
        (&result["cost"], &result["usage"]["prompt_tokens"]),
        (&0.0035.into(), &1000.into()),
        "{stderr}"
    );

    let server = Server::start(|stream, _| clients::refuse(stream, 400));
    let refused = ask(&mut Command::new(&program), &server, "m");
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("error -1: ") && stderr.contains(r#""http_status":400"#), "{stderr}");

    if has_valgrind() {
        let server = Server::start(|stream, _| clients::stream_text(stream, &["text"]));
        let mut valgrind = Command::new("valgrind");
        let output = ask(valgrind.args(VALGRIND).arg(&program), &server, "m");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

const VALGRIND: [&str; 4] =
    ["--quiet", "--leak-check=full", "--errors-for-leak-kinds=definite", "--error-exitcode=99"];

/// CI sets `SWEBENCH_REQUIRE_VALGRIND`; elsewhere a machine without valgrind passes.
fn has_valgrind() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok()
        || std::env::var_os("SWEBENCH_REQUIRE_VALGRIND").is_some()
}

#[test]
fn c_example_is_clean_under_valgrind() {
    if !has_valgrind() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), "generate");
    let output = run(Command::new("valgrind")
        .args(VALGRIND)
        .arg(&program)
        .arg(repository("tests/data/demo"))
        .arg("Fix."));
    check(&output);
}

#[test]
fn c_examples_are_short() {
    for name in ["generate", "complete"] {
        let text = std::fs::read_to_string(repository(&format!("bindings/c/{name}.c"))).unwrap();
        assert!(text.lines().count() <= 60, "{name}: {} lines", text.lines().count());
    }
}
