//! Runs against a scripted engine: what is written when requests finish, fail, are cancelled, or the process dies.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;

use tempfile::TempDir;

use super::generate::{EventStream, Generate, Tally};
use super::prompts::Prompt;
use super::*;
use crate::engine::{Completion, Event, FinishReason, Request, Sampling, StopRules, Usage};
use crate::error::ErrorKind;
use crate::patch::Mode;
use crate::run::predictions::Prediction;

type Script = Vec<Result<Event>>;

/// An engine that answers a prompt by the script of its first token.
#[derive(Default)]
struct ScriptedEngine {
    scripts: RefCell<HashMap<u32, Result<Script>>>,
    submitted: RefCell<Vec<u32>>,
    open: Rc<RefCell<usize>>,
    most_open: RefCell<usize>,
}

impl ScriptedEngine {
    /// `answers[i]` is for the prompt that starts with token `i`.
    fn new(answers: Vec<Result<Script>>) -> Self {
        let scripts = (0..).zip(answers).collect();
        Self { scripts: RefCell::new(scripts), ..Self::default() }
    }
}

impl Generate for ScriptedEngine {
    type Stream = ScriptedStream;

    fn submit(&self, request: Request) -> Result<ScriptedStream> {
        let script = self.scripts.borrow_mut().remove(&request.prompt[0]).unwrap()?;
        self.submitted.borrow_mut().push(request.prompt[0]);
        *self.open.borrow_mut() += 1;
        let mut most_open = self.most_open.borrow_mut();
        *most_open = (*most_open).max(*self.open.borrow());
        Ok(ScriptedStream { events: script.into(), open: Rc::clone(&self.open) })
    }
}

struct ScriptedStream {
    events: VecDeque<Result<Event>>,
    open: Rc<RefCell<usize>>,
}

impl EventStream for ScriptedStream {
    /// One event, then `None`, so that every request takes as many rounds as it has events.
    fn next(&mut self, timeout: Option<Duration>) -> Result<Option<Event>> {
        assert!(timeout.is_some(), "an endless wait cannot be cancelled");
        match self.events.front() {
            Some(Ok(Event::Prefill { done: 0, .. })) => {
                self.events.pop_front();
                Ok(None)
            }
            _ => self.events.pop_front().transpose(),
        }
    }
}

impl Drop for ScriptedStream {
    fn drop(&mut self) {
        *self.open.borrow_mut() -= 1;
    }
}

fn completion(text: &str, finish_reason: FinishReason) -> Event {
    Event::Finished(Box::new(Completion {
        text: text.into(),
        token_ids: vec![1, 2],
        finish_reason,
        logprobs: Vec::new(),
        usage: Usage {
            prompt_tokens: 5,
            cached_tokens: 2,
            completion_tokens: 3,
            queue_ms: 100.0,
            prefill_ms: 2.0,
            decode_ms: 1.5,
        },
    }))
}

fn answer(text: &str) -> Result<Script> {
    let delta = Event::Delta { text: text.into(), token_ids: vec![1, 2] };
    Ok(vec![Ok(Event::Prefill { done: 5, total: 5 }), Ok(delta), Ok(completion(text, FinishReason::Stop))])
}

/// Nothing for this many rounds, then the answer.
fn late_answer(rounds: usize, text: &str) -> Result<Script> {
    let wait = || Ok(Event::Prefill { done: 0, total: 5 });
    Ok(std::iter::repeat_with(wait).take(rounds).chain(answer(text)?).collect())
}

fn prompts(ids: &[&str]) -> Vec<Prompt> {
    (0..)
        .zip(ids)
        .map(|(token, id)| Prompt { instance_id: (*id).into(), token_ids: Ok(vec![token; 5]) })
        .collect()
}

fn options(max_submitted: usize) -> GenerateOptions {
    GenerateOptions {
        recorded_model: "m".into(),
        patch_mode: Mode::Legacy,
        sampling: Sampling::default(),
        stop: StopRules {
            max_new_tokens: 8,
            eos_token_ids: vec![2],
            stop_strings: Vec::new(),
            repetition_distinct: 10,
        },
        max_submitted,
        progress_interval: Duration::ZERO,
    }
}

/// A directory with the predictions file of a test.
struct Output {
    _dir: TempDir,
    path: PathBuf,
}

impl Output {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.jsonl");
        Self { _dir: dir, path }
    }

    fn generate(
        &self,
        engine: &ScriptedEngine,
        prompts: Vec<Prompt>,
        max_submitted: usize,
        cancel: &CancelToken,
        on_event: &mut dyn FnMut(RunEvent),
    ) -> Result<Tally> {
        let mut file = PredictionsFile::open(&self.path)?;
        file.discard_failures(|_| true)?;
        generate_all(engine, prompts, &options(max_submitted), &mut file, cancel, on_event)
    }

    fn records(&self) -> Vec<Prediction> {
        let content = fs::read_to_string(&self.path).unwrap();
        content.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn ids(&self) -> Vec<String> {
        self.records().into_iter().map(|record| record.instance_id).collect()
    }
}

