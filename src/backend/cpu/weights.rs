//! A linear layer's weights in panels of output columns, packed once when they are loaded.
//!
//! Layout: `[panel][in_features]` packed matrices ([`super::format`]) of [`PANEL_WIDTH`] columns, the last one padded with
//! zero columns. A panel is contiguous, so decoding reads the weights as one stream a thread.

use half::bf16;

use super::format::{packed_bytes, packed_index, read_element, write_element};
use super::memory::Buffer;
use super::threads::{SharedSlice, ThreadPool};
use crate::backend::{DType, HostTensor};
use crate::error::{Error, Result};

/// Output columns of a panel: two vectors of AVX-512, two tiles of AMX.
pub const PANEL_WIDTH: usize = 32;

/// A linear layer `[out_features, in_features]` with its optional bias.
pub struct PackedLinear {
    dtype: DType,
    out_features: usize,
    in_features: usize,
    panels: Buffer<u8>,
    bias: Option<Vec<f32>>,
}

impl PackedLinear {
    /// Packs `weights`, stacked along their rows, converting them to `dtype`, on all threads.
    ///
    /// # Errors
    /// `InvalidData` when widths differ or the biases do not cover the rows, `OutOfMemory`.
    pub fn pack(
        pool: &ThreadPool,
        dtype: DType,
        weights: &[HostTensor<'_>],
        bias: &[HostTensor<'_>],
    ) -> Result<Self> {
        let stack = Stack::new(weights)?;
        let (in_features, out_features) = (stack.in_features, stack.out_features);
        let bias = stack.bias(bias)?;
        let panel_bytes = packed_bytes(dtype, PANEL_WIDTH, in_features);
        let num_panels = out_features.div_ceil(PANEL_WIDTH);
        let bytes = panel_bytes.saturating_mul(num_panels);
        let mut panels = Buffer::zeroed(bytes, "the weights of a linear layer")?;
        let shared = SharedSlice::new(&mut panels);
        pool.for_each(num_panels, &|_, panel| {
            // SAFETY: every panel is handed out once.
            let packed = unsafe { shared.range(panel * panel_bytes..(panel + 1) * panel_bytes) };
            pack_panel(dtype, in_features, &stack.panel(panel), packed);
        });
        Ok(Self { dtype, out_features, in_features, panels, bias })
    }

    /// Element type of the packed weights.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Rows of the weight.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Columns of the weight.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Bytes of memory that weight and bias take, padding included.
    pub fn bytes(&self) -> usize {
        self.panels.len() + self.bias.as_deref().map_or(0, size_of_val)
    }

    /// Number of panels.
    pub fn num_panels(&self) -> usize {
        self.out_features.div_ceil(PANEL_WIDTH)
    }

    /// The packed matrix `[in_features, PANEL_WIDTH]` of one panel.
    pub fn panel(&self, panel: usize) -> &[u8] {
        let bytes = packed_bytes(self.dtype, PANEL_WIDTH, self.in_features);
        &self.panels[panel * bytes..(panel + 1) * bytes]
    }

    /// The bias, `[out_features]`.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// Gathers row `row` of the weight, `[in_features]`: an embedding.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        assert!(
            row < self.out_features && out.len() == self.in_features,
            "row {row} of {}",
            self.out_features
        );
        let panel = self.panel(row / PANEL_WIDTH).as_ptr();
        for (k, out) in out.iter_mut().enumerate() {
            let index = packed_index(self.dtype, PANEL_WIDTH, k, row % PANEL_WIDTH);
            // SAFETY: k and the column lie within the panel, which is aligned to a cache line.
            *out = unsafe { read_element(self.dtype, panel, index) };
        }
    }
}

/// The weights of a linear layer as the checkpoint has them: tensors stacked along their rows.
pub struct Stack<'a> {
    tensors: &'a [HostTensor<'a>],
    /// Rows of each tensor.
    heights: Vec<usize>,
    /// Rows of all tensors.
    pub out_features: usize,
    /// Columns of every tensor.
    pub in_features: usize,
}

