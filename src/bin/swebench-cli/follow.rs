//! Following a job: its events until the result.

use serde_json::Value;

use crate::exit::Failure;
use crate::interrupt;
use crate::swebench::{Job, sys};

/// Hands every event to `on_event` (kind and JSON) and returns the result, JSON too. Ctrl-C cancels the job.
pub(crate) fn follow(
    job: Job,
    mut on_event: impl FnMut(i32, &Value) -> Result<(), Failure>,
) -> Result<Value, Failure> {
    interrupt::cancels(job.handle())?;
    for event in job {
        let event = event?;
        let value: Value = serde_json::from_str(event.json())
            .map_err(|error| Failure::new(format!("the library sent an event that is no JSON: {error}")))?;
        if event.kind() == sys::SWEBENCH_EVENT_FINISHED {
            return Ok(value);
        }
        on_event(event.kind(), &value)?;
    }
    Err(Failure::new("the job ended without a result"))
}
