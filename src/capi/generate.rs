//! Generation: text from a prompt, streamed as it is made.

use std::ffi::c_void;
use std::time::Duration;

use serde_json::{Value, json};

use super::boundary::{OK, Out, borrow, enter, guard, slice};
use super::buf::Buf;
use super::config::{GenerateConfig, parse};
use super::error::ErrorObject;
use super::event::{
    Event, SWEBENCH_EVENT_FINISHED, SWEBENCH_EVENT_PROGRESS, SWEBENCH_EVENT_SAMPLE, SWEBENCH_EVENT_TEXT,
};
use super::job::{Job, Reporter};
use super::model::Model;
use super::queue::Popped;
use super::text::Str;
use crate::engine::{self, Completion, Generation};
use crate::error::{Error, Result};

/// How often a sample's thread looks whether its job was cancelled while the model is busy.
const CANCEL_INTERVAL: Duration = Duration::from_millis(20);

/// Receives new text of sample `index`, borrowed for the call; a return value other than 0 stops the generation.
pub type TextCallback = Option<unsafe extern "C" fn(text: Str, index: u32, user: *mut c_void) -> i32>;

/// Starts a generation and returns at once; fetch its events with swebench_job_next().
///
/// `request_json` is a request of kind "generate". The prompt is either its `prompt` or the `num_token_ids` ids at
/// `token_ids`, which are used as they are; pass NULL and 0 for the former. Events: TEXT while it runs, PROGRESS during
/// the prompt, SAMPLE at the end of each of `n` samples, and FINISHED with `{"samples": [...]}`. A sample is
/// `{index, text, finish_reason, usage, logprobs}`; reasons are "stop", "length", "repetition", "cancelled"; usage counts
/// tokens and milliseconds. Free `out` with swebench_job_free(); the model may be freed before it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_generate_start(
    model: *const Model,
    request_json: Str,
    token_ids: *const u32,
    num_token_ids: usize,
    out: *mut *mut Job,
    error: *mut *mut ErrorObject,
) -> i32 {
    enter(error, || {
        // SAFETY: model, text, array and output are NULL or valid, by contract.
        let (model, request, ids, out) = unsafe {
            (
                borrow(model, "model")?,
                request_json.get("request_json")?,
                slice(token_ids, num_token_ids, "token_ids")?,
                Out::new(out, "out")?,
            )
        };
        out.write_boxed(start(model, request, ids)?);
        OK
    })
}

/// Generates and returns when it is done: swebench_generate_start() without a job to hold.
///
/// `on_text` may be NULL; it is called on this thread only. `out` receives the JSON of the event FINISHED; free it with
/// swebench_buf_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_generate(
    model: *const Model,
    request_json: Str,
    token_ids: *const u32,
    num_token_ids: usize,
    on_text: TextCallback,
    user: *mut c_void,
    out: *mut Buf,
    error: *mut *mut ErrorObject,
) -> i32 {
    enter(error, || {
        // SAFETY: model, text, array and output are NULL or valid, by contract.
        let (model, request, ids, out) = unsafe {
            (
                borrow(model, "model")?,
                request_json.get("request_json")?,
                slice(token_ids, num_token_ids, "token_ids")?,
                Out::new(out, "out")?,
            )
        };
        let job = start(model, request, ids)?;
        // SAFETY: the caller's function and data, by contract.
        out.write(unsafe { result(&job, on_text, user)? });
        OK
    })
}

/// Follows a job on the caller's thread to its result.
///
/// # Safety
/// `on_text` may be called with `user` during the call.
pub(super) unsafe fn result(job: &Job, on_text: TextCallback, user: *mut c_void) -> Result<Buf> {
    while let Popped::Event(event) = job.next(None)? {
        if event.kind == SWEBENCH_EVENT_FINISHED {
            return Ok(Buf::new(event.json));
        }
        let Some(on_text) = on_text.filter(|_| event.kind == SWEBENCH_EVENT_TEXT) else { continue };
        // SAFETY: the caller's function, on the caller's thread, with the caller's data.
        if unsafe { on_text(Str::new(&event.text), event.index, user) } != 0 {
            job.cancel();
        }
    }
    Err(Error::internal("the job ended without a result"))
}

