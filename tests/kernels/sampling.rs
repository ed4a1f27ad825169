//! Sampling against the rules of `src/engine/sampler.rs` in f64: kept sets, the very draws, the distribution, log-probabilities.

use half::{bf16, f16};
use swebench_infer::backend::cuda::params::{Field, Leaf, Params, SampleParams};

use crate::emulator::{Launch, Library};
use crate::mutations::mutate;
use crate::numerics::{Element, Random, run_all};

/// Logits of a block, as the kernel has them.
const CHUNK: usize = 4096;

#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub temperature: f32,
    pub top_k: usize,
    pub top_p: f32,
    pub seed: u64,
    pub offset: u64,
}

pub const GREEDY: Row = Row { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0, offset: 0 };

/// Of four equal tokens two are kept, for two quarters are half; the draw, 0.91, is the last of what is kept.
const LAST_OF_HALF: Row = Row { temperature: 1.0, top_k: 0, top_p: 0.5, seed: 1, offset: 8 };

pub fn row(temperature: f32, top_k: usize, top_p: f32) -> Row {
    Row { temperature, top_k, top_p, seed: 0x1234_5678_9abc_def0, offset: 7 }
}

/// In which orders of warps a kernel is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Orders {
    All,
    One,
}

/// Samples every row of `rows` from logits that are `stride` apart: the tokens and their log-probabilities.
fn sample<T: Element>(
    library: &Library,
    logits: &[T],
    vocabulary: usize,
    stride: usize,
    rows: &[Row],
    orders: Orders,
) -> Result<Vec<(i32, f32)>, String> {
    let chunks = vocabulary.div_ceil(CHUNK);
    let logits_buffer = library.buffer(logits);
    let temperatures = library.buffer(&rows.iter().map(|row| row.temperature).collect::<Vec<_>>());
    let top_ps = library.buffer(&rows.iter().map(|row| row.top_p).collect::<Vec<_>>());
    let top_ks = library.buffer(&rows.iter().map(|row| row.top_k as i32).collect::<Vec<_>>());
    let seeds = library.buffer(&rows.iter().map(|row| row.seed).collect::<Vec<_>>());
    let offsets = library.buffer(&rows.iter().map(|row| row.offset).collect::<Vec<_>>());
    let tokens = library.buffer(&vec![i32::MIN; rows.len()]);
    let logprobs = library.buffer(&vec![7.0_f32; rows.len()]);
    // Kept from run to run: each has to leave the counters as it found them.
    let workspace = library.buffer(&vec![0.0_f32; rows.len() * (chunks + 1) * 4]);
    let params = SampleParams {
        logits: logits_buffer.address(),
        temperatures: temperatures.address(),
        top_ps: top_ps.address(),
        top_ks: top_ks.address(),
        seeds: seeds.address(),
        offsets: offsets.address(),
        tokens: tokens.address(),
        logprobs: logprobs.address(),
        workspace: workspace.address(),
        logits_stride: stride as i64,
        rows: rows.len() as i32,
        vocabulary: vocabulary as i32,
    };
    let kernel = format!("sample_{}", T::NAME);
    let grid = [chunks as u32, rows.len() as u32, 1];
    if orders == Orders::One {
        library.launch(&kernel, &params, Launch { grid, seed: 1, lazy: false })?;
        return Ok(tokens.to_vec().into_iter().zip(logprobs.to_vec()).collect());
    }
    let got = run_all(library, &kernel, &params, grid, || {
        let bits: Vec<u32> = logprobs.to_vec().into_iter().map(f32::to_bits).collect();
        let result = tokens.to_vec().into_iter().zip(bits).collect::<Vec<_>>();
        tokens.fill(&vec![i32::MIN; rows.len()]);
        result
    })?;
    Ok(got.into_iter().map(|(token, bits)| (token, f32::from_bits(bits))).collect())
}

