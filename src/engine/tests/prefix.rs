//! Prefix reuse: what is shared, when, and that nobody can tell from the text.

use super::fake::{Sizes, copying, scrambled};
use super::*;
use crate::error::ErrorKind;

/// Tokens that differ from those of other seeds from the first on.
fn text(seed: u32, len: u32) -> Vec<u32> {
    (0..len).map(|index| (seed * 7 + index * index + index * seed) % 30 + 1).collect()
}

fn cached_tokens(service: &Service, prompt: &[u32]) -> usize {
    let request = greedy(prompt, 8);
    let completion = generate(service, request.clone()).unwrap();
    let cached = completion.usage.cached_tokens;
    assert_eq!(without_times(completion), alone(scrambled, &request));
    cached
}

#[test]
fn a_prompt_starts_behind_the_full_blocks_that_it_shares() {
    let service = start(Sizes::LARGE, scrambled, no_hook());
    let first = text(1, 100);
    assert_eq!(cached_tokens(&service, &first), 0);
    let mut changed = first.clone();
    changed[40] = changed[40] % 30 + 1;
    for (prompt, cached) in [
        (first.clone(), 96),
        (first[..99].to_vec(), 96),
        (first[..97].to_vec(), 96),
        // One token has to be computed, and no shared block is written.
        (first[..96].to_vec(), 80),
        (first[..16].to_vec(), 0),
        (first[..17].to_vec(), 16),
        ([&first[..], &text(2, 30)].concat(), 96),
        (changed, 32),
        (first[1..].to_vec(), 0),
        (vec![first[0]], 0),
    ] {
        assert_eq!(cached_tokens(&service, &prompt), cached, "{} tokens", prompt.len());
    }
}

#[test]
fn a_conversation_goes_on_behind_the_answer() {
    let service = start(Sizes::LARGE, scrambled, no_hook());
    let mut request = greedy(&text(1, 50), 60);
    request.stop.eos_token_ids.clear();
    let answer = generate(&service, request.clone()).unwrap();
    let next = [request.prompt, answer.token_ids, text(2, 20)].concat();
    // Of the 110 tokens the last was generated, but never computed.
    assert_eq!(cached_tokens(&service, &next), 96);
}

#[test]
fn samples_that_arrive_together_compute_their_prompt_once() {
    let prompt = text(3, 200);
    let (hook, release) = hold();
    // Room for the prompt in three sequences' own blocks, but not in eight.
    let sizes = Sizes { max_step_tokens: 64, num_blocks: 56, ..Sizes::LARGE };
    let service = start(sizes, copying, hook);
    let requests: Vec<_> = (0..8).map(|seed| seeded(&prompt, 20, seed)).collect();
    let generations: Vec<_> = requests.iter().map(|request| submit(&service, request.clone())).collect();
    release.send(()).unwrap();
    for (generation, request) in generations.into_iter().zip(&requests) {
        assert_eq!(without_times(generation.wait().unwrap()), alone(copying, request));
    }
    let stats = service.stats();
    // All but the first compute what is behind the last full block.
    assert_eq!((stats.prompt_tokens, stats.cached_tokens), (200 + 7 * 8, 7 * 192), "{stats:?}");
    assert_eq!(stats.preemptions, 0);
    assert!((stats.cache_hit_rate() - 1344.0 / 1600.0).abs() < 1e-9);
    assert_eq!(stats.free_blocks, stats.num_blocks);
}

#[test]
fn the_least_recently_used_prefix_makes_room() {
    let sizes = Sizes { num_blocks: 16, ..Sizes::LARGE };
    let service = start(sizes, scrambled, no_hook());
    let [first, second, third] = [1, 2, 3].map(|seed| text(seed, 90));
    assert_eq!(cached_tokens(&service, &first), 0);
    assert_eq!(cached_tokens(&service, &second), 0);
    assert_eq!(cached_tokens(&service, &first), 80);
    // Takes the free blocks and then those of the second.
    assert_eq!(cached_tokens(&service, &third), 0);
    assert_eq!(cached_tokens(&service, &first), 80);
    assert!(cached_tokens(&service, &second) < 80);
    assert_eq!(service.stats().free_blocks, 16);
}

