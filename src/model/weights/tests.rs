//! Whole checkpoints: single, sharded, aliased, strided, hostile.

use std::fs;
use std::path::{Path, PathBuf};

use ::safetensors::tensor::{Dtype, TensorView, serialize};

use super::*;
use crate::error::ErrorKind;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torch").join(name)
}

/// The bytes of a safetensors file of f32 tensors that count up from their first value.
fn safetensors(tensors: &[(&str, &[usize], f32)]) -> Vec<u8> {
    let values: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, shape, first)| {
            (0..shape.iter().product::<usize>()).flat_map(|i| (first + i as f32).to_le_bytes()).collect()
        })
        .collect();
    let views = tensors.iter().zip(&values).map(|((name, shape, _), values)| {
        (*name, TensorView::new(Dtype::F32, shape.to_vec(), values).unwrap())
    });
    serialize(views, None).unwrap()
}

fn checkpoint(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Result<Checkpoint>) {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content).unwrap();
    }
    let checkpoint = Checkpoint::open(dir.path());
    (dir, checkpoint)
}

#[test]
fn torch_views_read_like_their_dense_copies() {
    let dense = Checkpoint::open(&data("views")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::copy(data("views").join("pytorch_model.bin"), dir.path().join("pytorch_model.bin")).unwrap();
    let views = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(dense.names().len(), 14);
    for name in dense.names() {
        let (expected, got) = (dense.tensor(name).unwrap(), views.tensor(name).unwrap());
        assert_eq!((expected.dtype(), expected.shape()), (got.dtype(), got.shape()), "{name}");
        assert_eq!(expected.bytes(), got.bytes(), "{name}");
        assert_eq!(dense.info(name), views.info(name), "{name}");
        views.release(name);
        assert_eq!(expected.bytes(), views.tensor(name).unwrap().bytes(), "{name} after its release");
    }
    let (base, alias) = (views.tensor("base").unwrap(), views.tensor("alias").unwrap());
    assert_eq!(base.bytes().as_ptr(), alias.bytes().as_ptr(), "aliases share the map");
}

#[test]
fn other_element_types_are_errors_only_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(data("views").join("pytorch_model.bin"), dir.path().join("pytorch_model.bin")).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    for (name, element) in
        [("position_ids", "LongStorage"), ("mask", "BoolStorage"), ("float8", "float8_e4m3fn")]
    {
        assert!(checkpoint.names().contains(&name) && checkpoint.info(name).is_none());
        let error = checkpoint.tensor(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(name) && error.to_string().contains(element), "{error}");
        checkpoint.release(name);
    }
}

#[test]
fn protocol_4_reads_too() {
    let checkpoint = Checkpoint::open(&data("protocol4")).unwrap();
    assert_eq!(checkpoint.info("t").unwrap().shape, [6, 4]);
    assert_eq!(checkpoint.tensor("t").unwrap().to_f32()[..3], [0.0, 0.75, 1.5]);
}

#[test]
fn shards_read_as_one() {
    let one = safetensors(&[("a", &[2], 1.0), ("unlisted", &[1], 9.0)]);
    let two = safetensors(&[("b", &[3], 5.0)]);
    let index = br#"{"metadata":{"total_size":20},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#;
    let files =
        [("1.safetensors", &one[..]), ("2.safetensors", &two), ("model.safetensors.index.json", index)];
    let (_dir, checkpoint) = checkpoint(&files);
    let checkpoint = checkpoint.unwrap();
    assert_eq!(checkpoint.names(), ["a", "b"]);
    assert_eq!(checkpoint.tensor("b").unwrap().to_f32(), [5.0, 6.0, 7.0]);

    let torch = fs::read(data("protocol4").join("pytorch_model.bin")).unwrap();
    let index = br#"{"weight_map":{"w":"p-1.bin","t":"p-2.bin"}}"#;
    let (_dir, checkpoint) = self::checkpoint(&[
        ("p-1.bin", &torch),
        ("p-2.bin", &torch),
        ("pytorch_model.bin.index.json", index),
    ]);
    assert_eq!(checkpoint.unwrap().names(), ["t", "w"]);
}

#[test]
fn what_cannot_be_opened_says_why() {
    let weights = safetensors(&[("a", &[2], 1.0)]);
    let check = |files: &[(&str, &[u8])], kind: ErrorKind, message: &str| {
        let (_dir, checkpoint) = checkpoint(files);
        let error = checkpoint.err().unwrap();
        assert!(error.to_line().contains(message), "{message}: {}", error.to_line());
        assert_eq!(error.kind(), kind, "{}", error.to_line());
    };
    check(
        &[("model.gguf", b"GGUF")],
        ErrorKind::NotFound,
        "expected model.safetensors, model.safetensors.index.json",
    );
    check(&[("model.safetensors", &weights[..weights.len() - 1])], ErrorKind::InvalidData, "within 7 bytes");
    check(&[("model.safetensors", b"")], ErrorKind::InvalidData, "empty");
    check(&[("pytorch_model.bin", &weights)], ErrorKind::InvalidData, "not a zip archive");
    let index =
        |text: &'static [u8]| [("model.safetensors.index.json", text), ("1.safetensors", &weights[..])];
    check(&index(br#"{"weight_map":{"a":"2.safetensors"}}"#), ErrorKind::NotFound, "2.safetensors");
    check(
        &index(br#"{"weight_map":{"a":"../1.safetensors"}}"#),
        ErrorKind::InvalidData,
        "outside its directory",
    );
    check(
        &index(br#"{"weight_map":{"z":"1.safetensors"}}"#),
        ErrorKind::InvalidData,
        "tensor `z`, which its shard lacks",
    );
    let error = Checkpoint::open(Path::new("/nowhere")).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_check_lists_every_difference() {
    let weights = safetensors(&[("a", &[2], 0.0), ("b", &[2, 3], 0.0), ("rotary.inv_freq", &[1], 0.0)]);
    let (_dir, checkpoint) = checkpoint(&[("model.safetensors", &weights)]);
    let checkpoint = checkpoint.unwrap();
    let expect = |tensors: &[(&str, &[usize])]| -> Vec<(String, Vec<usize>)> {
        tensors.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect()
    };
    let ignore = |name: &str| name.ends_with("inv_freq");
    checkpoint.check(&expect(&[("a", &[2]), ("b", &[2, 3])]), &ignore).unwrap();
    let error = checkpoint.check(&expect(&[("b", &[3, 2]), ("c", &[4])]), &ignore).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(
        error.message(),
        "the checkpoint does not fit the model; 1 tensor missing: c [4]; 1 tensor unexpected: a [2]; \
         1 tensor of another shape: b expected [3, 2] got [2, 3]"
    );
    let many: Vec<_> = (0..25).map(|i| (format!("layer.{i}"), vec![1])).collect();
    let message = checkpoint.check(&many, &|_| true).unwrap_err().to_string();
    assert!(
        message.contains("25 tensors missing: layer.0 [1]") && message.contains("layer.9 [1] and 15 more"),
        "{message}"
    );
    let views = tempfile::tempdir().unwrap();
    fs::copy(data("views").join("pytorch_model.bin"), views.path().join("pytorch_model.bin")).unwrap();
    let checkpoint = Checkpoint::open(views.path()).unwrap();
    let error = checkpoint.check(&expect(&[("position_ids", &[3])]), &|_| true).unwrap_err();
    assert!(
        error.message().contains("unsupported element type")
            && error.message().contains("position_ids LongStorage")
    );
}
