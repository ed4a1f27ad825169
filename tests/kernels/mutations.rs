//! Bugs put into kernels on purpose: each has to be noticed, or the emulation proves nothing.

use std::fs;

use half::bf16;

use crate::attention_prefill::{Case, run};
use crate::emulator::{Library, folder};
use crate::{attention_decode, rotary};

/// A kernel's source with the `nth` occurrence of `old` replaced.
fn replace(file: &str, old: &str, nth: usize, new: &str) -> String {
    let source = fs::read_to_string(folder().join(file)).unwrap();
    let (at, _) =
        source.match_indices(old).nth(nth).unwrap_or_else(|| panic!("{file} has no {nth}th {old:?}"));
    format!("{}{new}{}", &source[..at], &source[at + old.len()..])
}

fn check_attention_prefill(old: &str, nth: usize, new: &str, expected: &str) {
    let case = Case {
        sequences: &[(130, 300), (70, 70)],
        num_heads: 2,
        num_kv_heads: 1,
        head_dim: 64,
        block_size: 32,
        window: 150,
    };
    let library = Library::from_source(&replace("attention_prefill.cu", old, nth, new)).unwrap();
    let error = run::<bf16>(&library, &case).expect_err(&format!("{old:?} → {new:?} was not noticed"));
    assert!(error.contains(expected), "{old:?} → {new:?}: {error}");
}

#[test]
fn removed_barriers_are_noticed() {
    for nth in 0..2 {
        check_attention_prefill("sync_threads();", nth, "", "");
    }
    check_attention_prefill("sync_warp();", 0, "", "");
}

#[test]
fn removed_waits_are_noticed() {
    for nth in 0..2 {
        check_attention_prefill("copy_async_wait<0>();", nth, "copy_async_wait<1>();", "");
    }
}

#[test]
fn wrong_masks_are_noticed() {
    check_attention_prefill("key <= position &&", 0, "key < position &&", "error");
    check_attention_prefill("key <= position &&", 0, "key <= position + 1 &&", "error");
    check_attention_prefill("key + params.window > position", 0, "key + params.window >= position", "error");
}

#[test]
fn wrong_addresses_are_noticed() {
    check_attention_prefill(
        "column * 8) * 2 : params.q",
        0,
        "column * 8) * 2 + 2 : params.q",
        "multiple of 16",
    );
    check_attention_prefill(
        "shared_v = shared_k + Shape::kKvBytes",
        0,
        "shared_v = shared_k + 2 * Shape::kKvBytes",
        "shared address",
    );
}

#[test]
fn divergence_is_noticed() {
    check_attention_prefill(
        "    sync_warp();",
        0,
        "    if (lane < 31) sync_warp();",
        "returned from the kernel",
    );
    check_attention_prefill("        sync_threads();", 0, "        if (warp_row) sync_threads();", "");
}

/// The same, compiled with the entries that end with `entry` alone: the others cost more to compile than the rest of the test.
fn mutate_entry(file: &str, old: &str, nth: usize, new: &str, entry: &str) -> Library {
    let mutated = replace(file, old, nth, new);
    let (kernel, entries) = mutated.split_at(mutated.find("}  // namespace\n\n#define").unwrap());
    let is_entry = |line: &str| line.starts_with(|c: char| c.is_ascii_uppercase()) && line.ends_with(')');
    let kept: Vec<_> = entries.lines().filter(|line| !is_entry(line) || line.ends_with(entry)).collect();
    Library::from_source(&format!("{kernel}{}\n", kept.join("\n"))).unwrap()
}

