//! What the reference makes of 145 answers, for the tests of this layer.

use std::io::{BufRead, BufReader};

use flate2::read::GzDecoder;
use serde_json::Value;

/// `instance_id`, `mutation`, `wrapper`, `response`, and what the reference's functions return.
pub(super) fn responses() -> impl Iterator<Item = Value> {
    lines("patches-legacy.jsonl.gz")
}

/// `instance_id` and `files`, the files that the gold patch touches.
pub(super) fn trees() -> impl Iterator<Item = Value> {
    lines("trees.jsonl.gz")
}

/// `instance_id` and `patch`.
pub(super) fn gold_patches() -> impl Iterator<Item = Value> {
    let text = include_str!("../../tests/data/gold-patches.jsonl");
    text.lines().map(|line| serde_json::from_str(line).unwrap())
}

fn lines(name: &str) -> impl Iterator<Item = Value> {
    let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    let reader = BufReader::new(GzDecoder::new(std::fs::File::open(path).unwrap()));
    reader.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap())
}
