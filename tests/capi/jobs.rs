//! Jobs with the demo model: streaming, samples, cancelling, threads, log lines, shutdown.

use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use serde_json::Value;

use super::repository;
use super::swebench::sys::*;
use super::swebench::{Job, Level, Model, init, set_logger, shutdown};

/// The demo model, loaded once, with what was logged meanwhile.
fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| {
        init().unwrap();
        set_logger(Level::Trace, |level, target, message| {
            LOG.lock().unwrap().push((level, target.to_owned(), message.to_owned()));
        })
        .unwrap();
        let path = repository("tests/data/demo");
        Model::load(&format!(r#"{{"path": {path:?}, "threads": 2}}"#)).unwrap()
    })
}

static LOG: Mutex<Vec<(Level, String, String)>> = Mutex::new(Vec::new());

/// One sample as its events told it: text, ids, and the JSON of its end.
#[derive(Debug, Default, Clone, PartialEq)]
struct Sample {
    text: String,
    ids: Vec<u32>,
    end: Value,
}

/// Collects a generation's events into its samples, and checks that the result repeats them.
fn collect(job: Job) -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::new();
    let mut result = Value::Null;
    for event in job {
        let event = event.unwrap();
        let index = event.index() as usize;
        samples.resize(samples.len().max(index + 1), Sample::default());
        match event.kind() {
            SWEBENCH_EVENT_TEXT => {
                samples[index].text.push_str(event.text());
                samples[index].ids.extend(event.token_ids());
            }
            SWEBENCH_EVENT_SAMPLE => {
                assert_eq!(event.text(), samples[index].text);
                assert_eq!(event.token_ids(), samples[index].ids);
                samples[index].end = serde_json::from_str(event.json()).unwrap();
            }
            SWEBENCH_EVENT_FINISHED => result = serde_json::from_str(event.json()).unwrap(),
            _ => {}
        }
    }
    let ends: Vec<_> = samples.iter().map(|sample| sample.end.clone()).collect();
    assert_eq!(result["samples"], Value::from(ends));
    samples
}

