//! The decoder, written once over [`Backend`]: weights fused at load, one forward pass over a ragged batch.

use super::rope::Rope;
use super::{Decoder, ModelConfig, StepCost, TensorSource};
use crate::backend::{
    AttentionParams, Backend, Batch, DType, HeadLayout, HostTensor, KvLayout, PeakRates, QkNorm, RopeAngles,
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
    /// Normed rows whose logits are wanted, `[logits_capacity, hidden]`.
    last: B::Activation,
    /// `[logits_capacity, vocab_size]`.
    logits: B::Activation,
    logits_capacity: usize,
}

/// A Llama-family model on a backend, with its KV cache.
pub struct Llama<B: Backend> {
    backend: B,
    config: ModelConfig,
    heads: HeadLayout,
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
}

impl<B: Backend> Llama<B> {
    /// Packs the weights of `source` tensor by tensor, each released when it is packed, then sizes the KV cache by
    /// `kv_layout`, which is asked once the weights are in memory.
    pub fn load(
        backend: B,
        config: ModelConfig,
        source: &dyn TensorSource,
        max_step_tokens: usize,
        kv_layout: impl FnOnce(&ModelConfig) -> Result<KvLayout>,
    ) -> Result<Self> {
        let loader = Loader { backend: &backend, config: &config, source };
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
        let kv_layout = kv_layout(&config)?;
        let kv_cache = backend.alloc_kv_cache(&kv_layout)?;
        let activations = Activations::new(&backend, &config, max_step_tokens)?;
        let step = backend.alloc_step(max_step_tokens)?;
        Ok(Self {
            heads: config.heads(),
            rope: Rope::new(&config.rope, config.head_dim),
            max_context: config.context_len(),
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
        })
    }

    /// Serves contexts of at most `limit` tokens; the model's own limit stays.
    pub fn with_max_context(mut self, limit: usize) -> Self {
        self.max_context = self.max_context.min(limit);
        self
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
            let norm = layer.qk_norm.as_ref().map(|(q, k)| QkNorm { q, k, eps });
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
        self.activations.reserve_logits(&self.backend, &self.config, rows)?;
        let Activations { normed, last, logits, .. } = &mut self.activations;
        self.backend.gather_logits_rows(&self.step, normed, last)?;
        self.backend.linear(rows, last, self.head.as_ref().unwrap_or(&self.embedding), logits)?;
        self.backend.read(rows, logits)
    }
}

impl<B: Backend> Activations<B> {
    fn new(backend: &B, config: &ModelConfig, tokens: usize) -> Result<Self> {
        let heads = config.heads();
        let (hidden, ffn) = (config.hidden_size, config.intermediate_size);
        Ok(Self {
            hidden: backend.alloc_activation(tokens, hidden)?,
            normed: backend.alloc_activation(tokens, hidden)?,
            qkv: backend.alloc_activation(tokens, heads.qkv_width())?,
            attended: backend.alloc_activation(tokens, heads.q_width())?,
            delta: backend.alloc_activation(tokens, hidden)?,
            gate_up: backend.alloc_activation(tokens, 2 * ffn)?,
            gated: backend.alloc_activation(tokens, ffn)?,
            last: backend.alloc_activation(1, hidden)?,
            logits: backend.alloc_activation(1, config.vocab_size)?,
            logits_capacity: 1,
        })
    }

    /// Grows the logits in powers of two: few steps want more rows than sequences, but one may want all.
    fn reserve_logits(&mut self, backend: &B, config: &ModelConfig, rows: usize) -> Result<()> {
        if rows > self.logits_capacity {
            let capacity = rows.next_power_of_two();
            self.last = backend.alloc_activation(capacity, config.hidden_size)?;
            self.logits = backend.alloc_activation(capacity, config.vocab_size)?;
            self.logits_capacity = capacity;
        }
        Ok(())
    }
}

/// Reads weights by their checkpoint names.
struct Loader<'a, B> {
    backend: &'a B,
    config: &'a ModelConfig,
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
            )?,
            qk_norm: if config.qk_norm {
                let q = self.vector(&name("self_attn.q_norm.weight"), config.head_dim)?;
                Some((q, self.vector(&name("self_attn.k_norm.weight"), config.head_dim)?))
            } else {
                None
            },
            output: self.linear(&[&name("self_attn.o_proj")], hidden, heads.q_width(), config.output_bias)?,
            post_attention_norm: self.vector(&name("post_attention_layernorm.weight"), hidden)?,
            gate_up: self.linear(&[&gate, &up], ffn, hidden, config.mlp_bias)?,
            down: self.linear(&[&down], hidden, ffn, config.mlp_bias)?,
            attention: AttentionParams {
                layer: index,
                heads,
                softmax_scale: 1.0 / (config.head_dim as f32).sqrt(),
                window: config.windows[index],
            },
        })
    }

    /// Modules of equal height, stacked along their rows.
    fn linear(&self, modules: &[&str], rows: usize, cols: usize, bias: bool) -> Result<B::Linear> {
        let parts: Vec<_> = modules.iter().map(|module| (*module, rows)).collect();
        self.stacked(&parts, cols, bias)
    }

    /// Modules with their heights, stacked along their rows.
    fn stacked(&self, parts: &[(&str, usize)], cols: usize, bias: bool) -> Result<B::Linear> {
        let tensors = |suffix: &str, vector: bool| -> Result<Vec<HostTensor<'_>>> {
            let shape = |rows| if vector { vec![rows] } else { vec![rows, cols] };
            parts
                .iter()
                .map(|(module, rows)| self.source.tensor(&format!("{module}.{suffix}"), &shape(*rows)))
                .collect()
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
