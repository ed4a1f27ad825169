//! One token a row of logits.

use std::sync::Arc;

use super::super::buffer::{Buffer, Element, Matrix, Vector};
use super::super::check::Check;
use super::super::geometry::{Kernel, SAMPLE_CHUNK};
use super::super::launcher::Launcher;
use super::super::params::SampleParams;
use super::{MOST, MOST_GRID_Y, start};
use crate::backend::DType;
use crate::error::{Error, Result};

/// What the kernel reads and writes; vectors are `[rows]`.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// `[rows, vocabulary]` in f32, bf16 or f16.
    pub logits: Matrix<'a>,
    /// f32; 0 takes the largest logit.
    pub temperatures: Vector<'a>,
    /// f32; 1 keeps all.
    pub top_ps: Vector<'a>,
    /// i32; 0 keeps all.
    pub top_ks: Vector<'a>,
    /// u64, of the row's generator.
    pub seeds: Vector<'a>,
    /// u64, the number of the token in its sequence.
    pub offsets: Vector<'a>,
    /// i32, the chosen tokens; -1 where a logit is NaN or the largest is infinite.
    pub tokens: Vector<'a>,
    /// f32, their log-probabilities at temperature 1.
    pub logprobs: Vector<'a>,
    /// Rows to sample.
    pub rows: usize,
}

/// What sampling works in; grows to the largest step seen.
#[derive(Debug)]
pub struct SampleWorkspace {
    launcher: Arc<dyn Launcher>,
    buffer: Buffer,
    chunks: usize,
}

impl SampleWorkspace {
    /// Without room yet.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn new(launcher: &Arc<dyn Launcher>) -> Result<Self> {
        let buffer = Buffer::new(launcher, Element::Float(DType::F32), 0)?;
        Ok(Self { launcher: Arc::clone(launcher), buffer, chunks: 0 })
    }

    /// Room for the chunks of all rows and a counter a row, which are zero before the first launch and which launches leave so.
    fn reserve(&mut self, rows: usize, chunks: usize) -> Result<()> {
        let len = rows * 4 * (chunks + 1);
        if self.buffer.len() < len {
            self.buffer = Buffer::zeroed(&self.launcher, Element::Float(DType::F32), len)?;
        } else if self.chunks != chunks {
            // The counters lie elsewhere.
            self.buffer.zero()?;
        }
        self.chunks = chunks;
        Ok(())
    }
}

/// Chooses a token for each row.
///
/// # Errors
/// `InvalidArgument` naming what does not fit, `OutOfMemory` for the workspace, and the launcher's.
pub fn sample(
    launcher: &dyn Launcher,
    arguments: &Sample<'_>,
    workspace: &mut SampleWorkspace,
) -> Result<()> {
    let Sample { logits, temperatures, top_ps, top_ks, seeds, offsets, tokens, logprobs, rows } = *arguments;
    let Element::Float(dtype) = logits.element else {
        return Err(Error::invalid_argument("sample: logits")
            .with_expected("elements of f32, bf16 or f16", logits.element));
    };
    let kernel = Kernel::Sample(dtype);
    let check = Check(kernel);
    let float = Element::Float(DType::F32);
    check.matrix("logits", &logits, logits.element, rows, logits.cols)?;
    for (argument, vector, element) in [
        ("temperatures", &temperatures, float),
        ("top_ps", &top_ps, float),
        ("top_ks", &top_ks, Element::I32),
        ("seeds", &seeds, Element::U64),
        ("offsets", &offsets, Element::U64),
        ("tokens", &tokens, Element::I32),
        ("logprobs", &logprobs, float),
    ] {
        check.vector(argument, vector, element, rows)?;
    }
    let chunks = logits.cols.div_ceil(SAMPLE_CHUNK);
    workspace.reserve(rows, chunks)?;
    let params = SampleParams {
        logits: logits.address,
        temperatures: temperatures.address,
        top_ps: top_ps.address,
        top_ks: top_ks.address,
        seeds: seeds.address,
        offsets: offsets.address,
        tokens: tokens.address,
        logprobs: logprobs.address,
        workspace: workspace.buffer.vector().address,
        logits_stride: logits.row_stride as i64,
        rows: check.count("rows", rows, MOST_GRID_Y)?,
        vocabulary: check.count("vocabulary", logits.cols, MOST)?,
    };
    // SAFETY: every view was checked against its buffer, and the workspace has the length that the kernel asks for.
    unsafe { start(launcher, kernel, [chunks, rows, 1], &params) }
}
