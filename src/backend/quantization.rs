//! 8-bit quantization of a linear layer's weights, shared by all backends so that they hold the same numbers.

use crate::error::{Error, Result};

/// Elements along the input dimension that share one scale.
///
/// Of 128 the scales of weights cost 3 % more memory, and outliers spoil their own group alone.
pub const GROUP_LEN: usize = 128;

/// Largest magnitude of a quantized element; -128 is not used, so that the range is symmetric.
const MAX_QUANTIZED: f32 = 127.0;

/// How linear layers hold their weights instead of in the model's dtype.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quantization {
    /// Symmetric 8-bit integers with an f32 scale for each row and [`GROUP_LEN`] inputs, in every linear layer, the
    /// embedding and the head included. Norms, biases and the KV cache keep their types.
    Int8,
}

impl Quantization {
    /// Reads the option's value: `none` or `int8`.
    ///
    /// # Errors
    /// `InvalidArgument` for anything else.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        match text {
            "none" => Ok(None),
            "int8" => Ok(Some(Self::Int8)),
            _ => Err(Error::invalid_argument("unknown quantization").with_expected("none or int8", text)),
        }
    }

    /// Bytes that `elements` weights take, their scales included.
    pub fn weight_bytes(self, elements: usize) -> usize {
        match self {
            Self::Int8 => elements + elements.div_ceil(GROUP_LEN) * size_of::<f32>(),
        }
    }

    /// Rounds rows of `cols` weights to what the kernels multiply with.
    pub fn round_rows(self, cols: usize, weights: &mut [f32]) {
        let Self::Int8 = self;
        let mut quantized = [0; GROUP_LEN];
        for group in weights.chunks_mut(cols).flat_map(|row| row.chunks_mut(GROUP_LEN)) {
            let scale = quantize_group(group, &mut quantized);
            for (weight, quantized) in group.iter_mut().zip(quantized) {
                *weight = scale * f32::from(quantized);
            }
        }
    }
}

/// Rounds a group to integers in -127..=127, and returns the scale: `values[i] ≈ scale · quantized[i]`.
///
/// The largest magnitude becomes 127, so the error of an element is at most half the scale. A NaN or an infinity makes the
/// scale NaN, and with it every result that the group takes part in.
#[inline(always)]
pub fn quantize_group(values: &[f32], quantized: &mut [i8]) -> f32 {
    /// Added to a number in ±2²², it leaves the nearest integer, ties to even, in the low bits of the sum.
    const ROUNDING: f32 = 1.5 * (1 << 23) as f32;
    let quantized = &mut quantized[..values.len()];
    // As integers, magnitudes compare like the floats, and non-finite ones come out on top.
    let max = values.iter().fold(0, |max, value| max.max(value.abs().to_bits()));
    let max = f32::from_bits(max);
    let scale = max / MAX_QUANTIZED;
    // A subnormal scale has no finite inverse; what it stands for is nothing beside any other product.
    if !max.is_finite() || scale < f32::MIN_POSITIVE {
        quantized.fill(0);
        return if max.is_finite() { 0.0 } else { f32::NAN };
    }
    let inverse = 1.0 / scale;
    for (quantized, value) in quantized.iter_mut().zip(values) {
        *quantized = (value * inverse + ROUNDING).to_bits() as i8;
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn elements_err_by_half_a_scale_at_most() {
        for (len, magnitude) in [(1, 1.0), (3, 1e-30), (77, 3.5e4), (128, 1e30), (128, 0.02)] {
            let values: Vec<f32> =
                (0..len).map(|i| magnitude * ((i * 37 % 101) as f32 / 50.0 - 1.0)).collect();
            let mut quantized = [99; GROUP_LEN];
            let scale = quantize_group(&values, &mut quantized);
            assert_eq!(quantized[..len].iter().map(|q| q.unsigned_abs()).max(), Some(127));
            for (value, q) in values.iter().zip(quantized) {
                let error = (f64::from(*value) - f64::from(scale) * f64::from(q)).abs();
                assert!(error <= f64::from(scale) * 0.500_02, "{value} as {q} x {scale}");
            }
            assert!(quantized[len..].iter().all(|&q| q == 99), "written beyond the group");
        }
    }

    #[test]
    fn integers_survive_and_ties_go_to_even() {
        let mut quantized = [0; 6];
        let scale = quantize_group(&[127.0, -127.0, 0.5, 1.5, -2.5, 0.0], &mut quantized);
        assert_eq!((scale, quantized), (1.0, [127, -127, 0, 2, -2, 0]));
    }

    #[test]
    fn zeros_subnormals_and_non_finite_values() {
        let mut quantized = [9; 2];
        assert_eq!(quantize_group(&[0.0, -0.0], &mut quantized), 0.0);
        assert_eq!(quantize_group(&[1e-40, 1e-38], &mut quantized), 0.0);
        assert_eq!(quantized, [0, 0]);
        assert!(quantize_group(&[f32::NAN, 1.0], &mut quantized).is_nan());
        assert!(quantize_group(&[1.0, f32::NEG_INFINITY], &mut quantized).is_nan());
        assert_eq!(quantize_group(&[], &mut quantized), 0.0);
    }

    #[test]
    fn rows_have_their_own_groups() {
        let cols = GROUP_LEN + 2;
        let mut weights = vec![1.0; 2 * cols];
        weights[0] = 1000.0;
        Quantization::Int8.round_rows(cols, &mut weights);
        // Beside 1000 a one is rounded to nothing; groups that follow keep it.
        assert_eq!(weights[..3], [1000.0, 0.0, 0.0]);
        assert!(weights[GROUP_LEN..].iter().all(|weight| (weight - 1.0).abs() < 1e-6));
        assert_eq!(Quantization::Int8.weight_bytes(256), 264);
    }

    #[test]
    fn the_option_is_none_or_int8() {
        assert_eq!(Quantization::parse("none").unwrap(), None);
        assert_eq!(Quantization::parse("int8").unwrap(), Some(Quantization::Int8));
        assert_eq!(Quantization::parse("int4").unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
