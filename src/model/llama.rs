//! The decoder, written once over [`Backend`]: weights fused at load, one forward pass over a ragged batch.

use std::ops::Range;

use super::head_padding::HeadPadding;
use super::rope::Rope;
use super::{Decoder, ModelConfig, StepCost, TensorSource};
use crate::backend::{
    AttentionParams, Backend, Batch, DType, HeadLayout, HostTensor, KvLayout, PeakRates, QkNorm, RopeAngles,
    StepLimits,
};
use crate::error::{Error, Result};

/// One decoder layer's weights.
struct Layer<B: Backend> {
    input_norm: B::Vector,
    /// Queries, keys and values stacked: `[q_width + 2 · kv_width, hidden]`.
    qkv: B::Linear,
    qk_norm: Option<(B::Vector, B::Vector)>,
    output: B::Linear,
    post_attention_norm: B::Vector,
    /// Gate and up stacked: `[2 · intermediate, hidden]`.
    gate_up: B::Linear,
    down: B::Linear,
    attention: AttentionParams,
}

impl<B: Backend> Layer<B> {
    fn linear_bytes(&self, backend: &B) -> usize {
        let linears = [&self.qkv, &self.output, &self.gate_up, &self.down];
        linears.into_iter().map(|linear| backend.linear_bytes(linear)).sum()
    }
}

/// Rows of logits that are computed at a time: more than most steps want.
const LOGITS_ROWS: usize = 256;

/// Activations of one step, all `[max_step_tokens, width]` but the last two.
struct Activations<B: Backend> {
    /// The residual stream.
    hidden: B::Activation,
    normed: B::Activation,
    qkv: B::Activation,
    attended: B::Activation,
    /// What a block adds to the residual stream.
    delta: B::Activation,
    gate_up: B::Activation,
    gated: B::Activation,
    /// Normed rows whose logits are wanted, `[LOGITS_ROWS, hidden]` or fewer.
    last: B::Activation,
    /// `[LOGITS_ROWS, vocab_size]` or fewer.
    logits: B::Activation,
}

/// A Llama-family model on a backend, with its KV cache.
pub struct Llama<B: Backend> {
    backend: B,
    config: ModelConfig,
    heads: HeadLayout,
    qk_norm_eps: f32,
    embedding: B::Linear,
    layers: Vec<Layer<B>>,
    final_norm: B::Vector,
    /// `None` when the embedding is the head.
    head: Option<B::Linear>,
    rope: Rope,
    kv_layout: KvLayout,
    kv_cache: B::KvCache,
    max_step_tokens: usize,
    max_context: usize,
    activations: Activations<B>,
    step: B::Step,
    angles: RopeAngles,
    /// Logits of a step that wants more than [`LOGITS_ROWS`] rows.
    many_logits: Vec<f32>,
}

/// How much a model is given at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Most query tokens of one step; `None` takes the backend's default.
    pub max_step_tokens: Option<usize>,
    /// The longest context to serve; `None`, and more than the model's, take the model's.
    pub max_context: Option<usize>,
    /// Tokens of a block of the KV cache; `None` takes what suits the backend.
    pub block_size: Option<usize>,
}

