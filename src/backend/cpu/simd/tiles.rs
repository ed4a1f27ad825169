//! Units that multiply small matrices held in tiles, such as AMX.

/// Rows of a tile.
pub const TILE_ROWS: usize = 16;
/// Bytes of a tile's row: 16 f32, or 16 pairs of bf16.
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
}

/// Whether the unit computes a product of two tiles with one as it should, operands and result being scattered.
pub fn self_test<T: TileUnit>(unit: T) -> bool {
    /// Elements between two rows of each matrix: more than a tile has.
    const STRIDE: usize = 48;
    /// Pairs of bf16 in a row, and f32 in a row.
    const WIDTH: usize = TILE_ROW_BYTES / 4;

    // Small integers: exact in bf16, and their sums in f32 in any order.
    let integer = |i: usize| (i * 7 % 11) as f32 - 5.0;
    let pairs = |seed: usize| -> Vec<[f32; 2]> {
        (0..2 * TILE_ROWS * STRIDE).map(|i| [integer(i + seed), integer(3 * i + seed)]).collect()
    };
    let packed = |pairs: &[[f32; 2]]| -> Vec<u32> {
        pairs.iter().map(|[low, high]| low.to_bits() >> 16 | (high.to_bits() & 0xffff_0000)).collect()
    };
    let (a, b) = (pairs(1), pairs(4));
    let (a_bits, b_bits) = (packed(&a), packed(&b));
    let mut c: Vec<f32> = (0..2 * TILE_ROWS * STRIDE).map(integer).collect();
    let mut want = c.clone();
    for row in 0..2 * TILE_ROWS {
        for column in 0..WIDTH {
            for k in 0..TILE_ROWS {
                let (a, b) = (a[row * STRIDE + k], b[k * STRIDE + column]);
                want[row * STRIDE + column] += a[0] * b[0] + a[1] * b[1];
            }
            // The product of the second rows starts from zero.
            if row >= TILE_ROWS {
                want[row * STRIDE + column] -= c[row * STRIDE + column];
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
        unit.dot_bf16::<0, 4, 6>();
        unit.load::<7>(c.as_ptr().cast(), stride);
        unit.zero::<7>();
        unit.load::<5>(a_bits[half..].as_ptr().cast(), stride);
        unit.dot_bf16::<7, 5, 6>();
        unit.store::<0>(c.as_mut_ptr().cast(), stride);
        unit.store::<7>(c[half..].as_mut_ptr().cast(), stride);
    }
    c == want
}
