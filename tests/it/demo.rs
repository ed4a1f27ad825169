//! The demo model and dataset, and what the model is known to answer.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde_json::Value;

pub fn data(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "data", name].iter().collect();
    path.to_str().unwrap().to_owned()
}

/// The flags of a run of the demo model over the demo dataset, and more.
pub fn run_llama(more: &[&str]) -> Vec<String> {
    let (model, dataset) = (data("demo"), data("swe-bench-lite-mit"));
    let flags = ["run-llama", "--model-name-or-path", &model, "--dataset-path", &dataset];
    flags.iter().chain(more).map(|flag| (*flag).to_owned()).collect()
}

/// The predictions file of such a run in `dir`, with the default output directory.
pub fn predictions_file(dir: &Path) -> PathBuf {
    dir.join("outputs/swe-bench-lite-mit__test__demo__temp-0.0__top-p-1.0.jsonl")
}

/// Every line of a JSON Lines file.
pub fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{} ends in a torn line", file.display());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `instance_id` to gold patch.
pub fn gold_patches() -> BTreeMap<String, String> {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let lines = lines(Path::new(&data("gold-patches.jsonl")));
    lines.iter().map(|line| (text(line, "instance_id"), text(line, "patch"))).collect()
}

/// `instance_id` to the files at the base commit, by path.
pub fn trees() -> BTreeMap<String, BTreeMap<String, String>> {
    let reader = BufReader::new(GzDecoder::new(File::open(data("trees.jsonl.gz")).unwrap()));
    reader
        .lines()
        .map(|line| {
            let value: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let files = serde_json::from_value(value["files"].clone()).unwrap();
            (value["instance_id"].as_str().unwrap().to_owned(), files)
        })
        .collect()
}
