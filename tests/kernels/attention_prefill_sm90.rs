//! Hopper's prefill attention against f64: the grid of `attention_prefill`, groups that do not divide a tile, and bugs put into it on purpose.

use half::{bf16, f16};
use swebench_infer::backend::cuda::geometry::{sm90_kv_rows, sm90_rows};
use swebench_infer::backend::cuda::params::AttentionPrefillSm90Params;

use crate::attention_prefill::{BASE, Case, run_with};
use crate::emulator::Library;
use crate::mutations::mutate;
use crate::numerics::{Element, run_all};

/// Runs one case on `library` and compares it with the oracle.
fn run<T: Element>(library: &Library, case: &Case) -> Result<(), String> {
    let &Case { num_heads, num_kv_heads, head_dim, block_size, .. } = case;
    let (rows, keys) = (sm90_rows(head_dim as u32) as usize, sm90_kv_rows(head_dim as u32) as usize);
    let group = num_heads / num_kv_heads;
    let kernel = format!("attention_prefill_sm90_{}_{head_dim}", T::NAME);
    run_with::<T>(library, case, rows / group, |attention, output| {
        let map = |address, sizes: &[usize], strides: &[i64], tile: &[usize]| {
            let sizes: Vec<_> = sizes.iter().map(|&size| size as u64).collect();
            let strides: Vec<_> = strides.iter().map(|&stride| stride as u64 * 2).collect();
            let tile: Vec<_> = tile.iter().map(|&rows| rows as u32).collect();
            library.tensor_map(address, &sizes, &strides, &tile, true).unwrap()
        };
        let cache = &attention.cache;
        let pool = |address| {
            let strides = [head_dim as i64, cache.head_stride, cache.block_stride];
            let sizes = [head_dim, block_size, num_kv_heads, case.num_blocks()];
            map(address, &sizes, &strides, &[64, block_size.min(keys), 1, 1])
        };
        let counter = library.buffer(&[0_i32]);
        let params = AttentionPrefillSm90Params {
            queries: map(
                attention.q,
                &[head_dim, num_heads, case.tokens()],
                &[head_dim as i64, attention.q_stride],
                &[64, group, rows / group],
            ),
            keys: pool(cache.keys),
            values: pool(cache.values),
            attention: *attention,
            tile_counter: counter.address(),
            heads_per_section: 2,
            reserved: 0,
        };
        // The counter is not put back: the kernel leaves it as the next launch needs it.
        let out = run_all(library, &kernel, &params, [3, 1, 1], output)?;
        match counter.to_vec()[0] {
            0 => Ok(out),
            left => Err(format!("the counter is left at {left}")),
        }
    })
    .map_err(|error| format!("{kernel} {case:?}: {error}"))
}

fn check(case: &Case) {
    run::<bf16>(Library::kernels(), case).unwrap();
    run::<f16>(Library::kernels(), case).unwrap();
}

#[test]
fn matches_the_oracle_at_odd_lengths() {
    for sequences in
        [&[(1, 1)][..], &[(2, 63)], &[(17, 128)], &[(64, 129)], &[(129, 129)], &[(129, 1000)], &[(1, 4097)]]
    {
        check(&Case { sequences, ..BASE });
    }
}

#[test]
fn matches_the_oracle_in_ragged_batches_with_groups() {
    let sequences = &[(3, 70), (1, 129), (130, 130), (17, 17)][..];
    for (num_heads, num_kv_heads) in [(2, 2), (4, 1), (6, 3), (7, 1), (16, 2)] {
        check(&Case { sequences, num_heads, num_kv_heads, head_dim: 64, ..BASE });
    }
}

#[test]
fn matches_the_oracle_at_every_head_dim_and_block_size() {
    for head_dim in [64, 96, 128, 256] {
        for block_size in [16, 32, 64, 128] {
            check(&Case { sequences: &[(65, 190)], head_dim, block_size, num_heads: 2, ..BASE });
        }
    }
}

#[test]
fn matches_the_oracle_with_a_sliding_window() {
    for window in [1, 2, 63, 64, 65, 200] {
        check(&Case { sequences: &[(130, 300), (1, 257)], window, num_heads: 2, head_dim: 64, ..BASE });
    }
}

#[test]
fn rows_that_see_nothing_are_zero() {
    check(&Case { sequences: &[(5, 3), (2, 1)], ..BASE });
}

