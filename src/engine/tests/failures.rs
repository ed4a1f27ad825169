//! Requests that are refused, cancelled, or fail, and what that means for the others.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::fake::{Sizes, alphabet, scrambled};
use super::*;
use crate::engine::{FinishReason, StopRules};
use crate::error::{Error, ErrorKind};

/// A hook that tells of each step and waits for a permit to run it.
fn gate() -> (StepHook, Receiver<()>, Sender<()>) {
    let (announce, steps) = channel();
    let (permit, permits) = channel();
    let hook: StepHook = Box::new(move |_| {
        // Either end may be gone when a test is over.
        let _ = announce.send(());
        let _ = permits.recv();
        Ok(())
    });
    (hook, steps, permit)
}

#[test]
fn requests_that_can_never_run_are_refused_with_numbers() {
    let service = start(
        Sizes { context_len: 64, max_step_tokens: 16, block_size: 4, num_blocks: 5 },
        alphabet,
        no_hook(),
    );
    let change = |change: fn(&mut Request)| {
        let mut request = greedy(&[1, 2], 5);
        change(&mut request);
        request
    };
    for (request, message) in [
        (greedy(&[], 5), "the prompt is empty: expected at least one token, got none"),
        (
            greedy(&[1; 20], 5),
            "the prompt can never fit: expected at most 19 tokens, to leave room for one more, got 20",
        ),
        (
            greedy(&[1, 32], 5),
            "prompt token outside the vocabulary: expected ids below 32, got 32 at position 1",
        ),
        (greedy(&[1], 0), "`max_new_tokens` is out of range: expected at least 1, got 0"),
        (
            change(|request| request.sampling.temperature = -1.0),
            "`temperature` is out of range: expected 0 or more, got -1",
        ),
        (
            change(|request| request.sampling.temperature = f32::NAN),
            "`temperature` is out of range: expected 0 or more, got NaN",
        ),
        (
            change(|request| request.sampling.top_p = 0.0),
            "`top_p` is out of range: expected more than 0, at most 1, got 0",
        ),
        (
            change(|request| request.stop.stop_strings = vec!["".into()]),
            "a stop string is empty: expected at least one character, got none",
        ),
        (change(|request| request.logprobs = Some(33)), "too many `logprobs`: expected at most 32, got 33"),
    ] {
        let error = service.submit(request).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(error.to_string(), message);
    }
    assert!(service.submit(greedy(&[1; 19], 5)).is_ok());
}

#[test]
fn an_engine_without_room_does_not_start() {
    for sizes in [Sizes { num_blocks: 0, ..Sizes::LARGE }, Sizes { max_step_tokens: 0, ..Sizes::LARGE }] {
        let decoder = Box::new(FakeDecoder::new(sizes, alphabet, no_hook()));
        let started = Service::start(decoder, fake::detokenizers(), &EngineOptions::default());
        assert_eq!(started.err().map(|error| error.kind()), Some(ErrorKind::InvalidArgument));
    }
}

#[test]
fn a_cancelled_prompt_stops_between_chunks() {
    let (hook, steps, permit) = gate();
    let service = start(Sizes { max_step_tokens: 8, ..Sizes::LARGE }, scrambled, hook);
    let generation = submit(&service, greedy(&[1; 1000], 5));
    steps.recv().unwrap();
    generation.cancel();
    permit.send(()).unwrap();
    let completion = generation.wait().unwrap();
    assert_eq!(completion.finish_reason, FinishReason::Cancelled);
    assert_eq!((completion.text.as_str(), completion.usage.completion_tokens), ("", 0));
    assert_eq!(service.stats().prompt_tokens, 8);
    assert_eq!(service.stats().free_blocks, Sizes::LARGE.num_blocks);
    drop(permit);
}

#[test]
fn a_cancelled_text_is_delivered_as_far_as_it_got() {
    let (hook, steps, permit) = gate();
    let service = start(Sizes::LARGE, alphabet, hook);
    let generation = submit(&service, greedy(&[1], 99));
    for _ in 0..3 {
        steps.recv().unwrap();
        permit.send(()).unwrap();
    }
    steps.recv().unwrap();
    generation.cancel();
    permit.send(()).unwrap();
    let completion = generation.wait().unwrap();
    assert_eq!((completion.text.as_str(), completion.finish_reason), ("bcde", FinishReason::Cancelled));
    drop(permit);
}

