//! What prompt lookup saves on the demo instances, whose answers are diffs of their prompts, and what it costs on text
//! that is not copied.
//!
//! `cargo bench --bench prompt_lookup [-- --rounds 3 --instances 11 --threads 1 --config FILE]`. Runs with and
//! without it alternate, one request at a time, so that a neighbour's load slows down both; each ratio is the median over
//! requests and rounds. A round starts with engines that have seen no answer, and sees each once. With `--config`, such
//! as `benches/configs/llama-1.1b.json`, the time is that of a model of this shape with random weights, and the tokens
//! are those that the demo model answers.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark reports to its terminal and may stop"
)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use swebench_infer::backend::{Batch, KvLayout};
use swebench_infer::dataset::{self, DatasetSpec};
use swebench_infer::engine::{Engine, EngineOptions, EngineStats, Request, Sampling, StopRules};
use swebench_infer::model::{self, Decoder, LoadOptions, ModelConfig};
use swebench_infer::tokenizer::Tokenizer;

/// A prompt, and the answer that is right.
struct Instance {
    id: String,
    prompt: Vec<u32>,
    answer: Vec<u32>,
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn instances(tokenizer: &Tokenizer) -> Vec<Instance> {
    let spec = DatasetSpec {
        name_or_path: data("swe-bench-lite-mit").to_str().unwrap().to_owned(),
        split: "test".into(),
        columns: vec!["text".into()],
        ..DatasetSpec::default()
    };
    let expected = std::fs::read_to_string(data("demo/expected.jsonl")).unwrap();
    let answers: HashMap<String, Vec<u32>> = expected
        .lines()
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let ids = record["response_ids"].as_array().unwrap();
            let ids = ids.iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect();
            (record["instance_id"].as_str().unwrap().to_owned(), ids)
        })
        .collect();
    let rows = dataset::load(&spec).unwrap().instances;
    let instance = |row: dataset::Instance| Instance {
        prompt: tokenizer.encode(&row.text.unwrap(), true).unwrap(),
        answer: answers[&row.instance_id].clone(),
        id: row.instance_id,
    };
    rows.into_iter().map(instance).collect()
}

/// The tokens of the only sequence that runs, which decide what a [`Replay`] answers.
type Script = Arc<Mutex<Vec<u32>>>;

/// Takes the time of one model and answers the tokens of another.
struct Replay {
    decoder: Box<dyn Decoder>,
    script: Script,
    logits: Vec<f32>,
}

impl Decoder for Replay {
    fn config(&self) -> &ModelConfig {
        self.decoder.config()
    }

    fn backend(&self) -> String {
        self.decoder.backend()
    }

    fn kv_layout(&self) -> &KvLayout {
        self.decoder.kv_layout()
    }

    fn max_step_tokens(&self) -> usize {
        self.decoder.max_step_tokens()
    }

    fn max_context(&self) -> usize {
        self.decoder.max_context()
    }

    fn step(&mut self, batch: &Batch) -> swebench_infer::Result<&[f32]> {
        self.decoder.step(batch)?;
        let script = self.script.lock().unwrap();
        let vocab_size = self.decoder.config().vocab_size;
        self.logits.clear();
        for &row in batch.logits_rows() {
            let start = self.logits.len();
            self.logits.resize(start + vocab_size, 0.0);
            let next = script.get(batch.positions()[row as usize] as usize + 1);
            self.logits[start + next.map_or(0, |&token| token as usize)] = 1.0;
        }
        Ok(&self.logits)
    }
}

/// Sums over the requests of one kind.
#[derive(Clone, Copy, Default)]
struct Sums {
    requests: usize,
    tokens: usize,
    prefill_ms: f64,
    decode_ms: f64,
    steps: u64,
    drafted: u64,
    accepted: u64,
}

impl Sums {
    fn run(engine: &Engine, request: Request) -> (Self, Vec<u32>) {
        let before = engine.stats();
        let completion = engine.generate(request).unwrap();
        let EngineStats { steps, drafted_tokens, accepted_tokens, .. } = engine.stats();
        let prefill_steps = completion.usage.prompt_tokens.div_ceil(STEP_TOKENS) as u64;
        let sums = Self {
            requests: 1,
            tokens: completion.usage.completion_tokens,
            prefill_ms: completion.usage.prefill_ms,
            decode_ms: completion.usage.decode_ms,
            steps: steps - before.steps - prefill_steps,
            drafted: drafted_tokens - before.drafted_tokens,
            accepted: accepted_tokens - before.accepted_tokens,
        };
        (sums, completion.token_ids)
    }

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            tokens: self.tokens + other.tokens,
            prefill_ms: self.prefill_ms + other.prefill_ms,
            decode_ms: self.decode_ms + other.decode_ms,
            steps: self.steps + other.steps,
            drafted: self.drafted + other.drafted,
            accepted: self.accepted + other.accepted,
        }
    }

    fn total_ms(&self) -> f64 {
        self.prefill_ms + self.decode_ms
    }
}