impl<B: Backend> Llama<B> {
    /// Packs the weights of `source` tensor by tensor, each released when it is packed, then makes room for steps, and at last for a KV cache
    /// of as many blocks as `num_blocks` says, which is asked once all else is in memory, with a layout without blocks.
    ///
    /// # Errors
    /// Those of `source`, of `num_blocks` and of the backend's allocations.
    pub fn load(
        backend: B,
        config: ModelConfig,
        source: &dyn TensorSource,
        limits: Limits,
        num_blocks: impl FnOnce(&B, &KvLayout) -> Result<usize>,
    ) -> Result<Self> {
        let padding = HeadPadding::new(config.head_dim, backend.head_dim(config.head_dim)?);
        let heads = HeadLayout { head_dim: padding.padded_dim(), ..config.heads() };
        let loader = Loader { backend: &backend, config: &config, heads, padding, source };
        loader.prefetch(0);
        let embedding =
            loader.linear(&["model.embed_tokens"], config.vocab_size, config.hidden_size, false)?;
        let layers = (0..config.num_layers)
            .map(|layer| {
                loader.prefetch(layer + 1);
                loader.layer(layer)
            })
            .collect::<Result<Vec<_>>>()?;
        let final_norm = loader.vector("model.norm.weight", config.hidden_size)?;
        let head = if config.tie_word_embeddings {
            None
        } else {
            Some(loader.linear(&["lm_head"], config.vocab_size, config.hidden_size, false)?)
        };
        let max_step_tokens = limits.max_step_tokens.unwrap_or(backend.default_step_tokens()).max(1);
        let max_context = config.context_len().min(limits.max_context.unwrap_or(usize::MAX));
        let activations = Activations::new(&backend, &config, &heads, max_step_tokens)?;
        let block_size = limits.block_size.unwrap_or(backend.block_size());
        let limits = StepLimits { max_tokens: max_step_tokens, max_context, block_size, heads };
        let step = backend.alloc_step(&limits)?;
        let mut kv_layout = KvLayout {
            num_layers: config.num_layers,
            num_kv_heads: heads.num_kv_heads,
            head_dim: heads.head_dim,
            block_size,
            num_blocks: 0,
        };
        kv_layout.num_blocks = num_blocks(&backend, &kv_layout)?;
        let kv_cache = backend.alloc_kv_cache(&kv_layout)?;
        Ok(Self {
            heads,
            qk_norm_eps: padding.norm_eps(config.rms_norm_eps),
            rope: Rope::new(&config.rope, config.head_dim).padded(heads.head_dim),
            max_context,
            backend,
            config,
            embedding,
            layers,
            final_norm,
            head,
            kv_layout,
            kv_cache,
            max_step_tokens,
            activations,
            step,
            angles: RopeAngles::default(),
            many_logits: Vec::new(),
        })
    }

    /// Computes normed hidden states of all query tokens into `activations.normed`.
    fn hidden_states(&mut self, rows: usize) -> Result<()> {
        let Self { backend, config, heads, activations: a, step, kv_cache, .. } = self;
        let eps = config.rms_norm_eps;
        backend.embed(step, &self.embedding, &mut a.hidden)?;
        let first = &self.layers[0];
        backend.rms_norm(rows, &a.hidden, &first.input_norm, eps, &mut a.normed)?;
        for (index, layer) in self.layers.iter().enumerate() {
            backend.linear(rows, &a.normed, &layer.qkv, &mut a.qkv)?;
            let norm = layer.qk_norm.as_ref().map(|(q, k)| QkNorm { q, k, eps: self.qk_norm_eps });
            backend.rotary_append(step, index, heads, norm, &mut a.qkv, kv_cache)?;
            backend.attention(step, &layer.attention, &a.qkv, kv_cache, &mut a.attended)?;
            backend.linear(rows, &a.attended, &layer.output, &mut a.delta)?;
            let norm = &layer.post_attention_norm;
            backend.add_rms_norm(rows, &mut a.hidden, &a.delta, norm, eps, &mut a.normed)?;
            backend.linear(rows, &a.normed, &layer.gate_up, &mut a.gate_up)?;
            backend.silu_mul(rows, &a.gate_up, &mut a.gated)?;
            backend.linear(rows, &a.gated, &layer.down, &mut a.delta)?;
            // The next layer's input norm is fused with this layer's residual add.
            let norm = self.layers.get(index + 1).map_or(&self.final_norm, |next| &next.input_norm);
            backend.add_rms_norm(rows, &mut a.hidden, &a.delta, norm, eps, &mut a.normed)?;
        }
        Ok(())
    }

    /// Logits of some of the step's rows, from `activations.normed`.
    fn logits(&mut self, part: Range<usize>) -> Result<&[f32]> {
        let Activations { normed, last, logits, .. } = &mut self.activations;
        let rows = part.len();
        self.backend.gather_logits_rows(&self.step, part, normed, last)?;
        self.backend.linear(rows, last, self.head.as_ref().unwrap_or(&self.embedding), logits)?;
        self.backend.read(rows, logits)
    }

