//! The tiles of AMX in inline assembly, and whether this machine and its system let us use them.
//!
//! The compiler never uses tiles itself, as no function enables the feature for it. So they keep their content between
//! the statements below, which it does not reorder.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

use super::tiles::{NUM_TILES, TILE_ROW_BYTES, TILE_ROWS, TileUnit, self_test};

/// Proof of AMX with products of bf16 and of bytes; made by [`unit`] alone.
#[derive(Clone, Copy)]
pub struct Amx(());

/// The unit, where there is one that computes what it should; the first call finds out.
pub fn unit() -> Option<Amx> {
    static UNIT: OnceLock<Option<Amx>> = OnceLock::new();
    *UNIT.get_or_init(|| {
        let unit = untested_unit()?;
        let right = self_test(unit);
        if !right {
            log::warn!("this machine's AMX computed a wrong product and is not used");
        }
        right.then_some(unit)
    })
}

/// The unit, where processor and system offer it.
fn untested_unit() -> Option<Amx> {
    (processor_has_it() && tiles_are_large_enough() && system_saves_it() && system_permits_it())
        .then_some(Amx(()))
}

/// The features amx-bf16, amx-tile and amx-int8.
fn processor_has_it() -> bool {
    const FEATURES: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).edx & FEATURES == FEATURES
}

/// [`WHOLE_TILES`] is valid: the palette has as many tiles, rows and bytes of a row.
fn tiles_are_large_enough() -> bool {
    const PALETTES: u32 = 0x1d;
    if __cpuid_count(0, 0).eax < PALETTES {
        return false;
    }
    let palette = __cpuid_count(PALETTES, WHOLE_TILES.palette.into());
    palette.ebx >> 16 >= NUM_TILES as u32
        && palette.ebx & 0xffff >= TILE_ROW_BYTES as u32
        && palette.ecx & 0xffff >= TILE_ROWS as u32
}

/// The system keeps the tiles and their configuration over a context switch.
fn system_saves_it() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    /// XTILECFG and XTILEDATA.
    const TILE_STATE: u32 = 1 << 17 | 1 << 18;
    if __cpuid_count(1, 0).ecx & OSXSAVE == 0 {
        return false;
    }
    let enabled: u32;
    // SAFETY: OSXSAVE says that the instruction is there; it reads extended control register 0.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") enabled, out("edx") _, options(nomem, nostack, preserves_flags));
    }
    enabled & TILE_STATE == TILE_STATE
}

/// Linux gives the state to processes that ask for it, for all their threads.
#[cfg(target_os = "linux")]
fn system_permits_it() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and grants or refuses.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn system_permits_it() -> bool {
    false
}

/// The operand of LDTILECFG.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All tiles whole: products with fewer rows pad them, because configuring takes longer than a small product.
static WHOLE_TILES: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: first_tiles(TILE_ROW_BYTES as u16, 0),
    rows: first_tiles(TILE_ROWS as u8, 0),
};

const _: () = assert!(size_of::<Configuration>() == 64, "LDTILECFG reads 64 bytes");

/// One value for each of the unit's tiles and another for those that the format has room for.
const fn first_tiles<T: Copy>(tile: T, none: T) -> [T; 16] {
    let mut all = [none; 16];
    let mut i = 0;
    while i < NUM_TILES {
        all[i] = tile;
        i += 1;
    }
    all
}

impl TileUnit for Amx {
    const PRESENT: bool = true;

    #[inline(always)]
    fn configure(self) {
        // SAFETY: `self` proves the feature; the operand is 64 readable bytes that name a valid configuration.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE_TILES, options(readonly, nostack, preserves_flags));
        }
    }

    #[inline(always)]
    fn release(self) {
        // SAFETY: `self` proves the feature.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) }
    }

    #[inline(always)]
    unsafe fn load<const TILE: usize>(self, from: *const u8, stride: usize) {
        // SAFETY: `self` proves the feature, the caller that the rows are readable.
        unsafe {
            asm!(
                "tileloadd tmm{tile}, [{from} + {stride} * 1]",
                tile = const TILE,
                from = in(reg) from,
                stride = in(reg) stride,
                options(readonly, nostack, preserves_flags),
            );
        }
    }

    #[inline(always)]
    unsafe fn store<const TILE: usize>(self, to: *mut u8, stride: usize) {
        // SAFETY: `self` proves the feature, the caller that the rows are writable.
        unsafe {
            asm!(
                "tilestored [{to} + {stride} * 1], tmm{tile}",
                tile = const TILE,
                to = in(reg) to,
                stride = in(reg) stride,
                options(nostack, preserves_flags),
            );
        }
    }

    #[inline(always)]
    fn zero<const TILE: usize>(self) {
        // SAFETY: `self` proves the feature.
        unsafe { asm!("tilezero tmm{tile}", tile = const TILE, options(nomem, nostack, preserves_flags)) }
    }

    #[inline(always)]
    fn dot_bf16<const C: usize, const A: usize, const B: usize>(self) {
        // SAFETY: `self` proves the feature.
        unsafe {
            asm!(
                "tdpbf16ps tmm{c}, tmm{a}, tmm{b}",
                c = const C,
                a = const A,
                b = const B,
                options(nomem, nostack, preserves_flags),
            );
        }
    }

    #[inline(always)]
    fn dot_bytes<const C: usize, const A: usize, const B: usize>(self) {
        // SAFETY: `self` proves the feature.
        unsafe {
            asm!(
                "tdpbsud tmm{c}, tmm{a}, tmm{b}",
                c = const C,
                a = const A,
                b = const B,
                options(nomem, nostack, preserves_flags),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where there is AMX the other tests run on it only when this holds.
    #[test]
    fn a_unit_that_is_there_passes_its_test() {
        assert_eq!(untested_unit().is_some(), unit().is_some());
    }
}
