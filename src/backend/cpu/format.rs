//! Packed matrices: how weights, keys and values lie in memory, and the products of one register tile with them.
//!
//! A packed matrix `[k, width]` holds f16 and f32 elements in rows of `width`. bf16 elements are interleaved in pairs
//! along k, `[k / 2][width][2]`, which is the operand of the bf16 dot product of AVX-512 (and of AMX): a broadcast pair of
//! inputs meets `LANES` columns, and no sum crosses lanes. An odd k is padded with zeros. Either way two successive rows
//! take the same number of bytes, and kernels step over pairs.

use half::{bf16, f16};

use super::simd::Simd;
use crate::backend::DType;

/// Index of element `(k, column)` in a packed matrix of `width` columns.
#[inline(always)]
pub fn packed_index(dtype: DType, width: usize, k: usize, column: usize) -> usize {
    match dtype {
        DType::BF16 => (k / 2 * width + column) * 2 + k % 2,
        DType::F16 | DType::F32 => k * width + column,
    }
}

/// Bytes of a packed matrix `[k, width]`.
pub fn packed_bytes(dtype: DType, width: usize, k: usize) -> usize {
    k.next_multiple_of(2) * width * dtype.size()
}

/// Writes one element of a packed matrix.
///
/// # Safety
/// `index` elements and one more are writable from `matrix`, which is aligned to the element.
#[inline(always)]
pub unsafe fn write_element(dtype: DType, matrix: *mut u8, index: usize, value: f32) {
    // SAFETY: the caller's promise.
    unsafe {
        match dtype {
            DType::F32 => *matrix.cast::<f32>().add(index) = value,
            DType::F16 => *matrix.cast::<f16>().add(index) = f16::from_f32(value),
            DType::BF16 => *matrix.cast::<bf16>().add(index) = bf16::from_f32(value),
        }
    }
}

/// Reads one element of a packed matrix.
///
/// # Safety
/// `index` elements and one more are readable from `matrix`, which is aligned to the element.
#[inline(always)]
pub unsafe fn read_element(dtype: DType, matrix: *const u8, index: usize) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        match dtype {
            DType::F32 => *matrix.cast::<f32>().add(index),
            DType::F16 => (*matrix.cast::<f16>().add(index)).to_f32(),
            DType::BF16 => (*matrix.cast::<bf16>().add(index)).to_f32(),
        }
    }
}

/// The type of a packed matrix and of the inputs that it is multiplied with.
pub trait Format: Copy + 'static {
    /// An input element.
    type Input: Copy;
    /// A pair of rows of one vector of columns, ready to multiply.
    type Columns<S: Simd>: Copy;

    /// Element type of the packed matrix.
    const DTYPE: DType;

    /// Whether a unit of tiles multiplies it.
    const ON_TILES: bool = false;

    /// Rows of the largest register tile.
    fn tile_rows<S: Simd>() -> usize;

    /// Loads the pair of rows at `row_pair` of the vector of columns that starts at `column`.
    ///
    /// # Safety
    /// Two rows of `width` columns are readable from `row_pair`, and `column + LANES <= width`.
    unsafe fn load<S: Simd>(simd: S, row_pair: *const u8, width: usize, column: usize) -> Self::Columns<S>;

    /// `acc + input[0] · first row + input[1] · second row`, in this order.
    ///
    /// # Safety
    /// Two inputs are readable.
    unsafe fn dot<S: Simd>(
        simd: S,
        acc: S::F32,
        input: *const Self::Input,
        columns: Self::Columns<S>,
    ) -> S::F32;

    /// Converts a vector to inputs.
    ///
    /// # Safety
    /// `LANES` inputs are writable.
    unsafe fn store_input<S: Simd>(simd: S, to: *mut Self::Input, value: S::F32);

    /// Converts one input.
    fn input(value: f32) -> Self::Input;
}

/// bf16 matrices and bf16 inputs, by the dot product instruction or on tiles.
#[derive(Clone, Copy)]
pub struct Bf16Dot;

impl Format for Bf16Dot {
    type Input = bf16;
    type Columns<S: Simd> = S::Bf16Pairs;

    const DTYPE: DType = DType::BF16;
    const ON_TILES: bool = true;

