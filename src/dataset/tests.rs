//! Whole datasets: every layout gives the same rows, and what is wrong with one is said.

use std::path::Path;
use std::sync::Arc;

use arrow_array::Int64Array;
use arrow_ipc::CompressionType;

use super::test_files::{
    batch, ids, load_columns, prompts, strings, write_ipc_file, write_parquet, write_stream,
};
use super::{DatasetSpec, load};
use crate::error::ErrorKind;

const DICT: &str = r#"{"splits": ["dev", "test"]}"#;
const STATE: &str =
    r#"{"_data_files": [{"filename": "data-0.arrow"}, {"filename": "data-1.arrow"}], "_split": null}"#;

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// The split `test` with the rows a, b, c and d, as `path` in its layout.
fn check_rows(path: &Path) {
    let dataset = load_columns(path, "test", &["text"]).unwrap();
    assert_eq!(ids(&dataset), ["a", "b", "c", "d"], "{}", path.display());
    for instance in &dataset.instances {
        assert_eq!(instance.text.as_deref(), Some(&*format!("text of {}", instance.instance_id)));
        assert_eq!(instance.input_ids, None);
        assert!(instance.fields.is_empty());
    }
    assert!(dataset.columns.starts_with(&["instance_id".into(), "text".into()]), "{:?}", dataset.columns);

    let bare = load_columns(path, "test", &[]).unwrap();
    assert!(bare.instances.iter().all(|instance| instance.text.is_none()));
    bare.require("text").unwrap();
}

fn write_saved_split(directory: &Path) {
    write(&directory.join("state.json"), STATE);
    write_stream(&directory.join("data-0.arrow"), &[prompts(&["a"]), prompts(&["b", "c"])], None);
    write_stream(&directory.join("data-1.arrow"), &[prompts(&["d"])], None);
}

