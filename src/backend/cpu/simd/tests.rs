use super::*;

/// Applies one function to a slice, vector by vector.
struct Map<'a> {
    values: &'a mut [f32],
    silu: bool,
}

impl Kernel for Map<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for chunk in self.values.chunks_exact_mut(S::LANES) {
            // SAFETY: a chunk has LANES elements.
            unsafe {
                let x = simd.load(chunk.as_ptr());
                let y = if self.silu { math::silu(simd, x) } else { math::exp(simd, x) };
                simd.store(chunk.as_mut_ptr(), y);
            }
        }
    }
}

#[test]
fn exp_and_silu_meet_f64() {
    let mut inputs: Vec<f32> = (0..4000).map(|i| (i as f32 - 2000.0) * 0.0437).collect();
    inputs.extend([0.0, -0.0, -1e-30, 88.7, -87.3, 1e-7, -0.3466, 0.3466]);
    inputs.resize(inputs.len().next_multiple_of(MAX_LANES), 1.0);
    for isa in Isa::supported() {
        for silu in [false, true] {
            let mut values = inputs.clone();
            Dispatch::new(isa).unwrap().run(Map { values: &mut values, silu });
            for (&x, &got) in inputs.iter().zip(&values) {
                let exp = f64::from(if silu { -x } else { x }).exp();
                let want = if silu { f64::from(x) / (1.0 + exp) } else { exp };
                let tolerance = 2.5e-7 * want.abs() + 1e-38;
                assert!((f64::from(got) - want).abs() <= tolerance, "{isa} {silu} {x}: {got} {want}");
            }
        }
    }
}

#[test]
fn exp_of_the_extremes() {
    let inputs = [f32::NEG_INFINITY, f32::INFINITY, f32::NAN, -200.0];
    for isa in Isa::supported() {
        let mut values = vec![0.0; MAX_LANES];
        values[..4].copy_from_slice(&inputs);
        Dispatch::new(isa).unwrap().run(Map { values: &mut values, silu: false });
        assert_eq!(values[0], 0.0, "{isa}");
        assert_eq!(values[1], f32::INFINITY, "{isa}");
        assert!(values[2].is_nan(), "{isa}");
        assert_eq!(values[3], 0.0, "{isa}");
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
