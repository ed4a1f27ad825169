//! What requests yield: text, ids, reasons, counts.

use super::fake::{Language, Sizes, VOCAB_SIZE, alphabet, copying, scrambled, stutter};
use super::*;
use crate::engine::{FinishReason, TokenLogprob};

fn check(
    language: Language,
    request: Request,
    text: &str,
    ids: impl IntoIterator<Item = u32>,
    reason: FinishReason,
) {
    let completion = alone(language, &request);
    assert_eq!(completion.text, text);
    assert_eq!(completion.token_ids, ids.into_iter().collect::<Vec<_>>());
    assert_eq!(completion.finish_reason, reason);
    assert_eq!(completion.usage.prompt_tokens, request.prompt.len());
}

#[test]
fn eos_ends_the_text_and_is_not_part_of_it() {
    check(alphabet, greedy(&[9, 22], 99), "wxyz</s>", 23..32, FinishReason::Stop);
    assert_eq!(alone(alphabet, &greedy(&[22], 99)).usage.completion_tokens, 10, "EOS counts");
}

#[test]
fn the_token_limit_ends_the_text() {
    check(alphabet, greedy(&[1], 3), "bcd", 2..5, FinishReason::Length);
    check(alphabet, greedy(&[1], 1), "b", 2..3, FinishReason::Length);
}

#[test]
fn stop_strings_are_found_across_tokens() {
    let with_stops = |stops: &[&str]| {
        let mut request = greedy(&[22], 9);
        request.stop.stop_strings = stops.iter().map(|stop| stop.to_string()).collect();
        request
    };
    check(alphabet, with_stops(&["</s>"]), "wxyz", 23..29, FinishReason::Stop);
    check(alphabet, with_stops(&["z<"]), "wxy", 23..28, FinishReason::Stop);
    check(alphabet, with_stops(&["</s>!", "zz"]), "wxyz</s>", 23..32, FinishReason::Length);
}

#[test]
fn text_held_back_is_released_at_the_end() {
    let mut request = greedy(&[22], 5);
    request.stop.stop_strings = vec!["</p>".into()];
    check(alphabet, request, "wxyz</", 23..28, FinishReason::Length);
}

#[test]
fn repetition_ends_the_text() {
    let mut request = greedy(&[5], 500);
    request.stop.repetition_distinct = 10;
    check(stutter, request, &"a".repeat(100), [1; 100], FinishReason::Repetition);
}

#[test]
fn the_context_ends_the_text() {
    for (sizes, generated) in [
        (Sizes { context_len: 20, ..Sizes::LARGE }, 17),
        (Sizes { block_size: 4, num_blocks: 3, ..Sizes::LARGE }, 9),
    ] {
        let service = start(sizes, stutter, no_hook());
        let completion = generate(&service, greedy(&[1, 2, 3], usize::MAX)).unwrap();
        assert_eq!(completion.finish_reason, FinishReason::Length);
        assert_eq!(completion.token_ids.len(), generated, "{sizes:?}");
    }
}

#[test]
fn a_prompt_is_computed_in_chunks_that_are_reported() {
    let prompt: Vec<u32> = (0..100).map(|index| index * 7 % 31 + 1).collect();
    let request = greedy(&prompt, 20);
    let expected = alone(scrambled, &request);
    let (permit, permits) = channel();
    let hook: StepHook = Box::new(move |_| {
        permits.recv().unwrap();
        Ok(())
    });
    let service = start(Sizes { max_step_tokens: 32, ..Sizes::LARGE }, scrambled, hook);
    let mut generation = submit(&service, request);
    for done in [32, 64, 96, 100] {
        permit.send(()).unwrap();
        assert_eq!(generation.next(None).unwrap(), Some(Event::Prefill { done, total: 100 }));
    }
    (0..20).for_each(|_| permit.send(()).unwrap());
    assert_eq!(without_times(generation.wait().unwrap()), expected);
}

#[test]
fn deltas_join_to_the_completion() {
    let service = start(Sizes::LARGE, scrambled, no_hook());
    for seed in 0..20 {
        let mut request = seeded(&[3, seed as u32], 60, seed);
        request.stop.stop_strings = vec!["ab".into(), "qxyz".into()];
        let mut events = events(submit(&service, request));
        let Some(Event::Finished(completion)) = events.pop() else { panic!("no end") };
        let (mut joined_text, mut joined_ids) = (String::new(), Vec::new());
        for event in events {
            if let Event::Delta { text, token_ids } = event {
                joined_text.push_str(&text);
                joined_ids.extend(token_ids);
            }
        }
        assert_eq!((joined_text, joined_ids), (completion.text, completion.token_ids));
    }
}

#[test]
fn logprobs_belong_to_the_tokens() {
    let mut request = greedy(&[22], 99);
    request.logprobs = Some(2);
    let completion = alone(alphabet, &request);
    assert_eq!(completion.logprobs.len(), completion.token_ids.len());
    let others = (VOCAB_SIZE - 1) as f32;
    let logprob = 5.0 - (5f32.exp() + others).ln();
    for (TokenLogprob { token_id, logprob: got, top }, id) in
        completion.logprobs.iter().zip(completion.token_ids)
    {
        assert_eq!(*token_id, id);
        assert!((got - logprob).abs() < 1e-5);
        assert_eq!(top[0], (id, *got));
        assert_eq!(top.len(), 2);
    }
}

