//! The kernels through the launch layer, as the backend runs them: its checks, geometry, schedules and workspaces.

mod attention;
mod layer;
mod rotary;
mod rows;
mod sample;

use std::sync::Arc;

use half::bf16;
use swebench_infer::backend::cuda::geometry::CacheFormat;
use swebench_infer::backend::cuda::launch::{Cache, KvScales, PrefillKernel};
use swebench_infer::backend::cuda::{Buffer, DeviceSequences, Kernel, Launcher, Stored};
use swebench_infer::backend::{Batch, BatchEntry, DType, HeadLayout, LogitsRows};

use crate::emulator::Library;
use crate::numerics::{RUNS, check_error, e4m3_from_f64, e4m3_to_f64};

/// Runs `work` in every order and checks that its bits are the same each time.
fn run_in_every_order<T: PartialEq>(what: &str, work: impl Fn(&Arc<dyn Launcher>) -> Vec<T>) -> Vec<T> {
    let library = Library::kernels();
    let mut runs = RUNS.into_iter().map(|(seed, lazy)| {
        Library::set_order(seed, lazy);
        (work(library.launcher()), seed, lazy)
    });
    let (first, ..) = runs.next().unwrap();
    for (out, seed, lazy) in runs {
        assert!(out == first, "{what}: seed {seed}, lazy {lazy}: other bits than the first run");
    }
    first
}

/// The same, and compares the values with those of `oracle`, rounded once.
fn check(what: &str, oracle: &[f64], work: impl Fn(&Arc<dyn Launcher>) -> Vec<bf16>) {
    let plain: Vec<f64> = oracle.iter().map(|&value| bf16::from_f64(value).to_f64()).collect();
    check_error(what, &run_in_every_order(what, work), oracle, &plain, 1e-3).unwrap();
}

/// Whether a kernel for prompts runs here, over heads of 64.
fn runs(which: PrefillKernel) -> bool {
    let dtype = DType::BF16;
    which == PrefillKernel::Portable
        || Library::kernels().runs(Kernel::AttentionPrefillSm90 { dtype, head_dim: 64 })
}

fn to_f64(values: &[bf16]) -> Vec<f64> {
    values.iter().map(|value| value.to_f64()).collect()
}

fn upload<T: Stored>(launcher: &Arc<dyn Launcher>, values: &[T]) -> Buffer {
    Buffer::from_slice(launcher, values).unwrap()
}

/// Some sequences of a step and their blocks of a pool, no two of which are neighbours.
struct Step {
    /// `(query_len, kv_len)` of each.
    lens: Vec<(usize, usize)>,
    block_size: usize,
    tables: Vec<Vec<u32>>,
    num_blocks: usize,
}

impl Step {
    fn new(lens: &[(usize, usize)], block_size: usize) -> Self {
        let needed = |&(_, kv_len): &(usize, usize)| kv_len.div_ceil(block_size);
        let num_blocks = lens.iter().map(needed).sum::<usize>() + 1;
        let mut free = (1..num_blocks as u32).rev();
        let tables = lens.iter().map(|lens| free.by_ref().take(needed(lens)).collect()).collect();
        Self { lens: lens.into(), block_size, tables, num_blocks }
    }

    /// The sequences `part` alone, where they are.
    fn part(&self, part: std::ops::Range<usize>) -> Self {
        Self { lens: self.lens[part.clone()].into(), tables: self.tables[part].into(), ..*self }
    }

    fn tokens(&self) -> usize {
        self.lens.iter().map(|lens| lens.0).sum()
    }

    fn sequences(&self, launcher: &Arc<dyn Launcher>) -> DeviceSequences {
        let mut batch = Batch::default();
        for (&(query_len, kv_len), block_table) in self.lens.iter().zip(&self.tables) {
            let tokens = vec![0; query_len];
            let (prompt_len, logits) = (kv_len, LogitsRows::Last);
            batch.push(BatchEntry { tokens: &tokens, kv_len, block_table, prompt_len, logits });
        }
        let mut sequences = DeviceSequences::new(launcher, self.block_size).unwrap();
        sequences.fill(&batch).unwrap();
        sequences
    }

    /// Where token `position` of a sequence lies in the cache.
    fn slot(&self, sequence: usize, position: usize) -> usize {
        self.tables[sequence][position / self.block_size] as usize * self.block_size
            + position % self.block_size
    }

