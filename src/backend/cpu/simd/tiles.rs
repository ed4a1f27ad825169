//! Units that multiply small matrices held in tiles, such as AMX.

use std::array;

/// Rows of a tile.
pub const TILE_ROWS: usize = 16;
/// Bytes of a tile's row: 16 f32 or i32, 16 pairs of bf16, or 16 quads of bytes.
pub const TILE_ROW_BYTES: usize = 64;
/// Tiles of a unit.
pub const NUM_TILES: usize = 8;

/// Eight tiles of [`TILE_ROWS`] rows of [`TILE_ROW_BYTES`] bytes, in the state of the calling thread.
///
/// A value exists only where there is a unit, and kernels get one only while [`Configured`] holds the thread's tiles. A
/// tile keeps its content between calls.
pub trait TileUnit: Copy + Send + Sync + 'static {
    /// Whether there is a unit.
    const PRESENT: bool;

    /// Gives this thread its tiles, zeroed.
    fn configure(self);

    /// Takes this thread's tiles away, so that it switches contexts as cheaply as others.
    fn release(self);

    /// Reads the rows of a tile, `stride` bytes apart.
    ///
    /// # Safety
    /// They are readable.
    unsafe fn load<const TILE: usize>(self, from: *const u8, stride: usize);

    /// Writes the rows of a tile, `stride` bytes apart.
    ///
    /// # Safety
    /// They are writable.
    unsafe fn store<const TILE: usize>(self, to: *mut u8, stride: usize);

    /// Fills a tile with zeros.
    fn zero<const TILE: usize>(self);

    /// `C[m][n] += Σ A[m][2k] · B[k][2n] + Σ A[m][2k + 1] · B[k][2n + 1]`, C of f32, A and B of bf16: TDPBF16PS of Intel's
    /// Software Developer's Manual. The two sums are rounded product by product, subnormal numbers count as zero.
    fn dot_bf16<const C: usize, const A: usize, const B: usize>(self);

    /// `C[m][n] += Σ A[m][4k + i] · B[k][4n + i]` over the `i` of 0..4, exactly: C of i32, A of signed bytes, B of unsigned
    /// ones; TDPBSUD.
    fn dot_bytes<const C: usize, const A: usize, const B: usize>(self);
}

/// What the elements of two tiles are multiplied as.
pub trait Product {
    /// Elements along k of a step.
    const LEN: usize;

    /// Adds the product of the tiles `A` and `B` to `C`.
    fn dot<T: TileUnit, const C: usize, const A: usize, const B: usize>(unit: T);
}

/// [`TileUnit::dot_bf16`].
pub struct Bf16Product;

impl Product for Bf16Product {
    const LEN: usize = TILE_ROW_BYTES / 2;

    #[inline(always)]
    fn dot<T: TileUnit, const C: usize, const A: usize, const B: usize>(unit: T) {
        unit.dot_bf16::<C, A, B>();
    }
}

/// [`TileUnit::dot_bytes`].
pub struct ByteProduct;

impl Product for ByteProduct {
    const LEN: usize = TILE_ROW_BYTES;

    #[inline(always)]
    fn dot<T: TileUnit, const C: usize, const A: usize, const B: usize>(unit: T) {
        unit.dot_bytes::<C, A, B>();
    }
}

/// Holds this thread's tiles until it is dropped.
pub struct Configured<T: TileUnit>(T);

impl<T: TileUnit> Configured<T> {
    /// Configures `unit` on this thread.
    pub fn new(unit: T) -> Self {
        unit.configure();
        Self(unit)
    }
}

impl<T: TileUnit> Drop for Configured<T> {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// No unit; nothing asks it for anything.
#[derive(Clone, Copy)]
pub struct NoTiles;

impl TileUnit for NoTiles {
    const PRESENT: bool = false;

    fn configure(self) {}

    fn release(self) {}

    unsafe fn load<const TILE: usize>(self, _from: *const u8, _stride: usize) {
        unreachable!("no tiles")
    }

    unsafe fn store<const TILE: usize>(self, _to: *mut u8, _stride: usize) {
        unreachable!("no tiles")
    }

