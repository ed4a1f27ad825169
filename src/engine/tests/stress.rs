//! Many requests in little memory: all finish, none notices the others, and every block comes back.

use std::thread;

use proptest::prelude::*;

use super::fake::{Sizes, copying, scrambled};
use super::*;
use crate::engine::FinishReason;

/// A prompt and its limits, and whether the caller loses interest.
#[derive(Debug, Clone)]
struct Job {
    request: Request,
    cancel: bool,
}

fn job() -> impl Strategy<Value = Job> {
    // Few different tokens, so that there is something to copy.
    (prop::collection::vec(1u32..6, 1..60), 1usize..60, prop::option::of(0u64..9), prop::bool::weighted(0.2))
        .prop_map(|(prompt, max_new_tokens, seed, cancel)| Job {
            request: match seed {
                None => greedy(&prompt, max_new_tokens),
                Some(seed) => seeded(&prompt, max_new_tokens, seed),
            },
            cancel,
        })
}

fn sizes() -> impl Strategy<Value = Sizes> {
    (1usize..40, 1usize..9, 1usize..40).prop_map(|(max_step_tokens, block_size, extra_blocks)| Sizes {
        context_len: 120,
        max_step_tokens,
        block_size,
        num_blocks: 120usize.div_ceil(block_size) + extra_blocks,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn requests_do_not_notice_each_other(
        sizes in sizes(),
        language in prop::sample::select(vec![scrambled as Language, copying]),
        jobs in prop::collection::vec(job(), 1..16),
    ) {
        let service = start(sizes, language, no_hook());
        let generations: Vec<_> = jobs.iter().map(|job| submit(&service, job.request.clone())).collect();
        for (generation, job) in generations.iter().zip(&jobs) {
            if job.cancel {
                generation.cancel();
            }
        }
        for (generation, job) in generations.into_iter().zip(&jobs) {
            let completion = without_times(generation.wait().unwrap());
            let expected = alone(language, &job.request);
            if completion.finish_reason == FinishReason::Cancelled {
                prop_assert!(job.cancel);
                prop_assert!(expected.token_ids.starts_with(&completion.token_ids));
            } else {
                prop_assert_eq!(completion, expected);
            }
        }
        let stats = service.stats();
        prop_assert_eq!((stats.running, stats.waiting, stats.free_blocks), (0, 0, stats.num_blocks));
    }
}

#[test]
fn a_cache_that_runs_out_preempts_and_loses_nothing() {
    let sizes = Sizes { context_len: 200, max_step_tokens: 64, block_size: 4, num_blocks: 50 };
    let mut requests: Vec<_> = (1..=10).map(|token| greedy(&[token; 20], 150)).collect();
    requests.iter_mut().for_each(|request| request.stop.eos_token_ids.clear());
    let service = start(sizes, scrambled, no_hook());
    let generations: Vec<_> = requests.iter().map(|request| submit(&service, request.clone())).collect();
    for (generation, request) in generations.into_iter().zip(&requests) {
        assert_eq!(without_times(generation.wait().unwrap()), alone(scrambled, request));
    }
    assert!(service.stats().preemptions > 0);
    assert_eq!(service.stats().free_blocks, 50);
}

#[test]
fn several_threads_may_submit() {
    let service = start(Sizes { num_blocks: 40, ..Sizes::LARGE }, scrambled, no_hook());
    thread::scope(|scope| {
        for seed in 0..4 {
            let service = &service;
            scope.spawn(move || {
                for len in 1..8 {
                    let request = seeded(&vec![seed as u32 + 1; len * 11], 20, seed);
                    let expected = alone(scrambled, &request);
                    assert_eq!(without_times(generate(service, request).unwrap()), expected);
                }
            });
        }
    });
}

#[test]
fn handles_can_move_between_threads() {
    fn check<T: Send>() {}
    fn check_shared<T: Send + Sync>() {}
    check::<Generation>();
    check_shared::<crate::engine::Engine>();
}