    fn check(&self, batch: &Batch) -> Result<()> {
        assert!(batch.len() <= self.max_step_tokens, "{} tokens in one step", batch.len());
        let vocab_size = self.config.vocab_size;
        match batch.tokens().iter().find(|&&token| token as usize >= vocab_size) {
            None => Ok(()),
            Some(token) => Err(Error::invalid_argument("token id outside the model's vocabulary")
                .with_expected(format_args!("ids below {vocab_size}"), token)),
        }
    }
}

impl<B: Backend> Decoder for Llama<B> {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn backend(&self) -> String {
        self.backend.describe()
    }

    fn dtype(&self) -> DType {
        self.backend.dtype()
    }

    fn weight_bytes(&self) -> usize {
        let head = self.head.as_ref().map_or(0, |head| self.backend.linear_bytes(head));
        let layers = self.layers.iter().map(|layer| layer.linear_bytes(&self.backend));
        self.backend.linear_bytes(&self.embedding) + layers.sum::<usize>() + head
    }

    fn cost(&self, batch: &Batch) -> StepCost {
        // A separate embedding is only read where a token points.
        let not_read = self.head.as_ref().map_or(0, |_| self.backend.linear_bytes(&self.embedding));
        let kv_element_bytes = self.backend.dtype().size();
        StepCost::new(&self.config, self.weight_bytes() - not_read, kv_element_bytes, batch)
    }

    fn peak_rates(&self) -> Result<Option<PeakRates>> {
        self.backend.peak_rates()
    }

    fn kv_layout(&self) -> &KvLayout {
        &self.kv_layout
    }

    fn max_step_tokens(&self) -> usize {
        self.max_step_tokens
    }

    fn max_context(&self) -> usize {
        self.max_context
    }

    fn step(&mut self, batch: &Batch) -> Result<&[f32]> {
        self.check(batch)?;
        self.rope.angles(batch.positions(), batch.rope_lens(), &mut self.angles);
        self.backend.begin_step(&mut self.step, batch, &self.angles)?;
        self.hidden_states(batch.len())?;
        let rows = batch.logits_rows().len();
        if rows == 0 {
            return Ok(&[]);
        }
        let most = LOGITS_ROWS.min(self.max_step_tokens);
        if rows <= most {
            return self.logits(0..rows);
        }
        let mut all = std::mem::take(&mut self.many_logits);
        all.clear();
        for start in (0..rows).step_by(most) {
            all.extend_from_slice(self.logits(start..rows.min(start + most))?);
        }
        self.many_logits = all;
        Ok(&self.many_logits)
    }
}

impl<B: Backend> Activations<B> {
    fn new(backend: &B, config: &ModelConfig, heads: &HeadLayout, tokens: usize) -> Result<Self> {
        let logits_rows = LOGITS_ROWS.min(tokens);
        let (hidden, ffn) = (config.hidden_size, config.intermediate_size);
        Ok(Self {
            hidden: backend.alloc_residual(tokens, hidden)?,
            normed: backend.alloc_activation(tokens, hidden)?,
            qkv: backend.alloc_activation(tokens, heads.qkv_width())?,
            attended: backend.alloc_activation(tokens, heads.q_width())?,
            delta: backend.alloc_activation(tokens, hidden)?,
            gate_up: backend.alloc_activation(tokens, 2 * ffn)?,
            gated: backend.alloc_activation(tokens, ffn)?,
            last: backend.alloc_activation(logits_rows, hidden)?,
            logits: backend.alloc_logits(logits_rows, config.vocab_size)?,
        })
    }
}

/// Reads weights by their checkpoint names.
struct Loader<'a, B> {
    backend: &'a B,
    config: &'a ModelConfig,
    /// As the kernels see them.
    heads: HeadLayout,
    padding: HeadPadding,
    source: &'a dyn TensorSource,
}

