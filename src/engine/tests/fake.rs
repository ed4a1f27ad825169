//! A decoder whose KV cache stores the tokens themselves: it predicts from what it reads back through the block tables,
//! so a block that is lost, shared by mistake or overwritten changes the text.

use std::collections::HashSet;

use crate::backend::{Batch, KvLayout};
use crate::engine::text::{Detokenizer, DetokenizerFactory};
use crate::error::Result;
use crate::model::rope::RopeScaling;
use crate::model::{Decoder, ModelConfig};

/// Ids of the fake vocabulary.
pub(super) const VOCAB_SIZE: usize = 32;
/// The id that ends a text.
pub(super) const EOS: u32 = 0;

/// Logits `[VOCAB_SIZE]` of the token after a history.
pub(super) type Language = fn(&[u32]) -> Vec<f32>;

/// Called before a step is computed.
pub(super) type StepHook = Box<dyn FnMut(&Batch) -> Result<()> + Send>;

/// Every next token is as likely as any other, and fixed by the whole history.
pub(super) fn scrambled(history: &[u32]) -> Vec<f32> {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut mix = |value: u64| {
        hash = (hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
        hash
    };
    history.iter().for_each(|&token| {
        mix(u64::from(token) + 1);
    });
    (0..VOCAB_SIZE).map(|_| (mix(77) >> 40) as f32 / (1 << 22) as f32).collect()
}

/// Likes to repeat what followed the same two tokens before.
pub(super) fn copying(history: &[u32]) -> Vec<f32> {
    let mut logits = scrambled(history);
    let (&[.., first, second], past) = (history, &history[..history.len() - 1]) else { return logits };
    let place = past.windows(2).rposition(|pair| pair == [first, second]);
    if let Some(place) = place {
        logits[history[place + 2] as usize] += 3.0;
    }
    logits
}

/// The next token is the last one plus one: b, c, d, … and then `EOS`.
pub(super) fn alphabet(history: &[u32]) -> Vec<f32> {
    let next = (history[history.len() - 1] as usize + 1) % VOCAB_SIZE;
    (0..VOCAB_SIZE).map(|token| if token == next { 5.0 } else { 0.0 }).collect()
}

/// Always the token 1.
pub(super) fn stutter(_: &[u32]) -> Vec<f32> {
    (0..VOCAB_SIZE).map(|token| if token == 1 { 5.0 } else { 0.0 }).collect()
}

/// Sizes of the fake.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) context_len: usize,
    pub(super) max_step_tokens: usize,
    pub(super) block_size: usize,
    pub(super) num_blocks: usize,
}

impl Sizes {
    /// Enough for everything.
    pub(super) const LARGE: Self =
        Self { context_len: 4096, max_step_tokens: 256, block_size: 16, num_blocks: 1024 };
}

pub(super) struct FakeDecoder {
    config: ModelConfig,
    layout: KvLayout,
    max_step_tokens: usize,
    language: Language,
    hook: StepHook,
    /// Position, token and RoPE length in each slot of the cache.
    slots: Vec<Option<(usize, u32, usize)>>,
    logits: Vec<f32>,
}

impl FakeDecoder {
    pub(super) fn new(sizes: Sizes, language: Language, hook: StepHook) -> Self {
        let Sizes { context_len, max_step_tokens, block_size, num_blocks } = sizes;
        let config = format!(
            r#"{{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8,
                "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": {VOCAB_SIZE},
                "max_position_embeddings": {context_len}, "rms_norm_eps": 1e-5}}"#
        );
        Self {
            config: ModelConfig::parse(&config).unwrap(),
            layout: KvLayout { num_layers: 1, num_kv_heads: 1, head_dim: 8, block_size, num_blocks },
            max_step_tokens,
            language,
            hook,
            slots: vec![None; block_size * num_blocks],
            logits: Vec::new(),
        }
    }

    /// Rotates as dynamic NTK scaling does beyond `limit` tokens.
    pub(super) fn with_dynamic_rope(mut self, limit: usize) -> Self {
        let factor = self.config.max_position_embeddings as f64 / limit as f64;
        self.config.rope.scaling = RopeScaling::DynamicNtk { factor, max_position_embeddings: limit };
        self.config.max_position_embeddings = limit;
        self
    }

    /// By what keys and values of a token with this RoPE length depend on it.
    fn rotation(&self, rope_len: usize) -> usize {
        match self.config.rope.scaling {
            RopeScaling::DynamicNtk { max_position_embeddings, .. } => rope_len.max(max_position_embeddings),
            _ => 0,
        }
    }

    fn slot(&self, table: &[u32], position: usize) -> usize {
        let block_size = self.layout.block_size;
        table[position / block_size] as usize * block_size + position % block_size
    }
}

