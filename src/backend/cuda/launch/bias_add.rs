//! The bias of a linear layer whose product another library computed.

use super::super::buffer::{Element, Matrix, Vector};
use super::super::check::Check;
use super::super::geometry::{Kernel, elementwise_grid};
use super::super::launcher::Launcher;
use super::super::params::BiasAddParams;
use super::{MOST, half_type, start};
use crate::error::Result;

/// `values += bias` for the first `rows` rows: `values` is `[rows, cols]`, `bias` `[cols]`.
///
/// # Errors
/// `InvalidArgument` naming what does not fit, and the launcher's.
pub fn bias_add(launcher: &dyn Launcher, rows: usize, values: &Matrix<'_>, bias: &Vector<'_>) -> Result<()> {
    let dtype = half_type("bias_add", "values", values.element)?;
    let kernel = Kernel::BiasAdd(dtype);
    let (check, element, cols) = (Check(kernel), Element::Float(dtype), values.cols);
    check.whole_vectors("cols", cols, element)?;
    check.matrix("values", values, element, rows, cols)?;
    check.vector("bias", bias, element, cols)?;
    let params = BiasAddParams {
        values: values.address,
        bias: bias.address,
        row_stride: values.row_stride as i64,
        rows: check.count("rows", rows, MOST)?,
        cols: check.count("cols", cols, MOST)?,
    };
    // SAFETY: every view was checked against its buffer.
    unsafe { start(launcher, kernel, elementwise_grid(rows, cols), &params) }
}
