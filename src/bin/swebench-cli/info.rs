//! `info`: what this program can do on this machine.

use std::fmt::Write;

use clap::Args;
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::{output, swebench};

/// Show what this program can do on this machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  swebench-cli info\n  swebench-cli info --json | jq .backends")]
pub(crate) struct InfoArgs {
    /// As a JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &InfoArgs) -> Result<Exit, Failure> {
    let json = swebench::capabilities()?;
    if args.json {
        output::line(&json)?;
        return Ok(Exit::Done);
    }
    let capabilities: Value = serde_json::from_str(&json)
        .map_err(|error| Failure::new(format!("the library's answer is no JSON: {error}")))?;
    output::write(describe(&capabilities).as_bytes())?;
    Ok(Exit::Done)
}

fn describe(capabilities: &Value) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<15}{value}");
    };
    line("swebench-infer", format!("{} (ABI {})", swebench::version(), capabilities["abi_version"]));
    for backend in capabilities["backends"].as_array().into_iter().flatten() {
        line(backend["name"].as_str().unwrap_or_default(), availability(backend));
    }
    let join = |list: &Value| {
        let names: Vec<_> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        names.join(", ")
    };
    let built_for = join(&capabilities["cuda_kernels"]);
    let without = "not built: nvcc was not found";
    line(
        "cuda kernels",
        if built_for.is_empty() { without.into() } else { format!("built for {built_for}") },
    );
    for (name, list) in capabilities["formats"].as_object().into_iter().flatten() {
        line(name, join(list));
    }
    text
}

fn availability(backend: &Value) -> String {
    let mut parts = Vec::new();
    if backend["available"].as_bool() == Some(true) {
        parts.push("available".to_owned());
        parts.extend(backend["isa"].as_str().map(str::to_owned));
        parts.extend(backend["threads"].as_u64().map(|threads| format!("{threads} threads")));
        parts.extend(backend["device"].as_str().map(str::to_owned));
        parts.extend(backend["devices"].as_u64().map(|devices| format!("{devices} devices")));
    } else {
        parts.push("not available".to_owned());
        parts.extend(backend["reason"].as_str().map(str::to_owned));
    }
    parts.join(", ")
}
