//! Requests from threads that are not asynchronous: they wait, and stop waiting when their work is cancelled.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};

/// How often a thread that waits for a server looks whether its work was cancelled.
const CANCEL_INTERVAL: Duration = Duration::from_millis(20);

/// The longest wait for the thread's end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Runs a client's futures; any number of threads may wait at once.
pub struct Driver(Option<Runtime>);

impl Driver {
    /// Starts its thread, which keeps connections alive between requests.
    ///
    /// # Errors
    /// `Io` when the system gives no thread.
    pub fn start() -> Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("swebench-client").enable_all().build();
        runtime.map(|runtime| Self(Some(runtime))).map_err(|source| {
            Error::new(ErrorKind::Io, "the system gave no thread for requests").with_source(source)
        })
    }

    /// Waits for `future` on this thread.
    ///
    /// # Errors
    /// `Cancelled` once `cancel` is raised; the future is dropped then.
    pub fn wait<T>(&self, cancel: &CancelToken, future: impl Future<Output = T>) -> Result<T> {
        let cancelled = async {
            while !cancel.is_cancelled() {
                tokio::time::sleep(CANCEL_INTERVAL).await;
            }
        };
        let either = async {
            tokio::select! {
                biased;
                () = cancelled => Err(Error::new(ErrorKind::Cancelled, "cancelled")),
                result = future => Ok(result),
            }
        };
        match &self.0 {
            Some(runtime) => runtime.block_on(either),
            None => Err(Error::internal("the driver has stopped")),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The library may be unloaded next, so that its thread is waited for, unless the system's resolver holds it up.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(FAREWELL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_the_future_or_with_the_cancel() {
        let (driver, cancel) = (Driver::start().unwrap(), CancelToken::new());
        assert_eq!(driver.wait(&cancel, async { 7 }).unwrap(), 7);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| driver.wait(&cancel, std::future::pending::<()>()));
            cancel.cancel();
            assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
        });
    }
}
