//! How fast 8-bit products can be at best: a tile of results, with operands that stay in the first-level cache.

use std::hint::black_box;

use super::simd::{ByteKernel, ByteSimd};
use crate::backend::cpu::roofline::run_tile_chains;
use crate::backend::cpu::simd::{ByteProduct, TileUnit};

/// Multiplies and adds the operations done to a count, a multiply-add counting two.
pub struct ByteChains<'a> {
    /// The count.
    pub operations: &'a mut u64,
}

impl ByteKernel for ByteChains<'_> {
    #[inline(always)]
    fn run<S: ByteSimd>(self, simd: S) {
        /// With two vectors of columns as many sums as the latency of two products a cycle can use; with the operands they
        /// fit sixteen registers.
        const ROWS: usize = 5;
        /// Groups of four along k.
        const QUADS: usize = 64;
        const REPEATS: usize = 1000;
        if S::Tiles::PRESENT {
            *self.operations += run_tile_chains::<_, ByteProduct>(simd.tiles());
            return;
        }
        let mut sums = [[simd.splat(0); 2]; ROWS];
        for _ in 0..REPEATS {
            let weights = black_box(&[[[128_u8; 64]; 2]; QUADS]);
            let inputs = black_box(&[[0_i32; ROWS]; QUADS]);
            for (weights, inputs) in weights.iter().zip(inputs) {
                // SAFETY: each vector is four bytes for each of up to sixteen lanes.
                let weights = weights.each_ref().map(|quads| unsafe { simd.load_quads(quads.as_ptr()) });
                for (sums, inputs) in sums.iter_mut().zip(inputs) {
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = simd.dot(*sum, weights, *inputs);
                    }
                }
            }
        }
        black_box(sums);
        // Four products for each lane, and two operations for each product.
        *self.operations += (8 * S::LANES * 2 * ROWS * QUADS * REPEATS) as u64;
    }
}
