//! The engine over real models: batches, chunks, preemption and drafts give what a request gives alone, token by token.

use std::path::Path;

use super::fake::Hooked;
use super::*;
use crate::backend::DType;
use crate::backend::reference::ReferenceBackend;
use crate::model::llama::{Limits, Llama};
use crate::model::weights::Checkpoint;
use crate::model::{Decoder, ModelConfig, WeightSource};

fn load(case: &str, max_step_tokens: usize, num_blocks: usize) -> Box<dyn Decoder> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/goldens").join(case);
    let mut config = ModelConfig::open(&dir).unwrap();
    // Longer than the models were made for, where dynamic RoPE changes with the length.
    config.max_position_embeddings = 250;
    let source = WeightSource::new(Checkpoint::open(&dir).unwrap(), None).unwrap();
    let backend = ReferenceBackend::new(DType::F32);
    let limits = Limits { max_step_tokens: Some(max_step_tokens), block_size: Some(8), ..Limits::default() };
    Box::new(Llama::load(backend, config, &source, limits, |_, _| Ok(num_blocks)).unwrap())
}

fn check(case: &str) {
    let requests: Vec<Request> = (0..6u32)
        .map(|index| {
            // The first half of them begin alike, as far as they go, and two are equal.
            let start = if index < 3 { 0 } else { index };
            let len = if index == 5 { 56 } else { 20 + index * 9 };
            let prompt: Vec<u32> = (0..len).map(|position| 3 + (position % 13 + start) % 40).collect();
            let mut request = if index % 3 == 0 { seeded(&prompt, 60, 7) } else { greedy(&prompt, 60) };
            request.stop.eos_token_ids = vec![2];
            request.logprobs = Some(2);
            request
        })
        .collect();
    let options = EngineOptions { prompt_lookup: false, prefix_cache: false, ..EngineOptions::default() };
    let plain = Service::start(load(case, 64, 100), fake::detokenizers(), &options).unwrap();
    let (hook, release) = hold();
    let decoder = Box::new(Hooked { decoder: load(case, 24, 28), hook });
    let crowded = Service::start(decoder, fake::detokenizers(), &EngineOptions::default()).unwrap();
    let generations: Vec<_> = requests.iter().map(|request| submit(&crowded, request.clone())).collect();
    release.send(()).unwrap();
    for (generation, request) in generations.into_iter().zip(requests) {
        let alone = without_times(generate(&plain, request).unwrap());
        assert_eq!(without_times(generation.wait().unwrap()), alone, "{case}");
    }
    let stats = crowded.stats();
    assert!(stats.preemptions > 0, "{case}: {stats:?}");
    assert!(stats.accepted_tokens > 0, "{case}: {stats:?}");
    assert!(stats.cached_tokens > 0, "{case}: {stats:?}");
    assert_eq!(stats.free_blocks, stats.num_blocks);
}

#[test]
fn crowding_guessing_and_sharing_change_nothing() {
    for case in ["llama", "rope-dynamic", "mistral", "qwen3"] {
        check(case);
    }
}