#[test]
fn the_text_streams_and_the_result_repeats_it() {
    let samples =
        collect(model().generate(r#"{"prompt": "Fix the parser.", "max_new_tokens": 12}"#).unwrap());
    assert_eq!(samples.len(), 1);
    assert_eq!(samples[0].end["text"], samples[0].text.as_str());
    assert_eq!(samples[0].end["usage"]["completion_tokens"], 12);

    // The same prompt as token ids gives the same text.
    let ids = model().tokenizer().unwrap().encode("Fix the parser.", true).unwrap();
    let again = collect(model().generate_from_ids(&ids, r#"{"max_new_tokens": 12}"#).unwrap());
    assert_eq!(again[0].text, samples[0].text);
}

#[test]
fn a_prompt_that_begins_like_an_earlier_one_is_not_computed_again() {
    let request = format!(r#"{{"prompt": "{}", "max_new_tokens": 1}}"#, "def parse(self): ".repeat(40));
    let [first, second] =
        [0, 1].map(|_| collect(model().generate(&request).unwrap())[0].end["usage"].clone());
    assert_eq!(first["cached_tokens"], 0);
    let (prompt, cached) =
        (second["prompt_tokens"].as_u64().unwrap(), second["cached_tokens"].as_u64().unwrap());
    assert!(cached > prompt / 2 && cached < prompt, "{cached} of {prompt}");
}

#[test]
fn samples_are_told_apart_and_repeat_with_their_seed() {
    let request =
        r#"{"prompt": "def", "n": 3, "temperature": 1.5, "seed": 5, "max_new_tokens": 10, "logprobs": 2}"#;
    let first = collect(model().generate(request).unwrap());
    assert_eq!(first.len(), 3);
    assert_ne!(first[0].ids, first[1].ids);
    let second = collect(model().generate(request).unwrap());
    for (a, b) in first.iter().zip(&second) {
        assert_eq!((&a.text, &a.ids), (&b.text, &b.ids));
        let logprobs = a.end["logprobs"].as_array().unwrap();
        assert_eq!(logprobs.len(), a.ids.len());
        assert_eq!(logprobs[0]["top"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn a_job_is_cancelled_from_another_thread_and_reports_what_it_has() {
    let request = r#"{"prompt": "def", "n": 2, "max_new_tokens": 4000, "eos_token_ids": []}"#;
    let mut job = model().generate(request).unwrap();
    let handle = job.handle();
    let first = job.next().unwrap().unwrap();
    std::thread::spawn(move || handle.cancel()).join().unwrap();
    drop(first);
    let mut reasons = Vec::new();
    for event in &mut job {
        let event = event.unwrap();
        if event.kind() == SWEBENCH_EVENT_SAMPLE {
            let end: Value = serde_json::from_str(event.json()).unwrap();
            reasons.push(end["finish_reason"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(reasons, ["cancelled", "cancelled"]);
    assert!(job.next().is_none());
}

#[test]
fn jobs_of_several_threads_share_one_model() {
    let request = |n: usize| format!(r#"{{"prompt": "def f{n}():", "max_new_tokens": 8}}"#);
    let alone: Vec<_> =
        (0..4).map(|n| collect(model().generate(&request(n)).unwrap())[0].ids.clone()).collect();
    std::thread::scope(|scope| {
        for (n, alone) in alone.iter().enumerate() {
            let request = request(n);
            scope.spawn(move || assert_eq!(&collect(model().generate(&request).unwrap())[0].ids, alone));
        }
    });
}

#[test]
fn a_wrong_request_is_refused_at_the_start() {
    for (request, ids, message) in [
        ("{}", &[][..], "neither a `prompt` nor token ids"),
        (r#"{"prompt": "a"}"#, &[1][..], "exclude each other"),
        ("{}", &[4_000_000_000][..], ""),
        (r#"{"prompt": "a", "max_tokens": 3}"#, &[][..], "unknown key `max_tokens`"),
    ] {
        let job = match ids {
            [] => model().generate(request),
            ids => model().generate_from_ids(ids, request),
        };
        let error = job.err().unwrap();
        assert_eq!(error.code(), SWEBENCH_ERROR_INVALID_ARGUMENT, "{request}");
        assert!(error.to_string().contains(message), "{request}: {error}");
    }
}

#[test]
fn a_failed_run_gives_its_reason_once() {
    init().unwrap();
    let mut job =
        Job::run_llama(r#"{"model_name_or_path": "/nowhere/m", "dataset_path": "/nowhere/d"}"#).unwrap();
    let error = job.by_ref().find_map(Result::err).unwrap();
    assert_eq!(error.code(), SWEBENCH_ERROR_NOT_FOUND, "{error}");
    assert!(job.next().is_none());
}

#[test]
fn log_lines_are_the_librarys_own() {
    model();
    let log = LOG.lock().unwrap();
    assert!(
        log.iter().any(|(level, _, message)| *level == Level::Info && message.starts_with("loaded ")),
        "{log:?}"
    );
    for (_, target, _) in log.iter() {
        assert!(target.starts_with("swebench_infer"), "{target}");
    }
}

/// A job's pointer, for the wrong use of it that the safe wrapper prevents.
#[derive(Clone, Copy)]
struct Shared(*mut swebench_job);
// SAFETY: the library answers BUSY to the second thread, which is what the test is about.
unsafe impl Send for Shared {}

/// Fetches an event and frees it.
fn next(job: Shared, timeout_ms: i64) -> i32 {
    let mut event = std::ptr::null_mut();
    // SAFETY: the job lives during the call; an event that was given is freed once.
    unsafe {
        let status = swebench_job_next(job.0, timeout_ms, &raw mut event, std::ptr::null_mut());
        if status == SWEBENCH_OK {
            swebench_event_free(event);
        }
        status
    }
}

#[test]
fn the_second_thread_in_a_job_is_told_that_it_is_busy() {
    let path = repository("tests/data/demo");
    let config = format!(r#"{{"path": {path:?}, "threads": 1}}"#);
    let request = r#"{"prompt": "def", "max_new_tokens": 4000, "eos_token_ids": []}"#;
    let text = |text: &str| swebench_str { ptr: text.as_ptr().cast(), len: text.len() };
    let (mut model, mut job) = (std::ptr::null_mut(), std::ptr::null_mut());
    let none = std::ptr::null_mut();
    // SAFETY: texts and outputs live during the calls.
    unsafe {
        assert_eq!(swebench_model_load(text(&config), &raw mut model, none), SWEBENCH_OK);
        let status = swebench_generate_start(model, text(request), std::ptr::null(), 0, &raw mut job, none);
        assert_eq!(status, SWEBENCH_OK);
    }
    let job = Shared(job);
    let first = std::thread::spawn(move || {
        let job = job;
        while next(job, -1) != SWEBENCH_END {}
    });
    // The first thread spends its time waiting for events, so this one soon finds it inside.
    let busy = std::iter::repeat_with(|| next(job, 0))
        .find(|status| [SWEBENCH_ERROR_BUSY, SWEBENCH_END].contains(status));
    assert_eq!(busy, Some(SWEBENCH_ERROR_BUSY));
    // SAFETY: the job is freed after its other user has ended, the model last; each once.
    unsafe {
        swebench_job_cancel(job.0);
        first.join().unwrap();
        swebench_job_free(job.0);
        swebench_model_free(model);
    }
}

/// In a process of its own: other tests start jobs, too.
#[test]
fn after_a_shutdown_jobs_are_refused_until_the_next_greeting() {
    const VARIABLE: &str = "SWEBENCH_TEST_SHUTDOWN";
    if std::env::var_os(VARIABLE).is_none() {
        let name = "jobs::after_a_shutdown_jobs_are_refused_until_the_next_greeting";
        let test = std::env::current_exe().unwrap();
        super::run(std::process::Command::new(test).args(["--exact", name]).env(VARIABLE, "1"));
        return;
    }
    let request = r#"{"prompt": "def", "max_new_tokens": 4000, "eos_token_ids": []}"#;
    let job = model().generate(request).unwrap();
    assert!(shutdown(Duration::from_secs(60)).unwrap());
    let last = job.map(Result::unwrap).last().unwrap();
    assert_eq!(last.kind(), SWEBENCH_EVENT_FINISHED);
    assert_eq!(model().generate(request).err().unwrap().code(), SWEBENCH_ERROR_BUSY);
    init().unwrap();
    assert_eq!(collect(model().generate(r#"{"prompt": "a", "max_new_tokens": 1}"#).unwrap()).len(), 1);
}
