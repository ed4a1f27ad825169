//! The demo model on real prompts: transformers' answers, with its margins.

use std::fs;
use std::path::Path;

use serde_json::Value;
use swebench_infer::backend::{Batch, BatchEntry, DType, Device, LogitsRows};
use swebench_infer::dataset::{self, DatasetSpec};
use swebench_infer::model::{Decoder, LoadOptions, load};
use swebench_infer::tokenizer::Tokenizer;

/// Runs `tokens` and returns the logits of the last `rows` of them.
fn logits(decoder: &mut dyn Decoder, tokens: &[u32], prompt_len: usize, rows: usize) -> Vec<f32> {
    let chunk = decoder.max_step_tokens();
    let block_size = decoder.kv_layout().block_size;
    let block_table: Vec<u32> = (0..tokens.len().div_ceil(block_size) as u32).collect();
    let (mut batch, mut logits) = (Batch::default(), Vec::new());
    for start in (0..tokens.len()).step_by(chunk) {
        let kv_len = tokens.len().min(start + chunk);
        let wanted = kv_len > tokens.len() - rows;
        batch.clear();
        batch.push(BatchEntry {
            tokens: &tokens[start..kv_len],
            kv_len,
            block_table: &block_table,
            prompt_len,
            logits: if wanted { LogitsRows::All } else { LogitsRows::None },
        });
        logits.extend_from_slice(decoder.step(&batch).unwrap());
    }
    logits.split_off(logits.len() - rows * decoder.config().vocab_size)
}

/// The model answers with a wide margin, so right answers prove little: the smallest margin has to be transformers', too.
#[test]
fn every_answer_has_the_margin_of_transformers() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let tokenizer = Tokenizer::open(&data.join("demo")).unwrap();
    let spec = DatasetSpec {
        name_or_path: data.join("swe-bench-lite-mit").to_str().unwrap().to_owned(),
        split: "test".to_owned(),
        columns: vec!["text".to_owned()],
        cache_dir: None,
    };
    let dataset = dataset::load(&spec).unwrap();
    let options = LoadOptions { device: Device::Cpu, dtype: Some(DType::F32), ..LoadOptions::default() };
    let mut decoder = load(&data.join("demo"), &options).unwrap();
    let vocab_size = decoder.config().vocab_size;
    for line in fs::read_to_string(data.join("demo/expected.jsonl")).unwrap().lines() {
        let expected: Value = serde_json::from_str(line).unwrap();
        let id = expected["instance_id"].as_str().unwrap();
        let instance = dataset.instances.iter().find(|instance| instance.instance_id == id).unwrap();
        let mut tokens = tokenizer.encode(instance.text.as_deref().unwrap(), true).unwrap();
        let prompt_len = tokens.len();
        assert_eq!(prompt_len as u64, expected["prompt_tokens"].as_u64().unwrap(), "{id}");
        let response: Vec<u32> = expected["response_ids"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_u64().unwrap() as u32)
            .collect();
        tokens.extend(&response[..response.len() - 1]);
        let logits = logits(&mut *decoder, &tokens, prompt_len, response.len());
        let mut min_margin = f32::INFINITY;
        for (row, &right) in logits.chunks_exact(vocab_size).zip(&response) {
            let others = (0..vocab_size).filter(|&other| other != right as usize);
            let best_other = others.map(|other| row[other]).fold(f32::NEG_INFINITY, f32::max);
            min_margin = min_margin.min(row[right as usize] - best_other);
        }
        let golden = expected["min_margin_f32"].as_f64().unwrap() as f32;
        assert!((min_margin - golden).abs() < 0.005, "{id}: margin {min_margin}, transformers' {golden}");
    }
}