/// One request, without and with prompt lookup.
type Pair = [Sums; 2];

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print(what: &str, pairs: &[Pair]) {
    let [plain, lookup] =
        [0, 1].map(|way| pairs.iter().fold(Sums::default(), |sums, pair| sums.add(pair[way])));
    let ratio =
        |ms: fn(&Sums) -> f64| median(pairs.iter().map(|[plain, lookup]| ms(plain) / ms(lookup)).collect());
    let rate = |tokens: usize, ms: f64| tokens as f64 / ms * 1e3;
    println!(
        "{what:<34} {:>5.2} tokens/step, {:>5.2} guessed, {:>5.2} right   decode {:>6.1} -> {:>6.1} tok/s, median \
         {:.2}x   end to end {:>6.1} -> {:>6.1} tok/s, median {:.2}x, at most {:.2}x",
        (lookup.tokens - lookup.requests) as f64 / lookup.steps as f64,
        lookup.drafted as f64 / lookup.steps as f64,
        lookup.accepted as f64 / lookup.steps as f64,
        rate(plain.tokens, plain.decode_ms),
        rate(lookup.tokens, lookup.decode_ms),
        ratio(|sums| sums.decode_ms),
        rate(plain.tokens, plain.total_ms()),
        rate(lookup.tokens, lookup.total_ms()),
        ratio(Sums::total_ms),
        // If all but the first token cost nothing.
        plain.total_ms() / plain.prefill_ms,
    );
}

/// Query tokens of one step, the default of `LoadOptions`.
const STEP_TOKENS: usize = 512;

struct Engines {
    plain: Engine,
    lookup: Engine,
    script: Script,
}

impl Engines {
    fn start(tokenizer: &Arc<Tokenizer>, config: Option<&Path>) -> Self {
        let script = Script::default();
        let engine = |prompt_lookup| {
            let options = LoadOptions { max_step_tokens: Some(STEP_TOKENS), ..LoadOptions::default() };
            let threads = argument("--threads").map(|threads| threads.parse().unwrap());
            let options = LoadOptions { kv_memory: Some(1 << 30), threads, ..options };
            let decoder: Box<dyn Decoder> = match config {
                None => model::load(&data("demo"), &options).unwrap(),
                Some(path) => {
                    let config = ModelConfig::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
                    let decoder = model::load_random(config, &options).unwrap();
                    Box::new(Replay { decoder, script: Arc::clone(&script), logits: Vec::new() })
                }
            };
            // Every round computes its prompts again.
            let options = EngineOptions { prompt_lookup, prefix_cache: false, ..EngineOptions::default() };
            Engine::start(decoder, Arc::clone(tokenizer), &options).unwrap()
        };
        Self { plain: engine(false), lookup: engine(true), script }
    }

    /// Runs a request without and with prompt lookup, and checks that this makes no difference.
    fn compare(&self, Question { what, request, answer }: &Question) -> Pair {
        *self.script.lock().unwrap() = [&request.prompt[..], answer].concat();
        let (plain, expected) = Sums::run(&self.plain, request.clone());
        let (lookup, token_ids) = Sums::run(&self.lookup, request.clone());
        assert_eq!(token_ids, expected, "{what}");
        [plain, lookup]
    }
}

/// A request, and what a [`Replay`] answers.
struct Question {
    what: String,
    request: Request,
    answer: Vec<u32>,
}

fn greedy(instance: &Instance, eos_token_ids: &[u32]) -> Request {
    Request {
        prompt: instance.prompt.clone(),
        sampling: Sampling::default(),
        stop: StopRules {
            max_new_tokens: 1024,
            eos_token_ids: eos_token_ids.to_vec(),
            stop_strings: Vec::new(),
            repetition_distinct: 0,
        },
        logprobs: None,
    }
}

/// The value of `--name value`.
fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

fn main() {
    let number = |name, default| argument(name).map_or(default, |value| value.parse().unwrap());
    let rounds = number("--rounds", 3);
    let config = argument("--config").map(PathBuf::from);
    let tokenizer = Arc::new(Tokenizer::open(&data("demo")).unwrap());
    let eos = tokenizer.special_tokens().eos.clone();
    let instances = instances(&tokenizer);
    let instances = &instances[..number("--instances", instances.len()).min(instances.len())];
    let measure = |questions: &[Question]| -> Vec<Vec<Pair>> {
        let mut pairs = vec![Vec::new(); questions.len()];
        for _ in 0..rounds {
            let engines = Engines::start(&tokenizer, config.as_deref());
            for (pairs, question) in pairs.iter_mut().zip(questions) {
                pairs.push(engines.compare(question));
            }
        }
        pairs
    };

    let question = |instance: &Instance| Question {
        what: instance.id.clone(),
        request: greedy(instance, &eos),
        answer: instance.answer.clone(),
    };
    let questions: Vec<_> = instances.iter().map(question).collect();
    let pairs = measure(&questions);
    for (question, pairs) in questions.iter().zip(&pairs) {
        print(&question.what, pairs);
    }
    print("all instances", &pairs.concat());
    if config.is_some() {
        return;
    }

    for (what, top_k) in [("random tokens", 0), ("random among the best 8", 8)] {
        let question = |(seed, instance): (u64, &Instance)| {
            let mut request = greedy(instance, &[]);
            // So hot that the model has no say, or only on the choice of eight.
            request.sampling = Sampling { temperature: 1e6, top_k, seed: Some(seed), ..Sampling::default() };
            Question { what: what.to_owned(), request, answer: Vec::new() }
        };
        let questions: Vec<_> = (0..).zip(instances).map(question).collect();
        print(what, &measure(&questions).concat());
    }
}
