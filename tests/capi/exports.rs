//! The shared library's dynamic symbols are the header's functions, and its name is the ABI's.

use std::collections::BTreeSet;
use std::process::Command;

use super::{functions, run, shared_library};

#[test]
fn exported_symbols_are_the_functions_of_the_header() {
    let output = run(Command::new("nm").args(["-D", "--defined-only"]).arg(shared_library()));
    let text = String::from_utf8(output.stdout).unwrap();
    let exported: BTreeSet<_> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
    let functions = functions();
    let declared: BTreeSet<_> = functions.iter().map(|(_, name, _)| name.as_str()).collect();
    assert_eq!(exported, declared);
}

#[test]
fn the_library_carries_its_abi_in_its_name() {
    let output = run(Command::new("readelf").arg("-d").arg(shared_library()));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("[libswebench_infer.so.0]"), "{text}");
}