    /// Those of the step's own tokens.
    fn slots(&self) -> Vec<i64> {
        let of = |(sequence, &(query_len, kv_len)): (usize, &(usize, usize))| {
            (kv_len - query_len..kv_len).map(move |position| self.slot(sequence, position) as i64)
        };
        self.lens.iter().enumerate().flat_map(of).collect()
    }
}

/// Keys or values of a cache on the host, and where it lies on the device.
#[derive(Clone)]
struct Pool {
    format: CacheFormat,
    heads: HeadLayout,
    block_size: usize,
    /// What is stored at each place, by the scale of its head; NaN where nothing is.
    values: Vec<f64>,
}

impl Pool {
    fn new(format: CacheFormat, heads: HeadLayout, step: &Step) -> Self {
        let len = step.num_blocks * heads.kv_width() * step.block_size;
        Self { format, heads, block_size: step.block_size, values: vec![f64::NAN; len] }
    }

    /// An FP8 cache's scale of a head: the values of the tests stay below 448 times it.
    fn scale(&self, head: usize) -> f64 {
        match self.format {
            CacheFormat::Model => 1.0,
            CacheFormat::Fp8 => (head + 1) as f64 / 64.0,
        }
    }

    fn place(&self, slot: usize, head: usize) -> std::ops::Range<usize> {
        let (block, offset) = (slot / self.block_size, slot % self.block_size);
        let row = (block * self.heads.num_kv_heads + head) * self.block_size + offset;
        row * self.heads.head_dim..(row + 1) * self.heads.head_dim
    }

    /// What a cache of this format makes of a value.
    fn rounded(&self, head: usize, value: f64) -> f64 {
        match self.format {
            CacheFormat::Model => bf16::from_f64(value).to_f64(),
            CacheFormat::Fp8 => e4m3_to_f64(e4m3_from_f64(value / self.scale(head))) * self.scale(head),
        }
    }

    /// A token's vector of one head.
    fn get(&self, slot: usize, head: usize) -> &[f64] {
        &self.values[self.place(slot, head)]
    }

    /// Stores it.
    fn set(&mut self, slot: usize, head: usize, values: &[f64]) {
        let place = self.place(slot, head);
        self.values[place].copy_from_slice(values);
    }

    fn head_of(&self, index: usize) -> usize {
        index / (self.block_size * self.heads.head_dim) % self.heads.num_kv_heads
    }

    fn upload(&self, launcher: &Arc<dyn Launcher>) -> Buffer {
        match self.format {
            CacheFormat::Model => {
                upload(launcher, &self.values.iter().map(|&value| bf16::from_f64(value)).collect::<Vec<_>>())
            }
            // The largest number in every place nobody may look.
            CacheFormat::Fp8 => {
                let code = |(index, &value): (usize, &f64)| match value.is_nan() {
                    true => 0x7e,
                    false => e4m3_from_f64(value / self.scale(self.head_of(index))),
                };
                upload(launcher, &self.values.iter().enumerate().map(code).collect::<Vec<u8>>())
            }
        }
    }

    /// What the device holds at its places.
    fn download(&self, buffer: &Buffer) -> Vec<f64> {
        match self.format {
            CacheFormat::Model => to_f64(&buffer.to_vec().unwrap()),
            CacheFormat::Fp8 => {
                let codes = buffer.to_vec::<u8>().unwrap().into_iter().enumerate();
                codes.map(|(index, code)| e4m3_to_f64(code) * self.scale(self.head_of(index))).collect()
            }
        }
    }
}

/// A cache on the device, filled from the host.
struct DeviceCache {
    keys: Buffer,
    values: Buffer,
    scales: Buffer,
    format: CacheFormat,
    heads: HeadLayout,
    block_size: usize,
}

impl DeviceCache {
    fn new(launcher: &Arc<dyn Launcher>, keys: &Pool, values: &Pool) -> Self {
        let Pool { format, heads, block_size, .. } = *keys;
        let scales: Vec<f32> = (0..heads.num_kv_heads).map(|head| keys.scale(head) as f32).collect();
        let (keys, values, scales) =
            (keys.upload(launcher), values.upload(launcher), upload(launcher, &scales));
        Self { keys, values, scales, format, heads, block_size }
    }

    fn view(&self) -> Cache<'_> {
        let scales = KvScales { keys: self.scales.vector(), values: self.scales.vector() };
        Cache {
            keys: self.keys.vector(),
            values: self.values.vector(),
            scales: (self.format == CacheFormat::Fp8).then_some(scales),
            block_size: self.block_size,
            num_kv_heads: self.heads.num_kv_heads,
            head_dim: self.heads.head_dim,
        }
    }
}