impl<B: Backend> Loader<'_, B> {
    /// Announces a layer, or the head after the last one, so that a disk reads it while the one before is packed.
    fn prefetch(&self, layer: usize) {
        let prefix = match layer {
            layer if layer < self.config.num_layers => format!("model.layers.{layer}."),
            _ => "lm_head.".to_owned(),
        };
        let tensors = self.config.tensors();
        tensors.iter().filter(|(name, _)| name.starts_with(&prefix)).for_each(|(name, _)| {
            self.source.prefetch(name);
        });
    }

    fn layer(&self, index: usize) -> Result<Layer<B>> {
        let config = self.config;
        let heads = config.heads();
        let padding = self.padding;
        let (hidden, ffn) = (config.hidden_size, config.intermediate_size);
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let [q, k, v] = ["q_proj", "k_proj", "v_proj"].map(|part| name(&format!("self_attn.{part}")));
        let [gate, up, down] = ["gate_proj", "up_proj", "down_proj"].map(|part| name(&format!("mlp.{part}")));
        Ok(Layer {
            input_norm: self.vector(&name("input_layernorm.weight"), hidden)?,
            qkv: self.stacked(
                &[(&q, heads.q_width()), (&k, heads.kv_width()), (&v, heads.kv_width())],
                hidden,
                config.qkv_bias,
                &|tensor| padding.rows(tensor),
            )?,
            qk_norm: if config.qk_norm {
                let norm = |part: &str| {
                    let name = name(&format!("self_attn.{part}.weight"));
                    let weight = self.source.tensor(&name, &[config.head_dim])?;
                    self.backend.load_vector(&padding.norm_weight(weight)?)
                };
                Some((norm("q_norm")?, norm("k_norm")?))
            } else {
                None
            },
            output: self.stacked(
                &[(&name("self_attn.o_proj"), hidden)],
                heads.q_width(),
                config.output_bias,
                &|tensor| padding.columns(tensor),
            )?,
            post_attention_norm: self.vector(&name("post_attention_layernorm.weight"), hidden)?,
            gate_up: self.linear(&[&gate, &up], ffn, hidden, config.mlp_bias)?,
            down: self.linear(&[&down], hidden, ffn, config.mlp_bias)?,
            attention: AttentionParams {
                layer: index,
                heads: self.heads,
                softmax_scale: 1.0 / (config.head_dim as f32).sqrt(),
                window: config.windows[index],
            },
        })
    }

    /// Modules of equal height, stacked along their rows.
    fn linear(&self, modules: &[&str], rows: usize, cols: usize, bias: bool) -> Result<B::Linear> {
        let parts: Vec<_> = modules.iter().map(|module| (*module, rows)).collect();
        self.stacked(&parts, cols, bias, &|tensor| Ok(tensor))
    }

    /// Modules with their heights, changed by `pad` and stacked along their rows.
    fn stacked(
        &self,
        parts: &[(&str, usize)],
        cols: usize,
        bias: bool,
        pad: &dyn for<'t> Fn(HostTensor<'t>) -> Result<HostTensor<'t>>,
    ) -> Result<B::Linear> {
        let tensors = |suffix: &str, vector: bool| -> Result<Vec<HostTensor<'_>>> {
            let shape = |rows| if vector { vec![rows] } else { vec![rows, cols] };
            let read = |(module, rows): &(&str, usize)| {
                pad(self.source.tensor(&format!("{module}.{suffix}"), &shape(*rows))?)
            };
            parts.iter().map(read).collect()
        };
        let weights = tensors("weight", false)?;
        let biases = if bias { tensors("bias", true)? } else { Vec::new() };
        let linear = self.backend.load_linear(&weights, &biases)?;
        drop((weights, biases));
        for (module, _) in parts {
            self.source.release(&format!("{module}.weight"));
        }
        Ok(linear)
    }

    fn vector(&self, name: &str, len: usize) -> Result<B::Vector> {
        self.backend.load_vector(&self.source.tensor(name, &[len])?)
    }
}
