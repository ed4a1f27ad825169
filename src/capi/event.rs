//! Events: what a job reports. Immutable; owned by whoever fetched them.

use serde_json::Value;

use super::boundary::{enter_infallible, free};
use super::text::Str;

/// New text of a generation: text, token ids and the sample's index.
pub const SWEBENCH_EVENT_TEXT: i32 = 1;
/// How far the work has come (JSON). Those that are not fetched in time are replaced by newer ones.
pub const SWEBENCH_EVENT_PROGRESS: i32 = 2;
/// One sample of a generation is finished: its whole text and token ids, its index, and JSON with the reason and counts.
pub const SWEBENCH_EVENT_SAMPLE: i32 = 3;
/// A run knows its work: the output file and how many instances there are, done before, and left out (JSON).
pub const SWEBENCH_EVENT_STARTED: i32 = 4;
/// One instance of a run has its line in the predictions file (JSON).
pub const SWEBENCH_EVENT_INSTANCE: i32 = 5;
/// One row of a benchmark is measured (JSON).
pub const SWEBENCH_EVENT_ROW: i32 = 6;
/// Something that the user should know and that does not stop the work (JSON with `message`).
pub const SWEBENCH_EVENT_WARNING: i32 = 7;
/// The last event: the job's result (JSON).
pub const SWEBENCH_EVENT_FINISHED: i32 = 8;
/// One instance of a dry run is counted and priced (JSON).
pub const SWEBENCH_EVENT_PLANNED: i32 = 9;

/// One report of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub(super) kind: i32,
    pub(super) index: u32,
    pub(super) text: String,
    pub(super) token_ids: Vec<u32>,
    pub(super) json: String,
}

impl Event {
    /// New text of sample `index`.
    pub(super) fn text(index: u32, text: String, token_ids: Vec<u32>) -> Self {
        Self { kind: SWEBENCH_EVENT_TEXT, index, text, token_ids, json: String::new() }
    }

    /// An event with nothing but JSON.
    pub(super) fn json(kind: i32, json: &Value) -> Self {
        Self { kind, index: 0, text: String::new(), token_ids: Vec::new(), json: json.to_string() }
    }
}

/// The kind, SWEBENCH_EVENT_*; 0 for NULL. Kinds that a program does not know are to be skipped: later versions add some.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_event_kind(event: *const Event) -> i32 {
    // SAFETY: NULL or a live event, by contract.
    enter_infallible(0, || unsafe { event.as_ref() }.map_or(0, |event| event.kind))
}

/// The number of the sample that the event is about, from 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_event_index(event: *const Event) -> u32 {
    // SAFETY: NULL or a live event, by contract.
    enter_infallible(0, || unsafe { event.as_ref() }.map_or(0, |event| event.index))
}

/// The text, never half a character; borrowed from the event, empty when the kind has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_event_text(event: *const Event) -> Str {
    enter_infallible(Str::EMPTY, || {
        // SAFETY: NULL or a live event, by contract.
        unsafe { event.as_ref() }.map_or(Str::EMPTY, |event| Str::new(&event.text))
    })
}

/// The token ids; borrowed from the event. Writes their number to `len` unless that is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_event_token_ids(event: *const Event, len: *mut usize) -> *const u32 {
    enter_infallible(std::ptr::null(), || {
        // SAFETY: NULL or a live event, by contract.
        let ids = unsafe { event.as_ref() }.map_or(&[][..], |event| &event.token_ids[..]);
        // SAFETY: NULL or writable, by contract.
        if let Some(len) = unsafe { len.as_mut() } {
            *len = ids.len();
        }
        ids.as_ptr()
    })
}

/// The details as a JSON object; borrowed from the event, empty when the kind has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_event_json(event: *const Event) -> Str {
    enter_infallible(Str::EMPTY, || {
        // SAFETY: NULL or a live event, by contract.
        unsafe { event.as_ref() }.map_or(Str::EMPTY, |event| Str::new(&event.json))
    })
}

/// Frees an event; NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_event_free(event: *mut Event) {
    // SAFETY: NULL or an event that the caller owns, by contract.
    unsafe { free(event) }
}
