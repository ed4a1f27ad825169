//! The launch layer's geometry is what the entries were compiled for, and its functions run the kernels on the emulation.

use std::sync::Arc;

use half::bf16;
use swebench_infer::backend::cuda::launch::{
    AttentionPrefill, Cache, PrefillKernel, PrefillTiles, attention_prefill,
};
use swebench_infer::backend::cuda::{Buffer, DeviceSequences, Kernel, Launcher};
use swebench_infer::backend::{Batch, BatchEntry, HeadLayout, LogitsRows};

use crate::compile::kernel_files;
use crate::emulator::Library;
use crate::numerics::{RUNS, Random, check_error};

#[test]
fn blocks_are_launched_as_they_were_compiled() {
    let entries = Library::kernels().entries();
    // Loading an image on a device asks for every entry that its file should have.
    for path in kernel_files() {
        let file = path.file_stem().unwrap().to_str().unwrap();
        let kernels: Vec<_> = Kernel::all().into_iter().filter(|kernel| kernel.file() == file).collect();
        assert!(!kernels.is_empty(), "{file}.cu: no kernel of it in src/backend/cuda/geometry.rs");
        for kernel in kernels {
            assert!(
                entries.iter().any(|entry| entry.name() == kernel.to_string()),
                "{file}.cu has no {kernel}"
            );
        }
    }
    for entry in entries {
        let kernel = Kernel::named(entry.name());
        let kernel =
            kernel.unwrap_or_else(|| panic!("{}: not in src/backend/cuda/geometry.rs", entry.name()));
        let block = kernel.block();
        assert_eq!(
            (block.threads, block.shared_bytes),
            (entry.threads, entry.shared_bytes),
            "{kernel}: threads and shared memory in geometry.rs, and as compiled"
        );
    }
}

/// Two sequences through the launch layer, one of them a chunk of a longer context: the table's third block of the first lies outside of the pool and is not read.
fn prefill(launcher: &Arc<dyn Launcher>, which: PrefillKernel) -> Vec<bf16> {
    const HEADS: HeadLayout = HeadLayout { num_heads: 4, num_kv_heads: 2, head_dim: 64 };
    const BLOCK_SIZE: usize = 16;
    let mut batch = Batch::default();
    for (query_len, kv_len, blocks) in [(20, 20, [3_u32, 1, 9]), (5, 40, [0, 5, 2])] {
        let tokens = vec![0; query_len];
        let (prompt_len, logits) = (kv_len, LogitsRows::Last);
        batch.push(BatchEntry { tokens: &tokens, kv_len, block_table: &blocks, prompt_len, logits });
    }
    let mut random = Random(3);
    let pool = 6 * HEADS.num_kv_heads * BLOCK_SIZE * HEADS.head_dim;
    let keys = Buffer::from_slice(launcher, &random.values::<bf16>(pool)).unwrap();
    let values = Buffer::from_slice(launcher, &vec![bf16::from_f32(0.5); pool]).unwrap();
    let qkv = Buffer::from_slice(launcher, &random.values::<bf16>(25 * HEADS.qkv_width())).unwrap();
    let out = Buffer::from_slice(launcher, &vec![bf16::NAN; 25 * HEADS.q_width()]).unwrap();
    let mut sequences = DeviceSequences::new(launcher, BLOCK_SIZE).unwrap();
    sequences.fill(&batch).unwrap();
    let mut tiles = PrefillTiles::new(launcher).unwrap();
    tiles.fill(&sequences, which.query_rows(&HEADS)).unwrap();
    let cache = Cache {
        keys: keys.vector(),
        values: values.vector(),
        scales: None,
        block_size: BLOCK_SIZE,
        num_kv_heads: HEADS.num_kv_heads,
        head_dim: HEADS.head_dim,
    };
    let maps = cache.maps(launcher.as_ref()).unwrap();
    let arguments = AttentionPrefill {
        q: qkv.matrix(0, 25, HEADS.q_width(), HEADS.qkv_width()).unwrap(),
        out: out.matrix(0, 25, HEADS.q_width(), HEADS.q_width()).unwrap(),
        cache,
        maps: (which == PrefillKernel::Hopper).then_some(&maps),
        sequences: &sequences,
        tiles: &tiles,
        heads: HEADS,
        window: None,
        softmax_scale: 0.125,
    };
    attention_prefill(launcher.as_ref(), &arguments).unwrap();
    out.to_vec().unwrap()
}

#[test]
fn prefill_runs_through_the_launch_layer() {
    let library = Library::kernels();
    for which in [PrefillKernel::Portable, PrefillKernel::Hopper] {
        let mut first = None;
        for (seed, lazy) in RUNS {
            library.set_order(seed, lazy);
            let out = prefill(library.launcher(), which);
            // Weights sum to one, so equal values come out as they went in, whatever the scores are.
            check_error(&format!("{which:?}"), &out, &vec![0.5; out.len()], &vec![0.5; out.len()], 0.005)
                .unwrap();
            assert_eq!(*first.get_or_insert(out.clone()), out, "{which:?}: seed {seed}, lazy {lazy}");
        }
    }
}
