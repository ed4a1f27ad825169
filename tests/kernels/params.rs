//! The parameter structs are the same in Rust and in C: a kernel made from Rust's field names returns every value from where Rust put it.

use std::fmt::Write;

use swebench_infer::backend::cuda::params::*;

use crate::emulator::{Launch, Library};

/// Fills a struct with values that differ in every byte position of every number, and has a kernel read them by name.
fn check<P: Params + Default>() {
    let mut leaves = Vec::new();
    P::leaves("", 0, &mut leaves);
    let mut source = String::from("#include \"simt.cuh\"\n#include <cstring>\nusing namespace simt;\n");
    let _ = writeln!(
        source,
        "static_assert(sizeof({0}) == {1} && alignof({0}) == {2});",
        P::NAME,
        size_of::<P>(),
        align_of::<P>()
    );
    let _ = writeln!(
        source,
        "struct alignas(64) Echo {{ uint64_t *out; uint64_t reserved[7]; {} params; }};\nstatic void echo(const Echo &echo) {{",
        P::NAME
    );
    for (i, leaf) in leaves.iter().enumerate() {
        let _ = writeln!(
            source,
            "  static_assert(sizeof echo.params.{0} == {1}); uint64_t v{2} = 0; memcpy(&v{2}, &echo.params.{0}, {1}); global_store(echo.out + {2}, v{2});",
            leaf.path, leaf.size, i
        );
    }
    source += "}\nSIMT_KERNEL(echo_params, Echo, 1, 1, 0, echo)\n";
    let library = Library::from_source(&source).unwrap_or_else(|error| panic!("{}: {error}", P::NAME));

    #[repr(C, align(64))]
    #[derive(Clone, Copy)]
    struct Echo<P> {
        out: u64,
        reserved: [u64; 7],
        params: P,
    }
    impl<P: Params> Field for Echo<P> {
        fn leaves(_: &str, _: usize, _: &mut Vec<Leaf>) {}
    }
    impl<P: Params> Params for Echo<P> {
        const NAME: &'static str = "Echo";
    }
    let out = library.buffer(&vec![0_u64; leaves.len()]);
    let mut echo = Echo { out: out.address(), reserved: [0; 7], params: P::default() };
    let value =
        |leaf: usize, byte: usize| (leaf as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[byte];
    for (i, leaf) in leaves.iter().enumerate() {
        let start = (&raw mut echo.params).cast::<u8>();
        for byte in 0..leaf.size {
            // SAFETY: leaves lie inside the struct, whose fields are numbers.
            unsafe { start.add(leaf.offset + byte).write(value(i, byte)) };
        }
    }
    library.launch("echo_params", &echo, Launch { grid: [1, 1, 1], seed: 0, lazy: false }).unwrap();
    for ((i, leaf), got) in leaves.iter().enumerate().zip(out.to_vec()) {
        let mut expected = [0; 8];
        (0..leaf.size).for_each(|byte| expected[byte] = value(i, byte));
        assert_eq!(got, u64::from_le_bytes(expected), "{}.{}", P::NAME, leaf.path);
    }
}

#[test]
fn structs_are_the_same_in_rust_and_in_c() {
    check::<AttentionTile>();
    check::<AttentionPrefillParams>();
    check::<AttentionPrefillSm90Params>();
    check::<AttentionDecodeParams>();
    check::<RotaryAppendParams>();
    check::<RmsNormParams>();
    check::<SiluMulParams>();
    check::<EmbeddingParams>();
    check::<BiasAddParams>();
    check::<GatherRowsParams>();
    check::<LinearSkinnyParams>();
    check::<SampleParams>();
}
