//! A tensor as a file stores it: where its bytes are and how they are laid out.

use std::borrow::Cow;
use std::ops::Range;

use super::TensorInfo;
use super::gather::{dense_strides, gather};
use crate::backend::{DType, HostTensor};
use crate::error::{Error, Result};

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StoredTensor {
    /// An element type that the library computes in.
    Readable(ReadableTensor),
    /// Any other element type; an error only when somebody needs the tensor.
    Unsupported {
        /// The element type, as the file's format calls it.
        element: String,
        /// Dimensions, outermost first.
        shape: Vec<usize>,
    },
}

/// A tensor whose bytes are known to lie within its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReadableTensor {
    info: TensorInfo,
    /// Elements from one index to the next in each dimension; `None` when dense and row-major.
    strides: Option<Vec<usize>>,
    /// From the first byte of the first element to the last byte of the last one, in the file.
    bytes: Range<usize>,
}

impl StoredTensor {
    /// Dimensions, outermost first.
    pub(super) fn shape(&self) -> &[usize] {
        match self {
            Self::Readable(tensor) => &tensor.info.shape,
            Self::Unsupported { shape, .. } => shape,
        }
    }
}

impl ReadableTensor {
    /// A dense row-major tensor that fills `bytes` of the file.
    ///
    /// # Errors
    /// `InvalidData` when the shape does not fill the range exactly.
    pub(super) fn dense(info: TensorInfo, bytes: Range<usize>) -> Result<Self> {
        let size = byte_len(info.dtype, &info.shape)?;
        if size != bytes.len() {
            return Err(Error::invalid_data("the byte range does not match dtype and shape").with_expected(
                format_args!("{size} bytes for {} {:?}", info.dtype, info.shape),
                format_args!("{} bytes", bytes.len()),
            ));
        }
        Ok(Self { info, strides: None, bytes })
    }

    /// A view of a storage: element `[i, j, …]` is number `offset + i · strides[0] + j · strides[1] + …`.
    ///
    /// `storage` is the storage's byte range in the file and `file_len` the length of the file, which bounds what a view
    /// that repeats elements (stride 0) may expand to.
    ///
    /// # Errors
    /// `InvalidData` when the view leaves the storage or expands beyond the bound.
    pub(super) fn view(
        info: TensorInfo,
        strides: &[usize],
        offset: usize,
        storage: Range<usize>,
        file_len: usize,
    ) -> Result<Self> {
        if strides.len() != info.shape.len() {
            return Err(Error::invalid_data("shape and strides have different ranks")
                .with_expected(format_args!("{:?}", info.shape), format_args!("strides {strides:?}")));
        }
        let size = info.dtype.size();
        let dense_len = byte_len(info.dtype, &info.shape)?;
        if dense_len == 0 {
            return Ok(Self { info, strides: None, bytes: storage.start..storage.start });
        }
        let last = info
            .shape
            .iter()
            .zip(strides)
            .try_fold(offset, |last, (&dim, &stride)| last.checked_add((dim - 1).checked_mul(stride)?));
        let end = last.and_then(|last| last.checked_add(1)?.checked_mul(size));
        let Some(end) = end.filter(|&end| end <= storage.len()) else {
            return Err(Error::invalid_data("the tensor reaches beyond its storage").with_expected(
                format_args!("at most {} elements", storage.len() / size),
                format_args!("shape {:?}, strides {strides:?}, offset {offset}", info.shape),
            ));
        };
        if dense_len > file_len {
            return Err(Error::invalid_data("the tensor is larger than its file")
                .with_expected(format_args!("at most {file_len} bytes"), format_args!("{dense_len} bytes")));
        }
        let bytes = storage.start + offset * size..storage.start + end;
        let dense = dense_strides(&info.shape);
        // The stride of a dimension with one index is never used and may be anything.
        let is_dense = info.shape.iter().zip(strides).zip(&dense).all(|((&dim, a), b)| dim == 1 || a == b);
        Ok(Self { info, strides: (!is_dense).then(|| strides.to_vec()), bytes })
    }

    /// Element type and shape.
    pub(super) fn info(&self) -> &TensorInfo {
        &self.info
    }