impl<'a> Stack<'a> {
    /// Checks the shapes.
    ///
    /// # Errors
    /// `InvalidData` when widths differ.
    pub fn new(tensors: &'a [HostTensor<'a>]) -> Result<Self> {
        let shapes = tensors.iter().map(HostTensor::rows_cols).collect::<Result<Vec<_>>>()?;
        let in_features = shapes.first().map_or(0, |shape| shape.1);
        let heights: Vec<usize> = shapes.iter().map(|shape| shape.0).collect();
        let out_features = heights.iter().sum();
        if out_features == 0 || in_features == 0 || shapes.iter().any(|shape| shape.1 != in_features) {
            return Err(Error::invalid_data("cannot stack the weights of a linear layer")
                .with_expected("matrices of one width, none empty", format_args!("{shapes:?}")));
        }
        Ok(Self { tensors, heights, out_features, in_features })
    }

    /// The biases one after the other, `None` for no bias.
    ///
    /// # Errors
    /// `InvalidData` when they do not cover the rows.
    pub fn bias(&self, bias: &[HostTensor<'_>]) -> Result<Option<Vec<f32>>> {
        let bias_len: usize = bias.iter().map(HostTensor::len).sum();
        if !bias.is_empty() && bias_len != self.out_features {
            return Err(Error::invalid_data("the bias of a linear layer does not match its weight")
                .with_expected(format_args!("{} elements", self.out_features), bias_len));
        }
        Ok((!bias.is_empty()).then(|| bias.iter().flat_map(HostTensor::to_f32).collect()))
    }

    /// The rows that are the columns of a panel.
    pub fn panel(&self, panel: usize) -> PanelRows<'a> {
        let start = panel * PANEL_WIDTH;
        let end = self.out_features.min(start + PANEL_WIDTH);
        let mut sources = [None; PANEL_WIDTH];
        let mut first = 0;
        for (tensor, &rows) in self.tensors.iter().zip(&self.heights) {
            for row in start.max(first)..end.min(first + rows) {
                sources[row - start] = Some((tensor, row - first));
            }
            first += rows;
        }
        PanelRows { sources }
    }
}

/// The source rows of one panel: for each its tensor and its row there.
pub struct PanelRows<'a> {
    sources: [Option<(&'a HostTensor<'a>, usize)>; PANEL_WIDTH],
}

impl<'a> PanelRows<'a> {
    /// Column of the panel, tensor and row there.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &'a HostTensor<'a>, usize)> {
        self.sources
            .iter()
            .enumerate()
            .filter_map(|(column, source)| source.map(|(tensor, row)| (column, tensor, row)))
    }
}

/// Packs up to [`PANEL_WIDTH`] rows; `packed` is zeroed and aligned to a cache line.
fn pack_panel(dtype: DType, in_features: usize, rows: &PanelRows<'_>, packed: &mut [u8]) {
    /// Elements of a row that are packed before the next row: one cache line, so that the written part of the panel
    /// stays in the first-level cache until all its columns are there.
    const STEP: usize = 32;
    for k in (0..in_features).step_by(STEP) {
        let len = STEP.min(in_features - k);
        for (column, tensor, row) in rows.iter() {
            let start = row * in_features + k;
            if dtype == DType::BF16 && tensor.dtype() == DType::BF16 && len.is_multiple_of(2) {
                let pairs = &tensor.bytes()[2 * start..2 * (start + len)];
                copy_pairs(pairs, &mut packed[(k * PANEL_WIDTH + 2 * column) * size_of::<bf16>()..]);
                continue;
            }
            let mut values = [0.0; STEP];
            tensor.read_f32(start, &mut values[..len]);
            for (i, value) in values[..len].iter().enumerate() {
                let index = packed_index(dtype, PANEL_WIDTH, k + i, column);
                // SAFETY: k + i < in_features and column < PANEL_WIDTH lie within the panel, which is aligned.
                unsafe { write_element(dtype, packed.as_mut_ptr(), index, *value) };
            }
        }
    }
}

