//! The embedding of tokens.

use super::super::buffer::{Element, Matrix};
use super::super::check::Check;
use super::super::geometry::{Kernel, elementwise_grid};
use super::super::indices::Indices;
use super::super::launcher::Launcher;
use super::super::params::EmbeddingParams;
use super::{MOST, half_type, start};
use crate::backend::DType;
use crate::error::Result;

/// `out[i] = table[tokens[i]]`: `table` is `[vocabulary, cols]`, `out` `[tokens, cols]` f32.
///
/// # Errors
/// `InvalidArgument` naming what does not fit, such as a token outside the vocabulary, and the launcher's.
pub fn embedding(
    launcher: &dyn Launcher,
    tokens: &Indices,
    table: &Matrix<'_>,
    out: &Matrix<'_>,
) -> Result<()> {
    let dtype = half_type("embedding", "table", table.element)?;
    let kernel = Kernel::Embedding(dtype);
    let (check, element, rows, cols) = (Check(kernel), Element::Float(dtype), tokens.len(), table.cols);
    check.whole_vectors("cols", cols, element)?;
    check.vector("tokens", &tokens.vector(), Element::I32, rows)?;
    check.matrix("table", table, element, tokens.end(), cols)?;
    check.matrix("out", out, Element::Float(DType::F32), rows, cols)?;
    let params = EmbeddingParams {
        tokens: tokens.vector().address,
        table: table.address,
        out: out.address,
        table_stride: table.row_stride as i64,
        out_stride: out.row_stride as i64,
        rows: check.count("rows", rows, MOST)?,
        cols: check.count("cols", cols, MOST)?,
    };
    // SAFETY: every view was checked against its buffer, the tokens against the table.
    unsafe { start(launcher, kernel, elementwise_grid(rows, cols), &params) }
}
