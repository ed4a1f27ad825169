//! Rotary position embeddings: the frequencies of every scaling, and the angles of one step.
//!
//! The formulas follow Hugging Face transformers' `modeling_rope_utils.py` operation by operation, in f32 where it uses
//! f32, because at position 100,000 a last-bit difference in a frequency is visible in the logits.
//! Sources: RoPE (arXiv 2104.09864), YaRN (arXiv 2309.00071), Llama 3.1's model card.

use std::f64::consts::PI;

use crate::backend::RopeAngles;

/// Base and scaling of the rotary embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Base of the geometric series of frequencies.
    pub theta: f64,
    /// How frequencies are changed for longer contexts.
    pub scaling: RopeScaling,
}

/// How frequencies are changed for contexts longer than the model was trained on.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// The base grows with the context once that is longer than `max_position_embeddings`.
    DynamicNtk {
        /// How fast the base grows.
        factor: f64,
        /// Length up to which nothing changes.
        max_position_embeddings: usize,
    },
    /// Low frequencies divided by `factor`, high ones kept, a smooth band between.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// `original / low_freq_factor` is the wavelength above which frequencies are low.
        low_freq_factor: f64,
        /// `original / high_freq_factor` is the wavelength below which frequencies are high.
        high_freq_factor: f64,
        /// Context of the training.
        original_max_position_embeddings: usize,
    },
    /// Interpolation by dimension, and a factor on the attention scores.
    Yarn {
        /// Divisor of the interpolated frequencies.
        factor: f64,
        /// Rotations over the original context above which a dimension is kept.
        beta_fast: f64,
        /// Rotations below which a dimension is interpolated.
        beta_slow: f64,
        /// Factor on cosines and sines; derived from `factor` when absent.
        attention_factor: Option<f64>,
        /// Numerator's weight in the derived attention factor.
        mscale: Option<f64>,
        /// Denominator's weight in the derived attention factor.
        mscale_all_dim: Option<f64>,
        /// Whether the band's ends are rounded outwards to whole dimensions.
        truncate: bool,
        /// Context of the training.
        original_max_position_embeddings: usize,
    },
}

/// The frequencies of one model.
#[derive(Debug, Clone)]
pub struct Rope {
    config: RopeConfig,
    head_dim: usize,
    /// Angles of a token: `head_dim / 2`, or more where heads are padded.
    width: usize,
    inverse_frequencies: Vec<f32>,
    attention_factor: f32,
    /// Frequencies of [`RopeScaling::DynamicNtk`] for the length that was asked for last.
    dynamic: (usize, Vec<f32>),
}

impl Rope {
    /// Computes the frequencies for heads of `head_dim` elements.
    pub fn new(config: &RopeConfig, head_dim: usize) -> Self {
        let base = base_frequencies(config.theta as f32, head_dim);
        let (inverse_frequencies, attention_factor) = match &config.scaling {
            RopeScaling::None | RopeScaling::DynamicNtk { .. } => (base, 1.0),
            RopeScaling::Linear { factor } => (base.iter().map(|f| f / *factor as f32).collect(), 1.0),
            RopeScaling::Llama3 { .. } => (llama3(&config.scaling, &base), 1.0),
            RopeScaling::Yarn { .. } => yarn(config, head_dim),
        };
        Self {
            config: config.clone(),
            head_dim,
            width: head_dim / 2,
            inverse_frequencies,
            attention_factor,
            dynamic: (0, Vec::new()),
        }
    }

    /// The same for heads that are padded to `head_dim` elements: what is behind the angles turns zeros.
    pub fn padded(self, head_dim: usize) -> Self {
        Self { width: head_dim / 2, ..self }
    }

    /// Fills `out` with the angles of tokens at `positions`; `rope_lens` are the lengths for [`RopeScaling::DynamicNtk`].
    pub fn angles(&mut self, positions: &[u32], rope_lens: &[u32], out: &mut RopeAngles) {
        out.cos.clear();
        out.sin.clear();
        for (&position, &rope_len) in positions.iter().zip(rope_lens) {
            self.select(rope_len as usize);
            let frequencies = match self.dynamic.0 {
                0 => &self.inverse_frequencies,
                _ => &self.dynamic.1,
            };
            for frequency in frequencies {
                let (sin, cos) = (position as f32 * frequency).sin_cos();
                out.cos.push(cos * self.attention_factor);
                out.sin.push(sin * self.attention_factor);
            }
            let padded = out.cos.len() + self.width - self.head_dim / 2;
            out.cos.resize(padded, 0.0);
            out.sin.resize(padded, 0.0);
        }
    }

