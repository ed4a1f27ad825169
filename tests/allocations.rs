//! A decode step allocates nothing, and the engine around it only a generation's text.
//!
//! The counts are of the whole process, so this file has a single test.
#![expect(clippy::unwrap_used, reason = "a test may stop")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use swebench_infer::backend::{Batch, BatchEntry, DType, LogitsRows};
use swebench_infer::engine::{Engine, EngineOptions, Event, Request, Sampling, StopRules};
use swebench_infer::model::{self, Decoder, LoadOptions};
use swebench_infer::tokenizer::Tokenizer;

/// The system's allocator, which counts.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's layout, unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's layout, unchanged.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's block and layout, unchanged; `alloc` took the block from the system.
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's block and layout, unchanged; `alloc` took the block from the system.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/demo")
}

fn load(dtype: DType) -> Box<dyn Decoder> {
    let options = LoadOptions {
        dtype: Some(dtype),
        threads: Some(2),
        kv_memory: Some(16 << 20),
        ..LoadOptions::default()
    };
    model::load(&demo(), &options).unwrap()
}

/// Allocations of `steps` decode steps of three sequences, after two that make room.
fn decode_allocations(dtype: DType, steps: usize) -> usize {
    let mut decoder = load(dtype);
    let block_size = decoder.kv_layout().block_size;
    let blocks_per_sequence = (steps + 2 + 40).div_ceil(block_size);
    let tables: Vec<Vec<u32>> = (0..3u32)
        .map(|sequence| (0..blocks_per_sequence as u32).map(|block| block * 3 + sequence).collect())
        .collect();
    let mut batch = Batch::default();
    let mut before = 0;
    // The first step computes prompts.
    for step in 0..steps + 2 {
        if step == 2 {
            before = ALLOCATIONS.load(Ordering::Relaxed);
        }
        batch.clear();
        let tokens = [7; 40];
        for (sequence, table) in tables.iter().enumerate() {
            let prompt_len = 36 + sequence;
            let (tokens, kv_len) = if step == 0 {
                (&tokens[..prompt_len], prompt_len)
            } else {
                (&tokens[..1], prompt_len + step)
            };
            let logits = LogitsRows::Last;
            batch.push(BatchEntry { tokens, kv_len, block_table: table, prompt_len, logits });
        }
        let logits = decoder.step(&batch).unwrap();
        assert!(logits.iter().all(|logit| logit.is_finite()));
    }
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// Allocations of the engine's thread and the receiver for each token of a long text, in all.
fn engine_allocations_per_token() -> f64 {
    let tokenizer = Arc::new(Tokenizer::open(&demo()).unwrap());
    let options = EngineOptions { prompt_lookup: false, ..EngineOptions::default() };
    let engine = Engine::start(load(DType::BF16), tokenizer, &options).unwrap();
    let request = Request {
        prompt: vec![7; 40],
        sampling: Sampling { temperature: 1e6, top_k: 0, top_p: 1.0, seed: Some(1) },
        stop: StopRules {
            max_new_tokens: 400,
            eos_token_ids: Vec::new(),
            stop_strings: Vec::new(),
            repetition_distinct: 0,
        },
        logprobs: None,
    };
    let mut generation = engine.submit(request).unwrap();
    let (mut tokens, mut counted_from) = (0, None);
    loop {
        match generation.next(None).unwrap() {
            Some(Event::Delta { token_ids, .. }) => tokens += token_ids.len(),
            Some(Event::Finished(_)) | None => break,
            Some(Event::Prefill { .. }) => {}
        }
        if tokens >= 100 && counted_from.is_none() {
            counted_from = Some((tokens, ALLOCATIONS.load(Ordering::Relaxed)));
        }
    }
    let (first, before) = counted_from.unwrap();
    (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / (tokens - first) as f64
}

#[test]
fn decoding_allocates_nothing_but_text() {
    for dtype in [DType::BF16, DType::F32] {
        assert_eq!(decode_allocations(dtype, 70), 0, "{dtype:?}");
    }
    // The tokenizer's text of a token, the text that no stop string can begin with, and a delta's text and ids for its
    // receiver: six at most when each delta is fetched by itself, and now and then a buffer that doubles.
    let per_token = engine_allocations_per_token();
    assert!(per_token > 0.0, "nothing was counted");
    assert!(per_token < 7.0, "{per_token} allocations a token");
}
