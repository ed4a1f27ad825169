//! What cannot be loaded is refused with a message that names it.

use std::fs;
use std::path::Path;

use swebench_infer::ErrorKind;
use swebench_infer::backend::{DType, Device};
use swebench_infer::model::lora::LoraAdapter;
use swebench_infer::model::{LoadOptions, load};

use crate::harness::goldens;

/// The error of loading `dir`, as one line.
fn refusal(dir: &Path, options: &LoadOptions) -> (ErrorKind, String) {
    match load(dir, options) {
        Ok(_) => panic!("{} loads", dir.display()),
        Err(error) => (error.kind(), error.to_line()),
    }
}

/// A copy of the `llama` case with its configuration changed.
fn edited(edit: impl Fn(String) -> String) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(goldens().join("llama").join(file), dir.path().join(file)).unwrap();
    }
    let path = dir.path().join("config.json");
    fs::write(&path, edit(fs::read_to_string(&path).unwrap())).unwrap();
    dir
}

#[test]
fn adapters_that_cannot_be_merged_exactly_are_refused_by_name() {
    for (case, word) in [("dora", "use_dora"), ("modules-to-save", "modules_to_save"), ("bias", "bias")] {
        let Err(error) = LoraAdapter::open(&goldens().join(format!("lora-refused-{case}"))) else {
            panic!("{case} opens")
        };
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{case}");
        assert!(error.to_line().contains(word), "{case}: {}", error.to_line());
    }
}

#[test]
fn a_checkpoint_that_does_not_fit_the_configuration_lists_both_shapes() {
    let dir = edited(|config| config.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"));
    let (kind, line) = refusal(dir.path(), &LoadOptions::default());
    assert_eq!(kind, ErrorKind::InvalidData);
    assert!(line.contains("model.layers.2."), "{line}");
    let dir = edited(|config| config.replace("\"vocab_size\": 80", "\"vocab_size\": 81"));
    let (_, line) = refusal(dir.path(), &LoadOptions::default());
    assert!(line.contains("[81, 32]") && line.contains("[80, 32]"), "{line}");
}

#[test]
fn an_unknown_architecture_is_named_with_what_is_supported() {
    let dir = edited(|config| config.replace("LlamaForCausalLM", "MambaForCausalLM"));
    let (kind, line) = refusal(dir.path(), &LoadOptions::default());
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(line.contains("MambaForCausalLM") && line.contains("Qwen3ForCausalLM"), "{line}");
}

#[test]
fn a_missing_device_is_a_typed_error() {
    let options = LoadOptions { device: Device::Cuda(9), ..LoadOptions::default() };
    let (kind, line) = refusal(&goldens().join("llama"), &options);
    assert!(matches!(kind, ErrorKind::Device | ErrorKind::Unsupported), "{line}");
    assert!(line.to_lowercase().contains("cuda"), "{line}");
}

#[test]
fn every_dtype_loads_from_every_stored_dtype() {
    for case in ["llama", "llama-bf16", "llama-f16"] {
        for dtype in [None, Some(DType::F32), Some(DType::F16), Some(DType::BF16)] {
            let options = LoadOptions { dtype, ..LoadOptions::default() };
            let decoder = load(&goldens().join(case), &options).unwrap();
            assert_eq!(decoder.config().num_layers, 2, "{case}");
        }
    }
}
