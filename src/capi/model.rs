//! Models: loading, and what was loaded.

use std::sync::Arc;

use serde_json::{Value, json};

use super::boundary::{OK, Out, borrow, enter, free};
use super::buf::Buf;
use super::config::{ModelConfig, parse};
use super::error::ErrorObject;
use super::text::Str;
use super::tokenizer::Tokenizer;
use crate::engine::{Engine, EngineOptions, Order};
use crate::error::Result;
use crate::hub::{self, Hub};
use crate::model::{Decoder, load};

/// A loaded model with its tokenizer. Any number of threads may generate with it at once: their work shares its steps.
pub struct Model(Arc<Loaded>);

/// What jobs keep alive while they run.
pub(super) struct Loaded {
    pub(super) engine: Engine,
    info: Value,
}

impl Loaded {
    fn load(config: &ModelConfig) -> Result<Self> {
        let directory = |name: &str| hub::model_dir(name, || Hub::from_env(config.cache_dir.as_deref()));
        let path = directory(&config.path)?;
        let adapter = config.adapter.as_deref().map(directory).transpose()?;
        let tokenizer = Arc::new(crate::tokenizer::Tokenizer::open(&path)?);
        let decoder = load(&path, &config.load_options(adapter)?)?;
        let info = describe(config, &*decoder, &tokenizer);
        log::info!("loaded {} on {}", config.path, decoder.backend());
        let options = EngineOptions {
            max_sequences: config.max_sequences,
            prompt_lookup: config.prompt_lookup,
            prefix_cache: config.prefix_cache,
            order: Order::Arrival,
        };
        Ok(Self { engine: Engine::start(decoder, tokenizer, &options)?, info })
    }
}

fn describe(config: &ModelConfig, decoder: &dyn Decoder, tokenizer: &crate::tokenizer::Tokenizer) -> Value {
    let (model, kv) = (decoder.config(), decoder.kv_layout());
    json!({
        "path": config.path,
        "architecture": model.architecture.class_name(),
        "backend": decoder.backend(),
        "max_context": decoder.max_context(),
        "kv_cache_tokens": kv.num_blocks * kv.block_size,
        "max_step_tokens": decoder.max_step_tokens(),
        "vocab_size": model.vocab_size,
        "num_layers": model.num_layers,
        "hidden_size": model.hidden_size,
        "num_heads": model.num_heads,
        "num_kv_heads": model.num_kv_heads,
        "head_dim": model.head_dim,
        "eos_token_ids": tokenizer.special_tokens().eos,
    })
}

impl Model {
    /// The part that jobs share.
    pub(super) fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.0)
    }
}

/// Loads a model and its tokenizer; `config_json` is a configuration of kind "model", at least `{"path": "DIR"}`.
///
/// Blocks while it downloads, for a hub name that is not cached, and reads the weights, which `"quantize": "int8"` makes
/// half as large as bf16 on the way. Free `out` with
/// swebench_model_free().
///
/// Errors: NOT_FOUND or INVALID_DATA with the file, NETWORK, UNSUPPORTED with what is supported, OUT_OF_MEMORY, DEVICE when the
/// device that was asked for is not there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_model_load(
    config_json: Str,
    out: *mut *mut Model,
    error: *mut *mut ErrorObject,
) -> i32 {
    enter(error, || {
        // SAFETY: text and output are valid by contract.
        let (config_json, out) = unsafe { (config_json.get("config_json")?, Out::new(out, "out")?) };
        let loaded = Loaded::load(&parse(config_json)?)?;
        out.write_boxed(Model(Arc::new(loaded)));
        OK
    })
}

/// What was loaded, as a JSON object; free `out` with swebench_buf_free().
///
/// Keys: `path`, `architecture`, `backend` (with the instruction set or device), `max_context` and `kv_cache_tokens`
/// (tokens), `max_step_tokens`, `vocab_size`, `num_layers`, `hidden_size`, `num_heads`, `num_kv_heads`, `head_dim`,
/// `eos_token_ids`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_model_info(
    model: *const Model,
    out: *mut Buf,
    error: *mut *mut ErrorObject,
) -> i32 {
    enter(error, || {
        // SAFETY: model and output are NULL or valid, by contract.
        let (model, out) = unsafe { (borrow(model, "model")?, Out::new(out, "out")?) };
        out.write(Buf::new(format!("{:#}", model.0.info)));
        OK
    })
}

/// The model's tokenizer, which outlives the model; free `out` with swebench_tokenizer_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_model_tokenizer(
    model: *const Model,
    out: *mut *mut Tokenizer,
    error: *mut *mut ErrorObject,
) -> i32 {
    enter(error, || {
        // SAFETY: model and output are NULL or valid, by contract.
        let (model, out) = unsafe { (borrow(model, "model")?, Out::new(out, "out")?) };
        out.write_boxed(Tokenizer::new(Arc::clone(model.0.engine.tokenizer())));
        OK
    })
}

/// Frees a model; NULL is ignored. Jobs that use it go on, and its memory is released with the last of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_model_free(model: *mut Model) {
    // SAFETY: NULL or a model that the caller owns, by contract.
    unsafe { free(model) }
}