const WINDOWED: Case = Case {
    // The last one has a tile on the diagonal that the window does not reach.
    sequences: &[(200, 330), (70, 200), (40, 140)],
    num_heads: 4,
    num_kv_heads: 2,
    head_dim: 64,
    block_size: 32,
    window: 150,
    fp8: false,
};

/// Many tiles of keys: a copy that nobody waits for has many chances to be late.
const LONG: Case = Case { sequences: &[(200, 1300), (70, 1000), (40, 900)], window: 0, ..WINDOWED };

/// Replaces the `nth` occurrence of `old` by `new` in the kernel, of which one entry remains, and expects a launch to notice.
fn check_mutation(case: &Case, old: &str, nth: usize, new: &str, expected: &str) {
    let library = mutate("attention_prefill_sm90.cu", old, nth, new, |line| {
        !line.starts_with("ATTENTION_PREFILL_SM90(") || line.contains("_bf16_64,")
    });
    let error = run::<bf16>(&library, case).expect_err(&format!("{old:?}, {nth} → {new:?} was not noticed"));
    assert!(error.contains(expected), "{old:?} → {new:?}: {error}");
}

#[test]
fn removed_barrier_waits_are_noticed() {
    check_mutation(&LONG, "mbarrier_wait(ring.emptied(), ring.parity ^ 1);", 0, "", "");
    check_mutation(&LONG, "mbarrier_wait(shared.queries_emptied, parity);", 0, "", "");
    check_mutation(&LONG, "mbarrier_wait(keys.filled(), keys.parity);", 0, "", "");
    check_mutation(&LONG, "mbarrier_wait(keys.filled(), keys.parity);", 1, "", "");
    for nth in 0..3 {
        check_mutation(&LONG, "mbarrier_wait(values.filled(), values.parity);", nth, "", "");
    }
}

#[test]
fn wrong_phases_are_noticed() {
    check_mutation(
        &LONG,
        "mbarrier_wait(ring.emptied(), ring.parity ^ 1);",
        0,
        "mbarrier_wait(ring.emptied(), ring.parity);",
        "",
    );
    check_mutation(&LONG, "parity ^= stage == 0;", 0, "parity ^= 1;", "");
    check_mutation(
        &LONG,
        "mbarrier_wait(values.filled(), values.parity);",
        2,
        "mbarrier_wait(values.filled(), keys.parity);",
        "",
    );
    check_mutation(&LONG, "for (uint32_t parity = 0;; parity ^= 1)", 0, "for (uint32_t parity = 0;;)", "");
}

#[test]
fn removed_product_waits_and_fences_are_noticed() {
    check_mutation(&WINDOWED, "            wgmma_wait<1>();\n", 0, "", "");
    for nth in 0..3 {
        check_mutation(&WINDOWED, "wgmma_wait<0>();", nth, "wgmma_wait<1>();", "");
    }
    check_mutation(&WINDOWED, "wgmma_fence();", 0, "", "wgmma.fence");
    check_mutation(&WINDOWED, "wgmma_fence();", 1, "", "wgmma.fence");
}

#[test]
fn wrong_masks_are_noticed() {
    check_mutation(&WINDOWED, "key > last", 0, "key >= last", "error");
    check_mutation(&WINDOWED, "key > last", 0, "key > last + 1", "");
    check_mutation(&WINDOWED, "key < first", 0, "key <= first", "error");
    check_mutation(&WINDOWED, "key < first", 0, "key < first - 1", "error");
    check_mutation(
        &WINDOWED,
        "maximum(0, work.first_position + 1) / kKvRows",
        0,
        "(work.first_position + kKvRows) / kKvRows",
        "error",
    );
    check_mutation(&WINDOWED, "(hidden + kKvRows - 1) / kKvRows", 0, "hidden / kKvRows", "error");
}

#[test]
fn wrong_tails_and_a_missing_turn_are_noticed() {
    check_mutation(&WINDOWED, "clear_tail<HeadDim>(values.buffer(), valid_rows);", 0, "", "");
    check_mutation(&WINDOWED, "valid_rows * 8 +", 0, "(valid_rows + 1) * 8 +", "");
    check_mutation(&WINDOWED, "query < work.num_queries", 0, "query <= work.num_queries", "");
    check_mutation(&WINDOWED, "turns.begin();", 0, "", "deadlock");
    check_mutation(&WINDOWED, "if (drawn + 1 ==", 0, "if (drawn ==", "");
}
