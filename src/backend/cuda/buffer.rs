//! Device memory with an owner, and the views of it that launches take: they know their element type and never reach past their buffer.

use std::fmt;
use std::marker::PhantomData;
use std::slice;
use std::sync::Arc;

use half::{bf16, f16};

use super::launcher::Launcher;
use super::params::AttentionTile;
use crate::backend::DType;
use crate::error::{Error, Result};

/// What an element of device memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// A floating-point type of the model.
    Float(DType),
    /// 8-bit floats with 4 bits of exponent, of the FP8 cache.
    E4m3,
    /// 32-bit integers.
    I32,
    /// 64-bit integers, signed.
    I64,
    /// 64-bit integers, unsigned.
    U64,
    /// [`AttentionTile`]s.
    Tile,
}

impl Element {
    /// Bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Float(dtype) => dtype.size(),
            Self::E4m3 => 1,
            Self::I32 => 4,
            Self::I64 | Self::U64 | Self::Tile => 8,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float(dtype) => dtype.name(),
            Self::E4m3 => "e4m3",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::U64 => "u64",
            Self::Tile => "tile",
        })
    }
}

/// A host type that is stored as it is.
///
/// # Safety
/// Has no padding, every bit pattern is a value, and its size is that of [`Stored::ELEMENT`].
pub unsafe trait Stored: Copy + 'static {
    /// What it is on the device.
    const ELEMENT: Element;
}

macro_rules! stored {
    ($($type:ty => $element:expr),*) => {$(
        // SAFETY: plain numbers of the element's size.
        unsafe impl Stored for $type {
            const ELEMENT: Element = $element;
        }
    )*};
}

stored!(
    f32 => Element::Float(DType::F32), f16 => Element::Float(DType::F16), bf16 => Element::Float(DType::BF16),
    u8 => Element::E4m3, i32 => Element::I32, i64 => Element::I64, u64 => Element::U64, AttentionTile => Element::Tile
);

/// A piece of a device's memory; the memory is given back when its last piece is dropped.
pub struct Buffer {
    memory: Arc<Memory>,
    address: u64,
    len: usize,
    element: Element,
}

/// One allocation.
struct Memory {
    launcher: Arc<dyn Launcher>,
    address: u64,
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated by `Buffer::new`; views borrow a buffer, which holds this.
        unsafe { self.launcher.release(self.address) };
    }
}

