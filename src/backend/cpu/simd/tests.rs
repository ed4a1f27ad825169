//! Every operation of every instruction set against scalar code.

use super::*;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Function {
    Exp,
    Exp2,
    Silu,
}

/// Applies one function to a slice, vector by vector.
struct Map<'a> {
    values: &'a mut [f32],
    function: Function,
}

impl Kernel for Map<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for chunk in self.values.chunks_exact_mut(S::LANES) {
            // SAFETY: a chunk has LANES elements.
            unsafe {
                let x = simd.load(chunk.as_ptr());
                let y = match self.function {
                    Function::Exp => math::exp(simd, x),
                    Function::Exp2 => math::exp2_nonpositive(simd, x),
                    Function::Silu => math::silu(simd, x),
                };
                simd.store(chunk.as_mut_ptr(), y);
            }
        }
    }
}

#[test]
fn functions_meet_f64() {
    let mut inputs: Vec<f32> = (0..4000).map(|i| (i as f32 - 2000.0) * 0.0437).collect();
    inputs.extend([0.0, -0.0, -1e-30, 88.7, -87.3, 1e-7, -0.3466, 0.3466]);
    inputs.resize(inputs.len().next_multiple_of(MAX_LANES), 1.0);
    for isa in Isa::supported() {
        for function in [Function::Exp, Function::Exp2, Function::Silu] {
            let mut values = inputs.clone();
            Dispatch::new(isa).unwrap().run(Map { values: &mut values, function });
            for (&x, &got) in inputs.iter().zip(&values) {
                let wide = f64::from(x);
                let want = match function {
                    Function::Exp => wide.exp(),
                    Function::Exp2 if x > 0.5 => continue,
                    Function::Exp2 => wide.exp2(),
                    Function::Silu => wide / (1.0 + (-wide).exp()),
                };
                let tolerance = 3e-7 * want.abs() + 1e-38;
                assert!((f64::from(got) - want).abs() <= tolerance, "{isa} {function:?} {x}: {got} {want}");
            }
        }
    }
}

#[test]
fn exponentials_of_the_extremes() {
    let inputs = [f32::NEG_INFINITY, -200.0, f32::NAN, f32::INFINITY];
    for isa in Isa::supported() {
        for function in [Function::Exp, Function::Exp2] {
            let mut values = vec![0.0; MAX_LANES];
            values[..4].copy_from_slice(&inputs);
            Dispatch::new(isa).unwrap().run(Map { values: &mut values, function });
            assert_eq!(values[..2], [0.0, 0.0], "{isa} {function:?}");
            assert!(values[2].is_nan(), "{isa} {function:?}");
            if function == Function::Exp {
                assert_eq!(values[3], f32::INFINITY, "{isa}");
            }
        }
    }
}

/// Both forms of the bf16 product, the horizontal sum and maximum.
struct Operations;

impl Kernel for Operations {
    type Output = (f32, f32, f32);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let mut pairs = [bf16::ZERO; 2 * MAX_LANES];
        for (i, element) in pairs.iter_mut().enumerate() {
            *element = bf16::from_f32(i as f32 - 7.0);
        }
        let input =
            u32::from(bf16::from_f32(2.0).to_bits()) | u32::from(bf16::from_f32(-3.0).to_bits()) << 16;
        // SAFETY: `pairs` has two elements for each of at most MAX_LANES lanes.
        let pairs = unsafe { simd.load_bf16_pairs(pairs.as_ptr()) };
        let dot = simd.dot_bf16(simd.splat(1.0), input, pairs);
        let (first, second) = simd.widen_bf16(pairs);
        let wide = simd.mul_add(first, simd.splat(2.0), simd.splat(1.0));
        let wide = simd.mul_add(second, simd.splat(-3.0), wide);
        (simd.reduce_sum(dot), simd.reduce_sum(wide), simd.reduce_max(dot))
    }
}

#[test]
fn products_of_pairs_agree() {
    for isa in Isa::supported() {
        let (dot, wide, max) = Dispatch::new(isa).unwrap().run(Operations);
        let lanes = if isa >= Isa::Avx512 { 16 } else { 8 };
        // Lane i holds 1 + 2(2i - 7) - 3(2i - 6) = 5 - 2i.
        let want: i32 = (0..lanes).map(|i| 5 - 2 * i).sum();
        assert_eq!((dot, wide, max), (want as f32, want as f32, 5.0), "{isa}");
    }
}
