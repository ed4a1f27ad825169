//! Every architecture on emulated chips, within the tolerances that the CPU's backends meet.

use std::sync::Arc;

use swebench_infer::backend::DType;
use swebench_infer::backend::cuda::CudaBackend;
use swebench_infer::model::Decoder;

use crate::chip::Chip;
use crate::harness::{CASES, assert_bf16, assert_f16, load, read_goldens};

fn decoder(chip: Arc<Chip>, case: &str, dtype: DType) -> Box<dyn Decoder> {
    load(CudaBackend::new(chip, dtype).unwrap(), case, None).unwrap()
}

/// Chunks of 23 are prefill, and their rest is decoded.
#[test]
fn bf16_errors_stay_within_twice_those_of_transformers() {
    for case in CASES {
        let mut decoder = decoder(Chip::hopper(), case, DType::BF16);
        assert_bf16(&format!("{case} on a Hopper chip"), &mut *decoder, &read_goldens(case), 23);
    }
}

#[test]
fn f16_errors_stay_below_those_of_bf16() {
    for case in CASES {
        let mut decoder = decoder(Chip::ampere(), case, DType::F16);
        assert_f16(&format!("{case} on an Ampere chip"), &mut *decoder, &read_goldens(case), 256);
    }
}
