//! The committed header is what cbindgen makes of the sources, and every compiler takes it.

use std::fs;
use std::process::Command;

use super::{functions, header_text, repository, run};

#[test]
fn header_is_up_to_date() {
    let generated = include_str!(concat!(env!("OUT_DIR"), "/swebench_infer.h"));
    if std::env::var_os("UPDATE_HEADER").is_some() {
        fs::write(repository("include/swebench_infer.h"), generated).unwrap();
    }
    assert!(
        header_text() == generated,
        "include/swebench_infer.h is not what src/capi says; write it again with\n  \
         UPDATE_HEADER=1 cargo test --test capi header"
    );
}

#[test]
fn header_compiles_alone_and_twice() {
    let dir = tempfile::tempdir().unwrap();
    let program = "#include \"swebench_infer.h\"\n#include \"swebench_infer.h\"\n\
                   int main(void) { return SWEBENCH_OK; }\n";
    for (compiler, standard, file) in
        [("cc", "-std=c99", "a.c"), ("cc", "-std=c11", "a.c"), ("c++", "-std=c++17", "a.cpp")]
    {
        let source = dir.path().join(file);
        fs::write(&source, program).unwrap();
        run(Command::new(compiler)
            .args([standard, "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-I"])
            .arg(repository("include"))
            .arg(&source));
    }
}

/// Rules that the header's first comment states, for functions that exist and for those to come.
#[test]
fn header_keeps_its_conventions() {
    let functions = functions();
    assert!(functions.len() > 30, "only {} functions found", functions.len());
    for (returned, name, parameters) in functions {
        let last = parameters.last().map_or("", String::as_str);
        let is_accessor = name.starts_with("swebench_event_") || name.starts_with("swebench_error_");
        if returned == "int32_t" && !is_accessor {
            assert_eq!(last, "swebench_error **error", "{name}");
        }
        if name.ends_with("_free") {
            assert_eq!((returned.as_str(), parameters.len()), ("void", 1), "{name}");
        }
    }
}