#[test]
fn every_layout_gives_the_same_rows() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let (all, first, second) = (prompts(&["a", "b", "c", "d"]), prompts(&["a", "b"]), prompts(&["c", "d"]));

    write(&at("dict/dataset_dict.json"), DICT);
    write_saved_split(&at("dict/test"));
    check_rows(&at("dict"));
    check_rows(&at("dict/test"));
    std::fs::remove_file(at("dict/dataset_dict.json")).unwrap();
    check_rows(&at("dict"));

    write_stream(&at("stream.arrow"), &[first.clone(), second.clone()], None);
    write_stream(&at("lz4.arrow"), &[first.clone(), second.clone()], Some(CompressionType::LZ4_FRAME));
    write_stream(&at("zstd.arrow"), std::slice::from_ref(&all), Some(CompressionType::ZSTD));
    write_ipc_file(&at("file.arrow"), &[first.clone(), second.clone()]);
    write_parquet(&at("whatever.parquet"), &[first.clone(), second.clone()]);
    for name in ["stream.arrow", "lz4.arrow", "zstd.arrow", "file.arrow", "whatever.parquet"] {
        check_rows(&at(name));
    }

    write_parquet(&at("hub/data/test-00000-of-00002.parquet"), &[first]);
    write_parquet(&at("hub/data/test-00001-of-00002.parquet"), &[second]);
    write_parquet(&at("hub/data/dev-00000-of-00001.parquet"), &[prompts(&["x"])]);
    check_rows(&at("hub"));

    let row = |id: &str| format!(r#"{{"instance_id": "{id}", "text": "text of {id}", "n": 1}}"#);
    let rows = ["a", "b", "c", "d"].map(row);
    write(&at("rows.jsonl"), &rows.join("\n"));
    write(&at("windows.jsonl"), &format!("\u{feff}{}\r\n\r\n", rows.join("\r\n")));
    write(&at("lines.json"), &rows.join("\n"));
    write(&at("list.json"), &format!("[{}]", rows.join(",")));
    write(
        &at("splits.json"),
        &format!(r#"{{"dev": [{{"instance_id": "x"}}], "test": [{}]}}"#, rows.join(",\n")),
    );
    let by_id: Vec<String> =
        ["a", "b", "c", "d"].iter().map(|id| format!(r#""{id}": {{"text": "text of {id}"}}"#)).collect();
    write(&at("ids.json"), &format!("{{{}}}", by_id.join(",")));
    for name in ["rows.jsonl", "windows.jsonl", "lines.json", "list.json", "splits.json", "ids.json"] {
        check_rows(&at(name));
    }
}

/// Loading `split` fails with this kind and line.
fn check_error(path: &Path, split: &str, kind: ErrorKind, expected: &str) {
    let error = load_columns(path, split, &["text", "input_ids", "n"]).unwrap_err();
    assert_eq!(error.kind(), kind, "{}", error.to_line());
    assert!(error.to_line().contains(expected), "{} should contain {expected}", error.to_line());
}

#[test]
fn a_missing_split_is_named_beside_those_there_are() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    write(&at("dict/dataset_dict.json"), DICT);
    check_error(&at("dict"), "train", ErrorKind::NotFound, "expected a split `train`, got `dev`, `test`");
    write(&at("plain/state.json"), r#"{"_data_files": [], "_split": "dev"}"#);
    check_error(&at("plain"), "test", ErrorKind::NotFound, "expected a split `test`, got `dev`");
    write(&at("splits.json"), r#"{"dev": [], "train": []}"#);
    check_error(
        &at("splits.json"),
        "test",
        ErrorKind::NotFound,
        "expected a split `test`, got `dev`, `train`",
    );
    write_parquet(&at("hub/data/dev.parquet"), &[prompts(&["a"])]);
    check_error(&at("hub"), "test", ErrorKind::NotFound, "expected a split `test`, got `dev`");
}

#[test]
fn a_missing_column_is_named_with_the_command_that_makes_it() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("test.jsonl");
    write(&path, r#"{"instance_id": "a", "repo": "o/n"}"#);
    let dataset = load_columns(&path, "test", &["text", "repo"]).unwrap();
    assert_eq!(dataset.instances[0].fields["repo"], "o/n");
    let error = dataset.require("text").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the dataset lacks a column: expected a column `text`, got `instance_id`, `repo`"
    );
    assert!(error.hint().unwrap().contains("swebench-cli make-datasets create-text-dataset"));
    assert_eq!(dataset.require("nothing").unwrap_err().hint(), None);
}

#[test]
fn every_row_needs_an_id_of_its_own() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let nameless = batch(&[("id", strings(&["a"])), ("text", strings(&["b"]))]);
    write_parquet(&at("nameless.parquet"), std::slice::from_ref(&nameless));
    write_stream(&at("nameless.arrow"), std::slice::from_ref(&nameless), None);
    write(&at("nameless.jsonl"), r#"{"id": "a", "text": "b"}"#);
    write(&at("nameless.json"), r#"[{"id": "a", "text": "b"}]"#);
    for name in ["nameless.parquet", "nameless.arrow", "nameless.jsonl", "nameless.json"] {
        check_error(
            &at(name),
            "test",
            ErrorKind::NotFound,
            "expected a column `instance_id`, got `id`, `text`",
        );
    }
    write_parquet(&at("twice.parquet"), &[prompts(&["a", "b"]), prompts(&["c", "a"])]);
    check_error(
        &at("twice.parquet"),
        "test",
        ErrorKind::InvalidData,
        "rows 1 and 4 have the same `instance_id`, `a`",
    );
    write(&at("one.json"), r#"[{"instance_id": "a"}, {"text": "b"}]"#);
    check_error(&at("one.json"), "test", ErrorKind::InvalidData, "row 2 has no `instance_id`");
    let numbers = batch(&[("instance_id", Arc::new(Int64Array::from(vec![1])))]);
    write_parquet(&at("numbers.parquet"), &[numbers]);
    check_error(&at("numbers.parquet"), "test", ErrorKind::InvalidData, "expected strings, got Int64");
}

#[test]
fn json_errors_say_where() {
    let root = tempfile::tempdir().unwrap();
    let check = |name: &str, text: &str, expected: &str| {
        let path = root.path().join(name);
        write(&path, text);
        check_error(&path, "test", ErrorKind::InvalidData, expected);
    };
    check("a.jsonl", "{\"instance_id\": \"a\"}\n\n{\"instance_id\": ", "line 3, character 16: ");
    check("a.jsonl", "{\"instance_id\": \"a\"}\n[1]", "line 2: invalid type: sequence, expected a row");
    check("a.jsonl", "{\"instance_id\": \"a\"} {}", "line 1, character 22: trailing characters");
    check(
        "a.jsonl",
        r#"{"instance_id": 5}"#,
        "column `instance_id`: invalid type: integer `5`, expected a string",
    );
    check("a.jsonl", r#"{"instance_id": "a", "text": []}"#, "column `text`: invalid type: sequence");
    check(
        "a.jsonl",
        r#"{"instance_id": "a", "input_ids": [1, -1]}"#,
        "column `input_ids`: invalid value: integer `-1`",
    );
    check(
        "a.jsonl",
        r#"{"instance_id": "a", "input_ids": [4294967296]}"#,
        "column `input_ids`: invalid value",
    );
    check("a.jsonl", "\n", "the dataset has no rows");
    check("a.json", "", "line 1: EOF while parsing");
    check("a.json", "7", "expected a list of rows, an object of lists");
    check(
        "a.json",
        "[\n{\"instance_id\": \"a\"},\n7]",
        "line 3, character 2: row 2: invalid type: integer `7`",
    );
    check("a.json", r#"{"a": 7}"#, "expected a list of rows or one row under the key `a`");
    check(
        "a.json",
        &format!(r#"[{{"instance_id": "a", "n": {}"#, "[".repeat(100_000)),
        "recursion limit exceeded",
    );
    let invalid = root.path().join("latin1.jsonl");
    std::fs::write(&invalid, b"{\"instance_id\": \"\xe9\"}").unwrap();
    check_error(&invalid, "test", ErrorKind::InvalidData, "line 1, character ");
}

#[test]
fn state_files_cannot_lead_out_of_their_directory() {
    let root = tempfile::tempdir().unwrap();
    write_stream(&root.path().join("outside.arrow"), &[prompts(&["a"])], None);
    let outside = root.path().join("outside.arrow");
    for name in [
        "../outside.arrow",
        outside.to_str().unwrap(),
        "",
        ".",
        "a/../../outside.arrow",
        "..\\\\outside.arrow",
    ] {
        let directory = root.path().join("set");
        write(&directory.join("state.json"), &format!(r#"{{"_data_files": [{{"filename": "{name}"}}]}}"#));
        check_error(&directory, "test", ErrorKind::InvalidData, "names a file outside of its directory");
    }
    let dict = root.path().join("dict");
    write(&dict.join("dataset_dict.json"), r#"{"splits": ["../set"]}"#);
    check_error(&dict, "../set", ErrorKind::InvalidData, "names a file outside of its directory");
}

#[test]
fn paths_that_are_no_datasets_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    check_error(&at("nowhere"), "test", ErrorKind::NotFound, "no such file or directory");
    check_error(&at("nowhere.jsonl"), "test", ErrorKind::NotFound, "no such file or directory");
    check_error(root.path(), "test", ErrorKind::NotFound, "got no files");
    write(&at("data.csv"), "a,b");
    check_error(&at("data.csv"), "test", ErrorKind::Unsupported, "got `data.csv`");
    write(&at("dict/dataset_dict.json"), DICT);
    check_error(&at("dict"), "test", ErrorKind::NotFound, "state.json: cannot open");
    write(&at("dict/test/state.json"), "{}");
    check_error(&at("dict"), "test", ErrorKind::InvalidData, "missing field `_data_files`");
    write(&at("dict/test/state.json"), STATE);
    check_error(&at("dict"), "test", ErrorKind::NotFound, "data-0.arrow: cannot open the dataset");
    let spec =
        DatasetSpec { name_or_path: "SWE-bench".into(), split: "test".into(), ..DatasetSpec::default() };
    assert!(load(&spec).unwrap_err().hint().unwrap().contains("name on the hub"));
}

/// Every truncation and many mutations: an error or some rows, never a panic that escapes and never an abort.
#[test]
fn corrupt_files_are_errors() {
    let root = tempfile::tempdir().unwrap();
    let long = "def f(x):\n    return x\n".repeat(50);
    let prompts =
        |ids: &[&str]| batch(&[("instance_id", strings(ids)), ("text", strings(&vec![&*long; ids.len()]))]);
    let batches = [prompts(&["a", "b"]), prompts(&["c"])];
    let at = |name: &str| root.path().join(name);
    write_stream(&at("plain.arrow"), &batches, None);
    write_stream(&at("zstd.arrow"), &batches, Some(CompressionType::ZSTD));
    write_stream(&at("lz4.arrow"), &batches, Some(CompressionType::LZ4_FRAME));
    write_ipc_file(&at("file.arrow"), &batches);
    write_parquet(&at("plain.parquet"), &batches);
    let names = ["plain.arrow", "zstd.arrow", "lz4.arrow", "file.arrow", "plain.parquet"];

    // Decoders that panic say so on stderr: the hook is the process's and is left alone.
    for name in names {
        let good = std::fs::read(at(name)).unwrap();
        let bad = at(&format!("bad-{name}"));
        for len in (0..good.len()).step_by(7) {
            std::fs::write(&bad, &good[..len]).unwrap();
            if let Ok(dataset) = load_columns(&bad, "test", &["text"]) {
                assert!(name.ends_with(".arrow") && dataset.instances.len() <= 3, "{name} cut at {len}");
            }
        }
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..MUTATIONS {
            let mut bytes = good.clone();
            for _ in 0..3 {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let position = (random >> 33) as usize % bytes.len();
                bytes[position] = [0x00, 0xFF, 0x7F, 0x80, (random >> 20) as u8][(random >> 28) as usize % 5];
            }
            std::fs::write(&bad, &bytes).unwrap();
            if let Err(error) = load_columns(&bad, "test", &["text"]) {
                assert!(
                    !matches!(error.kind(), ErrorKind::Internal | ErrorKind::Io),
                    "{name}: {}",
                    error.to_line()
                );
            }
        }
    }
}

const MUTATIONS: usize = 400;

/// The decoder allocates what a compressed buffer says that it expands to.
#[test]
fn a_compressed_buffer_cannot_claim_the_memory() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("bomb.arrow");
    let text = "a".repeat(12_345);
    let good = batch(&[("instance_id", strings(&["a"])), ("text", strings(&[&text]))]);
    write_stream(&path, &[good], Some(CompressionType::ZSTD));
    let bytes = std::fs::read(&path).unwrap();
    let honest = 12_345_i64.to_le_bytes();
    let at = bytes.windows(8).rposition(|window| window == honest).unwrap();
    for (claim, expected) in
        [(1 << 50, "expands to more than"), (-2, "expected -1 or more, got -2"), (12_344, "corrupt")]
    {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&i64::to_le_bytes(claim));
        std::fs::write(&path, &bytes).unwrap();
        check_error(&path, "test", ErrorKind::InvalidData, expected);
    }
}
