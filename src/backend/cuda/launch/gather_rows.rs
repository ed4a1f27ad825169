//! The rows whose logits are wanted, side by side.

use super::super::buffer::{Element, Matrix};
use super::super::check::Check;
use super::super::geometry::{Kernel, elementwise_grid};
use super::super::indices::Indices;
use super::super::launcher::Launcher;
use super::super::params::GatherRowsParams;
use super::{MOST, half_type, start};
use crate::error::Result;

/// `out[i] = input[rows[i]]`, both of `cols` columns.
///
/// # Errors
/// `InvalidArgument` naming what does not fit, such as a row outside `input`, and the launcher's.
pub fn gather_rows(
    launcher: &dyn Launcher,
    rows: &Indices,
    input: &Matrix<'_>,
    out: &Matrix<'_>,
) -> Result<()> {
    let dtype = half_type("gather_rows", "input", input.element)?;
    let kernel = Kernel::GatherRows(dtype);
    let (check, element, num_rows, cols) = (Check(kernel), Element::Float(dtype), rows.len(), input.cols);
    check.whole_vectors("cols", cols, element)?;
    check.vector("rows", &rows.vector(), Element::I32, num_rows)?;
    check.matrix("input", input, element, rows.end(), cols)?;
    check.matrix("out", out, element, num_rows, cols)?;
    let params = GatherRowsParams {
        input: input.address,
        out: out.address,
        rows: rows.vector().address,
        input_stride: input.row_stride as i64,
        out_stride: out.row_stride as i64,
        num_rows: check.count("rows", num_rows, MOST)?,
        cols: check.count("cols", cols, MOST)?,
    };
    // SAFETY: every view was checked against its buffer, the rows against the input.
    unsafe { start(launcher, kernel, elementwise_grid(num_rows, cols), &params) }
}
