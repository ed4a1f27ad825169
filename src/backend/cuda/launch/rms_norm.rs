//! RMSNorm fused with the residual add.

use super::super::buffer::{Element, Matrix, Vector};
use super::super::check::Check;
use super::super::geometry::Kernel;
use super::super::launcher::Launcher;
use super::super::params::RmsNormParams;
use super::{MOST, half_type, start};
use crate::backend::DType;
use crate::error::Result;

/// What the kernel reads and writes.
#[derive(Debug, Clone, Copy)]
pub struct RmsNorm<'a> {
    /// `[rows, cols]` f32, `delta` is added to it.
    pub residual: Matrix<'a>,
    /// `[rows, cols]`.
    pub delta: Option<Matrix<'a>>,
    /// `[cols]`.
    pub weight: Vector<'a>,
    /// `[rows, cols]`.
    pub out: Matrix<'a>,
    /// Rows to compute.
    pub rows: usize,
    /// Added to the mean square.
    pub eps: f32,
}

/// `residual += delta`, then `out = residual / rms(residual) · weight`.
///
/// # Errors
/// `InvalidArgument` naming what does not fit, and the launcher's.
pub fn rms_norm(launcher: &dyn Launcher, arguments: &RmsNorm<'_>) -> Result<()> {
    let RmsNorm { residual, delta, weight, out, rows, eps } = *arguments;
    let dtype = half_type("rms_norm", "out", out.element)?;
    let kernel = Kernel::RmsNorm(dtype);
    let (check, element, cols) = (Check(kernel), Element::Float(dtype), out.cols);
    check.whole_vectors("cols", cols, element)?;
    check.matrix("out", &out, element, rows, cols)?;
    check.matrix("residual", &residual, Element::Float(DType::F32), rows, cols)?;
    check.vector("weight", &weight, element, cols)?;
    if let Some(delta) = &delta {
        check.matrix("delta", delta, element, rows, cols)?;
    }
    let strides = [residual.row_stride, delta.map_or(out.row_stride, |delta| delta.row_stride)];
    check.that(
        strides == [out.row_stride; 2],
        "row strides",
        format_args!("that of out, {}", out.row_stride),
        format_args!("{strides:?}"),
    )?;
    check.that(eps.is_finite() && eps >= 0.0, "eps", "0 or a positive number", eps)?;
    let params = RmsNormParams {
        residual: residual.address,
        delta: delta.map_or(0, |delta| delta.address),
        weight: weight.address,
        out: out.address,
        row_stride: out.row_stride as i64,
        rows: check.count("rows", rows, MOST)?,
        cols: check.count("cols", cols, MOST)?,
        eps,
        reserved: 0,
    };
    // SAFETY: every view was checked against its buffer.
    unsafe { start(launcher, kernel, [rows, 1, 1], &params) }
}
