//! A linear layer for few rows: the weight is streamed once.

use std::sync::Arc;

use super::super::buffer::{Buffer, Element, Matrix, Vector};
use super::super::check::Check;
use super::super::geometry::{Kernel, SKINNY_MIN_DEPTH, SKINNY_OUT_FEATURES};
use super::super::launcher::Launcher;
use super::super::params::LinearSkinnyParams;
use super::super::schedule::linear_splits;
use super::{MOST, MOST_GRID_Y, half_type, start};
use crate::backend::DType;
use crate::error::Result;

/// Rows that the kernel takes.
pub const MAX_SKINNY_ROWS: usize = 16;

/// What the kernel reads and writes.
#[derive(Debug, Clone, Copy)]
pub struct LinearSkinny<'a> {
    /// `[rows, in_features]`.
    pub input: Matrix<'a>,
    /// `[out_features, in_features]`.
    pub weight: Matrix<'a>,
    /// `[out_features]`.
    pub bias: Option<Vector<'a>>,
    /// `[rows, out_features]`.
    pub out: Matrix<'a>,
    /// Rows to compute, 1 to 16.
    pub rows: usize,
}

/// Splits' sums until they are combined; grows to the largest layer seen.
#[derive(Debug)]
pub struct SkinnyWorkspace {
    launcher: Arc<dyn Launcher>,
    partial: Buffer,
    counters: Buffer,
}

impl SkinnyWorkspace {
    /// Without room yet.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn new(launcher: &Arc<dyn Launcher>) -> Result<Self> {
        Ok(Self {
            launcher: Arc::clone(launcher),
            partial: Buffer::new(launcher, Element::Float(DType::F32), 0)?,
            counters: Buffer::new(launcher, Element::I32, 0)?,
        })
    }

    /// Makes room for a layer with any number of rows.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn reserve_layer(&mut self, dtype: DType, out_features: usize, in_features: usize) -> Result<()> {
        let splits = num_splits(self.launcher.as_ref(), dtype, out_features, in_features);
        self.reserve(splits, MAX_SKINNY_ROWS, out_features)
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> usize {
        self.partial.bytes() + self.counters.bytes()
    }

    fn reserve(&mut self, num_splits: usize, rows: usize, out_features: usize) -> Result<()> {
        let partial = if num_splits > 1 { num_splits * rows * out_features } else { 0 };
        let counters = out_features.div_ceil(SKINNY_OUT_FEATURES);
        if self.partial.len() < partial {
            self.partial = Buffer::new(&self.launcher, Element::Float(DType::F32), partial)?;
        }
        if self.counters.len() < counters {
            self.counters = Buffer::zeroed(&self.launcher, Element::I32, counters)?;
        }
        Ok(())
    }
}

/// Splits of the inner dimension: a function of the layer and the device, for the order of summation depends on it.
fn num_splits(launcher: &dyn Launcher, dtype: DType, out_features: usize, in_features: usize) -> usize {
    let tiles = out_features.div_ceil(SKINNY_OUT_FEATURES);
    let slots = launcher.resident_blocks(Kernel::LinearSkinny(dtype));
    linear_splits(tiles, slots, in_features, SKINNY_MIN_DEPTH).min(MOST_GRID_Y)
}

/// `out = input · weightᵀ + bias`; how it is split depends on the layer and the device alone.
///
/// # Errors
/// `InvalidArgument` naming what does not fit, `OutOfMemory` for the workspace, and the launcher's.
pub fn linear_skinny(
    launcher: &dyn Launcher,
    arguments: &LinearSkinny<'_>,
    workspace: &mut SkinnyWorkspace,
) -> Result<()> {
    let LinearSkinny { input, weight, bias, out, rows } = *arguments;
    let dtype = half_type("linear_skinny", "weight", weight.element)?;
    let kernel = Kernel::LinearSkinny(dtype);
    let (check, element) = (Check(kernel), Element::Float(dtype));
    let (out_features, in_features) = (weight.rows, weight.cols);
    check.whole_vectors("in_features", in_features, element)?;
    check.matrix("weight", &weight, element, out_features, in_features)?;
    check.matrix("input", &input, element, rows, in_features)?;
    check.matrix("out", &out, element, rows, out_features)?;
    if let Some(bias) = &bias {
        check.vector("bias", bias, element, out_features)?;
    }
    let tiles = out_features.div_ceil(SKINNY_OUT_FEATURES);
    let num_splits = num_splits(launcher, dtype, out_features, in_features);
    workspace.reserve(num_splits, rows, out_features)?;
    let params = LinearSkinnyParams {
        input: input.address,
        weight: weight.address,
        bias: bias.map_or(0, |bias| bias.address),
        out: out.address,
        partial: workspace.partial.vector().address,
        counters: workspace.counters.vector().address,
        input_stride: input.row_stride as i64,
        weight_stride: weight.row_stride as i64,
        out_stride: out.row_stride as i64,
        rows: check.count("rows", rows, MAX_SKINNY_ROWS)?,
        in_features: check.count("in_features", in_features, MOST)?,
        out_features: check.count("out_features", out_features, MOST)?,
        num_splits: num_splits as i32,
    };
    // SAFETY: every view was checked against its buffer, and the workspace has room for all splits.
    unsafe { start(launcher, kernel, [tiles, num_splits, 1], &params) }
}
