//! What `git apply` says of the patches: the recorded responses on their trees.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::patch::goldens;

/// The files of an instance in a directory that is no repository, which is enough for `git apply --check`.
fn checkout(files: &serde_json::Value) -> (tempfile::TempDir, HashMap<String, Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = HashMap::new();
    for (path, content) in files.as_object().unwrap() {
        let content = content.as_str().unwrap();
        let file = dir.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
        tree.insert(path.clone(), content.as_bytes().to_vec());
    }
    (dir, tree)
}

fn applies(dir: &Path, patch: &str) -> bool {
    git_apply(dir, &["--check"], patch)
}

fn git_apply(dir: &Path, flags: &[&str], patch: &str) -> bool {
    let mut git = Command::new("git");
    git.arg("apply")
        .args(flags)
        .arg("-")
        .current_dir(dir)
        .env("GIT_CEILING_DIRECTORIES", dir.parent().unwrap());
    let mut child = git.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    // git closes its end when it gives up early.
    let _ = child.stdin.take().unwrap().write_all(patch.as_bytes());
    child.wait().unwrap().success()
}

/// The content of the tree's files once git has applied the patch.
///
/// Without blanks at the ends of lines: where those are the damage, the added lines have them.
fn applied(files: &serde_json::Value, patch: &str) -> Option<String> {
    let (dir, _) = checkout(files);
    git_apply(dir.path(), &[], patch).then(|| {
        let read = |path: &String| std::fs::read_to_string(dir.path().join(path)).unwrap();
        let text: String = files.as_object().unwrap().keys().map(read).collect();
        text.lines().map(|line| line.trim_end_matches(' ').to_owned() + "\n").collect()
    })
}

/// Per kind of damage: recorded responses on the trees that are here, and how many of their patches apply: those of the
/// reference, found or repaired; ours, found and recounted; ours repaired with the tree.
const APPLY: [(&str, [usize; 4]); 11] = [
    ("counts", [4, 4, 4, 4]),
    ("crlf", [7, 0, 7, 7]),
    // Half of a patch: what is left of it applies where it ends with a line.
    ("cut", [6, 0, 0, 3]),
    ("extra_context", [6, 6, 6, 6]),
    ("id", [5, 5, 5, 5]),
    ("leading_blank", [7, 7, 7, 7]),
    ("new_file", [8, 7, 8, 8]),
    ("no_diff_header", [5, 5, 5, 5]),
    ("no_final_newline", [7, 1, 7, 7]),
    ("short_header", [4, 0, 4, 4]),
    ("trailing_ws", [7, 0, 2, 7]),
];

#[test]
fn recorded_responses_apply_to_their_trees() {
    let trees: HashMap<String, serde_json::Value> = goldens::trees()
        .map(|mut record| (record["instance_id"].as_str().unwrap().to_owned(), record["files"].take()))
        .collect();
    let gold: HashMap<String, Option<String>> = goldens::gold_patches()
        .map(|record| {
            let id = record["instance_id"].as_str().unwrap().to_owned();
            let files = applied(&trees[&id], record["patch"].as_str().unwrap());
            (id, files)
        })
        .collect();
    let mut table: BTreeMap<String, [usize; 4]> = BTreeMap::new();
    for record in goldens::responses() {
        let Some(id) = record["instance_id"].as_str().filter(|id| trees.contains_key(*id)) else { continue };
        let (dir, tree) = checkout(&trees[id]);
        let response = record["response"].as_str().unwrap();
        let mutation = record["mutation"].as_str().unwrap();
        let fits = |patch: &str| applies(dir.path(), patch);
        let found = legacy::extract_diff(response);
        let steps = Steps { repair: true, tree: Some(&tree), ..Steps::default() };
        let repaired = process(response, &steps).unwrap().patch;
        let minimal = process(response, &Steps { minimal: true, ..steps }).unwrap().patch;
        let row = table.entry(mutation.to_owned()).or_default();
        row[0] += 1;
        row[1] += usize::from(fits(found) || fits(&legacy::repair_patch(found).unwrap()));
        row[2] += usize::from(fits(&model_patch(response, Mode::Robust)));
        row[3] += usize::from(fits(&repaired));
        assert_eq!(fits(&repaired), fits(&minimal), "minimal:\n{minimal}");
        // Whatever was damaged, the files become what the undamaged patch makes of them.
        if mutation != "cut" {
            assert!(applied(&trees[id], &repaired) == gold[id], "{id} {mutation}:\n{repaired}");
        }
    }
    assert_eq!(table.into_iter().collect::<Vec<_>>(), APPLY.map(|(name, row)| (name.to_owned(), row)));
}
