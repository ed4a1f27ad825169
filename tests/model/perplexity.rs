//! What 8-bit weights cost: the demo model's perplexity on prompts and on gold patches, beside that of bf16.

use std::path::Path;

use serde_json::Value;
use swebench_infer::backend::{Batch, BatchEntry, Device, LogitsRows, Quantization};
use swebench_infer::dataset::{self, DatasetSpec};
use swebench_infer::model::{Decoder, LoadOptions, load};
use swebench_infer::tokenizer::Tokenizer;

/// Instances whose whole prompts are read, to reach their responses.
const RESPONSES: usize = 4;
/// Tokens of every prompt that are predicted.
const PROMPT_TOKENS: usize = 512;
/// Query tokens of a step.
const CHUNK: usize = 256;

/// What one model made of the corpus.
#[derive(Debug, Default)]
struct Score {
    /// Negative log likelihood of each token, in nats.
    losses: Vec<f64>,
    /// Tokens that were not the most probable one.
    misses: usize,
}

impl Score {
    fn perplexity(&self) -> f64 {
        (self.losses.iter().sum::<f64>() / self.losses.len() as f64).exp()
    }

    /// Predicts the tokens of `ids` from `start` on, each from all before it.
    fn add(&mut self, model: &mut dyn Decoder, ids: &[u32], start: usize) {
        let vocab_size = model.config().vocab_size;
        let block_size = model.kv_layout().block_size;
        let block_table: Vec<u32> = (0..ids.len().div_ceil(block_size) as u32).collect();
        let mut batch = Batch::default();
        let mut done = 0;
        // The last token predicts nothing.
        while done < ids.len() - 1 {
            let next = if done + 1 < start { start - 1 } else { ids.len() - 1 }.min(done + CHUNK);
            batch.clear();
            batch.push(BatchEntry {
                tokens: &ids[done..next],
                kv_len: next,
                block_table: &block_table[..next.div_ceil(block_size)],
                prompt_len: ids.len(),
                logits: if next < start { LogitsRows::None } else { LogitsRows::All },
            });
            let logits = model.step(&batch).unwrap();
            for (logits, &id) in logits.chunks(vocab_size).zip(&ids[done + 1..]) {
                let right = logits[id as usize];
                let sum: f64 = logits.iter().map(|logit| f64::from(logit - right).exp()).sum();
                self.losses.push(sum.ln());
                self.misses += usize::from(logits.iter().any(|&logit| logit > right));
            }
            done = next;
        }
    }
}

fn data(name: &str) -> String {
    format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The prompts' ids, and those of the gold responses to the first of them.
fn corpus() -> Vec<(Vec<u32>, Vec<u32>)> {
    let tokenizer = Tokenizer::open(Path::new(&data("demo"))).unwrap();
    let spec = DatasetSpec {
        name_or_path: data("swe-bench-lite-mit"),
        split: "test".into(),
        columns: vec!["text".into()],
        cache_dir: None,
    };
    let instances = dataset::load(&spec).unwrap().instances;
    let expected = std::fs::read_to_string(data("demo/expected.jsonl")).unwrap();
    expected
        .lines()
        .map(|line| {
            let expected: Value = serde_json::from_str(line).unwrap();
            let instance =
                instances.iter().find(|instance| instance.instance_id == expected["instance_id"]).unwrap();
            let prompt = tokenizer.encode(instance.text.as_deref().unwrap(), true).unwrap();
            assert_eq!(prompt.len() as u64, expected["prompt_tokens"].as_u64().unwrap());
            let response = serde_json::from_value(expected["response_ids"].clone()).unwrap();
            (prompt, response)
        })
        .collect()
}

/// Scores on the beginnings of all prompts, and on the first responses.
fn score(quantize: Option<Quantization>, corpus: &[(Vec<u32>, Vec<u32>)]) -> [Score; 2] {
    let options = LoadOptions {
        device: Device::Cpu,
        quantize,
        threads: Some(2),
        kv_memory: Some(16 << 20),
        max_step_tokens: Some(CHUNK),
        ..LoadOptions::default()
    };
    let mut model = load(Path::new(&data("demo")), &options).unwrap();
    assert_eq!(model.backend().contains("int8"), quantize.is_some(), "{}", model.backend());
    let (mut prompts, mut responses) = (Score::default(), Score::default());
    for (prompt, _) in corpus {
        prompts.add(&mut *model, &prompt[..prompt.len().min(PROMPT_TOKENS)], 1);
    }
    for (prompt, response) in &corpus[..RESPONSES] {
        responses.add(&mut *model, &[prompt.as_slice(), response].concat(), prompt.len());
    }
    [prompts, responses]
}

#[test]
fn eight_bit_weights_keep_perplexity_and_answers() {
    let corpus = corpus();
    let [prompts, responses] = score(None, &corpus);
    let [prompts8, responses8] = score(Some(Quantization::Int8), &corpus);
    let tokens: usize = corpus[..RESPONSES].iter().map(|(_, response)| response.len()).sum();
    assert_eq!((responses.losses.len(), responses8.losses.len()), (tokens, tokens));
    for (what, plain, int8) in [("prompts", &prompts, &prompts8), ("responses", &responses, &responses8)] {
        let ratio = int8.perplexity() / plain.perplexity();
        assert!((ratio - 1.0).abs() < 0.005, "perplexity of {what} with int8 is {ratio} of that with bf16");
    }
    // Every token of the responses is the greedy choice after those before it, so greedy decoding gives the gold patches.
    assert_eq!((responses.misses, responses8.misses), (0, 0));
    assert!(prompts8.misses > 0, "the prompts are not memorised, so their perplexity can change");
}
