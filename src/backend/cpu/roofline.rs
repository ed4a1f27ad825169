//! What the machine could do at best: memory read bandwidth and multiply-add rate, measured with the pool's threads.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::format::{Format, with_format};
use super::int8::{ByteChains, ByteDispatch};
use super::memory::Buffer;
use super::simd::{
    Bf16Product, Dispatch, Kernel, MAX_LANES, Product, Simd, TILE_ROW_BYTES, TILE_ROWS, TileUnit,
};
use super::threads::ThreadPool;
use crate::backend::DType;
use crate::error::Result;

/// Bytes that are read: far beyond every cache, and yet read in milliseconds.
const STREAM_BYTES: usize = 256 << 20;
/// Bytes of a share that a thread takes at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Runs of all chains for each thread: ten milliseconds, in which a sleeping thread wakes up and takes its part.
const TASKS: usize = 128;
/// Pairs of multiply-adds of one chain; all chains take a tenth of a millisecond.
const CHAIN_LENGTH: usize = 50_000;

/// Measures the limits, each in one short round, so that rounds can alternate with what is compared with them: on a
/// shared machine the limits change from one second to the next.
pub struct Roofline<'a> {
    dispatch: Dispatch,
    bytes: ByteDispatch,
    pool: &'a ThreadPool,
    dtype: DType,
    memory: Buffer<f32>,
}

impl<'a> Roofline<'a> {
    pub(super) fn new(
        dispatch: Dispatch,
        bytes: ByteDispatch,
        pool: &'a ThreadPool,
        dtype: DType,
    ) -> Result<Self> {
        let mut memory = Buffer::zeroed(STREAM_BYTES / size_of::<f32>(), "the bandwidth measurement")?;
        // Untouched pages would all be the same zero page.
        memory.fill(1.0);
        Ok(Self { dispatch, bytes, pool, dtype, memory })
    }

    /// Bytes a second that all threads together read from memory.
    pub fn read_bandwidth(&self) -> f64 {
        let chunk = CHUNK_BYTES / size_of::<f32>();
        let start = Instant::now();
        self.pool.for_each(self.memory.len() / chunk, &|_, index| {
            black_box(self.dispatch.run(Stream(&self.memory[index * chunk..(index + 1) * chunk])));
        });
        STREAM_BYTES as f64 / start.elapsed().as_secs_f64()
    }

    /// The same as [`Self::matrix_rate`] for 8-bit products.
    pub fn byte_rate(&self) -> f64 {
        self.rate(&|| {
            let mut operations = 0;
            self.bytes.run(ByteChains { operations: &mut operations });
            operations
        })
    }

    /// Floating-point operations a second (a multiply-add counts two) of all threads together, with operands of the
    /// backend's type that stay in registers.
    pub fn matrix_rate(&self) -> f64 {
        self.rate(&|| self.dispatch.run(Chains { dtype: self.dtype }))
    }

    /// Operations a second on all threads of a function that returns how many it did.
    fn rate(&self, chains: &(dyn Fn() -> u64 + Sync)) -> f64 {
        let operations = AtomicU64::new(0);
        let start = Instant::now();
        self.pool.for_each(TASKS * self.pool.num_threads(), &|_, _| {
            operations.fetch_add(chains(), Ordering::Relaxed);
        });
        operations.into_inner() as f64 / start.elapsed().as_secs_f64()
    }
}

/// Reads everything once.
struct Stream<'a>(&'a [f32]);

impl Kernel for Stream<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        const STREAMS: usize = 8;
        /// 2 KiB, as the kernels do.
        const AHEAD: usize = 512;
        let mut sums = [simd.splat(0.0); STREAMS];
        let step = STREAMS * S::LANES;
        for i in (0..self.0.len() / step * step).step_by(step) {
            for (j, sum) in sums.iter_mut().enumerate() {
                let from = self.0.as_ptr().wrapping_add(i + j * S::LANES);
                simd.prefetch(from.wrapping_add(AHEAD).cast());
                // SAFETY: i + STREAMS · LANES <= len.
                *sum = simd.add(*sum, unsafe { simd.load(from) });
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
    type Output = u64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> u64 {
        with_format!(simd: S, self.dtype, run_chains())
    }
}

#[inline(always)]
fn run_chains<S: Simd, F: Format>(simd: S) -> u64 {
    /// More than the latency of two multiply-adds a cycle can use; with the operands they fit sixteen registers.
    const CHAINS: usize = 12;
    if S::Tiles::PRESENT && F::ON_TILES {
        return run_tile_chains::<_, Bf16Product>(simd.tiles());
    }
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
    (4 * S::LANES * CHAINS * CHAIN_LENGTH) as u64
}

/// The same on tiles: four tiles of results, zeros throughout.
#[inline(always)]
pub fn run_tile_chains<T: TileUnit, P: Product>(unit: T) -> u64 {
    const CHAINS: usize = 4;
    unit.zero::<4>();
    unit.zero::<6>();
    let length = CHAIN_LENGTH / TILE_ROWS;
    for _ in 0..length {
        P::dot::<T, 0, 4, 6>(unit);
        P::dot::<T, 1, 4, 6>(unit);
        P::dot::<T, 2, 4, 6>(unit);
        P::dot::<T, 3, 4, 6>(unit);
    }
    let columns = TILE_ROW_BYTES / size_of::<f32>();
    (2 * TILE_ROWS * columns * P::LEN * CHAINS * length) as u64
}
