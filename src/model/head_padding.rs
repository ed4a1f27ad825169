//! Heads of a size that no kernel of a backend takes, laid out as larger ones: what is added is zeros, which change no score and no result.
//!
//! The two halves of a head rotate together, element by element, so each half is padded at its own end.

use std::borrow::Cow;

use crate::backend::HostTensor;
use crate::error::{Error, Result};

/// From a model's head to a kernel's; weights that are as they should be are passed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadPadding {
    head_dim: usize,
    padded_dim: usize,
}

impl HeadPadding {
    /// Makes heads of `padded_dim` of those of `head_dim`; both are even.
    pub(super) fn new(head_dim: usize, padded_dim: usize) -> Self {
        assert!(padded_dim >= head_dim, "{head_dim} elements do not fit {padded_dim}");
        Self { head_dim, padded_dim }
    }

    /// Elements of a padded head.
    pub(super) fn padded_dim(&self) -> usize {
        self.padded_dim
    }

    /// A projection to heads, `[heads · head_dim, cols]`, or its bias, `[heads · head_dim]`.
    pub(super) fn rows<'t>(&self, tensor: HostTensor<'t>) -> Result<HostTensor<'t>> {
        let mut shape = tensor.shape().to_vec();
        let width: usize = shape[1..].iter().product::<usize>() * tensor.dtype().size();
        shape[0] = shape[0] / self.head_dim * self.padded_dim;
        self.pad(tensor, shape, width)
    }

    /// A projection from heads, `[rows, heads · head_dim]`; its bias, a vector, has no heads.
    pub(super) fn columns<'t>(&self, tensor: HostTensor<'t>) -> Result<HostTensor<'t>> {
        let mut shape = tensor.shape().to_vec();
        if let [_, cols] = &mut shape[..] {
            *cols = *cols / self.head_dim * self.padded_dim;
            let width = tensor.dtype().size();
            return self.pad(tensor, shape, width);
        }
        Ok(tensor)
    }

    /// The weight of a head's RMSNorm, `[head_dim]`, for a mean over the padded head: it is as much smaller as the root of that mean is.
    ///
    /// With `n` elements of `m`, `x / sqrt(Σx²/n + e) = sqrt(n/m) · x / sqrt(Σx²/m + e·n/m)`.
    pub(super) fn norm_weight<'t>(&self, weight: HostTensor<'t>) -> Result<HostTensor<'t>> {
        if self.head_dim == self.padded_dim {
            return Ok(weight);
        }
        let shrink = (self.head_dim as f32 / self.padded_dim as f32).sqrt();
        let scaled: Vec<f32> = weight.to_f32().iter().map(|value| value * shrink).collect();
        self.rows(HostTensor::from_f32(vec![self.head_dim], &scaled)?)
    }

    /// What such a norm adds to the mean, see [`HeadPadding::norm_weight`].
    pub(super) fn norm_eps(&self, eps: f32) -> f32 {
        eps * (self.head_dim as f32 / self.padded_dim as f32)
    }

    /// Spreads the elements of heads, of `width` bytes each, to a tensor of zeros with `shape`.
    fn pad<'t>(&self, tensor: HostTensor<'t>, shape: Vec<usize>, width: usize) -> Result<HostTensor<'t>> {
        if self.head_dim == self.padded_dim {
            return Ok(tensor);
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(Error::unsupported("a head that has no two halves to rotate")
                .with_expected("an even head_dim", self.head_dim));
        }
        let (half, padded_half) = (self.head_dim / 2 * width, self.padded_dim / 2 * width);
        let mut padded = vec![0; shape.iter().product::<usize>() * tensor.dtype().size()];
        for (from, to) in tensor.bytes().chunks_exact(half).zip(padded.chunks_exact_mut(padded_half)) {
            to[..half].copy_from_slice(from);
        }
        HostTensor::new(tensor.dtype(), shape, Cow::Owned(padded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tensor: &HostTensor<'_>) -> Vec<f32> {
        tensor.to_f32()
    }

    #[test]
    fn each_half_of_a_head_is_padded() {
        let padding = HeadPadding::new(4, 8);
        let bias = HostTensor::from_f32(vec![8], &[1., 2., 3., 4., 5., 6., 7., 8.]).unwrap();
        let padded = padding.rows(bias).unwrap();
        assert_eq!(values(&padded), [1., 2., 0., 0., 3., 4., 0., 0., 5., 6., 0., 0., 7., 8., 0., 0.]);

        let weight = HostTensor::from_f32(vec![4, 2], &[1., 2., 3., 4., 5., 6., 7., 8.]).unwrap();
        let padded = padding.rows(weight).unwrap();
        assert_eq!(padded.shape(), [8, 2]);
        assert_eq!(values(&padded), [1., 2., 3., 4., 0., 0., 0., 0., 5., 6., 7., 8., 0., 0., 0., 0.]);

        let weight = HostTensor::from_f32(vec![2, 4], &[1., 2., 3., 4., 5., 6., 7., 8.]).unwrap();
        let padded = padding.columns(weight).unwrap();
        assert_eq!(padded.shape(), [2, 8]);
        assert_eq!(values(&padded), [1., 2., 0., 0., 3., 4., 0., 0., 5., 6., 0., 0., 7., 8., 0., 0.]);

        let bias = HostTensor::from_f32(vec![2], &[1., 2.]).unwrap();
        assert_eq!(values(&padding.columns(bias).unwrap()), [1., 2.]);
    }

    #[test]
    fn a_norm_over_the_padded_head_gives_the_same() {
        let (padding, eps) = (HeadPadding::new(4, 6), 0.1);
        let head = [0.5_f32, -1.0, 2.0, 0.25];
        let weight = [1.0_f32, 0.5, -2.0, 3.0];
        let norm = |head: &[f32], weight: &[f32], eps: f32| -> Vec<f32> {
            let mean = head.iter().map(|x| x * x).sum::<f32>() / head.len() as f32;
            head.iter().zip(weight).map(|(x, w)| x / (mean + eps).sqrt() * w).collect()
        };
        let pad = |values: &[f32]| HostTensor::from_f32(vec![4], values).unwrap();
        let padded_weight = padding.norm_weight(pad(&weight)).unwrap().to_f32();
        let padded_head = padding.rows(pad(&head)).unwrap().to_f32();
        let got = norm(&padded_head, &padded_weight, padding.norm_eps(eps));
        let expected = padding.rows(pad(&norm(&head, &weight, eps))).unwrap().to_f32();
        assert!(got.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?}, {expected:?}");
    }

    #[test]
    fn heads_of_the_right_size_stay_as_they_are() {
        let padding = HeadPadding::new(64, 64);
        let tensor = HostTensor::from_f32(vec![64], &[1.5; 64]).unwrap();
        assert_eq!(values(&padding.norm_weight(padding.rows(tensor).unwrap()).unwrap()), [1.5; 64]);
    }
}
