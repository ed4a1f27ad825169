//! Bugs put into kernels on purpose: each has to be noticed, or the emulation proves nothing.

use std::fs;

use half::bf16;

use crate::attention_prefill::{Case, run};
use crate::emulator::{Library, folder};

/// Replaces the `nth` occurrence of `old` in a kernel's source, and keeps the lines that `keep` wants.
pub fn mutate(file: &str, old: &str, nth: usize, new: &str, keep: impl Fn(&str) -> bool) -> Library {
    let source = fs::read_to_string(folder().join(file)).unwrap();
    let (at, _) =
        source.match_indices(old).nth(nth).unwrap_or_else(|| panic!("{file} has no {nth}th {old:?}"));
    let changed = format!("{}{new}{}", &source[..at], &source[at + old.len()..]);
    Library::from_source(&changed.split_inclusive('\n').filter(|line| keep(line)).collect::<String>())
        .unwrap()
}

fn check_attention_prefill(old: &str, nth: usize, new: &str, expected: &str) {
    let case = Case {
        sequences: &[(130, 300), (70, 70)],
        num_heads: 2,
        num_kv_heads: 1,
        head_dim: 64,
        block_size: 32,
        window: 150,
        fp8: false,
    };
    let library = mutate("attention_prefill.cu", old, nth, new, |_| true);
    let error = run::<bf16>(&library, &case).expect_err(&format!("{old:?} → {new:?} was not noticed"));
    assert!(error.contains(expected), "{old:?} → {new:?}: {error}");
}

#[test]
fn removed_barriers_are_noticed() {
    // The second and the fourth are those of an FP8 cache.
    for nth in [0, 2] {
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
        "stored_v = stored_k + Shape::kStoredBytes",
        0,
        "stored_v = stored_k + 2 * Shape::kStoredBytes",
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