#[test]
fn a_dropped_generation_frees_its_place_and_its_neighbours_go_on() {
    let service = start(Sizes::LARGE, scrambled, no_hook());
    let mut endless = greedy(&[1; 50], usize::MAX);
    endless.stop.eos_token_ids.clear();
    let dropped = submit(&service, endless);
    let neighbour = greedy(&[7, 8, 9], 30);
    let generation = submit(&service, neighbour.clone());
    drop(dropped);
    assert_eq!(without_times(generation.wait().unwrap()), alone(scrambled, &neighbour));
    // A request that comes later ends later than the step that saw the drop.
    generate(&service, greedy(&[2], 2)).unwrap();
    let stats = service.stats();
    assert_eq!((stats.running, stats.waiting, stats.free_blocks), (0, 0, stats.num_blocks));
}

#[test]
fn a_dropped_engine_cancels_what_runs_and_what_waits() {
    let (hook, steps, permit) = gate();
    let service = start(Sizes { num_blocks: 40, ..Sizes::LARGE }, scrambled, hook);
    let endless = StopRules { eos_token_ids: Vec::new(), ..greedy(&[1], usize::MAX).stop };
    let request = |_| Request { stop: endless.clone(), ..greedy(&[1; 400], usize::MAX) };
    let generations: Vec<_> = (0..5).map(request).map(|request| submit(&service, request)).collect();
    steps.recv().unwrap();
    // Steps go on one by one until the engine notices, long before a generation has filled the context.
    let dropped = thread::spawn(move || drop(service));
    while permit.send(()).is_ok() && steps.recv().is_ok() {}
    dropped.join().unwrap();
    for generation in generations {
        assert_eq!(generation.wait().unwrap().finish_reason, FinishReason::Cancelled);
    }
}

/// Three requests on an engine whose second step fails as `hook` wants; their errors, and that of a later one.
fn failing(fail: fn() -> Result<()>) -> (Vec<Result<Completion>>, Result<Completion>) {
    let (announce, submitted) = channel::<()>();
    let mut step = 0;
    let hook: StepHook = Box::new(move |_| {
        step += 1;
        match step {
            1 => submitted.recv().map_err(|_| Error::internal("the test is over")),
            2 => fail(),
            _ => Ok(()),
        }
    });
    let service = start(Sizes { num_blocks: 4, ..Sizes::LARGE }, scrambled, hook);
    // The first two run; the third, with the cache full, waits.
    let generations: Vec<_> = [20, 10, 60].map(|len| submit(&service, greedy(&vec![1; len], 5))).into();
    announce.send(()).unwrap();
    let results = generations.into_iter().map(Generation::wait).collect();
    (results, generate(&service, greedy(&[1], 2)))
}

#[test]
fn a_panic_in_the_decoder_ends_all_requests_and_refuses_later_ones() {
    let (results, later) = failing(|| panic!("kernel exploded"));
    for result in results {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert_eq!(error.message(), "the engine panicked: kernel exploded");
    }
    let later = later.unwrap_err();
    assert_eq!(later.to_line(), "the engine has stopped: the engine panicked: kernel exploded");
}

#[test]
fn a_broken_device_ends_all_requests_and_refuses_later_ones() {
    for kind in [ErrorKind::Device, ErrorKind::OutOfMemory, ErrorKind::Internal] {
        let fail: fn() -> Result<()> = match kind {
            ErrorKind::Device => || Err(Error::new(ErrorKind::Device, "lost").with_hint("reboot")),
            ErrorKind::OutOfMemory => || Err(Error::new(ErrorKind::OutOfMemory, "lost").with_hint("reboot")),
            _ => || Err(Error::internal("lost").with_hint("reboot")),
        };
        let (results, later) = failing(fail);
        for result in results.into_iter().chain([later]) {
            let error = result.unwrap_err();
            assert_eq!((error.kind(), error.hint()), (kind, Some("reboot")));
        }
    }
}

#[test]
fn another_error_ends_only_the_requests_of_its_step() {
    let (results, later) = failing(|| Err(Error::unsupported("odd batch")));
    let messages: Vec<_> = results.iter().map(|result| result.as_ref().err().map(Error::message)).collect();
    assert_eq!(messages, [Some("odd batch"), Some("odd batch"), None]);
    assert!(later.is_ok());
}

#[test]
fn logits_that_are_not_numbers_end_only_their_request() {
    fn spoiled(history: &[u32]) -> Vec<f32> {
        let mut logits = alphabet(history);
        if history[0] == 13 && history.len() == 4 {
            logits[7] = f32::NAN;
        }
        logits
    }
    let service = start(Sizes::LARGE, spoiled, no_hook());
    let [first, spoilt, last] = [1, 13, 2].map(|token| submit(&service, greedy(&[token], 9)));
    assert_eq!(spoilt.wait().unwrap_err().kind(), ErrorKind::InvalidData);
    assert_eq!(first.wait().unwrap().text, "bcdefghij");
    assert_eq!(last.wait().unwrap().text, "cdefghijk");
    assert_eq!(service.stats().free_blocks, Sizes::LARGE.num_blocks);
}
