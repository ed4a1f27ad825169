//! LoRA adapters against peft's `merge_and_unload`.

use swebench_infer::backend::DType;

use crate::harness::{Running, decoders, max_abs, max_error, prefill, read_goldens};

#[test]
fn merged_adapters_equal_peft() {
    for case in ["lora-plain", "lora-bin", "lora-rslora", "lora-patterns", "lora-fan-in-fan-out"] {
        for (name, mut decoder) in decoders("llama", Some(case), DType::F32) {
            for golden in read_goldens(case) {
                let logits = prefill(&mut *decoder, &mut Running::new(&golden.ids, 0), 256);
                let logits = &logits[logits.len() - golden.logits.len()..];
                let (error, limit) = (max_error(logits, &golden.logits), 1e-4 * max_abs(&golden.logits));
                assert!(error <= limit, "{case} on {name}: error {error} above {limit}");
            }
        }
    }
}
