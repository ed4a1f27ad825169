//! Tokenizers: text to token ids and back, without a model.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::boundary::{OK, Out, borrow, enter, enter_infallible, free, slice};
use super::buf::Buf;
use super::error::ErrorObject;
use super::text::Str;
use crate::error::{Error, Result};

/// Encoding: add BOS and EOS as the model's rules say. Decoding: write special tokens, which are left out otherwise.
pub const SWEBENCH_SPECIAL_TOKENS: u32 = 1;

/// A tokenizer. Immutable: any number of threads may use it at once.
pub struct Tokenizer(Arc<crate::tokenizer::Tokenizer>);

impl Tokenizer {
    pub(super) fn new(tokenizer: Arc<crate::tokenizer::Tokenizer>) -> Self {
        Self(tokenizer)
    }
}

/// A list of token ids. Immutable: any number of threads may read it at once.
pub struct Tokens(Vec<u32>);

/// Whether the flags ask for special tokens.
fn special_tokens(flags: u32) -> Result<bool> {
    match flags {
        0 => Ok(false),
        SWEBENCH_SPECIAL_TOKENS => Ok(true),
        _ => {
            Err(Error::invalid_argument("unknown flags")
                .with_expected("0 or SWEBENCH_SPECIAL_TOKENS (1)", flags))
        }
    }
}

/// Opens the tokenizer of a model directory (tokenizer.json, or tokenizer.model with its side files).
///
/// Free `out` with swebench_tokenizer_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_tokenizer_open(
    path: Str,
    out: *mut *mut Tokenizer,
    error: *mut *mut ErrorObject,
) -> i32 {
    enter(error, || {
        // SAFETY: text and output are valid by contract.
        let (path, out) = unsafe { (path.get("path")?, Out::new(out, "out")?) };
        let tokenizer = crate::tokenizer::Tokenizer::open(Path::new(path))?;
        out.write_boxed(Tokenizer::new(Arc::new(tokenizer)));
        OK
    })
}

/// The tokenizer's rules, as a JSON object; free `out` with swebench_buf_free().
///
/// Keys: `vocab_size` (added tokens included), `bos_token_id` (or null), `eos_token_ids`, `add_bos`, `add_eos`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_tokenizer_info(
    tokenizer: *const Tokenizer,
    out: *mut Buf,
    error: *mut *mut ErrorObject,
) -> i32 {
    enter(error, || {
        // SAFETY: tokenizer and output are NULL or valid, by contract.
        let (tokenizer, out) = unsafe { (borrow(tokenizer, "tokenizer")?, Out::new(out, "out")?) };
        let special = tokenizer.0.special_tokens();
        let info = json!({
            "vocab_size": tokenizer.0.vocab_size(),
            "bos_token_id": special.bos,
            "eos_token_ids": special.eos,
            "add_bos": special.add_bos,
            "add_eos": special.add_eos,
        });
        out.write(Buf::new(format!("{info:#}")));
        OK
    })
}

/// The token ids of a text; `flags` is 0 or SWEBENCH_SPECIAL_TOKENS.
///
/// Special tokens that are spelled out in the text are encoded as the tokenizer's files say. Free `out` with
/// swebench_tokens_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_tokenizer_encode(
    tokenizer: *const Tokenizer,
    text: Str,
    flags: u32,
    out: *mut *mut Tokens,
    error: *mut *mut ErrorObject,
) -> i32 {
    enter(error, || {
        // SAFETY: tokenizer, text and output are NULL or valid, by contract.
        let (tokenizer, text, out) =
            unsafe { (borrow(tokenizer, "tokenizer")?, text.get("text")?, Out::new(out, "out")?) };
        out.write_boxed(Tokens(tokenizer.0.encode(text, special_tokens(flags)?)?));
        OK
    })
}

/// The number of token ids that swebench_tokenizer_encode() would give.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_tokenizer_count(
    tokenizer: *const Tokenizer,
    text: Str,
    flags: u32,
    out: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    enter(error, || {
        // SAFETY: tokenizer, text and output are NULL or valid, by contract.
        let (tokenizer, text, out) =
            unsafe { (borrow(tokenizer, "tokenizer")?, text.get("text")?, Out::new(out, "out")?) };
        out.write(tokenizer.0.encode(text, special_tokens(flags)?)?.len());
        OK
    })
}

/// The text of `len` token ids; `flags` is 0 or SWEBENCH_SPECIAL_TOKENS. Bytes that are not UTF-8 become U+FFFD.
///
/// Free `out` with swebench_buf_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_tokenizer_decode(
    tokenizer: *const Tokenizer,
    token_ids: *const u32,
    len: usize,
    flags: u32,
    out: *mut Buf,
    error: *mut *mut ErrorObject,
) -> i32 {
    enter(error, || {
        // SAFETY: tokenizer, array and output are NULL or valid, by contract.
        let (tokenizer, ids, out) = unsafe {
            (borrow(tokenizer, "tokenizer")?, slice(token_ids, len, "token_ids")?, Out::new(out, "out")?)
        };
        out.write(Buf::new(tokenizer.0.decode(ids, !special_tokens(flags)?)?));
        OK
    })
}

/// Frees a tokenizer; NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_tokenizer_free(tokenizer: *mut Tokenizer) {
    // SAFETY: NULL or a tokenizer that the caller owns, by contract.
    unsafe { free(tokenizer) }
}

/// The token ids of a list; borrowed from it. Writes their number to `len` unless that is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_tokens_data(tokens: *const Tokens, len: *mut usize) -> *const u32 {
    enter_infallible(std::ptr::null(), || {
        // SAFETY: NULL or a live list, by contract.
        let ids = unsafe { tokens.as_ref() }.map_or(&[][..], |tokens| &tokens.0[..]);
        // SAFETY: NULL or writable, by contract.
        if let Some(len) = unsafe { len.as_mut() } {
            *len = ids.len();
        }
        ids.as_ptr()
    })
}

/// Frees a list of token ids; NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_tokens_free(tokens: *mut Tokens) {
    // SAFETY: NULL or a list that the caller owns, by contract.
    unsafe { free(tokens) }
}
