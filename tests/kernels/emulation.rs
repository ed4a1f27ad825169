//! Each part of the emulation on its smallest use: named barriers, e4m3, stmatrix, bulk copies, fibers by ucontext; and their misuse.

use swebench_infer::backend::cuda::params::{Field, Leaf, Params};

use crate::emulator::{Launch, Library};
use crate::numerics::RUNS;

/// What every kernel here gets: 256 words to read and 256 to write.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Words {
    from: u64,
    to: u64,
}

impl Field for Words {
    fn leaves(_: &str, _: usize, _: &mut Vec<Leaf>) {}
}

impl Params for Words {
    const NAME: &'static str = "Words";
}

fn source(threads: usize, body: &str) -> String {
    format!(
        "#include \"simt.cuh\"\nusing namespace simt;\nstruct Words {{ const uint32_t *from; uint32_t *to; }};\n\
         static void words([[maybe_unused]] const Words &params) {{\n{body}\n}}\nSIMT_KERNEL(words, Words, {threads}, 1, 16384, words)\n"
    )
}

/// The words that a kernel made of `from`, the same in every order.
fn run(library: &Library, from: &[u32; 256]) -> Result<Vec<u32>, String> {
    let (input, output) = (library.buffer(from), library.buffer(&[0_u32; 256]));
    let params = Words { from: input.address(), to: output.address() };
    let mut first = None;
    for (seed, lazy) in RUNS {
        output.fill(&[0; 256]);
        library.launch("words", &params, Launch { grid: [1, 1, 1], seed, lazy })?;
        let words = output.to_vec();
        if *first.get_or_insert(words.clone()) != words {
            return Err(format!("seed {seed}, lazy {lazy}: other bits than the first run"));
        }
    }
    Ok(first.unwrap())
}

/// `body` gives `expected`; with `old` replaced it does not, and the message has `message` in it.
fn check(threads: usize, body: &str, from: &[u32; 256], expected: &[u32], faults: &[(&str, &str, &str)]) {
    let text = source(threads, body);
    let right = run(&Library::from_source(&text).unwrap(), from).unwrap();
    assert_eq!(right[..expected.len()], *expected);
    for (old, new, message) in faults {
        assert!(text.contains(old), "{old:?} is not in the kernel");
        let result = run(&Library::from_source(&text.replacen(old, new, 1)).unwrap(), from);
        let noticed = match &result {
            Ok(words) => words[..expected.len()] != *expected,
            Err(error) => error.contains(message),
        };
        assert!(noticed, "{old:?} → {new:?}: {result:?}");
    }
}

fn numbers() -> [u32; 256] {
    std::array::from_fn(|i| (i as u32).wrapping_mul(0x9e37_79b9))
}

const BARRIERS: &str = "
    const uint32_t at = shared_base() + lane_index() * 4;
    if (warp_index() == 0) {
        shared_store(at, global_load<uint32_t>(params.from + lane_index()));
        barrier_arrive(3, 64);
    } else {
        barrier_sync(3, 64);
        global_store(params.to + lane_index(), shared_load<uint32_t>(at));
    }";

#[test]
fn named_barriers_order_two_warps_and_misuse_is_noticed() {
    let from = numbers();
    check(
        64,
        BARRIERS,
        &from,
        &from[..32],
        &[
            ("        barrier_arrive(3, 64);\n", "", "deadlock"),
            ("barrier_sync(3, 64);", "", ""),
            ("barrier_sync(3, 64)", "barrier_sync(4, 64)", "deadlock"),
            ("barrier_sync(3, 64)", "barrier_sync(3, 96)", "barrier 3"),
            ("barrier_sync(3, 64)", "barrier_sync(16, 64)", "barrier 16 of 16"),
        ],
    );
}

#[test]
fn fibers_by_ucontext_do_the_same() {
    let from = numbers();
    let library = Library::with_flags(&source(64, BARRIERS), &["-DSIMT_UCONTEXT"]).unwrap();
    assert_eq!(run(&library, &from).unwrap()[..32], from[..32]);
}

/// What the 8-bit pattern means: sign, 4 bits of exponent biased by 7, 3 of mantissa; no infinities.
fn e4m3(bits: u32) -> f32 {
    let (exponent, mantissa) = ((bits >> 3 & 15) as i32, (bits & 7) as f32);
    let magnitude = if exponent == 0 {
        mantissa / 8.0 * (-6_f32).exp2()
    } else {
        (1.0 + mantissa / 8.0) * ((exponent - 7) as f32).exp2()
    };
    if bits & 0x80 != 0 { -magnitude } else { magnitude }
}