    /// The bytes of the file that hold the tensor, with the gaps of a strided one.
    pub(super) fn bytes(&self) -> Range<usize> {
        self.bytes.clone()
    }

    /// The tensor, borrowed from the file's content where it is dense.
    pub(super) fn read<'a>(&self, file: &'a [u8]) -> Result<HostTensor<'a>> {
        let Some(bytes) = file.get(self.bytes()) else {
            return Err(Error::internal("a tensor's byte range is not that of its file"));
        };
        let data = match &self.strides {
            None => Cow::Borrowed(bytes),
            Some(strides) => Cow::Owned(gather(bytes, self.info.dtype, &self.info.shape, strides)),
        };
        HostTensor::new(self.info.dtype, self.info.shape.clone(), data)
    }
}

/// Bytes of a dense tensor.
fn byte_len(dtype: DType, shape: &[usize]) -> Result<usize> {
    // A zero anywhere makes the tensor empty, however large the other dimensions say they are.
    if shape.contains(&0) {
        return Ok(0);
    }
    shape.iter().try_fold(dtype.size(), |bytes, &dim| bytes.checked_mul(dim)).ok_or_else(|| {
        Error::invalid_data("the shape's element count overflows")
            .with_expected("at most 2^63 bytes", format_args!("{shape:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(
        shape: &[usize],
        strides: &[usize],
        offset: usize,
        storage: Range<usize>,
    ) -> Result<ReadableTensor> {
        ReadableTensor::view(
            TensorInfo { dtype: DType::F32, shape: shape.to_vec() },
            strides,
            offset,
            storage,
            1 << 10,
        )
    }

    #[test]
    fn dense_views_are_borrowed_and_others_gathered() {
        let file: Vec<u8> = (0..64_u32).flat_map(|i| (i as f32).to_le_bytes()).collect();
        // The storage begins at element 4 of the file.
        let check = |shape: &[usize], strides: &[usize], offset: usize, expected: &[f32], borrowed: bool| {
            let tensor = view(shape, strides, offset, 16..256).unwrap();
            let read = tensor.read(&file).unwrap();
            assert_eq!(read.to_f32(), expected, "{shape:?} {strides:?}");
            assert_eq!(
                file.as_ptr_range().contains(&read.bytes().as_ptr()),
                borrowed,
                "{shape:?} {strides:?}"
            );
        };
        check(&[2, 3], &[3, 1], 0, &[4., 5., 6., 7., 8., 9.], true);
        check(&[2, 3], &[3, 1], 10, &[14., 15., 16., 17., 18., 19.], true);
        check(&[3, 2], &[1, 3], 0, &[4., 7., 5., 8., 6., 9.], false);
        check(&[1, 3], &[99, 1], 2, &[6., 7., 8.], true);
        check(&[2, 2], &[0, 1], 0, &[4., 5., 4., 5.], false);
        check(&[], &[], 59, &[63.], true);
        check(&[60], &[1], 0, &(4..64).map(|i| i as f32).collect::<Vec<_>>(), true);
    }

    #[test]
    fn views_that_leave_their_storage_are_refused() {
        let check = |shape: &[usize], strides: &[usize], offset: usize, message: &str| {
            let error = view(shape, strides, offset, 16..256).unwrap_err();
            assert!(error.to_line().contains(message), "{shape:?} {strides:?}: {error}");
        };
        check(&[61], &[1], 0, "beyond its storage");
        check(&[60], &[1], 1, "beyond its storage");
        check(&[2], &[usize::MAX], 0, "beyond its storage");
        check(&[3], &[usize::MAX / 2], 7, "beyond its storage");
        check(&[1], &[1], usize::MAX, "beyond its storage");
        check(&[usize::MAX, 2], &[0, 0], 0, "overflows");
        check(&[1 << 20], &[0], 0, "larger than its file");
        check(&[2, 2], &[1], 0, "different ranks");
        assert_eq!(
            view(&[usize::MAX, usize::MAX, 0], &[1, 1, 1], usize::MAX, 16..256).unwrap().bytes(),
            16..16
        );
    }
}
