//! Memory that runs out and a device that is lost end what they have to, with an error that says so, and leave nothing behind.

use swebench_infer::ErrorKind;
use swebench_infer::backend::DType;
use swebench_infer::backend::cuda::CudaBackend;

use crate::chip::Chip;
use crate::engine::{greedy, on_chip, start};
use crate::harness::{goldens, load};

#[test]
fn memory_that_runs_out_at_any_allocation_fails_the_load_and_leaks_nothing() {
    let load = |chip| CudaBackend::new(chip, DType::BF16).and_then(|backend| load(backend, "qwen2", None));
    let whole = Chip::hopper();
    drop(load(whole.clone()).unwrap());
    assert!(whole.allocations() > 20, "only {} allocations", whole.allocations());
    assert_eq!(whole.held(), 0);
    for allocations in 0..whole.allocations() {
        let chip = Chip::full_after(allocations);
        let error = load(chip.clone()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory, "allocation {allocations}: {error}");
        assert!(error.to_line().contains("bytes"), "allocation {allocations}: {error}");
        assert_eq!(chip.held(), 0, "allocation {allocations}");
    }
}

#[test]
fn a_lost_device_ends_what_runs_and_keeps_what_was_answered() {
    let chip = Chip::hopper();
    let engine = start(on_chip(&chip, &goldens().join("llama"), 40));
    let prompt: Vec<u32> = (3..40).collect();
    let answer = engine.generate(greedy(&prompt, 4)).unwrap();
    assert_eq!(answer.token_ids.len(), 4);
    chip.lose_after(30);
    let running = [3, 9].map(|first| engine.submit(greedy(&[first, 5, 7], 64)).unwrap());
    for generation in running {
        let error = generation.wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Device, "{error}");
        assert!(error.to_line().contains("CUDA_ERROR_ECC_UNCORRECTABLE"), "{error}");
    }
    let error = engine.submit(greedy(&prompt, 4)).err().unwrap();
    assert!(error.to_line().contains("the engine has stopped"), "{error}");
    drop(engine);
    assert_eq!(chip.held(), 0);
}

#[test]
fn what_kernels_cannot_compute_is_refused_at_load() {
    let refused = CudaBackend::new(Chip::ampere(), DType::F32).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(refused.to_line().contains("f32") && refused.hint().is_some(), "{refused}");
    let wrong = CudaBackend::new(Chip::idle(), DType::BF16).err().unwrap();
    assert_eq!(wrong.kind(), ErrorKind::Device);
    assert!(wrong.to_line().contains("the product of matrices is wrong on cuda-emulated"), "{wrong}");
}
