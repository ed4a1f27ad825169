//! Models, and generating with them.

use std::ptr;

use super::sys::{self, swebench_model};
use super::{Job, Result, Tokenizer, call_for_object, call_for_text, lend};

/// A loaded model; any number of threads may generate with it at once.
pub struct Model(*mut swebench_model);

// SAFETY: a model may be used and freed on any thread.
unsafe impl Send for Model {}
// SAFETY: every method takes `const swebench_model *`, which threads may share.
unsafe impl Sync for Model {}

impl Model {
    /// Loads a model from a configuration of kind `model`.
    pub fn load(config_json: &str) -> Result<Self> {
        // SAFETY: text and outputs live during the call.
        call_for_object(|out, error| unsafe { sys::swebench_model_load(lend(config_json), out, error) })
            .map(Self)
    }

    /// What was loaded, as JSON.
    pub fn info(&self) -> Result<String> {
        // SAFETY: the model is alive, the outputs live during the call.
        call_for_text(|out, error| unsafe { sys::swebench_model_info(self.0, out, error) })
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        // SAFETY: the model is alive, the outputs live during the call.
        call_for_object(|out, error| unsafe { sys::swebench_model_tokenizer(self.0, out, error) })
            .map(Tokenizer::new)
    }

    /// Starts a generation from a request of kind `generate` that has a `prompt`.
    pub fn generate(&self, request_json: &str) -> Result<Job> {
        self.start(request_json, &[])
    }

    /// Starts a generation from token ids and a request without a `prompt`.
    pub fn generate_from_ids(&self, token_ids: &[u32], request_json: &str) -> Result<Job> {
        self.start(request_json, token_ids)
    }

    fn start(&self, request_json: &str, ids: &[u32]) -> Result<Job> {
        let pointer = if ids.is_empty() { ptr::null() } else { ids.as_ptr() };
        // SAFETY: the model is alive; text, ids and outputs live during the call.
        let job = call_for_object(|out, error| unsafe {
            sys::swebench_generate_start(self.0, lend(request_json), pointer, ids.len(), out, error)
        })?;
        Job::new(job)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: from the library, freed once.
        unsafe { sys::swebench_model_free(self.0) }
    }
}
