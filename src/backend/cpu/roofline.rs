//! What the machine could do at best: memory read bandwidth and multiply-add rate, measured with the pool's threads.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::format::{Format, with_format};
use super::memory::Buffer;
use super::simd::{Dispatch, Kernel, MAX_LANES, Simd};
use super::threads::ThreadPool;
use crate::backend::DType;
use crate::error::Result;

/// Bytes that are read: far beyond every cache.
const STREAM_BYTES: usize = 512 << 20;
/// Bytes of a share that a thread takes at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Repetitions, of which the best counts.
const ROUNDS: usize = 7;
/// Pairs of multiply-adds of one chain in one round of the matrix rate, which takes a few milliseconds.
const CHAIN_LENGTH: usize = 2_000_000;

/// Bytes a second.
pub fn read_bandwidth(dispatch: Dispatch, pool: &ThreadPool) -> Result<f64> {
    let mut memory = Buffer::<f32>::zeroed(STREAM_BYTES / size_of::<f32>(), "the bandwidth measurement")?;
    // Untouched pages would all be the same zero page.
    memory.fill(1.0);
    let chunk = CHUNK_BYTES / size_of::<f32>();
    let seconds = best(|| {
        pool.for_each(memory.len() / chunk, &|_, index| {
            black_box(dispatch.run(Stream(&memory[index * chunk..(index + 1) * chunk])));
        });
    });
    Ok(STREAM_BYTES as f64 / seconds)
}

/// Floating-point operations a second.
pub fn matrix_rate(dispatch: Dispatch, pool: &ThreadPool, dtype: DType) -> f64 {
    let operations = AtomicU64::new(0);
    let seconds = best(|| {
        pool.run(&|thread| {
            let done = dispatch.run(Chains { dtype });
            if thread == 0 {
                operations.store(done as u64, Ordering::Relaxed);
            }
        });
    });
    operations.into_inner() as f64 * pool.num_threads() as f64 / seconds
}

fn best(mut round: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        round();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

/// Reads everything once.
struct Stream<'a>(&'a [f32]);

impl Kernel for Stream<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        const STREAMS: usize = 8;
        let mut sums = [simd.splat(0.0); STREAMS];
        let step = STREAMS * S::LANES;
        for i in (0..self.0.len() / step * step).step_by(step) {
            simd.prefetch(self.0.as_ptr().wrapping_add(i + 1024).cast());
            for (j, sum) in sums.iter_mut().enumerate() {
                // SAFETY: i + STREAMS · LANES <= len.
                *sum = simd.add(*sum, unsafe { simd.load(self.0.as_ptr().add(i + j * S::LANES)) });
            }
        }
        let mut total = simd.splat(0.0);
        for sum in sums {
            total = simd.add(total, sum);
        }
        simd.reduce_sum(total)
    }
}

/// Independent chains of multiply-adds, with operands that stay in registers; returns the operations done.
struct Chains {
    dtype: DType,
}

impl Kernel for Chains {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        with_format!(simd: S, self.dtype, run_chains())
    }
}

#[inline(always)]
fn run_chains<S: Simd, F: Format>(simd: S) -> f64 {
    /// More than the latency of two multiply-adds a cycle can use; with the operands they fit sixteen registers.
    const CHAINS: usize = 12;
    let block = black_box([0.0_f32; 4 * MAX_LANES]);
    let inputs = black_box([F::input(0.0); 2]);
    let mut sums = [simd.splat(0.0); CHAINS];
    // SAFETY: the block holds two rows of LANES columns of up to four bytes, the inputs a pair.
    unsafe {
        let columns = F::load(simd, block.as_ptr().cast(), S::LANES, 0);
        for _ in 0..CHAIN_LENGTH {
            for sum in &mut sums {
                *sum = F::dot(simd, *sum, inputs.as_ptr(), columns);
            }
        }
    }
    let mut total = simd.splat(0.0);
    for sum in sums {
        total = simd.add(total, sum);
    }
    black_box(simd.reduce_sum(total));
    // A pair of products for each lane, and two operations for each product.
    (4 * S::LANES * CHAINS * CHAIN_LENGTH) as f64
}