    fn zero<const TILE: usize>(self) {
        unreachable!("no tiles")
    }

    fn dot_bf16<const C: usize, const A: usize, const B: usize>(self) {
        unreachable!("no tiles")
    }

    fn dot_bytes<const C: usize, const A: usize, const B: usize>(self) {
        unreachable!("no tiles")
    }
}

/// Whether the unit computes products as it should, of bf16 and of bytes.
pub fn self_test<T: TileUnit>(unit: T) -> bool {
    let bf16 = |value: i32| (value as f32).to_bits() >> 16;
    let pair = |[first, second]: [i32; 2]| bf16(first) | bf16(second) << 16;
    let quad = |bytes: [i32; 4]| u32::from_le_bytes(bytes.map(|value| value as u8));
    // Bytes of more than 127 tell the unsigned operand from the signed one.
    multiplies::<T, Bf16Product, 2>(unit, pair, 0, |sum| (sum as f32).to_bits())
        && multiplies::<T, ByteProduct, 4>(unit, quad, 200, i32::cast_unsigned)
}

/// Whether the unit computes a product of two tiles with one as it should, operands and results being scattered.
///
/// `pack` makes an element of four bytes, and `result` one of `C`. `offset` is added to the elements of B.
fn multiplies<T: TileUnit, P: Product, const N: usize>(
    unit: T,
    pack: impl Fn([i32; N]) -> u32,
    offset: i32,
    result: impl Fn(i32) -> u32,
) -> bool {
    /// Elements between two rows of each matrix: more than a tile has.
    const STRIDE: usize = 48;
    /// Elements in a row of a tile.
    const WIDTH: usize = TILE_ROW_BYTES / 4;

    // Small integers: exact in bf16, and their sums in f32 in any order.
    let integer = |i: usize| (i * 7 % 11) as i32 - 5;
    let elements = |seed: usize, offset: i32| -> Vec<[i32; N]> {
        let element = |i: usize| array::from_fn(|j| integer((2 * j + 1) * i + seed) + offset);
        (0..2 * TILE_ROWS * STRIDE).map(element).collect()
    };
    let packed = |elements: &[[i32; N]]| -> Vec<u32> { elements.iter().map(|&x| pack(x)).collect() };
    let (a, b) = (elements(1, 0), elements(4, offset));
    let (a_bits, b_bits) = (packed(&a), packed(&b));
    let mut want: Vec<i32> = (0..2 * TILE_ROWS * STRIDE).map(integer).collect();
    let mut c: Vec<u32> = want.iter().map(|&x| result(x)).collect();
    for row in 0..2 * TILE_ROWS {
        for column in 0..WIDTH {
            let want = &mut want[row * STRIDE + column];
            // The product of the second rows starts from zero.
            if row >= TILE_ROWS {
                *want = 0;
            }
            for k in 0..TILE_ROWS {
                let (a, b) = (a[row * STRIDE + k], b[k * STRIDE + column]);
                *want += a.iter().zip(b).map(|(a, b)| a * b).sum::<i32>();
            }
        }
    }
    let _configured = Configured::new(unit);
    let stride = STRIDE * 4;
    // SAFETY: the matrices have 2 · TILE_ROWS rows of at least WIDTH elements of four bytes, STRIDE apart.
    unsafe {
        let half = TILE_ROWS * STRIDE;
        unit.load::<0>(c.as_ptr().cast(), stride);
        unit.load::<4>(a_bits.as_ptr().cast(), stride);
        unit.load::<6>(b_bits.as_ptr().cast(), stride);
        P::dot::<T, 0, 4, 6>(unit);
        unit.load::<7>(c.as_ptr().cast(), stride);
        unit.zero::<7>();
        unit.load::<5>(a_bits[half..].as_ptr().cast(), stride);
        P::dot::<T, 7, 5, 6>(unit);
        unit.store::<0>(c.as_mut_ptr().cast(), stride);
        unit.store::<7>(c[half..].as_mut_ptr().cast(), stride);
    }
    c.into_iter().eq(want.into_iter().map(result))
}
