//! Jobs: work on threads of the library, reported as events that the caller pulls.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::boundary::{OK, Out, borrow, enter, enter_infallible, free, guard};
use super::error::ErrorObject;
use super::event::{Event, SWEBENCH_EVENT_FINISHED};
use super::handle::Exclusive;
use super::queue::{Popped, Queue};
use super::status;
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};

/// Work in progress. Its events are fetched by one thread at a time; any thread may cancel it.
pub struct Job {
    shared: Arc<Shared>,
    consumer: Exclusive<()>,
}

/// What a job's thread, its handle and the shutdown share.
struct Shared {
    queue: Queue,
    cancel: CancelToken,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Jobs whose handles are not freed yet, for the shutdown.
static JOBS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Where a job's thread reports to.
#[derive(Clone, Copy)]
pub(super) struct Reporter<'a> {
    queue: &'a Queue,
    /// Raised when the caller does not want the work any more.
    pub(super) cancel: &'a CancelToken,
}

impl Reporter<'_> {
    /// Queues an event for the caller.
    pub(super) fn report(&self, event: Event) {
        self.queue.push(event);
    }
}

impl Job {
    /// Starts `work` on a thread of its own; what it returns becomes the event FINISHED.
    ///
    /// # Errors
    /// `Busy` after a shutdown, `Io` when the system gives no thread.
    pub(super) fn start(work: impl FnOnce(Reporter<'_>) -> Result<Value> + Send + 'static) -> Result<Self> {
        let shared = Arc::new(Shared {
            queue: Queue::default(),
            cancel: CancelToken::new(),
            thread: Mutex::new(None),
        });
        // Holding the list until the job is in it makes a shutdown either refuse the job or see it.
        let mut jobs = JOBS.lock().unwrap_or_else(PoisonError::into_inner);
        if CLOSED.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Busy, "the library was shut down")
                .with_hint("call swebench_init() to use it again"));
        }
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("swebench-job".into())
            .spawn(move || {
                let reporter = Reporter { queue: &worker.queue, cancel: &worker.cancel };
                let outcome = guard(|| work(reporter));
                let outcome =
                    outcome.map(|result| reporter.report(Event::json(SWEBENCH_EVENT_FINISHED, &result)));
                worker.queue.close(outcome);
            })
            .map_err(|source| {
                Error::new(ErrorKind::Io, "the system gave no thread for the job").with_source(source)
            })?;
        *shared.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        jobs.retain(|job| job.strong_count() > 0);
        jobs.push(Arc::downgrade(&shared));
        drop(jobs);
        Ok(Self { shared, consumer: Exclusive::new(()) })
    }

    /// Asks the work to stop.
    pub(super) fn cancel(&self) {
        self.shared.cancel.cancel();
    }

    /// The next event.
    pub(super) fn next(&self, timeout: Option<Duration>) -> Result<Popped> {
        let _exclusive = self.consumer.enter("the job")?;
        self.shared.queue.pop(timeout)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.cancel();
        self.shared.join();
    }
}

impl Shared {
    fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The thread's panics were caught and reported inside of it.
            let _ = thread.join();
        }
    }
}

/// Allows jobs again after a shutdown.
pub(super) fn open() {
    CLOSED.store(false, Ordering::Release);
}

/// Refuses new jobs, cancels the others, and joins their threads; `false` when the deadline passed first.
pub(super) fn close(deadline: Instant) -> bool {
    let jobs: Vec<Arc<Shared>> = {
        let jobs = JOBS.lock().unwrap_or_else(PoisonError::into_inner);
        CLOSED.store(true, Ordering::Release);
        jobs.iter().filter_map(Weak::upgrade).collect()
    };
    jobs.iter().for_each(|job| job.cancel.cancel());
    let finished = jobs.iter().all(|job| job.queue.wait_closed(deadline));
    if finished {
        jobs.iter().for_each(|job| job.join());
    }
    finished
}

/// Waits for the job's next event, for `timeout_ms` milliseconds; 0 does not wait, a negative number waits for ever.
///
/// SWEBENCH_OK: `out` is the event; free it with swebench_event_free(). SWEBENCH_WOULD_BLOCK: none came in time.
/// SWEBENCH_END: all were fetched. A negative status is why the job failed; it is returned once, after the events that
/// came before it, and SWEBENCH_END from then on. SWEBENCH_ERROR_BUSY: another thread is in this function.
///
/// Text that is not fetched in time is joined, so that the queue stays short; samples and instances are never lost.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_job_next(
    job: *mut Job,
    timeout_ms: i64,
    out: *mut *mut Event,
    error: *mut *mut ErrorObject,
) -> i32 {
    enter(error, || {
        // SAFETY: job and output are NULL or valid, by contract. The reference is shared: a second thread gets BUSY.
        let (job, out) = unsafe { (borrow(job.cast_const(), "job")?, Out::new(out, "out")?) };
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        match job.next(timeout)? {
            Popped::Event(event) => {
                out.write_boxed(event);
                OK
            }
            Popped::Pending => Ok(status::SWEBENCH_WOULD_BLOCK),
            Popped::End => Ok(status::SWEBENCH_END),
        }
    })
}

/// Asks the job to stop, from any thread; returns at once. NULL is ignored.
///
/// The job stops between two steps of the model and still reports what it has: a generation its text so far with the
/// reason "cancelled", a run the predictions that are on disk.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_job_cancel(job: *const Job) {
    enter_infallible((), || {
        // SAFETY: NULL or a live job, by contract.
        if let Some(job) = unsafe { job.as_ref() } {
            job.cancel();
        }
    });
}

/// Cancels the job, waits for its threads, and frees it; NULL is ignored. No other thread may use the job any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_job_free(job: *mut Job) {
    // SAFETY: NULL or a job that the caller owns, by contract.
    unsafe { free(job) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_result_is_the_last_event() {
        let job = Job::start(|reporter| {
            reporter.report(Event::text(0, "a".into(), vec![1]));
            Ok(json!({"done": true}))
        })
        .unwrap();
        let mut kinds = Vec::new();
        while let Popped::Event(event) = job.next(None).unwrap() {
            kinds.push(event.kind);
        }
        assert_eq!(kinds, [super::super::event::SWEBENCH_EVENT_TEXT, SWEBENCH_EVENT_FINISHED]);
    }

    #[test]
    fn a_panic_in_the_thread_is_the_jobs_failure() {
        let job = Job::start(|_| panic!("lost")).unwrap();
        let error = job.next(None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.message().contains("lost"));
        assert!(matches!(job.next(None).unwrap(), Popped::End));
    }

    #[test]
    fn freeing_cancels_and_joins() {
        let (ended, end) = std::sync::mpsc::channel();
        let job = Job::start(move |reporter| {
            while !reporter.cancel.is_cancelled() {
                std::thread::yield_now();
            }
            ended.send(()).map_err(|_| Error::internal("nobody waits"))?;
            reporter.cancel.check().map(|()| json!({}))
        })
        .unwrap();
        drop(job);
        assert_eq!(end.try_recv(), Ok(()));
    }
}
