//! Adapters that PEFT wrote, with the weights that PEFT made of merging them, and adapters that must be refused.

use std::fs;
use std::path::PathBuf;

use safetensors::tensor::{Dtype, TensorView, serialize};

use super::*;
use crate::error::ErrorKind;
use crate::model::{TensorSource, WeightSource};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torch/lora").join(name)
}

/// An adapter directory with zero matrices of these shapes.
fn adapter(config: &str, tensors: &[(&str, [usize; 2])]) -> (tempfile::TempDir, Result<LoraAdapter>) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("adapter_config.json"), config).unwrap();
    let zeros = vec![0; 4096];
    let views = tensors.iter().map(|(name, shape)| {
        (*name, TensorView::new(Dtype::F32, shape.to_vec(), &zeros[..4 * shape[0] * shape[1]]).unwrap())
    });
    fs::write(dir.path().join("adapter_model.safetensors"), serialize(views, None).unwrap()).unwrap();
    let adapter = LoraAdapter::open(dir.path());
    (dir, adapter)
}

#[test]
fn merging_gives_the_weights_of_peft() {
    for (name, num_targets) in [("plain", 2), ("rslora", 1), ("patterns", 4)] {
        let adapter = LoraAdapter::open(&data(name)).unwrap();
        assert_eq!(adapter.base_model(), Some("example/base"));
        assert_eq!(adapter.target_names().len(), num_targets, "{name}");
        let targets: Vec<String> = adapter.target_names().into_iter().map(str::to_owned).collect();
        let source = WeightSource::new(Checkpoint::open(&data("")).unwrap(), Some(adapter)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::copy(data(name).join("merged.safetensors"), dir.path().join("model.safetensors")).unwrap();
        let merged = Checkpoint::open(dir.path()).unwrap();
        assert_eq!(merged.names(), targets, "{name}");
        for target in &targets {
            let expected = merged.tensor(target).unwrap();
            let got = source.tensor(target, expected.shape()).unwrap();
            for (expected, got) in expected.to_f32().into_iter().zip(got.to_f32()) {
                assert!(
                    (expected - got).abs() <= 1e-6 * expected.abs().max(1.0),
                    "{name} {target}: {expected} {got}"
                );
            }
            source.release(target);
        }
    }
}

#[test]
fn a_source_checks_shapes_and_passes_other_tensors_through() {
    let source = WeightSource::new(
        Checkpoint::open(&data("")).unwrap(),
        Some(LoraAdapter::open(&data("rslora")).unwrap()),
    )
    .unwrap();
    let name = "model.layers.0.self_attn.q_proj.weight";
    assert_eq!(
        source.tensor(name, &[8, 8]).unwrap().bytes(),
        source.checkpoint().tensor(name).unwrap().bytes()
    );
    let error = source.tensor(name, &[8, 4]).unwrap_err();
    assert!(error.to_string().ends_with("expected [8, 4], got [8, 8]"), "{error}");
}

#[test]
fn a_weight_stored_in_by_out_takes_the_transposed_product() {
    let adapter = LoraAdapter::open(&data("rslora")).unwrap();
    let name = "model.layers.0.mlp.down_proj.weight";
    let plain = adapter.merge(name, &HostTensor::from_f32(vec![8, 12], &[0.0; 96]).unwrap()).unwrap();
    let turned = adapter.merge(name, &HostTensor::from_f32(vec![12, 8], &[0.0; 96]).unwrap()).unwrap();
    assert_eq!(turned.shape(), [12, 8]);
    assert_eq!(transposed(&plain.to_f32(), 12), turned.to_f32());
    assert!(plain.to_f32().iter().any(|&value| value != 0.0));
    // Without the flag it is another shape.
    let (_dir, adapter) = adapter_of_zeros();
    let error =
        adapter.merge("m.q.weight", &HostTensor::from_f32(vec![3, 2], &[0.0; 6]).unwrap()).unwrap_err();
    assert!(error.to_string().contains("expected [3, 2], got [2, 3]"), "{error}");
    assert_eq!(adapter.merge("m.k.weight", &plain).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

fn adapter_of_zeros() -> (tempfile::TempDir, LoraAdapter) {
    let (dir, adapter) = adapter(
        r#"{"r":1}"#,
        &[("base_model.model.m.q.lora_A.default.weight", [1, 3]), ("m.q.lora_B.weight", [2, 1])],
    );
    (dir, adapter.unwrap())
}

#[test]
fn names_with_an_adapter_or_without_the_prefix_are_understood() {
    let (_dir, adapter) = adapter_of_zeros();
    assert_eq!(adapter.target_names(), ["m.q.weight"]);
    assert!(adapter.targets("m.q.weight") && !adapter.targets("m.q"));
    assert_eq!(adapter.base_model(), None);
}

#[test]
fn what_cannot_be_merged_is_refused_by_name() {
    let check = |config: &str, tensors: &[(&str, [usize; 2])], kind: ErrorKind, message: &str| {
        let (_dir, adapter) = adapter(config, tensors);
        let error = adapter.err().unwrap();
        assert!(error.to_line().contains(message), "{message}: {}", error.to_line());
        assert_eq!(error.kind(), kind, "{message}");
    };
    use ErrorKind::{InvalidData, Unsupported};
    let pair = [("m.q.lora_A.weight", [2, 3]), ("m.q.lora_B.weight", [4, 2])];
    let with = |name: &'static str| [pair[0], pair[1], (name, [2, 2])];
    check(r#"{"r":2,"use_dora":true}"#, &pair, Unsupported, "`use_dora`");
    check(r#"{"r":2}"#, &with("m.lora_embedding_A"), Unsupported, "embedding");
    check(r#"{"r":2}"#, &with("m.q.lora_magnitude_vector.weight"), Unsupported, "DoRA");
    check(r#"{"r":2}"#, &with("m.q.lora_B.bias"), Unsupported, "biases");
    check(
        r#"{"r":2}"#,
        &with("model.embed_tokens.weight"),
        Unsupported,
        "`model.embed_tokens.weight` is not a LoRA matrix",
    );
    check(r#"{"r":2}"#, &with("m.q.lora_A.other.weight"), InvalidData, "more than one lora_A for `m.q`");
    check(r#"{"r":2}"#, &pair[..1], InvalidData, "lacks lora_B for `m.q`");
    check(r#"{"r":2}"#, &pair[1..], InvalidData, "lacks lora_A for `m.q`");
    check(
        r#"{"r":3}"#,
        &pair,
        InvalidData,
        "expected lora_A [3, in] and lora_B [out, 3], got [2, 3] and [4, 2]",
    );
    check(r#"{"r":2}"#, &[], InvalidData, "no tensors");
    let error = LoraAdapter::open(Path::new("/nowhere")).err().unwrap();
    assert!(
        error.kind() == ErrorKind::NotFound && error.to_string().contains("adapter_config.json"),
        "{error}"
    );
}

#[test]
fn targets_that_the_model_lacks_are_listed() {
    let (_dir, adapter) = adapter_of_zeros();
    let error = WeightSource::new(Checkpoint::open(&data("")).unwrap(), Some(adapter)).err().unwrap();
    assert!(error.message().ends_with("targets 1 weights that the model lacks: m.q.weight"), "{error}");
}