/// Copies pairs of bf16 from a row to one column of a panel; little-endian on both sides.
fn copy_pairs(row: &[u8], column: &mut [u8]) {
    const PAIR: usize = 2 * size_of::<bf16>();
    let to = column.chunks_mut(PANEL_WIDTH * PAIR);
    for (from, to) in row.as_chunks::<PAIR>().0.iter().zip(to) {
        let pair = u32::from_le_bytes(*from);
        to[..PAIR].copy_from_slice(&pair.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use half::f16;

    use super::*;
    use crate::error::ErrorKind;

    /// The bytes of `values` in `dtype`, at an odd address.
    fn tensor_bytes(dtype: DType, values: &[f32]) -> Vec<u8> {
        let mut bytes = vec![0_u8];
        for value in values {
            match dtype {
                DType::F32 => bytes.extend(value.to_le_bytes()),
                DType::F16 => bytes.extend(f16::from_f32(*value).to_le_bytes()),
                DType::BF16 => bytes.extend(bf16::from_f32(*value).to_le_bytes()),
            }
        }
        bytes
    }

    #[test]
    fn rows_come_back_from_stacked_parts_of_any_type() {
        let pool = ThreadPool::new(Some(2)).unwrap();
        // Exact in every type.
        let value = |row: usize, k: usize| ((row * 7 + k * 3) % 128) as f32 - 64.0;
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for source in [DType::F32, DType::F16, DType::BF16] {
                for in_features in [1, 2, 31, 33, 64, 77] {
                    for parts in [vec![1], vec![5, 30, 2], vec![64], vec![31, 70]] {
                        let mut first = 0;
                        let bytes: Vec<Vec<u8>> = parts
                            .iter()
                            .map(|&rows| {
                                let range = first..first + rows;
                                first += rows;
                                let values: Vec<f32> = range
                                    .flat_map(|row| (0..in_features).map(move |k| value(row, k)))
                                    .collect();
                                tensor_bytes(source, &values)
                            })
                            .collect();
                        let tensors: Vec<HostTensor<'_>> = parts
                            .iter()
                            .zip(&bytes)
                            .map(|(&rows, bytes)| {
                                let data = Cow::Borrowed(&bytes[1..]);
                                HostTensor::new(source, vec![rows, in_features], data).unwrap()
                            })
                            .collect();
                        let packed = PackedLinear::pack(&pool, dtype, &tensors, &[]).unwrap();
                        assert_eq!((packed.out_features(), packed.in_features()), (first, in_features));
                        let mut row = vec![0.0; in_features];
                        for index in 0..first {
                            packed.read_row(index, &mut row);
                            let want: Vec<f32> = (0..in_features).map(|k| value(index, k)).collect();
                            assert_eq!(row, want, "{source} to {dtype}, {parts:?} x {in_features}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn mismatched_parts_are_refused() {
        let pool = ThreadPool::new(Some(1)).unwrap();
        let tensor = |shape: &[usize]| {
            HostTensor::from_f32(shape.to_vec(), &vec![0.0; shape.iter().product()]).unwrap()
        };
        let pack = |weights: &[HostTensor<'_>], bias: &[HostTensor<'_>]| {
            PackedLinear::pack(&pool, DType::F32, weights, bias).err().map(|error| error.kind())
        };
        assert_eq!(pack(&[tensor(&[2, 3]), tensor(&[2, 4])], &[]), Some(ErrorKind::InvalidData));
        assert_eq!(pack(&[tensor(&[2, 3])], &[tensor(&[3])]), Some(ErrorKind::InvalidData));
        assert_eq!(pack(&[tensor(&[2, 3, 1])], &[]), Some(ErrorKind::InvalidData));
        assert_eq!(pack(&[], &[]), Some(ErrorKind::InvalidData));
        assert_eq!(pack(&[tensor(&[2, 3]), tensor(&[1, 3])], &[tensor(&[2]), tensor(&[1])]), None);
    }
}
