//! `bindings/rust/sys.rs` declares what the header declares: functions with their types, and constants.

use std::collections::BTreeMap;

use super::{functions, header_text};

const SYS: &str = include_str!("../../bindings/rust/sys.rs");

/// The Rust spelling of a C type.
fn rust_type(c: &str) -> String {
    let c = c.trim();
    if let Some(inner) = c.strip_suffix('*') {
        let inner = inner.trim();
        return match inner.strip_prefix("const ") {
            Some(inner) => format!("*const {}", rust_type(inner)),
            None => format!("*mut {}", rust_type(inner)),
        };
    }
    match c {
        "int32_t" => "i32",
        "uint32_t" => "u32",
        "int64_t" => "i64",
        "size_t" => "usize",
        "char" => "c_char",
        "void" => "c_void",
        other => other,
    }
    .to_owned()
}

/// `name(type, type) -> type` of every function of the header, in Rust's spelling.
fn of_the_header() -> Vec<String> {
    let signature = |(returned, name, parameters): (String, String, Vec<String>)| {
        let types: Vec<_> = parameters
            .iter()
            .map(|parameter| {
                let end = parameter.rfind([' ', '*']).expect("a type and a name") + 1;
                rust_type(&parameter[..end])
            })
            .collect();
        let returned = match returned.as_str() {
            "void" => String::new(),
            other => format!(" -> {}", rust_type(other)),
        };
        format!("{name}({}){returned}", types.join(", "))
    };
    let mut signatures: Vec<_> = functions().into_iter().map(signature).collect();
    signatures.sort();
    signatures
}

/// The same of every function in `sys.rs`.
fn of_the_binding() -> Vec<String> {
    let text = SYS.split_whitespace().collect::<Vec<_>>().join(" ");
    let signature = |function: &str| {
        let (name, rest) = function.split_once('(').expect("a function");
        let (parameters, rest) = rest.split_once(')').expect("an end");
        let parameters = parameters.split(", ").filter_map(|parameter| parameter.split_once(": "));
        let types: Vec<_> =
            parameters.map(|(_, kind)| kind.trim().trim_end_matches(',').to_owned()).collect();
        let returned = rest.split(';').next().unwrap_or_default().trim_end();
        format!("{name}({}){returned}", types.join(", "))
    };
    let mut signatures: Vec<_> = text.split("pub fn ").skip(1).map(signature).collect();
    signatures.sort();
    signatures
}

#[test]
fn functions_agree() {
    assert_eq!(of_the_binding(), of_the_header());
}

#[test]
fn constants_agree() {
    let header = header_text();
    let defined: BTreeMap<_, _> = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define "))
        .filter_map(|line| line.split_once(' '))
        .collect();
    let declared: BTreeMap<_, _> = SYS
        .lines()
        .filter_map(|line| line.strip_prefix("pub const "))
        .filter_map(|line| line.trim_end_matches(';').split_once(" = "))
        .map(|(name, value)| (name.split(':').next().unwrap_or_default(), value))
        .collect();
    assert!(defined.len() > 20, "{defined:?}");
    assert_eq!(declared, defined);
}

#[test]
fn no_status_and_no_event_kind_is_used_twice() {
    let header = header_text();
    for prefix in ["SWEBENCH_ERROR_", "SWEBENCH_EVENT_", "SWEBENCH_LOG_"] {
        let mut values: Vec<_> = header
            .lines()
            .filter_map(|line| line.strip_prefix("#define ")?.split_once(' '))
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(_, value)| value)
            .collect();
        let count = values.len();
        values.sort_unstable();
        values.dedup();
        assert!(count > 3 && values.len() == count, "{prefix}: {values:?}");
    }
}