#[test]
fn a_seed_gives_the_same_text_whatever_else_runs() {
    let request = seeded(&[4, 5, 6], 50, 42);
    let expected = alone(scrambled, &request);
    let service = start(Sizes { num_blocks: 24, max_step_tokens: 16, ..Sizes::LARGE }, scrambled, no_hook());
    let others: Vec<_> =
        (0..12).map(|seed| submit(&service, seeded(&[seed as u32 + 1; 30], 40, seed))).collect();
    assert_eq!(without_times(generate(&service, request).unwrap()), expected);
    drop(others);
}

#[test]
fn without_a_seed_texts_differ() {
    let mut request = seeded(&[4, 5, 6], 200, 0);
    request.sampling.seed = None;
    request.stop.eos_token_ids.clear();
    assert_ne!(alone(scrambled, &request).token_ids, alone(scrambled, &request).token_ids);
}

#[test]
fn prompt_lookup_saves_steps_and_changes_nothing() {
    let prompt: Vec<u32> = (0..120).map(|index| index * index % 29 + 1).collect();
    let sampled = Sampling { temperature: 0.3, seed: Some(5), ..Sampling::default() };
    for (sampling, stop_string) in
        [(Sampling::default(), "never"), (sampled, "never"), (Sampling::default(), "ba")]
    {
        let mut request = Request { sampling, logprobs: Some(1), ..greedy(&prompt, 150) };
        request.stop.eos_token_ids.clear();
        request.stop.stop_strings = vec![stop_string.into()];
        let service = start(Sizes::LARGE, copying, no_hook());
        let completion = without_times(generate(&service, request.clone()).unwrap());
        assert_eq!(completion, alone(copying, &request));
        let stats = service.stats();
        assert_eq!(stats.generated_tokens as usize, completion.usage.completion_tokens);
        assert!(stats.accepted_tokens > 0 && stats.accepted_tokens <= stats.drafted_tokens, "{stats:?}");
        assert!(stats.steps < stats.generated_tokens, "{stats:?}");
    }
}

/// How often each token was sampled at each of the first positions of many texts.
fn histogram(prompt_lookup: bool, first_seed: u64) -> Vec<[u32; VOCAB_SIZE]> {
    // Few at once, so that the step has room for all drafts.
    let options = EngineOptions { prompt_lookup, max_sequences: Some(16), ..EngineOptions::default() };
    let service = start_with(Sizes::LARGE, copying, no_hook(), &options);
    let request = |seed| {
        let mut request = greedy(&[1, 2, 3, 4, 5, 6, 1, 2, 3], 4);
        request.sampling = Sampling { temperature: 1.0, seed: Some(seed), ..Sampling::default() };
        request.stop.eos_token_ids.clear();
        request
    };
    let mut counts = vec![[0; VOCAB_SIZE]; 4];
    for group in 0..300 {
        let seeds = first_seed + group * 40..first_seed + (group + 1) * 40;
        let generations: Vec<_> = seeds.map(|seed| submit(&service, request(seed))).collect();
        for generation in generations {
            for (count, token) in counts.iter_mut().zip(generation.wait().unwrap().token_ids) {
                count[token as usize] += 1;
            }
        }
    }
    let stats = service.stats();
    assert_eq!(
        stats.accepted_tokens > 1000 && stats.drafted_tokens > 2 * stats.accepted_tokens,
        prompt_lookup
    );
    counts
}

#[test]
fn prompt_lookup_keeps_the_distribution() {
    let (plain, lookup) = (histogram(false, 0), histogram(true, 1 << 32));
    for (position, (plain, lookup)) in plain.into_iter().zip(lookup).enumerate() {
        let (mut chi_square, mut cells) = (0.0, 0.0);
        for (a, b) in plain.into_iter().zip(lookup).filter(|(a, b)| a + b > 0) {
            chi_square += (f64::from(a) - f64::from(b)).powi(2) / f64::from(a + b);
            cells += 1.0;
        }
        // Mean `cells - 1`, variance twice that; four standard deviations.
        let freedom: f64 = cells - 1.0;
        assert!(
            chi_square < freedom + 4.0 * (2.0 * freedom).sqrt(),
            "{chi_square} over {freedom}, position {position}"
        );
    }
}

#[test]
fn usage_counts_and_times_are_plausible() {
    let service = start(Sizes::LARGE, alphabet, no_hook());
    let usage = generate(&service, greedy(&[1, 2, 3], 5)).unwrap().usage;
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (3, 5));
    assert!(usage.queue_ms >= 0.0 && usage.prefill_ms > 0.0 && usage.decode_ms > 0.0, "{usage:?}");
    let stats = service.stats();
    assert_eq!((stats.prompt_tokens, stats.generated_tokens, stats.steps), (3, 5, 5));
}