impl Buffer {
    /// Memory for `len` elements, its contents undefined.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn new(launcher: &Arc<dyn Launcher>, element: Element, len: usize) -> Result<Self> {
        let bytes = len.checked_mul(element.size()).ok_or_else(|| {
            Error::invalid_argument(format!("{len} elements of {element} are more than memory has addresses"))
        })?;
        let address = launcher.allocate(bytes.max(1))?;
        let memory = Arc::new(Memory { launcher: Arc::clone(launcher), address });
        Ok(Self { memory, address, len, element })
    }

    /// A copy of `values`.
    ///
    /// # Errors
    /// `OutOfMemory`, `Device`.
    pub fn from_slice<T: Stored>(launcher: &Arc<dyn Launcher>, values: &[T]) -> Result<Self> {
        let buffer = Self::new(launcher, T::ELEMENT, values.len())?;
        buffer.write(values)?;
        Ok(buffer)
    }

    /// `len` elements of zero bits.
    ///
    /// # Errors
    /// `OutOfMemory`, `Device`.
    pub fn zeroed(launcher: &Arc<dyn Launcher>, element: Element, len: usize) -> Result<Self> {
        let buffer = Self::new(launcher, element, len)?;
        buffer.zero()?;
        Ok(buffer)
    }

    /// `len` elements of another type from byte `offset` on, which share this buffer's memory.
    pub(super) fn piece(&self, offset: usize, element: Element, len: usize) -> Result<Self> {
        let end = len.checked_mul(element.size()).and_then(|bytes| bytes.checked_add(offset));
        if end.is_none_or(|end| end > self.bytes()) {
            return Err(Error::invalid_argument("a piece of a device buffer does not lie in it")
                .with_expected(
                    format_args!("at most {} bytes", self.bytes()),
                    format_args!("{len} of {element} from byte {offset}"),
                ));
        }
        Ok(Self { memory: Arc::clone(&self.memory), address: self.address + offset as u64, len, element })
    }

    /// Overwrites the first elements.
    ///
    /// # Errors
    /// `InvalidArgument` for another type or more than fit, `Device`.
    pub fn write<T: Stored>(&self, values: &[T]) -> Result<()> {
        self.check::<T>("write", values.len())?;
        // SAFETY: `Stored` types are plain bytes.
        let bytes = unsafe { slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
        self.write_bytes(0, bytes)
    }

    /// Overwrites memory from byte `offset` on with elements as the device stores them.
    ///
    /// # Errors
    /// `InvalidArgument` for more than fit, `Device`.
    pub(super) fn write_bytes(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        if offset.checked_add(bytes.len()).is_none_or(|end| end > self.bytes()) {
            return Err(Error::invalid_argument("cannot write a device buffer").with_expected(
                format_args!("at most {} bytes", self.bytes()),
                format_args!("{} from byte {offset}", bytes.len()),
            ));
        }
        // SAFETY: checked to lie in this buffer.
        unsafe { self.memory.launcher.write(self.address + offset as u64, bytes) }
    }

    /// All elements, once the work before has been done.
    ///
    /// # Errors
    /// `InvalidArgument` for another type, `Device`.
    pub fn to_vec<T: Stored>(&self) -> Result<Vec<T>> {
        self.check::<T>("read", self.len)?;
        let mut values = Vec::with_capacity(self.len);
        let size = self.len * size_of::<T>();
        let start: *mut T = values.as_mut_ptr();
        // SAFETY: the vector has room for `len` elements, zeroed before they are borrowed.
        let bytes = unsafe {
            start.cast::<u8>().write_bytes(0, size);
            slice::from_raw_parts_mut(start.cast::<u8>(), size)
        };
        // SAFETY: all of this buffer and no more.
        unsafe { self.memory.launcher.read(self.address, bytes)? };
        // SAFETY: every bit pattern of a `Stored` type is a value.
        unsafe { values.set_len(self.len) };
        Ok(values)
    }

    /// The first bytes as the device stores them, once the work before has been done.
    ///
    /// # Errors
    /// `InvalidArgument` for more than there are, `Device`.
    pub(super) fn read_bytes(&self, bytes: &mut [u8]) -> Result<()> {
        if bytes.len() > self.bytes() {
            return Err(Error::invalid_argument("cannot read a device buffer")
                .with_expected(format_args!("at most {} bytes", self.bytes()), bytes.len()));
        }
        // SAFETY: checked to lie in this buffer.
        unsafe { self.memory.launcher.read(self.address, bytes) }
    }

    /// Zero bits everywhere.
    ///
    /// # Errors
    /// `Device`.
    pub fn zero(&self) -> Result<()> {
        // SAFETY: all of this buffer and no more.
        unsafe { self.memory.launcher.zero(self.address, self.bytes()) }
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.len * self.element.size()
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All elements side by side.
    pub fn vector(&self) -> Vector<'_> {
        Vector { address: self.address, len: self.len, element: self.element, memory: PhantomData }
    }

    /// Rows of `cols` elements, `row_stride` elements apart, from element `offset` on.
    ///
    /// # Errors
    /// `InvalidArgument` when they do not lie in this buffer or overlap.
    pub fn matrix(&self, offset: usize, rows: usize, cols: usize, row_stride: usize) -> Result<Matrix<'_>> {
        let end = rows.checked_sub(1).map_or(Some(0), |last| last.checked_mul(row_stride)?.checked_add(cols));
        let end = end.and_then(|end| end.checked_add(offset));
        if cols > row_stride || end.is_none_or(|end| end > self.len) {
            return Err(Error::invalid_argument("a matrix does not lie in its buffer").with_expected(
                format_args!("rows that do not overlap in {} elements", self.len),
                format_args!("{rows} rows of {cols}, {row_stride} apart, from element {offset}"),
            ));
        }
        let address = self.address + (offset * self.element.size()) as u64;
        Ok(Matrix { address, rows, cols, row_stride, element: self.element, memory: PhantomData })
    }

    fn check<T: Stored>(&self, action: &str, len: usize) -> Result<()> {
        if T::ELEMENT == self.element && len <= self.len {
            return Ok(());
        }
        Err(Error::invalid_argument(format!("cannot {action} a device buffer")).with_expected(
            format_args!("{} of {}", self.len, self.element),
            format_args!("{len} of {}", T::ELEMENT),
        ))
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} of {} at {:#x})", self.len, self.element, self.address)
    }
}

/// Elements side by side in device memory.
#[derive(Debug, Clone, Copy)]
pub struct Vector<'a> {
    pub(super) address: u64,
    pub(super) len: usize,
    pub(super) element: Element,
    memory: PhantomData<&'a Buffer>,
}

/// Rows in device memory.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    pub(super) address: u64,
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Elements from one row to the next, at least `cols`.
    pub(super) row_stride: usize,
    pub(super) element: Element,
    memory: PhantomData<&'a Buffer>,
}

impl<'a> Vector<'a> {
    /// `len` elements from element `start` on.
    ///
    /// # Errors
    /// `InvalidArgument` when they are not all there.
    pub fn part(&self, start: usize, len: usize) -> Result<Vector<'a>> {
        if start.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(Error::invalid_argument("a part of a vector does not lie in it").with_expected(
                format_args!("at most {} elements", self.len),
                format_args!("{len} from element {start}"),
            ));
        }
        let address = self.address + (start * self.element.size()) as u64;
        Ok(Self { address, len, ..*self })
    }
}
