//! How fast patches are found in answers and made to fit.
//!
//! `cargo bench --bench patches`: megabytes a second, the best of several rounds, for answers as models write them and for
//! answers that no model should write, at two lengths: what takes linear time has one rate.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark reports to its terminal and may stop"
)]

use std::collections::HashMap;
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use swebench_infer::patch::{Entry, Mode, Steps, Tree, extract, legacy, model_patch, process};

/// How long a row is measured.
const TIME: Duration = Duration::from_millis(600);

struct Files(HashMap<String, Vec<u8>>);

impl Tree for Files {
    fn look_up(&self, path: &str) -> swebench_infer::Result<Entry> {
        Ok(self.0.get(path).map_or(Entry::Missing, |content| Entry::File(content.clone())))
    }
}

fn lines(name: &str) -> Vec<serde_json::Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let reader = BufReader::new(GzDecoder::new(std::fs::File::open(path).unwrap()));
    reader.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

/// Megabytes a second of `work` on `bytes`, the best round.
fn rate(bytes: usize, mut work: impl FnMut()) -> f64 {
    let (begin, mut best) = (Instant::now(), Duration::MAX);
    while begin.elapsed() < TIME {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed());
    }
    bytes as f64 / best.as_secs_f64() / 1e6
}

fn main() {
    let responses = lines("patches-legacy.jsonl.gz");
    let responses: Vec<&str> = responses.iter().filter_map(|record| record["response"].as_str()).collect();
    let bytes = responses.iter().map(|response| response.len()).sum();
    println!("{:<44}{:>10}{:>10}", "MB/s", "robust", "legacy");
    let row = |name: &str, robust: f64, legacy: f64| println!("{name:<44}{robust:>10.0}{legacy:>10.0}");
    row(
        "recorded answers, 3 kB each",
        rate(bytes, || responses.iter().for_each(|response| drop(black_box(extract(response))))),
        rate(bytes, || {
            responses.iter().for_each(|response| {
                black_box(legacy::extract_diff(response));
            })
        }),
    );
    row(
        "the same, as a run records them",
        rate(bytes, || {
            responses.iter().for_each(|response| drop(black_box(model_patch(response, Mode::Robust))))
        }),
        rate(bytes, || {
            responses.iter().for_each(|response| drop(black_box(model_patch(response, Mode::Legacy))))
        }),
    );
    let hunk = "@@ -1,3 +1,3 @@\n     context of the usual length, more or less\n-    removed\n+    added\n     more context\n";
    let one_file = format!("--- a/x.py\n+++ b/x.py\n{}", hunk.repeat(40));
    for (name, piece) in [
        ("prose", "A line of prose that explains what the patch does, and why.\n"),
        ("diffs of one file", one_file.as_str()),
        ("<a><a>…", "<a>"),
        ("fences", "```diff\n"),
        ("tags", "<patch>\n"),
        ("headers", "--- a/x\n+++ b/x\n"),
    ] {
        for length in [100_000, 1_000_000] {
            let text = piece.repeat(length / piece.len());
            row(
                &format!("{name}, {:.1} MB", length as f64 / 1e6),
                rate(text.len(), || drop(black_box(extract(&text)))),
                rate(text.len(), || {
                    black_box(legacy::extract_diff(&text));
                }),
            );
        }
    }
    let trees: HashMap<String, Files> = lines("trees.jsonl.gz")
        .iter()
        .map(|record| {
            let files = record["files"].as_object().unwrap();
            let bytes = |content: &serde_json::Value| content.as_str().unwrap().as_bytes().to_vec();
            let files = files.iter().map(|(path, content)| (path.clone(), bytes(content))).collect();
            (record["instance_id"].as_str().unwrap().to_owned(), Files(files))
        })
        .collect();
    let with_tree: Vec<(String, &Files)> = lines("patches-legacy.jsonl.gz")
        .iter()
        .filter_map(|record| {
            Some((record["response"].as_str()?.to_owned(), trees.get(record["instance_id"].as_str()?)?))
        })
        .collect();
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed() < TIME {
        for (response, tree) in &with_tree {
            let steps = Steps { repair: true, tree: Some(*tree), ..Steps::default() };
            drop(black_box(process(response, &steps)));
        }
        rounds += 1;
    }
    let each = start.elapsed().as_secs_f64() * 1e6 / f64::from(rounds) / with_tree.len() as f64;
    println!("\nfound and repaired on its tree (files of 2 to 106 kB): {each:.0} µs an answer");
}
