//! Ctrl-C and SIGTERM: the first asks the job to stop and keeps what is finished, the second ends the program at once.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit::{Exit, Failure};
use crate::swebench::JobHandle;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Lets Ctrl-C, SIGTERM and SIGHUP cancel `job`.
pub(crate) fn cancels(job: JobHandle) -> Result<(), Failure> {
    ctrlc::set_handler(move || {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            leave_at_once();
        }
        job.cancel();
    })
    .map_err(|error| Failure::new(format!("cannot handle Ctrl-C: {error}")))
}

/// Whether the user has interrupted the program.
pub(crate) fn happened() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

#[expect(clippy::exit, reason = "the user insists, and the predictions file survives a kill at any point")]
fn leave_at_once() -> ! {
    std::process::exit(i32::from(Exit::Interrupted.code()))
}