/// The uniform number of a draw: Philox4x32-10, plainly.
fn uniform(seed: u64, index: u64) -> f64 {
    let mut counter = [index as u32, (index >> 32) as u32, 0, 0];
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..10 {
        let first = 0xD251_1F53 * u64::from(counter[0]);
        let second = 0xCD9E_8D57 * u64::from(counter[2]);
        let high = |product: u64| (product >> 32) as u32;
        counter = [
            high(second) ^ counter[1] ^ key[0],
            second as u32,
            high(first) ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    ((u64::from(counter[1]) << 32 | u64::from(counter[0])) >> 11) as f64 / (1_u64 << 53) as f64
}

/// The kept candidates in the order they are drawn in, with their probabilities.
fn kept(logits: &[f64], row: &Row) -> Vec<(usize, f64)> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    let limited = (1..logits.len()).contains(&row.top_k);
    if row.temperature == 0.0 || row.top_k == 1 {
        order.retain(|&id| logits[id] == max);
        return vec![(order[0], 1.0)];
    }
    if limited || row.top_p < 1.0 {
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    }
    if limited {
        order.truncate(row.top_k);
    }
    let weight = |id: usize| ((logits[id] - max) / f64::from(row.temperature)).exp();
    let total: f64 = order.iter().map(|&id| weight(id)).sum();
    let mut sum = 0.0;
    let mut len = 0;
    while len < order.len() && (row.top_p >= 1.0 || len == 0 || sum < f64::from(row.top_p) * total) {
        sum += weight(order[len]);
        len += 1;
    }
    order[..len].iter().map(|&id| (id, weight(id) / sum)).collect()
}

/// Samples and compares with the oracle.
fn check_on<T: Element>(
    library: &Library,
    logits: &[T],
    vocabulary: usize,
    rows: &[Row],
) -> Result<(), String> {
    let stride = logits.len() / rows.len();
    check_tokens(logits, vocabulary, rows, &sample(library, logits, vocabulary, stride, rows, Orders::All)?)
}

/// Compares tokens and log-probabilities with the oracle's, up to the rounding of weights at a share's ends.
pub fn check_tokens<T: Element>(
    logits: &[T],
    vocabulary: usize,
    rows: &[Row],
    got: &[(i32, f32)],
) -> Result<(), String> {
    let stride = logits.len() / rows.len();
    for (index, (row, &(token, logprob))) in rows.iter().zip(got).enumerate() {
        let logits: Vec<f64> =
            logits[index * stride..][..vocabulary].iter().map(|logit| logit.to_f64()).collect();
        let candidates = kept(&logits, row);
        let what = format!("{} {vocabulary} {row:?}: token {token}", T::NAME);
        let place = candidates.iter().position(|&(id, _)| id as i32 == token);
        let place = place.ok_or_else(|| format!("{what} is not one of the {} kept", candidates.len()))?;
        let low: f64 = candidates[..place].iter().map(|&(_, probability)| probability).sum();
        let point = uniform(row.seed, row.offset);
        let share = low - 1e-5..low + candidates[place].1 + 1e-5;
        if candidates.len() > 1 && !share.contains(&point) {
            return Err(format!("{what} has {share:?}, the draw is {point}"));
        }
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = logits.iter().map(|logit| (logit - max).exp()).sum::<f64>().ln();
        let expected = logits[token as usize] - max - log_sum;
        if logprob.is_nan() || (f64::from(logprob) - expected).abs() >= 1e-5 {
            return Err(format!("{what}: log-probability {logprob}, expected {expected}"));
        }
    }
    Ok(())
}

/// Logits of `rows` rows that fall off from `height` like a language model's, in no order of ids.
pub fn peaked<T: Element>(rows: usize, vocabulary: usize, stride: usize, height: f64) -> Vec<T> {
    let mut random = Random(vocabulary as u64);
    let mut logits = vec![T::from_f64(6e4); rows * stride];
    for row in 0..rows {
        for logit in &mut logits[row * stride..][..vocabulary] {
            *logit = T::from_f64(random.next() * 2.0 + height * random.next().abs().powi(8));
        }
    }
    logits
}

fn check<T: Element>(vocabulary: usize, gap: usize, height: f64, rows: &[Row]) {
    let logits: Vec<T> = peaked(rows.len(), vocabulary, vocabulary + gap, height);
    check_on(Library::kernels(), &logits, vocabulary, rows).unwrap();
}

fn every_way() -> Vec<Row> {
    let ways = [
        (0.0, 0, 1.0),
        (0.7, 1, 1.0),
        (1.0, 0, 1.0),
        (0.8, 50, 1.0),
        (0.7, 0, 0.9),
        (1.3, 40, 0.95),
        (2.0, 100_000, 0.5),
        (1.0, 3, 1e-6),
        (0.01, 50, 1.0),
    ];
    ways.into_iter().zip(3..).map(|((t, k, p), offset)| Row { offset, ..row(t, k, p) }).collect()
}

#[test]
fn draws_as_the_engine_does() {
    for (vocabulary, gap) in [(1, 0), (2, 1), (63, 1), (300, 4), (4097, 3), (8192, 0)] {
        check::<f32>(vocabulary, gap, 12.0, &every_way());
        check::<bf16>(vocabulary, gap, 12.0, &every_way());
        check::<f16>(vocabulary, gap, 12.0, &every_way());
    }
}

#[test]
fn draws_from_large_vocabularies() {
    check::<f32>(32_003, 1, 16.0, &[row(1.0, 0, 1.0), row(0.8, 50, 0.95), row(0.7, 0, 0.9)]);
    check::<bf16>(151_936, 0, 20.0, &[GREEDY, row(0.7, 20, 0.8)]);
}

/// More tokens are kept than are sorted.
#[test]
fn searches_the_cut_of_flat_distributions() {
    check::<f32>(9001, 0, 0.0, &[row(5.0, 0, 0.9), row(5.0, 6000, 1.0), row(5.0, 7000, 0.8)]);
}

#[test]
fn ties_go_to_lower_ids() {
    let logits: Vec<f32> = (0..600).map(|id| [1.0, 3.0, 2.0, 3.0, -0.0, 0.0][id % 6]).collect();
    let rows = [GREEDY, row(1.0, 7, 1.0), row(1.0, 150, 1.0), row(1.0, 0, 0.25), row(1.0, 201, 0.999)];
    check_on(Library::kernels(), &logits.repeat(rows.len()), 600, &rows).unwrap();
    check_on(Library::kernels(), &[0.5_f32; 4], 4, &[LAST_OF_HALF]).unwrap();
    check_on(Library::kernels(), &[-1.0_f32, -0.0, 0.0], 3, &[GREEDY]).unwrap();
}

#[test]
fn extreme_parameters_and_minus_infinity_are_defined() {
    let logits = [1.0_f32, 3.0, 2.0, f32::NEG_INFINITY, f32::NEG_INFINITY];
    let rows =
        [row(1e-30, 0, 1.0), row(1e-30, 3, 0.5), row(1.0, 4, 1.0), row(1e30, 0, 1.0), row(1e30, 0, 0.9)];
    check_on(Library::kernels(), &logits.repeat(rows.len()), 5, &rows).unwrap();
    // A whole chunk of nothing.
    let mut half_empty = vec![f32::NEG_INFINITY; CHUNK];
    half_empty.extend([0.0, 1.0]);
    check_on(Library::kernels(), &half_empty, CHUNK + 2, &[row(1.0, 0, 1.0)]).unwrap();
}

#[test]
fn logits_that_are_not_finite_give_no_token() {
    let mut long = vec![0.0_f32; CHUNK + 9];
    long[CHUNK + 8] = f32::NAN;
    let negative_nan = -f32::NAN;
    for logits in
        [&long[..], &[1.0, negative_nan], &[f32::NAN], &[1.0, f32::INFINITY], &[f32::NEG_INFINITY; 3]]
    {
        for row in [GREEDY, row(1.0, 2, 0.5)] {
            let got =
                sample(Library::kernels(), logits, logits.len(), logits.len(), &[row], Orders::All).unwrap();
            assert!(got[0].0 == -1 && got[0].1.is_nan(), "{row:?}: {got:?}");
        }
    }
}

#[test]
fn draws_follow_the_distribution() {
    const DRAWS: usize = 1000;
    let logits: Vec<f32> = (0..40).map(|id| ((id * 37 % 40) as f32 / 5.0).sin() * 2.0).collect();
    for (case, way) in [row(1.0, 0, 1.0), row(0.8, 0, 0.9), row(1.5, 12, 0.95)].into_iter().enumerate() {
        let rows: Vec<Row> =
            (0..DRAWS as u64).map(|offset| Row { seed: case as u64, offset, ..way }).collect();
        let mut counts = vec![0.0; logits.len()];
        // All rows are the same logits.
        for (token, _) in sample(Library::kernels(), &logits, logits.len(), 0, &rows, Orders::One).unwrap() {
            counts[token as usize] += 1.0;
        }
        let wide: Vec<f64> = logits.iter().map(|&logit| logit.into()).collect();
        let candidates = kept(&wide, &way);
        let chi_square: f64 = candidates
            .iter()
            .map(|&(id, probability)| {
                let expected = probability * DRAWS as f64;
                (std::mem::take(&mut counts[id]) - expected).powi(2) / expected
            })
            .sum();
        assert_eq!(counts.iter().sum::<f64>(), 0.0, "tokens outside the kept set, {way:?}");
        // Mean `freedom`, variance twice that; four standard deviations on either side.
        let freedom = candidates.len() as f64 - 1.0;
        assert!(
            (chi_square - freedom).abs() < 4.0 * (2.0 * freedom).sqrt(),
            "{chi_square} over {freedom}, {way:?}"
        );
    }
}

#[test]
fn bugs_are_noticed() {
    let logits: Vec<f32> = peaked(9, 700, 701, 12.0);
    let ties: Vec<f32> = (0..60).map(|id| [1.0, 3.0, 2.0, 3.0][id % 4]).collect();
    for (old, nth, new) in [
        ("if (reached <= point && ", 0, "if ("),
        ("descending ? a < b : a > b", 0, "descending ? a > b : a < b"),
        ("                sync_threads();\n                for", 0, "for"),
        ("~static_cast<uint32_t>(id)", 0, "static_cast<uint32_t>(id)"),
        ("whole - 1 : whole", 0, "whole : whole"),
    ] {
        let library = mutate("sampling.cu", old, nth, new, |_| true);
        let noticed = check_on(&library, &logits, 700, &every_way())
            .and_then(|()| check_on(&library, &ties, 60, &[row(1.0, 9, 1.0)]))
            .and_then(|()| check_on(&library, &[0.5_f32; 4], 4, &[LAST_OF_HALF]));
        assert!(noticed.is_err(), "{old:?} → {new:?} was not noticed");
    }
}

/// The known answers of the authors' Random123 library.
#[test]
fn philox_gives_the_known_answers() {
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Philox {
        out: u64,
        counter: [u32; 4],
        key: [u32; 2],
    }
    impl Field for Philox {
        fn leaves(_: &str, _: usize, _: &mut Vec<Leaf>) {}
    }
    impl Params for Philox {
        const NAME: &'static str = "Philox";
    }
    let library = Library::from_source(
        "#include \"philox.cuh\"\nusing namespace simt;\nstruct Philox { U32x4 *out; uint32_t counter[4], key[2]; };
        static void known(const Philox &p) {
            global_store(p.out, philox({p.counter[0], p.counter[1], p.counter[2], p.counter[3]}, p.key[0], p.key[1]));
            const uint64_t a = uint64_t{p.counter[1]} << 32 | p.counter[0], b = uint64_t{p.counter[3]} << 32 | p.counter[2];
            const uint64_t high = multiply_fraction(a, b);
            global_store(p.out + 1, U32x4{static_cast<uint32_t>(high), static_cast<uint32_t>(high >> 32), 0, 0});
        }
        SIMT_KERNEL(philox_known, Philox, 1, 1, 0, known)\n",
    )
    .unwrap();
    for (counter, key, expected) in [
        ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
        ([!0; 4], [!0; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
        (
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        ),
    ] {
        let out = library.buffer(&[[0_u64; 2]; 2]);
        let params = Philox { out: out.address(), counter, key };
        library.launch("philox_known", &params, Launch { grid: [1, 1, 1], seed: 0, lazy: false }).unwrap();
        let [words, product] = [out.to_vec()[0], out.to_vec()[1]];
        let pair = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        assert_eq!(words, [pair(expected[0], expected[1]), pair(expected[2], expected[3])]);
        let (a, b) = (pair(counter[0], counter[1]), pair(counter[2], counter[3]));
        assert_eq!(product[0], ((u128::from(a) * u128::from(b)) >> 64) as u64);
    }
}