#[test]
fn e4m3_reads_every_pattern_and_rounds_to_the_nearest() {
    let body = "
    for (int i = thread_index(); i < 128; i += 32) {
        const F32x2 pair = unpack2_e4m3(static_cast<uint16_t>(2 * i | (2 * i + 1) << 8));
        global_store(params.to + 2 * i, float_bits(pair.x));
        global_store(params.to + 2 * i + 1, float_bits(pair.y));
    }";
    let got = run(&Library::from_source(&source(32, body)).unwrap(), &numbers()).unwrap();
    for (bits, value) in (0_u32..).zip(&got).filter(|(bits, _)| bits & 0x7f != 0x7f) {
        assert_eq!(f32::from_bits(*value), e4m3(bits), "{bits:#x}");
    }
    let body = "
    for (int i = thread_index(); i < 256; i += 32)
        global_store<uint32_t>(params.to + i, pack2_e4m3(bits_float(global_load<uint32_t>(params.from + i)), 0.0f) & 0xff);";
    let library = Library::from_source(&source(32, body)).unwrap();
    // Around every value, and past the largest.
    let inputs: [f32; 256] = std::array::from_fn(|i| match i {
        254 => 1e9,
        255 => f32::NEG_INFINITY,
        _ => e4m3(i as u32 % 126) * (1.0 + 0.04 * (i / 126) as f32),
    });
    let got = run(&library, &inputs.map(f32::to_bits)).unwrap();
    for (input, bits) in inputs.iter().zip(got) {
        let nearest = (0..0x7f).map(e4m3).fold(f32::MAX, |best, value| {
            let (old, new) = ((best - input.abs()).abs(), (value - input.abs()).abs());
            if new < old { value } else { best }
        });
        assert_eq!(e4m3(bits).abs(), if input.abs() > 448.0 { 448.0 } else { nearest }, "{input}");
        assert_eq!(e4m3(bits).is_sign_negative(), input.is_sign_negative(), "{input}");
    }
}

#[test]
fn stmatrix_stores_what_ldmatrix_loads() {
    let body = "
    const uint32_t from = shared_base() + lane_index() * 16, to = from + 512;
    U32x4 row = {global_load<uint32_t>(params.from + lane_index() * 4), global_load<uint32_t>(params.from + lane_index() * 4 + 1),
                 global_load<uint32_t>(params.from + lane_index() * 4 + 2), global_load<uint32_t>(params.from + lane_index() * 4 + 3)};
    shared_store(from, row);
    sync_warp();
    uint32_t r[4];
    load_matrix_x4(r, from);
    store_matrix_x4(to, r);
    sync_warp();
    row = shared_load<U32x4>(to);
    const uint32_t words[4] = {row.x, row.y, row.z, row.w};
    for (int i = 0; i < 4; ++i) global_store(params.to + lane_index() * 4 + i, words[i]);";
    let from = numbers();
    let faults =
        [("to = from + 512", "to = from + 520", "multiple of 16"), ("r, from)", "r, from + 16)", "")];
    check(32, body, &from, &from[..128], &faults);
}

#[test]
fn bulk_copies_arrive_and_leave_and_misuse_is_noticed() {
    let body = "
    const uint32_t barrier = shared_base(), tile = barrier + 128;
    if (thread_index() == 0) {
        mbarrier_init(barrier, 1);
        mbarrier_init_fence();
        mbarrier_arrive_expect(barrier, 512);
        bulk_load(tile, params.from, 512, barrier);
        mbarrier_wait(barrier, 0);
        bulk_store(params.to, tile, 512);
        bulk_commit();
        bulk_wait_read<0>();
    }";
    let from = numbers();
    check(
        32,
        body,
        &from,
        &from[..128],
        &[
            ("        mbarrier_wait(barrier, 0);\n", "", ""),
            ("        bulk_wait_read<0>();\n", "", "nobody waited for"),
            ("        bulk_commit();\n", "", "nobody waited for"),
            ("params.from, 512", "params.from, 520", "multiple of 16"),
            ("params.from, 512", "params.from + 256, 512", "allocation"),
            ("barrier, 512)", "barrier, 528)", "deadlock"),
        ],
    );
    let unread = body.replace("mbarrier_wait(barrier, 0);", "return;");
    let error = run(&Library::from_source(&source(32, &unread)).unwrap(), &from).unwrap_err();
    assert!(error.contains("copy engine was still writing"), "{error}");
}

#[test]
fn asynchronous_work_that_outlives_the_kernel_is_noticed() {
    let copy = "
    copy_async_16(shared_base() + thread_index() * 16, params.from, true);
    copy_async_commit();";
    let product = "
    float d[32] = {};
    wgmma_fence();
    wgmma_shared<Bf16, 64, false>(d, wgmma_descriptor(shared_base()), wgmma_descriptor(shared_base()), false);
    wgmma_commit();";
    for (threads, body, expected) in [(32, copy, "copies under way"), (128, product, "products under way")] {
        let library = Library::from_source(&source(threads, body)).unwrap();
        let error = run(&library, &numbers()).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
