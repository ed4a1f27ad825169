//! Rotation of queries and keys, and the append of keys and values to the cache.

use super::super::buffer::{Element, Matrix, Vector};
use super::super::check::Check;
use super::super::geometry::{Kernel, rotary_heads};
use super::super::indices::Indices;
use super::super::launcher::Launcher;
use super::super::params::RotaryAppendParams;
use super::attention_prefill::check_heads;
use super::cache::Cache;
use super::{MOST, half_type, start};
use crate::backend::{DType, HeadLayout};
use crate::error::Result;

/// What the kernel reads and writes.
#[derive(Debug, Clone, Copy)]
pub struct RotaryAppend<'a> {
    /// `[tokens, (num_heads + 2 · num_kv_heads) · head_dim]`, queries rotated in place; keys are rotated on their way into the cache.
    pub qkv: Matrix<'a>,
    /// `[tokens, head_dim / 2]` f32, any attention factor multiplied in.
    pub cos: Matrix<'a>,
    /// Likewise.
    pub sin: Matrix<'a>,
    /// RMSNorm of each head before the rotation.
    pub norm: Option<QkNormWeights<'a>>,
    /// A slot of the cache a token: `physical block · block_size + offset`.
    pub slots: &'a Indices,
    /// Where keys and values go.
    pub cache: Cache<'a>,
    /// Head counts.
    pub heads: HeadLayout,
}

/// Norm of queries and keys (Qwen3), weights `[head_dim]`.
#[derive(Debug, Clone, Copy)]
pub struct QkNormWeights<'a> {
    /// Of queries.
    pub q: Vector<'a>,
    /// Of keys.
    pub k: Vector<'a>,
    /// Added to the mean square.
    pub eps: f32,
}

/// Normalises (when asked) and rotates queries in place and keys on their way into the cache, and appends values.
///
/// # Errors
/// `InvalidArgument` naming what does not fit, and the launcher's.
pub fn rotary_append(launcher: &dyn Launcher, arguments: &RotaryAppend<'_>) -> Result<()> {
    let RotaryAppend { qkv, cos, sin, norm, slots, cache, heads } = *arguments;
    let dtype = half_type("rotary_append", "qkv", qkv.element)?;
    let kernel = Kernel::RotaryAppend { dtype, head_dim: heads.head_dim as u32, cache: cache.format() };
    let check = Check(kernel);
    check_heads(check, &heads, &cache)?;
    let (tokens, element, float) = (slots.len(), Element::Float(dtype), Element::Float(DType::F32));
    check.matrix("qkv", &qkv, element, tokens, heads.qkv_width())?;
    for (argument, angles) in [("cos", &cos), ("sin", &sin)] {
        check.matrix(argument, angles, float, tokens, heads.head_dim / 2)?;
        check.that(
            angles.row_stride == heads.head_dim / 2,
            argument,
            "rows side by side",
            angles.row_stride,
        )?;
    }
    if let Some(norm) = &norm {
        check.vector("q_norm", &norm.q, element, heads.head_dim)?;
        check.vector("k_norm", &norm.k, element, heads.head_dim)?;
        check.that(
            norm.eps.is_finite() && norm.eps >= 0.0,
            "norm.eps",
            "0 or a positive number",
            norm.eps,
        )?;
    }
    let cache_params = cache.params(check, dtype)?;
    let all_slots = cache.num_blocks() * cache.block_size;
    check.that(slots.end() <= all_slots, "slots", format_args!("slots below {all_slots}"), slots.end())?;
    check.vector("slots", &slots.vector(), Element::I64, tokens)?;
    let params = RotaryAppendParams {
        qkv: qkv.address,
        cos: cos.address,
        sin: sin.address,
        q_norm: norm.map_or(0, |norm| norm.q.address),
        k_norm: norm.map_or(0, |norm| norm.k.address),
        slots: slots.vector().address,
        cache: cache_params,
        qkv_stride: qkv.row_stride as i64,
        num_tokens: check.count("tokens", tokens, MOST)?,
        num_heads: heads.num_heads as i32,
        norm_eps: norm.map_or(0.0, |norm| norm.eps),
        reserved: 0,
    };
    let head_blocks = (heads.num_heads + 2 * heads.num_kv_heads).div_ceil(rotary_heads(heads.head_dim));
    // SAFETY: every view was checked against its buffer, the slots against the cache.
    unsafe { start(launcher, kernel, [tokens, head_blocks, 1], &params) }
}