#[test]
fn a_prediction_has_the_output_the_patch_and_how_it_ended() {
    let output = Output::new();
    let engine = ScriptedEngine::new(vec![answer("So:\n<patch>\n+é\n</patch>")]);
    let mut events = Vec::new();
    let tally = output
        .generate(&engine, prompts(&["a"]), 4, &CancelToken::new(), &mut |event| events.push(event))
        .unwrap();
    let expected = Prediction {
        instance_id: "a".into(),
        model_name_or_path: "m".into(),
        full_output: Some("So:\n<patch>\n+é\n</patch>".into()),
        model_patch: "\n+é\n".into(),
        finish_reason: Some("stop".into()),
        usage: Some(crate::run::predictions::TokenUsage {
            prompt_tokens: 5,
            cached_tokens: 2,
            completion_tokens: 3,
            ..Default::default()
        }),
        latency_ms: Some(3.5),
        ..Prediction::default()
    };
    assert_eq!(output.records(), [expected]);
    let expected =
        Tally { finished: 1, failed: 0, prompt_tokens: 5, completion_tokens: 3, interrupted: false };
    assert_eq!(tally, expected);
    assert_eq!(
        events,
        [RunEvent::InstanceFinished {
            instance_id: "a".into(),
            finish_reason: Some("stop"),
            completion_tokens: 3,
            error: None
        }]
    );
}

#[test]
fn a_failing_instance_is_recorded_and_the_others_go_on() {
    let output = Output::new();
    let too_long = Error::invalid_argument("the prompt can never fit").with_expected("at most 4 tokens", 5);
    let engine = ScriptedEngine::new(vec![
        Err(too_long),
        answer("one"),
        Ok(vec![Err(Error::invalid_data("logits are not finite"))]),
        answer("three"),
    ]);
    let mut prompts = prompts(&["a", "b", "c", "d"]);
    prompts.push(Prompt { instance_id: "e".into(), token_ids: Err(Error::invalid_data("no text")) });
    let tally = output.generate(&engine, prompts, 9, &CancelToken::new(), &mut |_| ()).unwrap();
    assert_eq!((tally.finished, tally.failed), (2, 3));
    let reason_of = |id: &str| {
        let record = output.records().into_iter().find(|record| record.instance_id == id).unwrap();
        assert_eq!((record.full_output, &*record.model_patch), (None, ""));
        record.error.unwrap()
    };
    assert_eq!(reason_of("a"), "the prompt can never fit: expected at most 4 tokens, got 5");
    assert_eq!(reason_of("c"), "logits are not finite");
    assert_eq!(reason_of("e"), "no text");

    // The next run tries the failed ones again, and every id keeps one line.
    let engine = ScriptedEngine::new(vec![answer("0"), answer("2"), answer("4")]);
    output.generate(&engine, self::prompts(&["a", "c", "e"]), 9, &CancelToken::new(), &mut |_| ()).unwrap();
    assert_eq!(output.ids(), ["b", "d", "a", "c", "e"]);
    assert!(output.records().iter().all(|record| record.error.is_none()));
}

#[test]
fn an_error_of_the_engine_ends_the_run_and_keeps_what_was_finished() {
    for kind in [ErrorKind::Device, ErrorKind::OutOfMemory, ErrorKind::Internal] {
        let output = Output::new();
        let lost = Ok(vec![Err(Error::new(kind, "the device is lost"))]);
        let engine = ScriptedEngine::new(vec![answer("zero"), lost, answer("two")]);
        let error = output
            .generate(&engine, prompts(&["a", "b", "c"]), 1, &CancelToken::new(), &mut |_| ())
            .unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(error.to_line(), "the run ended at instance b: the device is lost");
        assert_eq!(output.ids(), ["a"]);
    }
}