fn start(model: &Model, request_json: &str, token_ids: &[u32]) -> Result<Job> {
    let config: GenerateConfig = parse(request_json)?;
    let loaded = model.loaded();
    let tokenizer = loaded.engine.tokenizer();
    let encoded = match (&config.prompt, token_ids) {
        (Some(prompt), []) => tokenizer.encode(prompt, config.add_special_tokens)?,
        (None, [_, ..]) => token_ids.to_vec(),
        (Some(_), _) => return Err(Error::invalid_argument("`prompt` and token ids exclude each other")),
        (None, []) => return Err(Error::invalid_argument("there is neither a `prompt` nor token ids")),
    };
    // Submitting here gives the caller what is wrong with the request at once, not as an event.
    let generations = config
        .requests(&encoded, &tokenizer.special_tokens().eos)
        .into_iter()
        .map(|request| loaded.engine.submit(request))
        .collect::<Result<Vec<_>>>()?;
    Job::start(move |reporter| {
        // The engine runs until the last of its jobs has ended, freed model or not.
        let _loaded = loaded;
        follow_all(generations, reporter)
    })
}

/// Follows the samples, each on a thread of its own but the first, and returns the result of all.
fn follow_all(generations: Vec<Generation>, reporter: Reporter<'_>) -> Result<Value> {
    let mut generations = (0u32..).zip(generations);
    let first = generations.next();
    let samples = std::thread::scope(|scope| {
        let others: Vec<_> = generations
            .map(|(index, generation)| scope.spawn(move || guard(|| follow(index, generation, reporter))))
            .collect();
        let first = first.map(|(index, generation)| follow(index, generation, reporter));
        if matches!(first, Some(Err(_))) {
            reporter.cancel.cancel();
        }
        let lost = || Err(Error::internal("a sample's thread was lost"));
        let others = others.into_iter().map(|thread| thread.join().unwrap_or_else(|_| lost()));
        first.into_iter().chain(others).collect::<Result<Vec<_>>>()
    })?;
    Ok(json!({ "samples": samples }))
}

/// Reports one sample's events until its end and returns its JSON.
fn follow(index: u32, mut generation: Generation, reporter: Reporter<'_>) -> Result<Value> {
    let mut cancelled = false;
    loop {
        if !cancelled && reporter.cancel.is_cancelled() {
            generation.cancel();
            cancelled = true;
        }
        match generation.next(Some(CANCEL_INTERVAL))? {
            None => {}
            Some(engine::Event::Prefill { done, total }) => {
                let progress = json!({"stage": "prefill", "index": index, "done": done, "total": total});
                reporter.report(Event { index, ..Event::json(SWEBENCH_EVENT_PROGRESS, &progress) });
            }
            Some(engine::Event::Delta { text, token_ids }) => {
                reporter.report(Event::text(index, text, token_ids));
            }
            Some(engine::Event::Finished(completion)) => {
                let sample = describe(index, &completion);
                reporter.report(Event {
                    kind: SWEBENCH_EVENT_SAMPLE,
                    index,
                    json: sample.to_string(),
                    text: completion.text,
                    token_ids: completion.token_ids,
                });
                return Ok(sample);
            }
        }
    }
}

fn describe(index: u32, completion: &Completion) -> Value {
    let usage = &completion.usage;
    let logprobs = completion.logprobs.iter().map(|token| {
        let top: Vec<_> =
            token.top.iter().map(|(id, logprob)| json!({"token_id": id, "logprob": logprob})).collect();
        json!({"token_id": token.token_id, "logprob": token.logprob, "top": top})
    });
    json!({
        "index": index,
        "text": completion.text,
        "finish_reason": completion.finish_reason.name(),
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "completion_tokens": usage.completion_tokens,
            "queue_ms": usage.queue_ms,
            "prefill_ms": usage.prefill_ms,
            "decode_ms": usage.decode_ms,
        },
        "logprobs": logprobs.collect::<Vec<_>>(),
    })
}
