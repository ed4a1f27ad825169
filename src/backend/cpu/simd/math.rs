//! Vectorised functions on f32.

use super::Simd;

/// `e^x` with a relative error of at most 2 ulp; exactly 0 below -110, infinity above 89, NaN for NaN.
///
/// Cody–Waite reduction and the polynomial of Cephes' `expf`.
#[inline(always)]
pub fn exp<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    // The constant comes first so that a NaN in `x` survives.
    let x = simd.max(simd.splat(-110.0), simd.min(simd.splat(100.0), x));
    let n = simd.round(simd.mul(x, simd.splat(std::f32::consts::LOG2_E)));
    let r = simd.mul_add(n, simd.splat(-0.693_359_4), x);
    let r = simd.mul_add(n, simd.splat(2.121_944_4e-4), r);
    let p = simd.splat(1.987_569_1e-4);
    let p = simd.mul_add(p, r, simd.splat(1.398_199_9e-3));
    let p = simd.mul_add(p, r, simd.splat(8.333_452e-3));
    let p = simd.mul_add(p, r, simd.splat(4.166_579_6e-2));
    let p = simd.mul_add(p, r, simd.splat(1.666_666_5e-1));
    let p = simd.mul_add(p, r, simd.splat(0.5));
    let p = simd.mul_add(p, simd.mul(r, r), simd.add(r, simd.splat(1.0)));
    simd.scale_exp2(p, n)
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub fn silu<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    let denominator = simd.add(simd.splat(1.0), exp(simd, simd.sub(simd.splat(0.0), x)));
    simd.div(x, denominator)
}

/// `2^x` for `x` up to about 0, exactly 0 below -150, NaN for NaN; relative error of at most 3e-7.
#[inline(always)]
pub fn exp2_nonpositive<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    // The constant comes first so that a NaN in `x` survives.
    let x = simd.max(simd.splat(-160.0), x);
    let n = simd.round(x);
    let f = simd.sub(x, n);
    // 2^f = 1 + f · p(f), with p interpolated at the Chebyshev nodes of -0.5..=0.5.
    let p = simd.splat(1.339_086_7e-3);
    let p = simd.mul_add(p, f, simd.splat(9.666_374e-3));
    let p = simd.mul_add(p, f, simd.splat(5.550_357e-2));
    let p = simd.mul_add(p, f, simd.splat(0.240_223_48));
    let p = simd.mul_add(p, f, simd.splat(std::f32::consts::LN_2));
    let p = simd.mul_add(p, f, simd.splat(1.0));
    simd.scale_exp2(p, n)
}
