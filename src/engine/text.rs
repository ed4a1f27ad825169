//! The engine's view of a tokenizer: text from ids that arrive one by one.

use std::sync::Arc;

use crate::error::Result;
use crate::tokenizer::{TextStream, Tokenizer};

/// Text of one generation, for which the engine needs nothing else of a tokenizer.
pub(super) trait Detokenizer: Send {
    /// Adds an id and returns the text that is certain now; possibly empty.
    fn push(&mut self, id: u32) -> Result<String>;

    /// The rest, when no more ids come.
    fn finish(&mut self) -> Result<String>;
}

/// Makes one [`Detokenizer`] for each generation.
pub(super) type DetokenizerFactory = Box<dyn Fn() -> Box<dyn Detokenizer> + Send + Sync>;

/// Detokenizers of `tokenizer` that leave special tokens out of the text.
pub(super) fn detokenizers(tokenizer: Arc<Tokenizer>) -> DetokenizerFactory {
    Box::new(move || {
        Box::new(TokenizerText { tokenizer: Arc::clone(&tokenizer), stream: TextStream::new(true) })
    })
}

struct TokenizerText {
    tokenizer: Arc<Tokenizer>,
    stream: TextStream,
}

impl Detokenizer for TokenizerText {
    fn push(&mut self, id: u32) -> Result<String> {
        self.stream.push(&self.tokenizer, id)
    }

    fn finish(&mut self) -> Result<String> {
        self.stream.finish(&self.tokenizer)
    }
}