    /// Makes `self.dynamic` hold the frequencies for `rope_len`, or nothing when the plain ones apply.
    fn select(&mut self, rope_len: usize) {
        let RopeScaling::DynamicNtk { factor, max_position_embeddings } = self.config.scaling else { return };
        if rope_len <= max_position_embeddings {
            self.dynamic.0 = 0;
        } else if self.dynamic.0 != rope_len {
            let (factor, dim) = (factor as f32, self.head_dim as f32);
            let stretch = factor * rope_len as f32 / max_position_embeddings as f32 - (factor - 1.0);
            let theta = self.config.theta as f32 * stretch.powf(dim / (dim - 2.0));
            self.dynamic = (rope_len, base_frequencies(theta, self.head_dim));
        }
    }
}

/// `theta^(-2i / head_dim)` for each pair of elements.
fn base_frequencies(theta: f32, head_dim: usize) -> Vec<f32> {
    (0..head_dim / 2).map(|i| 1.0 / theta.powf((2 * i) as f32 / head_dim as f32)).collect()
}

fn llama3(scaling: &RopeScaling, base: &[f32]) -> Vec<f32> {
    let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } =
        scaling
    else {
        return base.to_vec();
    };
    let (factor, low, high) = (*factor as f32, *low_freq_factor as f32, *high_freq_factor as f32);
    let original = *original_max_position_embeddings as f32;
    let scale = |&frequency: &f32| {
        let wavelength = 2.0 * PI as f32 / frequency;
        if wavelength > original / low {
            frequency / factor
        } else if wavelength < original / high {
            frequency
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            (1.0 - smooth) * frequency / factor + smooth * frequency
        }
    };
    base.iter().map(scale).collect()
}

fn yarn(config: &RopeConfig, head_dim: usize) -> (Vec<f32>, f32) {
    let theta = config.theta;
    let RopeScaling::Yarn {
        factor,
        beta_fast,
        beta_slow,
        attention_factor,
        mscale,
        mscale_all_dim,
        truncate,
        original_max_position_embeddings,
    } = config.scaling
    else {
        return (base_frequencies(theta as f32, head_dim), 1.0);
    };
    let mscale_of = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
    let attention_factor = attention_factor.unwrap_or_else(|| match (mscale, mscale_all_dim) {
        (Some(mscale), Some(all_dim)) if mscale != 0.0 && all_dim != 0.0 => {
            mscale_of(mscale) / mscale_of(all_dim)
        }
        _ => mscale_of(1.0),
    });
    let dimension_of = |rotations: f64| {
        let original = original_max_position_embeddings as f64;
        head_dim as f64 * (original / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln())
    };
    let (mut low, mut high) = (dimension_of(beta_fast), dimension_of(beta_slow));
    if truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(head_dim as f64 - 1.0));
    if low == high {
        high += 0.001;
    }
    let frequency = |i: usize| {
        let wavelength = (theta as f32).powf((2 * i) as f32 / head_dim as f32);
        let (kept, interpolated) = (1.0 / wavelength, 1.0 / (factor as f32 * wavelength));
        let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
        interpolated * ramp + kept * (1.0 - ramp)
    };
    ((0..head_dim / 2).map(frequency).collect(), attention_factor as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cosines(scaling: RopeScaling, position: u32, rope_len: u32) -> Vec<f32> {
        let mut rope = Rope::new(&RopeConfig { theta: 10_000.0, scaling }, 8);
        let mut angles = RopeAngles::default();
        rope.angles(&[position], &[rope_len], &mut angles);
        angles.cos
    }

    #[test]
    fn position_zero_does_not_rotate() {
        assert_eq!(cosines(RopeScaling::None, 0, 1), [1.0; 4]);
    }

    #[test]
    fn linear_scaling_divides_the_position() {
        assert_eq!(cosines(RopeScaling::Linear { factor: 4.0 }, 12, 13), cosines(RopeScaling::None, 3, 4));
    }

    #[test]
    fn dynamic_scaling_depends_on_the_length_only_past_the_limit() {
        let dynamic = || RopeScaling::DynamicNtk { factor: 2.0, max_position_embeddings: 16 };
        let plain = cosines(RopeScaling::None, 5, 6);
        assert_eq!(cosines(dynamic(), 5, 16), plain);
        assert_ne!(cosines(dynamic(), 5, 17), plain);
        assert_ne!(cosines(dynamic(), 5, 17), cosines(dynamic(), 5, 18));
    }

    #[test]
    fn dynamic_lengths_may_alternate_in_one_batch() {
        let scaling = RopeScaling::DynamicNtk { factor: 2.0, max_position_embeddings: 16 };
        let mut rope = Rope::new(&RopeConfig { theta: 10_000.0, scaling: scaling.clone() }, 8);
        let mut angles = RopeAngles::default();
        rope.angles(&[5, 5, 5], &[40, 8, 40], &mut angles);
        assert_eq!(angles.cos[..4], cosines(scaling.clone(), 5, 40));
        assert_eq!(angles.cos[4..8], cosines(scaling, 5, 8));
        assert_eq!(angles.cos[8..], angles.cos[..4]);
    }
}
