//! The emulated Hopper units on their smallest use: two products, operands from shared memory and from registers, brought by tensor maps.

use half::bf16;
use swebench_infer::backend::cuda::params::{Field, Leaf, Params, TensorMap};

use crate::emulator::Library;
use crate::numerics::{Random, check_error, run_all};

/// out = (a · bᵀ, rounded) · c for `[64, 64]` matrices; `c` has 40 rows, the others arrive as zeros.
const SOURCE: &str = r#"
#include "simt.cuh"
using namespace simt;
struct TwoProducts { TensorMap a, b, c; float *out; };
static void two_products(const TwoProducts &params) {
    const uint32_t barrier = shared_base(), a = barrier + 1024, b = a + 8192, c = b + 8192;
    if (thread_index() == 0) {
        mbarrier_init(barrier, 1);
        mbarrier_init_fence();
    }
    sync_threads();
    if (thread_index() == 0) {
        mbarrier_arrive_expect(barrier, 3 * 8192);
        tensor_load(a, &params.a, barrier, 0, 0, 0);
        tensor_load(b, &params.b, barrier, 0, 0, 0);
        tensor_load(c, &params.c, barrier, 0, 0, 0);
    }
    mbarrier_wait(barrier, 0);
    float d[32];
    wgmma_fence();
    for (int k = 0; k < 4; ++k)
        wgmma_shared<Bf16, 64, false>(d, wgmma_descriptor(a + k * 32), wgmma_descriptor(b + k * 32), k > 0);
    wgmma_commit();
    wgmma_wait<0>();
    uint32_t p[4][4];
    for (int k = 0; k < 4; ++k)
        for (int i = 0; i < 4; ++i) p[k][i] = pack2<Bf16>(d[8 * k + 4 * (i / 2) + 2 * (i % 2)], d[8 * k + 4 * (i / 2) + 2 * (i % 2) + 1]);
    float out[32];
    wgmma_fence();
    for (int k = 0; k < 4; ++k)
        wgmma_registers<Bf16, 64, true>(out, p[k], wgmma_descriptor(c + k * 2048), k > 0);
    wgmma_commit();
    wgmma_wait<0>();
    const int row = thread_index() / 32 * 16 + lane_index() / 4;
    for (int e = 0; e < 32; ++e)
        global_store(params.out + (row + e / 2 % 2 * 8) * 64 + e / 4 * 8 + lane_index() % 4 * 2 + e % 2, out[e]);
}
SIMT_KERNEL(two_products, TwoProducts, 128, 1, 1024 + 3 * 8192, two_products)
"#;

#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct TwoProducts {
    a: TensorMap,
    b: TensorMap,
    c: TensorMap,
    out: u64,
}

impl Field for TwoProducts {
    fn leaves(_: &str, _: usize, _: &mut Vec<Leaf>) {}
}

impl Params for TwoProducts {
    const NAME: &'static str = "TwoProducts";
}

fn run(source: &str) -> Result<(), String> {
    const C_ROWS: usize = 40;
    let library = Library::from_source(source)?;
    let mut random = Random(5);
    let [a, b, c] = [64, 64, C_ROWS].map(|rows| random.values::<bf16>(rows * 64));
    let buffers = [&a, &b, &c].map(|host| library.buffer(host));
    let map = |i: usize, rows: usize| {
        library
            .tensor_map(
                buffers[i].address(),
                &[64, rows as u64, 1],
                &[128, 128 * rows as u64],
                &[64, 64, 1],
                true,
            )
            .unwrap()
    };
    let out = library.buffer(&[0_f32; 4096]);
    let params = TwoProducts { a: map(0, 64), b: map(1, 64), c: map(2, C_ROWS), out: out.address() };
    let got = run_all(&library, "two_products", &params, [1, 1, 1], || {
        let result = out.to_vec();
        out.fill(&[f32::NAN; 4096]);
        result
    })?;
    let mut oracle = vec![0.0; 4096];
    for row in 0..64 {
        for k in 0..C_ROWS {
            let p: f64 = (0..64).map(|i| a[row * 64 + i].to_f64() * b[k * 64 + i].to_f64()).sum();
            (0..64)
                .for_each(|d| oracle[row * 64 + d] += f64::from(bf16::from_f64(p)) * c[k * 64 + d].to_f64());
        }
    }
    check_error("two products", &got, &oracle, &oracle, 0.05)
}

#[test]
fn products_of_tiles_from_tensor_maps_are_exact() {
    run(SOURCE).unwrap();
}

#[test]
fn misuse_is_noticed() {
    for (old, new, expected) in [
        ("    mbarrier_wait(barrier, 0);", "", "copy engine"),
        ("mbarrier_wait(barrier, 0)", "mbarrier_wait(barrier, 1)", ""),
        ("3 * 8192);", "4 * 8192);", "deadlock"),
        ("    wgmma_fence();\n", "", "wgmma.fence"),
        ("    wgmma_wait<0>();\n", "", ""),
        ("b + k * 32", "b + k * 64", "error"),
        ("c + k * 2048", "c + k * 1024", "error"),
        ("wgmma_shared<Bf16, 64, false>", "wgmma_shared<Bf16, 64, true>", "error"),
        ("a = barrier + 1024", "a = barrier + 512", "multiple of 1024"),
        ("128, 1, 1024 + 3", "64, 1, 1024 + 3", "warpgroup"),
    ] {
        let error =
            run(&SOURCE.replacen(old, new, 1)).expect_err(&format!("{old:?} → {new:?} was not noticed"));
        assert!(error.contains(expected), "{old:?} → {new:?}: {error}");
    }
}
