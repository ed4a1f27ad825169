//! Requests through the engine's scheduler: chunks, batches, drafts and shared prefixes give the CPU's tokens up to near-ties.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use swebench_infer::backend::cpu::{CpuBackend, CpuOptions};
use swebench_infer::backend::cuda::CudaBackend;
use swebench_infer::backend::{Backend, DType};
use swebench_infer::dataset::{self, DatasetSpec};
use swebench_infer::engine::{Engine, EngineOptions, EngineStats, Request, Sampling, StopRules};
use swebench_infer::model::llama::{Limits, Llama};
use swebench_infer::model::weights::Checkpoint;
use swebench_infer::model::{Decoder, ModelConfig, WeightSource};
use swebench_infer::tokenizer::Tokenizer;

use crate::chip::Chip;
use crate::harness::{BLOCK_SIZE, CASES, Running, goldens, max_abs, prefill, read_goldens};

pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// The model in `dir` in bf16, whose steps are as short as `max_step_tokens`.
pub fn load<B: Backend>(backend: B, dir: &Path, max_step_tokens: usize) -> Box<dyn Decoder> {
    let source = WeightSource::new(Checkpoint::open(dir).unwrap(), None).unwrap();
    let max_step_tokens = Some(max_step_tokens);
    let limits = Limits { max_step_tokens, max_context: Some(1024), block_size: Some(BLOCK_SIZE) };
    let config = ModelConfig::open(dir).unwrap();
    Box::new(Llama::load(backend, config, &source, limits, |_, _| Ok(64)).unwrap())
}

pub fn on_cpu(dir: &Path) -> Box<dyn Decoder> {
    let options = CpuOptions { dtype: DType::BF16, threads: Some(2), isa: None, quantize: None };
    load(CpuBackend::new(options).unwrap(), dir, 512)
}

pub fn on_chip(chip: &Arc<Chip>, dir: &Path, max_step_tokens: usize) -> Box<dyn Decoder> {
    let chip = Arc::clone(chip);
    load(CudaBackend::new(chip, DType::BF16).unwrap(), dir, max_step_tokens)
}

pub fn start(decoder: Box<dyn Decoder>) -> Engine {
    let tokenizer = Arc::new(Tokenizer::open(&data().join("demo")).unwrap());
    Engine::start(decoder, tokenizer, &EngineOptions::default()).unwrap()
}

pub fn greedy(prompt: &[u32], max_new_tokens: usize) -> Request {
    Request {
        prompt: prompt.to_vec(),
        sampling: Sampling::default(),
        stop: StopRules {
            max_new_tokens,
            eos_token_ids: Vec::new(),
            stop_strings: Vec::new(),
            repetition_distinct: 0,
        },
        logprobs: None,
    }
}

/// What an engine answers to all prompts at once, and what it counted.
fn answers(
    decoder: Box<dyn Decoder>,
    prompts: &[Vec<u32>],
    max_new_tokens: usize,
) -> (Vec<Vec<u32>>, EngineStats) {
    let engine = start(decoder);
    let running: Vec<_> =
        prompts.iter().map(|prompt| engine.submit(greedy(prompt, max_new_tokens)).unwrap()).collect();
    let answers = running.into_iter().map(|generation| generation.wait().unwrap().token_ids).collect();
    (answers, engine.stats())
}

/// Equal, or different for the first time where the CPU's logits of both tokens are as good as equal: four bf16 steps of the largest apart.
#[expect(clippy::print_stderr, reason = "near-ties are reported, and the test runner keeps it to itself")]
fn assert_near(what: &str, dir: &Path, prompt: &[u32], cpu: &[u32], chip: &[u32]) {
    let Some(index) = (0..cpu.len()).find(|&index| cpu.get(index) != chip.get(index)) else { return };
    let mut decoder = on_cpu(dir);
    let tokens = [prompt, &cpu[..index]].concat();
    let mut running = Running::new(&tokens, 0);
    running.blocks = (0..tokens.len().div_ceil(BLOCK_SIZE) as u32).collect();
    let vocab = decoder.config().vocab_size;
    let logits = prefill(&mut *decoder, &mut running, 512);
    let last = &logits[logits.len() - vocab..];
    let margin = last[cpu[index] as usize] - last[chip[index] as usize];
    let tie = max_abs(last) / 64.0;
    assert!(margin <= tie, "{what}: token {index} is {} and not {}, {margin} apart", chip[index], cpu[index]);
    eprintln!("{what}: a near-tie of {margin} at token {index}");
}

fn check(
    what: &str,
    dir: &Path,
    prompts: &[Vec<u32>],
    max_new_tokens: usize,
    max_step_tokens: usize,
) -> EngineStats {
    let chip = Chip::hopper();
    let (expected, _) = answers(on_cpu(dir), prompts, max_new_tokens);
    let decoder = on_chip(&chip, dir, max_step_tokens);
    let allocations = chip.allocations();
    let (got, stats) = answers(decoder, prompts, max_new_tokens);
    assert_eq!(chip.allocations(), allocations, "{what}: a step allocates memory");
    assert_eq!(chip.held(), 0, "{what}: memory was not given back");
    for ((prompt, cpu), chip) in prompts.iter().zip(&expected).zip(&got) {
        assert_near(what, dir, prompt, cpu, chip);
    }
    stats
}

#[test]
fn every_architecture_decodes_the_tokens_of_the_cpu() {
    for case in CASES {
        const NEW_TOKENS: usize = 6;
        let dir = goldens().join(case);
        let context = ModelConfig::open(&dir).unwrap().context_len();
        let prompts: Vec<_> = read_goldens(case)
            .into_iter()
            .map(|golden| golden.ids)
            .filter(|ids| ids.len() + NEW_TOKENS <= context)
            .collect();
        assert!(prompts.len() >= 2, "{case}: {} prompts", prompts.len());
        check(case, &dir, &prompts, NEW_TOKENS, 40);
    }
}

/// A patch that the model knows by heart, for a prompt that it knows the end of.
#[test]
fn the_demo_model_answers_as_on_the_cpu() {
    let spec = DatasetSpec {
        name_or_path: data().join("swe-bench-lite-mit").to_str().unwrap().to_owned(),
        split: "test".to_owned(),
        columns: vec!["text".to_owned()],
        cache_dir: None,
    };
    let dataset = dataset::load(&spec).unwrap();
    let tokenizer = Tokenizer::open(&data().join("demo")).unwrap();
    let prompts: Vec<_> = dataset.instances[..2]
        .iter()
        .zip([320, 200])
        .map(|(instance, len)| {
            let tokens = tokenizer.encode(instance.text.as_deref().unwrap(), true).unwrap();
            tokens[tokens.len() - len..].to_vec()
        })
        .collect();
    let stats = check("demo", &data().join("demo"), &prompts, 24, 128);
    assert!(stats.accepted_tokens > 0, "no draft was verified: {stats:?}");
}