    #[inline(always)]
    fn tile_rows<S: Simd>() -> usize {
        S::TILE_ROWS_DOT
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, row_pair: *const u8, _width: usize, column: usize) -> S::Bf16Pairs {
        // SAFETY: the caller's promise: LANES pairs lie in the pair of rows from `column` on.
        unsafe { simd.load_bf16_pairs(row_pair.cast::<bf16>().add(2 * column)) }
    }

    #[inline(always)]
    unsafe fn dot<S: Simd>(simd: S, acc: S::F32, input: *const bf16, columns: S::Bf16Pairs) -> S::F32 {
        // SAFETY: the caller's promise of two inputs.
        simd.dot_bf16(acc, unsafe { input.cast::<u32>().read_unaligned() }, columns)
    }

    #[inline(always)]
    unsafe fn store_input<S: Simd>(simd: S, to: *mut bf16, value: S::F32) {
        // SAFETY: the caller's promise.
        unsafe { simd.store_bf16(to, value) }
    }

    #[inline(always)]
    fn input(value: f32) -> bf16 {
        bf16::from_f32(value)
    }
}

/// Formats whose rows are widened to f32 and multiplied with f32 inputs.
macro_rules! wide_format {
    ($(#[$doc:meta])* $name:ident, $dtype:expr, |$simd:ident, $row_pair:ident, $width:ident, $column:ident| $load:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name;

        impl Format for $name {
            type Input = f32;
            type Columns<S: Simd> = (S::F32, S::F32);

            const DTYPE: DType = $dtype;

            #[inline(always)]
            fn tile_rows<S: Simd>() -> usize {
                S::TILE_ROWS_WIDE
            }

            #[inline(always)]
            unsafe fn load<S: Simd>(
                $simd: S,
                $row_pair: *const u8,
                $width: usize,
                $column: usize,
            ) -> (S::F32, S::F32) {
                // SAFETY: the caller's promise: LANES elements lie in each of the two rows from `column` on.
                unsafe { $load }
            }

            #[inline(always)]
            unsafe fn dot<S: Simd>(
                simd: S,
                acc: S::F32,
                input: *const f32,
                columns: (S::F32, S::F32),
            ) -> S::F32 {
                // SAFETY: the caller's promise of two inputs.
                let (first, second) = unsafe { (simd.splat(*input), simd.splat(*input.add(1))) };
                simd.mul_add(columns.1, second, simd.mul_add(columns.0, first, acc))
            }

            #[inline(always)]
            unsafe fn store_input<S: Simd>(simd: S, to: *mut f32, value: S::F32) {
                // SAFETY: the caller's promise.
                unsafe { simd.store(to, value) }
            }

            #[inline(always)]
            fn input(value: f32) -> f32 {
                value
            }
        }
    };
}

wide_format!(
    /// bf16 matrices and f32 inputs.
    Bf16Wide,
    DType::BF16,
    |simd, row_pair, _width, column| {
        simd.widen_bf16(simd.load_bf16_pairs(row_pair.cast::<bf16>().add(2 * column)))
    }
);

wide_format!(
    /// f16 matrices and f32 inputs.
    F16Wide,
    DType::F16,
    |simd, row_pair, width, column| {
        let first = row_pair.cast::<f16>().add(column);
        (simd.load_f16(first), simd.load_f16(first.add(width)))
    }
);

wide_format!(
    /// f32 matrices and f32 inputs.
    F32Wide,
    DType::F32,
    |simd, row_pair, width, column| {
        let first = row_pair.cast::<f32>().add(column);
        (simd.load(first), simd.load(first.add(width)))
    }
);

/// Calls `$function::<S, F>` with the format `F` for matrices of `$dtype` under `$simd: S`.
macro_rules! with_format {
    ($simd:ident: $S:ident, $dtype:expr, $function:ident($($argument:expr),*)) => {
        match $dtype {
            $crate::backend::DType::F32 => $function::<$S, $crate::backend::cpu::format::F32Wide>($simd, $($argument),*),
            $crate::backend::DType::F16 => $function::<$S, $crate::backend::cpu::format::F16Wide>($simd, $($argument),*),
            $crate::backend::DType::BF16 if $S::HAS_DOT_BF16 => {
                $function::<$S, $crate::backend::cpu::format::Bf16Dot>($simd, $($argument),*)
            }
            $crate::backend::DType::BF16 => $function::<$S, $crate::backend::cpu::format::Bf16Wide>($simd, $($argument),*),
        }
    };
}

pub(super) use with_format;
