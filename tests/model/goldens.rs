//! Logits and greedy tokens: in one pass, in chunks, in batches of unequal sequences, and over a reused prefix.

use swebench_infer::backend::{Batch, DType, Device};
use swebench_infer::model::{Decoder, LoadOptions};

use crate::harness::{
    BLOCK_SIZE, CASES, Golden, Running, assert_bf16, assert_f16, decoders, goldens, greedy, max_abs,
    max_error, prefill, read_goldens,
};

/// The f32 rule: maximum error at most 1e-4 of the largest logit.
fn assert_f32(what: &str, got: &[f32], golden: &[f32]) {
    let got = &got[got.len() - golden.len()..];
    let (error, limit) = (max_error(got, golden), 1e-4 * max_abs(golden));
    assert!(error <= limit, "{what}: error {error} above {limit}");
}

/// Calls `check` for every case and backend with the model in `dtype`.
fn each(dtype: DType, check: impl Fn(&str, &mut dyn Decoder, &[Golden])) {
    for case in CASES {
        let goldens = read_goldens(case);
        for (name, mut decoder) in decoders(case, None, dtype) {
            check(&format!("{case} on {name}"), &mut *decoder, &goldens);
        }
    }
}

#[test]
fn f32_logits_equal_transformers_in_one_pass_and_in_chunks() {
    each(DType::F32, |what, decoder, goldens| {
        for golden in goldens {
            for chunk in [256, 31, 7] {
                let mut sequence = Running::new(&golden.ids, 1);
                let logits = prefill(decoder, &mut sequence, chunk);
                assert_f32(
                    &format!("{what}, {} tokens by {chunk}", golden.ids.len()),
                    &logits,
                    &golden.logits,
                );
            }
        }
    });
}

#[test]
fn greedy_tokens_equal_transformers() {
    each(DType::F32, |what, decoder, goldens| {
        let mut checked = 0;
        for golden in goldens {
            let Some(expected) = &golden.greedy else { continue };
            let vocab = decoder.config().vocab_size;
            let mut sequence = Running::new(&golden.ids, 2);
            let logits = prefill(decoder, &mut sequence, 256);
            let last = &logits[logits.len() - vocab..];
            let (ids, logits) = greedy(decoder, &mut sequence, last, expected.len());
            assert_eq!(&ids, expected, "{what}");
            if let Some(golden) = &golden.greedy_logits {
                assert_f32(&format!("{what}, decoding"), &logits, golden);
            }
            checked += 1;
        }
        assert!(checked > 0, "{what}: no greedy golden");
    });
}

#[test]
fn unequal_sequences_in_one_batch_do_not_disturb_each_other() {
    each(DType::F32, |what, decoder, goldens| {
        let mut running: Vec<_> =
            goldens.iter().zip(0..).map(|(g, slot)| Running::new(&g.ids, slot)).collect();
        let mut logits = vec![Vec::new(); running.len()];
        // Different chunk lengths, so that prefill chunks of any size and single tokens meet in one step.
        let chunks = [1, 5, 23, 11, 3];
        while running.iter().any(|sequence| sequence.cached < sequence.tokens.len()) {
            let mut batch = Batch::default();
            let mut rows = Vec::new();
            for (sequence, (chunk, index)) in running.iter_mut().zip(chunks.iter().zip(0..)) {
                let query_len = (sequence.tokens.len() - sequence.cached).min(*chunk);
                if query_len > 0 {
                    sequence.push(&mut batch, query_len);
                    rows.push((index, query_len));
                }
            }
            let vocab = decoder.config().vocab_size;
            let mut step = decoder.step(&batch).unwrap();
            for (index, query_len) in rows {
                let (mine, rest) = step.split_at(query_len * vocab);
                let all: &mut Vec<f32> = &mut logits[index];
                all.extend_from_slice(mine);
                step = rest;
            }
        }
        for (logits, golden) in logits.iter().zip(goldens) {
            assert_f32(&format!("{what}, batched"), logits, &golden.logits);
        }
    });
}

#[test]
fn a_reused_prefix_gives_the_same_logits() {
    each(DType::F32, |what, decoder, goldens| {
        let longest = goldens.iter().max_by_key(|golden| golden.ids.len()).unwrap();
        let shared = longest.ids.len() / BLOCK_SIZE;
        assert!(shared >= 1, "{what}: the longest sequence does not fill a block");
        let mut first = Running::new(&longest.ids, 0);
        prefill(decoder, &mut first, 256);
        let mut second = Running::new(&longest.ids, 3);
        second.blocks[..shared].copy_from_slice(&first.blocks[..shared]);
        second.cached = shared * BLOCK_SIZE;
        let logits = prefill(decoder, &mut second, 256);
        let vocab = decoder.config().vocab_size;
        let rows = (logits.len() / vocab).min(longest.logits.len() / vocab);
        let golden = &longest.logits[longest.logits.len() - rows * vocab..];
        assert_f32(&format!("{what}, prefix reused"), &logits[logits.len() - rows * vocab..], golden);
    });
}

/// Logits come in pieces of a fixed number of rows, which nobody may notice.
#[test]
fn a_step_may_want_the_logits_of_all_its_rows() {
    const SEQUENCES: usize = 5;
    let device = Device::Reference;
    let options = LoadOptions { device, max_step_tokens: Some(400), ..LoadOptions::default() };
    let mut decoder = swebench_infer::model::load(&goldens().join("llama"), &options).unwrap();
    let ids = &read_goldens("llama")[2].ids;
    let alone = prefill(&mut *decoder, &mut Running::new(ids, 0), 400);
    let mut batch = Batch::default();
    (0..SEQUENCES).for_each(|slot| Running::new(ids, slot).push(&mut batch, ids.len()));
    assert!(batch.logits_rows().len() > 256, "{} rows", batch.logits_rows().len());
    let together = decoder.step(&batch).unwrap();
    assert_eq!(together.len(), SEQUENCES * alone.len());
    assert!(together.chunks(alone.len()).all(|part| part == alone));
}

#[test]
fn bf16_errors_stay_within_twice_those_of_transformers() {
    each(DType::BF16, |what, decoder, goldens| assert_bf16(what, decoder, goldens, 23));
}

#[test]
fn f16_errors_stay_below_those_of_bf16() {
    each(DType::F16, |what, decoder, goldens| assert_f16(what, decoder, goldens, 256));
}
