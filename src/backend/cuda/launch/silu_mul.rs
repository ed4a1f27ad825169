//! The gate of the feed-forward network.

use super::super::buffer::{Element, Matrix};
use super::super::check::Check;
use super::super::geometry::{Kernel, elementwise_grid};
use super::super::launcher::Launcher;
use super::super::params::SiluMulParams;
use super::{MOST, half_type, start};
use crate::error::Result;

/// `out = silu(gate) · up` for the first `rows` rows: a row of `gate_up` `[rows, 2 · cols]` is `[gate | up]`, `out` is `[rows, cols]`.
///
/// # Errors
/// `InvalidArgument` naming what does not fit, and the launcher's.
pub fn silu_mul(launcher: &dyn Launcher, rows: usize, gate_up: &Matrix<'_>, out: &Matrix<'_>) -> Result<()> {
    let dtype = half_type("silu_mul", "gate_up", gate_up.element)?;
    let kernel = Kernel::SiluMul(dtype);
    let (check, element, cols) = (Check(kernel), Element::Float(dtype), out.cols);
    check.whole_vectors("cols", cols, element)?;
    check.matrix("gate_up", gate_up, element, rows, 2 * cols)?;
    check.matrix("out", out, element, rows, cols)?;
    let params = SiluMulParams {
        gate_up: gate_up.address,
        out: out.address,
        gate_up_stride: gate_up.row_stride as i64,
        out_stride: out.row_stride as i64,
        rows: check.count("rows", rows, MOST)?,
        cols: check.count("cols", cols, MOST)?,
    };
    // SAFETY: every view was checked against its buffer.
    unsafe { start(launcher, kernel, elementwise_grid(rows, cols), &params) }
}
