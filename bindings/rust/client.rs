//! Clients of services.

use super::sys::{self, swebench_client};
use super::{Job, Result, call_for_object, lend};

/// A service; any number of threads may ask it at once.
pub struct Client(*mut swebench_client);

// SAFETY: a client may be used and freed on any thread.
unsafe impl Send for Client {}
// SAFETY: every method takes `const swebench_client *`, which threads may share.
unsafe impl Sync for Client {}

impl Client {
    /// Prepares requests from a configuration of kind `client`; an empty `key` is where the configuration says.
    pub fn open(config_json: &str, key: &str) -> Result<Self> {
        // SAFETY: texts and outputs live during the call.
        call_for_object(|out, error| unsafe {
            sys::swebench_client_open(lend(config_json), lend(key), out, error)
        })
        .map(Self)
    }

    /// Starts a request of kind `completion`.
    pub fn complete(&self, request_json: &str) -> Result<Job> {
        // SAFETY: the client is alive; text and outputs live during the call.
        Job::new(call_for_object(|out, error| unsafe {
            sys::swebench_client_complete_start(self.0, lend(request_json), out, error)
        })?)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: from the library, freed once.
        unsafe { sys::swebench_client_free(self.0) }
    }
}
