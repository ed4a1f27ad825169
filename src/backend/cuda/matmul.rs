//! The product of a linear layer for many rows, which the launcher computes with the vendor's library.

use super::buffer::{Element, Matrix};
use super::check::Check;
use super::launcher::{Launcher, Product};
use crate::backend::DType;
use crate::error::{Error, Result};

/// `out = input · weightᵀ` for the first `rows` rows: `input` is `[rows, in_features]`, `weight` `[out_features, in_features]`.
///
/// # Errors
/// `InvalidArgument` naming what does not fit, and the launcher's.
pub(super) fn matmul(
    launcher: &dyn Launcher,
    rows: usize,
    input: &Matrix<'_>,
    weight: &Matrix<'_>,
    out: &Matrix<'_>,
) -> Result<()> {
    let element = weight.element;
    let Element::Float(dtype @ (DType::BF16 | DType::F16)) = element else {
        return Err(Error::invalid_argument("matmul: weight")
            .with_expected("elements of bf16 or f16", weight.element));
    };
    let check = Check("matmul");
    check.whole_vectors("in_features", weight.cols, element)?;
    check.matrix("weight", weight, element, weight.rows, weight.cols)?;
    check.matrix("input", input, element, rows, weight.cols)?;
    check.matrix("out", out, element, rows, weight.rows)?;
    check.count("rows", rows, i32::MAX as usize)?;
    let product = Product {
        dtype,
        rows,
        in_features: weight.cols,
        out_features: weight.rows,
        input: input.address,
        weight: weight.address,
        out: out.address,
        input_stride: input.row_stride,
        weight_stride: weight.row_stride,
        out_stride: out.row_stride,
    };
    // SAFETY: every view was checked against its buffer, and a buffer that is written is borrowed by no other argument's owner.
    unsafe { launcher.matmul(&product) }
}