/// A case with several splits, tiles and query rows, and a window that begins inside a tile.
fn check_attention_decode(old: &str, nth: usize, new: &str, expected: &str) {
    let case = attention_decode::Case {
        sequences: &[(3, 600), (2, 70)],
        num_heads: 2,
        split_len: 256,
        window: 390,
        ..attention_decode::BASE
    };
    let library = mutate_entry("attention_decode.cu", old, nth, new, "(bf16, Bf16, 64)");
    let notice = |case| attention_decode::run::<bf16>(&library, &case).err();
    let in_large_tiles = attention_decode::Case { rows: 64, ..case.clone() };
    let in_fp8 = attention_decode::Case { fp8: true, ..case.clone() };
    let error = notice(case).or_else(|| notice(in_large_tiles)).or_else(|| notice(in_fp8));
    let error = error.unwrap_or_else(|| panic!("{old:?} → {new:?} was not noticed"));
    assert!(error.contains(expected), "{old:?} → {new:?}: {error}");
}

#[test]
fn decode_without_a_barrier_is_noticed() {
    check_attention_decode("if constexpr (Shape::kTeamWarps == 1) sync_warp();", 0, "if constexpr (Shape::kTeamWarps == 1) {}", "");
    check_attention_decode("barrier_sync(1 + team, Shape::kTeamThreads);", 0, "sync_warp();", "");
    // All but the one before the counter, whose absence shows only between blocks that run at one time.
    for nth in [0, 1, 2, 3, 4, 5, 7] {
        check_attention_decode("sync_threads();", nth, "sync_warp();", "");
    }
}

#[test]
fn decode_without_a_wait_is_noticed() {
    check_attention_decode("copy_async_wait<kStages - 2>();", 0, "copy_async_wait<kStages - 1>();", "");
    check_attention_decode("copy_async_wait<0>();", 0, "copy_async_wait<kStages>();", "");
}

#[test]
fn decode_with_a_wrong_mask_is_noticed() {
    check_attention_decode("key <= position &&", 0, "key < position &&", "error");
    check_attention_decode("key <= position &&", 0, "key <= position + 1 &&", "error");
    check_attention_decode("key + params.window > position", 0, "key + params.window >= position", "error");
    check_attention_decode("first_position - params.window + 1", 0, "first_position - params.window + 17", "error");
    check_attention_decode("last_position + 1)", 0, "last_position - 15)", "error");
    check_attention_decode("span.kv_len - token, team_thread", 1, "kTokens, team_thread", "NaN");
}

#[test]
fn decode_that_merges_wrongly_is_noticed() {
    check_attention_decode("atomic_add(counter, 1)", 0, "atomic_add(counter, 2)", "");
    check_attention_decode("if (thread_index() == 0) global_store(counter, 0);", 0, "", "");
    check_attention_decode("exp2_approx(shared_load<float>(weights + split * 4) - highest)", 0, "1.0f", "error");
    check_attention_decode("keys[i % 2][i / 2][0], keys[i % 2][i / 2][1]", 0, "keys[i % 2][i / 2][1], keys[i % 2][i / 2][0]", "error");
}

#[test]
fn wrong_rotations_and_appends_are_noticed() {
    for (old, new, expected) in [
        ("a * cos[i] - b * sin[i]", "a * cos[i] + b * sin[i]", "error"),
        ("warp_sum<Shape::kLanes>", "warp_sum<Shape::kLanes / 2>", "error"),
        ("is_query ? params.q_norm", "!is_query ? params.q_norm", "error"),
        ("is_value ? params.cache.values : params.cache.keys", "params.cache.keys", ""),
        ("slot >> params.cache.block_size_log2", "slot >> (params.cache.block_size_log2 + 1)", ""),
        ("row + Shape::kHalf, second", "row + Shape::kHalf + 8, second", ""),
        ("is_value ? params.cache.value_scales", "!is_value ? params.cache.value_scales", "error"),
    ] {
        let library = mutate_entry("rotary.cu", old, 0, new, "(bf16, Bf16, 64)");
        let case = rotary::Case { norm: true, ..rotary::BASE };
        let in_fp8 = rotary::Case { fp8: true, ..case.clone() };
        let error = rotary::run::<bf16>(&library, &case).err().or_else(|| rotary::run::<bf16>(&library, &in_fp8).err());
        let error = error.unwrap_or_else(|| panic!("{old:?} → {new:?} was not noticed"));
        assert!(error.contains(expected), "{old:?} → {new:?}: {error}");
    }
}