#[test]
fn no_more_requests_are_submitted_than_allowed_and_in_order() {
    let output = Output::new();
    let answers = (0..7).map(|index| late_answer(7 - index, "x")).collect();
    let engine = ScriptedEngine::new(answers);
    let ids = ["a", "b", "c", "d", "e", "f", "g"];
    output.generate(&engine, prompts(&ids), 3, &CancelToken::new(), &mut |_| ()).unwrap();
    assert_eq!(*engine.submitted.borrow(), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!((*engine.most_open.borrow(), *engine.open.borrow()), (3, 0));
    let mut written = output.ids();
    assert_eq!(written[..3], ["c", "b", "a"], "written as they finish");
    written.sort();
    assert_eq!(written, ids);
}

#[test]
fn progress_counts_running_and_finished_tokens() {
    let output = Output::new();
    let engine = ScriptedEngine::new(vec![answer("x"), late_answer(2, "y")]);
    let mut progress = Vec::new();
    output
        .generate(&engine, prompts(&["a", "b"]), 1, &CancelToken::new(), &mut |event| {
            if let RunEvent::Progress { prompt_tokens, completion_tokens, running } = event {
                progress.push((prompt_tokens, completion_tokens, running));
            }
        })
        .unwrap();
    assert_eq!(progress, [(5, 3, 0), (5, 3, 1), (5, 3, 1)]);
}

#[test]
fn cancelling_writes_what_has_finished_and_nothing_else() {
    let ids = ["a", "b", "c", "d"];
    // Cancelled when the n-th event comes; each time the next run finishes the rest.
    for cancel_at in 0..6 {
        let output = Output::new();
        let answers = || (0..4).map(|index| late_answer(2 * index, "x")).collect();
        let engine = ScriptedEngine::new(answers());
        let cancel = CancelToken::new();
        if cancel_at == 0 {
            cancel.cancel();
        }
        let mut events = 0;
        let tally = output
            .generate(&engine, prompts(&ids), 2, &cancel, &mut |_| {
                events += 1;
                if events == cancel_at {
                    cancel.cancel();
                }
            })
            .unwrap();
        assert!(tally.interrupted, "cancelled at {cancel_at}");
        assert_eq!(*engine.open.borrow(), 0, "running requests are cancelled by dropping them");
        let first = output.ids();
        assert_eq!(first.len(), tally.finished);
        assert!(first.len() < ids.len());

        let rest: Vec<_> =
            prompts(&ids).into_iter().filter(|prompt| !first.contains(&prompt.instance_id)).collect();
        let engine = ScriptedEngine::new(answers());
        let tally = output.generate(&engine, rest, 2, &CancelToken::new(), &mut |_| ()).unwrap();
        assert!(!tally.interrupted);
        let mut all = output.ids();
        all.sort();
        assert_eq!(all, ids);
    }
}

#[test]
fn a_run_that_is_done_when_it_is_cancelled_is_not_interrupted() {
    let output = Output::new();
    let engine = ScriptedEngine::new(vec![answer("x")]);
    let cancel = CancelToken::new();
    let tally = output.generate(&engine, prompts(&["a"]), 1, &cancel, &mut |_| cancel.cancel()).unwrap();
    assert_eq!((tally.finished, tally.interrupted), (1, false));
}

#[test]
fn a_request_that_the_engine_cancels_is_no_prediction() {
    let output = Output::new();
    let engine = ScriptedEngine::new(vec![Ok(vec![Ok(completion("half", FinishReason::Cancelled))])]);
    let error = output.generate(&engine, prompts(&["a"]), 1, &CancelToken::new(), &mut |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert_eq!(output.records(), []);
}

#[test]
fn only_files_of_the_same_run_count_as_finished_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| fs::write(dir.path().join(name), content).unwrap();
    write(
        "s__shard-0-2.jsonl",
        "{\"instance_id\": \"a\"}\n{\"instance_id\": \"b\", \"error\": \"x\"}\n{\"inst",
    );
    write("s__max-9.jsonl", "{\"instance_id\": \"c\"}\n");
    write("s5.jsonl", "{\"instance_id\": \"d\"}\n");
    write("s.jsonl.torn", "{\"instance_id\": \"e\"}\n");
    write("s__shard-1-2.jsonl", "{\"instance_id\": \"f\"}\n");
    fs::create_dir(dir.path().join("s__min-3.jsonl")).unwrap();
    let mut warnings = Vec::new();
    let own = dir.path().join("s__shard-1-2.jsonl");
    let finished = finished_in_other_files(&own, "s", &mut |event| warnings.push(event)).unwrap();
    assert_eq!(finished, HashSet::from(["a".to_owned(), "c".to_owned()]));
    assert!(matches!(&warnings[..], [RunEvent::Warning { message }] if message.contains("s__min-3.jsonl")));
}

#[test]
fn what_names_no_model_is_refused_before_anything_is_written() {
    let output = Output::new();
    let config = RunLlamaConfig {
        model_name_or_path: "/nowhere/model".into(),
        dataset_path: "d".into(),
        output_dir: output.path.with_file_name("outputs"),
        ..RunLlamaConfig::default()
    };
    let error = run(&config, &CancelToken::new(), &mut |_| ()).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::NotFound, Some(Path::new("/nowhere/model"))));
    assert!(!config.output_dir.exists());
}

#[test]
fn swe_llama_is_recognised_by_its_name() {
    #[track_caller]
    fn check(model: &str, adapter: Option<&str>, expected: bool) {
        let config = RunLlamaConfig {
            model_name_or_path: model.into(),
            peft_path: adapter.map(str::to_owned),
            ..RunLlamaConfig::default()
        };
        assert_eq!(ends_in_newlines(&config), expected);
    }
    check("princeton-nlp/SWE-Llama-7b", None, true);
    check("/models/swe-llama-13b", None, true);
    check("codellama/CodeLlama-7b-hf", Some("princeton-nlp/SWE-Llama-7b-peft"), true);
    check("codellama/CodeLlama-7b-hf", None, false);
}