#[test]
fn without_the_option_nothing_is_kept() {
    let options = EngineOptions { prefix_cache: false, ..EngineOptions::default() };
    let service = start_with(Sizes::LARGE, scrambled, no_hook(), &options);
    assert_eq!([0, 1].map(|_| cached_tokens(&service, &text(1, 100))), [0, 0]);
    let stats = service.stats();
    assert_eq!((stats.cached_tokens, stats.cached_blocks), (0, 0));
}

#[test]
fn what_a_failed_step_left_is_not_shared() {
    let mut step = 0;
    let hook: StepHook = Box::new(move |_| {
        step += 1;
        if step == 1 { Err(Error::unsupported("odd batch")) } else { Ok(()) }
    });
    let service = start(Sizes::LARGE, scrambled, hook);
    assert!(generate(&service, greedy(&text(1, 100), 5)).is_err());
    assert_eq!(cached_tokens(&service, &text(1, 100)), 0);
    assert_eq!(cached_tokens(&service, &text(1, 100)), 96);
}

#[test]
fn what_a_failed_request_left_is_not_shared() {
    fn spoilt(history: &[u32]) -> Vec<f32> {
        let mut logits = scrambled(history);
        if history.len() == 100 {
            logits[7] = f32::NAN;
        }
        logits
    }
    let service = start(Sizes { max_step_tokens: 32, ..Sizes::LARGE }, spoilt, no_hook());
    let prompt = text(1, 100);
    assert_eq!(generate(&service, greedy(&prompt, 5)).unwrap_err().kind(), ErrorKind::InvalidData);
    assert_eq!(cached_tokens(&service, &prompt[..60]), 0);
    assert_eq!(cached_tokens(&service, &prompt[..60]), 48);
}

#[test]
fn a_preempted_sequence_finds_its_own_blocks_again() {
    let sizes = Sizes { context_len: 400, max_step_tokens: 64, block_size: 4, num_blocks: 100 };
    let mut requests: Vec<_> = (1..=8).map(|seed| greedy(&text(seed, 40), 200)).collect();
    requests.iter_mut().for_each(|request| request.stop.eos_token_ids.clear());
    let run = |prefix_cache| {
        let (hook, release) = hold();
        let options = EngineOptions { prefix_cache, prompt_lookup: false, ..EngineOptions::default() };
        let service = start_with(sizes, scrambled, hook, &options);
        let generations: Vec<_> = requests.iter().map(|request| submit(&service, request.clone())).collect();
        release.send(()).unwrap();
        for (generation, request) in generations.into_iter().zip(&requests) {
            let completion = generation.wait().unwrap();
            assert_eq!(completion.usage.cached_tokens, 0, "its own tokens are not another's");
            assert_eq!(without_times(completion), alone(scrambled, request));
        }
        service.stats()
    };
    let (with, without) = (run(true), run(false));
    assert!(with.preemptions > 0 && with.cached_tokens > 0, "{with:?}");
    assert!(with.prompt_tokens < without.prompt_tokens, "{with:?}, {without:?}");
}

#[test]
fn under_dynamic_rope_only_prompts_that_rotate_alike_share() {
    let decoder = FakeDecoder::new(Sizes::LARGE, scrambled, no_hook()).with_dynamic_rope(64);
    let service = Service::start(Box::new(decoder), fake::detokenizers(), &EngineOptions::default()).unwrap();
    let prompt = text(1, 120);
    for (len, cached) in [(50, 0), (60, 48), (64, 48), (90, 0), (100, 0), (90, 80), (60, 48)] {
        assert_eq!(cached_tokens(&service, &prompt[..len]), cached, "{len} tokens");
    }
}
