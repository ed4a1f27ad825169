//! AMX's tiles in software, so that everything above the instructions is tested on any machine.

use std::cell::RefCell;

use half::bf16;

use super::tiles::{NUM_TILES, TILE_ROW_BYTES, TILE_ROWS, TileUnit};

/// Elements of four bytes in a row: f32, i32, pairs of bf16, or quads of bytes.
const WIDTH: usize = TILE_ROW_BYTES / 4;

type Tile = [[u32; WIDTH]; TILE_ROWS];

thread_local! {
    /// This thread's tiles, while they are configured.
    static TILES: RefCell<Option<Box<[Tile; NUM_TILES]>>> = const { RefCell::new(None) };
}

/// A unit that computes, bit for bit, what TDPBF16PS and TDPBSUD are specified to.
#[derive(Clone, Copy)]
pub struct Emulated;

fn with_tiles<R>(work: impl FnOnce(&mut [Tile; NUM_TILES]) -> R) -> R {
    TILES.with_borrow_mut(|tiles| work(tiles.as_mut().expect("the thread's tiles are not configured")))
}

/// Subnormal numbers count as zero, in operands and results.
fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0_f32.copysign(x) } else { x }
}

/// Both elements of a pair.
fn widen(pair: u32) -> [f32; 2] {
    [pair as u16, (pair >> 16) as u16].map(|bits| flush(bf16::from_bits(bits).to_f32()))
}

impl TileUnit for Emulated {
    const PRESENT: bool = true;

    fn configure(self) {
        let before = TILES.replace(Some(Box::new([[[0; WIDTH]; TILE_ROWS]; NUM_TILES])));
        assert!(before.is_none(), "kernels do not nest");
    }

    fn release(self) {
        TILES.set(None);
    }

    unsafe fn load<const TILE: usize>(self, from: *const u8, stride: usize) {
        with_tiles(|tiles| {
            for (row, to) in tiles[TILE].iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *to = unsafe { from.add(row * stride).cast::<[u32; WIDTH]>().read_unaligned() };
            }
        });
    }

    unsafe fn store<const TILE: usize>(self, to: *mut u8, stride: usize) {
        with_tiles(|tiles| {
            for (row, from) in tiles[TILE].iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { to.add(row * stride).cast::<[u32; WIDTH]>().write_unaligned(*from) };
            }
        });
    }

    fn zero<const TILE: usize>(self) {
        with_tiles(|tiles| tiles[TILE] = [[0; WIDTH]; TILE_ROWS]);
    }

    fn dot_bf16<const C: usize, const A: usize, const B: usize>(self) {
        with_tiles(|tiles| {
            let (a, b) = (tiles[A], tiles[B].map(|row| row.map(widen)));
            for (c, a) in tiles[C].iter_mut().zip(a) {
                let a = a.map(widen);
                let mut sums = [[0.0_f32; 2]; WIDTH];
                for (a, b) in a.iter().zip(&b) {
                    for (sums, b) in sums.iter_mut().zip(b) {
                        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                            *sum = flush(a.mul_add(*b, *sum));
                        }
                    }
                }
                for (c, [first, second]) in c.iter_mut().zip(sums) {
                    *c = flush(flush(f32::from_bits(*c)) + flush(first + second)).to_bits();
                }
            }
        });
    }

    fn dot_bytes<const C: usize, const A: usize, const B: usize>(self) {
        with_tiles(|tiles| {
            let (a, b) = (tiles[A], tiles[B]);
            for (c, a) in tiles[C].iter_mut().zip(a) {
                for (a, b) in a.iter().zip(&b) {
                    let a = a.to_le_bytes().map(|byte| i32::from(byte.cast_signed()));
                    for (c, b) in c.iter_mut().zip(b) {
                        for (a, b) in a.iter().zip(b.to_le_bytes()) {
                            *c = c.wrapping_add_signed(a * i32::from(b));
                        }
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::tiles::self_test;
    use super::*;

    /// A unit with one fault.
    #[derive(Clone, Copy)]
    struct Faulty<const FAULT: usize>;

    impl<const FAULT: usize> TileUnit for Faulty<FAULT> {
        const PRESENT: bool = true;

        fn configure(self) {
            Emulated.configure();
        }

        fn release(self) {
            Emulated.release();
        }

        unsafe fn load<const TILE: usize>(self, from: *const u8, stride: usize) {
            // SAFETY: the caller's promise.
            unsafe { Emulated.load::<TILE>(from, if FAULT == 1 { TILE_ROW_BYTES } else { stride }) }
        }

        unsafe fn store<const TILE: usize>(self, to: *mut u8, stride: usize) {
            // SAFETY: the caller's promise.
            unsafe { Emulated.store::<TILE>(to, if FAULT == 2 { TILE_ROW_BYTES } else { stride }) }
        }

        fn zero<const TILE: usize>(self) {
            if FAULT != 3 {
                Emulated.zero::<TILE>();
            }
        }

        fn dot_bf16<const C: usize, const A: usize, const B: usize>(self) {
            match FAULT {
                4 => Emulated.dot_bf16::<C, B, A>(),
                5 => {}
                _ => Emulated.dot_bf16::<C, A, B>(),
            }
        }

        fn dot_bytes<const C: usize, const A: usize, const B: usize>(self) {
            match FAULT {
                6 => Emulated.dot_bytes::<C, B, A>(),
                7 => {}
                _ => Emulated.dot_bytes::<C, A, B>(),
            }
        }
    }

    #[test]
    fn the_self_test_tells_right_from_wrong() {
        assert!(self_test(Emulated) && self_test(Faulty::<0>));
        assert!(!self_test(Faulty::<1>), "stride of loads");
        assert!(!self_test(Faulty::<2>), "stride of stores");
        assert!(!self_test(Faulty::<3>), "zero");
        assert!(!self_test(Faulty::<4>), "order of operands");
        assert!(!self_test(Faulty::<5>), "no product");
        assert!(!self_test(Faulty::<6>), "order of operands of bytes");
        assert!(!self_test(Faulty::<7>), "no product of bytes");
    }

    #[test]
    fn subnormal_numbers_count_as_zero() {
        let tiny = f32::from_bits(0x0040_0000);
        assert_eq!(flush(-tiny).to_bits(), (-0.0_f32).to_bits());
        assert_eq!(widen(0x3f80_0040), [0.0, 1.0]);
        assert_eq!(flush(f32::MIN_POSITIVE), f32::MIN_POSITIVE);
    }
}