impl Decoder for FakeDecoder {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn backend(&self) -> String {
        "fake".into()
    }

    fn kv_layout(&self) -> &KvLayout {
        &self.layout
    }

    fn max_step_tokens(&self) -> usize {
        self.max_step_tokens
    }

    fn step(&mut self, batch: &Batch) -> Result<&[f32]> {
        (self.hook)(batch)?;
        assert!((1..=self.max_step_tokens).contains(&batch.len()), "{} tokens in a step", batch.len());
        let mut written = HashSet::new();
        for sequence in batch.sequences() {
            let table = batch.block_table(sequence);
            for row in sequence.query.clone() {
                let position = sequence.first_position() + row - sequence.query.start;
                assert_eq!(batch.positions()[row] as usize, position);
                let slot = self.slot(table, position);
                assert!(written.insert(slot), "slot {slot} written twice in a step");
                self.slots[slot] = Some((position, batch.tokens()[row], batch.rope_lens()[row] as usize));
            }
        }
        self.logits.clear();
        for &row in batch.logits_rows() {
            let row = row as usize;
            let sequence = batch.sequences().iter().find(|sequence| sequence.query.contains(&row)).unwrap();
            let table = batch.block_table(sequence);
            let context = sequence.first_position() + row - sequence.query.start + 1;
            let mut prompt_len = 0;
            let history: Vec<u32> = (0..context)
                .map(|position| {
                    let (stored_at, token, rope_len) =
                        self.slots[self.slot(table, position)].expect("a slot never written");
                    assert_eq!(stored_at, position, "the slot holds another position");
                    if position == 0 {
                        prompt_len = rope_len;
                    }
                    assert_eq!(self.rotation(rope_len), self.rotation(prompt_len.max(position + 1)));
                    token
                })
                .collect();
            let rope_len = batch.rope_lens()[row] as usize;
            assert_eq!(self.rotation(rope_len), self.rotation(prompt_len.max(context)), "another's prefix");
            self.logits.extend((self.language)(&history));
        }
        Ok(&self.logits)
    }
}

/// Another decoder with a hook before its steps.
pub(super) struct Hooked {
    pub(super) decoder: Box<dyn Decoder>,
    pub(super) hook: StepHook,
}

impl Decoder for Hooked {
    fn config(&self) -> &ModelConfig {
        self.decoder.config()
    }

    fn backend(&self) -> String {
        self.decoder.backend()
    }

    fn kv_layout(&self) -> &KvLayout {
        self.decoder.kv_layout()
    }

    fn max_step_tokens(&self) -> usize {
        self.decoder.max_step_tokens()
    }

    fn max_context(&self) -> usize {
        self.decoder.max_context()
    }

    fn step(&mut self, batch: &Batch) -> Result<&[f32]> {
        (self.hook)(batch)?;
        self.decoder.step(batch)
    }
}

/// Ids 1 to 26 are the letters, 27 is `</`, 28 is `s>`, all others have no text.
struct FakeText;

impl Detokenizer for FakeText {
    fn push(&mut self, id: u32) -> Result<String> {
        Ok(match id {
            1..=26 => char::from(b'a' + id as u8 - 1).to_string(),
            27 => "</".into(),
            28 => "s>".into(),
            _ => String::new(),
        })
    }

    fn finish(&mut self) -> Result<String> {
        Ok(String::new())
    }
}

/// Detokenizers of the fake vocabulary.
pub(super) fn detokenizers() -> DetokenizerFactory {
    Box::new(|| Box::new(FakeText))
}
