//! Bad input on real kernels: each has a defined result, and the others in the batch do not notice.

use std::path::Path;

use super::fake::Hooked;
use super::*;
use crate::backend::cpu::{CpuBackend, CpuOptions};
use crate::backend::reference::ReferenceBackend;
use crate::backend::{Backend, DType, HostTensor};
use crate::engine::FinishReason;
use crate::error::ErrorKind;
use crate::model::llama::{Limits, Llama};
use crate::model::weights::Checkpoint;
use crate::model::{Decoder, ModelConfig, TensorSource, WeightSource};

const BLOCK_SIZE: usize = 32;
const VOCAB_SIZE: u32 = 80;
/// The token whose embedding is NaN.
const SPOILT: u32 = VOCAB_SIZE - 1;

/// A checkpoint with NaN in one row of the embedding. The same row of the head is zero: among eighty logits of both signs
/// the token is never the best, so that only a prompt can hold it.
struct SpoiltSource(WeightSource);

impl TensorSource for SpoiltSource {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<HostTensor<'_>> {
        let tensor = self.0.tensor(name, shape)?;
        let spoilt = match name {
            "model.embed_tokens.weight" => f32::NAN,
            "lm_head.weight" => 0.0,
            _ => return Ok(tensor),
        };
        let mut values = tensor.to_f32();
        values[SPOILT as usize * shape[1]..][..shape[1]].fill(spoilt);
        HostTensor::from_f32(shape.to_vec(), &values)
    }
}

fn load<B: Backend>(backend: B, num_blocks: usize) -> Box<dyn Decoder> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/goldens/llama");
    let mut config = ModelConfig::open(&dir).unwrap();
    assert_eq!(config.vocab_size, VOCAB_SIZE as usize);
    config.max_position_embeddings = 200;
    let source = SpoiltSource(WeightSource::new(Checkpoint::open(&dir).unwrap(), None).unwrap());
    let limits = Limits { max_step_tokens: Some(64), block_size: Some(BLOCK_SIZE), ..Limits::default() };
    Box::new(Llama::load(backend, config, &source, limits, |_, _| Ok(num_blocks)).unwrap())
}

/// The model on every backend and in every type that the tests distinguish.
fn decoders(num_blocks: usize) -> Vec<Box<dyn Decoder>> {
    let cpu =
        |dtype| CpuBackend::new(CpuOptions { dtype, quantize: None, threads: Some(1), isa: None }).unwrap();
    vec![
        load(ReferenceBackend::new(DType::F32), num_blocks),
        load(cpu(DType::F32), num_blocks),
        load(cpu(DType::BF16), num_blocks),
    ]
}

/// A text without the spoilt token, that no other seed begins with.
fn prompt(seed: u32, len: u32) -> Vec<u32> {
    let token = |index| 14 + (seed * 5 + index * (seed + 1) + index * index) % (SPOILT - 14);
    (0..len).map(token).collect()
}

fn long(prompt: &[u32]) -> Request {
    let mut request = greedy(prompt, 40);
    request.stop.eos_token_ids.clear();
    request
}

/// Submits `bad` between two good requests that run with it, on every backend with `num_blocks` blocks; the good ones
/// must yield what they yield alone. Returns what came of the bad one, by backend.
fn check(num_blocks: usize, bad: &Request, act: impl Fn(&Generation)) -> Vec<Result<Completion>> {
    let good = [1, 2].map(|seed| long(&prompt(seed, 50)));
    let alone = decoders(64).into_iter();
    alone
        .zip(decoders(num_blocks))
        .map(|(alone, decoder)| {
            let backend = decoder.backend();
            let alone = Service::start(alone, fake::detokenizers(), &EngineOptions::default()).unwrap();
            let (hook, release) = hold();
            let decoder = Box::new(Hooked { decoder, hook });
            let service = Service::start(decoder, fake::detokenizers(), &EngineOptions::default()).unwrap();
            let first = submit(&service, good[0].clone());
            let spoilt = submit(&service, bad.clone());
            let last = submit(&service, good[1].clone());
            act(&spoilt);
            release.send(()).unwrap();
            for (generation, request) in [first, last].into_iter().zip(&good) {
                let expected = without_times(generate(&alone, request.clone()).unwrap());
                assert_eq!(without_times(generation.wait().unwrap()), expected, "{backend}");
            }
            let outcome = spoilt.wait();
            // Once more, now in blocks that the bad request may have left behind.
            for seed in 3..9 {
                let request = long(&prompt(seed, 70));
                let expected = without_times(generate(&alone, request.clone()).unwrap());
                assert_eq!(
                    without_times(generate(&service, request).unwrap()),
                    expected,
                    "{backend}, after it"
                );
            }
            assert_eq!(service.stats().free_blocks, num_blocks, "{backend}");
            outcome
        })
        .collect()
}

#[test]
fn nan_in_the_weights_fails_what_reads_it_and_nothing_else() {
    for at in [0, 40, 69] {
        let mut spoilt = prompt(3, 70);
        spoilt[at] = SPOILT;
        for outcome in check(14, &long(&spoilt), |_| ()) {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
            assert!(error.to_line().contains("NaN"), "{}", error.to_line());
        }
    }
}

#[test]
fn a_sequence_cancelled_in_the_middle_of_a_batch_leaves_the_others_alone() {
    for outcome in check(14, &long(&prompt(4, 60)), Generation::cancel) {
        assert_eq!(outcome.unwrap().finish_reason, FinishReason::Cancelled);
    }
}

#[test]
fn a_prompt_of_one_token_is_a_prompt() {
    for outcome in check(14, &long(&[20]), |_| ()) {
        assert_eq!(outcome.unwrap().usage.completion_tokens, 40);
    }
}

#[test]
fn more_sequences_than_memory_wait_for_their_turn() {
    // Seven blocks hold two of the three.
    for outcome in check(7, &long(&prompt(5, 90)), |_| ()) {
        assert_eq!(outcome.unwrap().usage.completion_tokens, 40);
    }
}

#[test]
fn prompts_that_are_empty_or_longer_than_the_context_are_refused() {
    for decoder in decoders(14) {
        let service = Service::start(decoder, fake::detokenizers(), &EngineOptions::default()).unwrap();
        let running = submit(&service, long(&prompt(1, 50)));
        for (len, message) in [
            (0, "the prompt is empty: expected at least one token, got none"),
            (
                200,
                "the prompt can never fit: expected at most 199 tokens, to leave room for one more, got 200",
            ),
        ] {
            let error = service.submit(long(&prompt(2, len))).unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InvalidArgument, message));
        }
        assert_eq!(running.wait().unwrap().usage.completion_tokens, 40);
        assert_eq!(generate(&service, long(&prompt(2, 199))).unwrap().usage.completion_tokens, 1);
    }
}
