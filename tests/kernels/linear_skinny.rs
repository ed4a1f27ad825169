//! Few-row linear layers against f64, over row counts, odd features, strides and splits.

use half::{bf16, f16};
use swebench_infer::backend::cuda::params::LinearSkinnyParams;

use crate::emulator::Library;
use crate::matrix::{Matrix, map, rounded};
use crate::mutations::mutate;
use crate::numerics::{Element, Random, check_error, run_all};

#[derive(Debug, Clone, Copy)]
struct Case {
    rows: usize,
    in_features: usize,
    out_features: usize,
    /// Elements between the end of a row and the start of the next, of weights and inputs.
    gap: usize,
    splits: usize,
    bias: bool,
}

const BASE: Case = Case { rows: 1, in_features: 512, out_features: 64, gap: 0, splits: 1, bias: false };
/// Features of a block, as the kernel has them.
const BLOCK_FEATURES: usize = 32;

/// The output rows.
fn run<T: Element>(library: &Library, case: Case) -> Result<Vec<T>, String> {
    let Case { rows, in_features, out_features, gap, splits, bias } = case;
    let mut random = Random(in_features as u64);
    let weight: Matrix<T> = Matrix::random(&mut random, out_features, in_features, in_features + gap);
    let biases: Vec<T> = random.values(out_features);
    let input: Matrix<T> = Matrix::random(&mut random, rows, in_features, in_features + gap);
    let out: Matrix<T> = Matrix::poison(rows, out_features, out_features + 3);
    let tiles = out_features.div_ceil(BLOCK_FEATURES);
    let partial_buffer = library.buffer(&vec![f32::NAN; splits * rows * out_features]);
    let counters = vec![0_i32; tiles];
    let counters_buffer = library.buffer(&counters);
    let [weight_buffer, bias_buffer, input_buffer, out_buffer] =
        [&weight.data, &biases, &input.data, &out.data].map(|host| library.buffer(host));
    let params = LinearSkinnyParams {
        input: input_buffer.address(),
        weight: weight_buffer.address(),
        bias: if bias { bias_buffer.address() } else { 0 },
        out: out_buffer.address(),
        partial: partial_buffer.address(),
        counters: counters_buffer.address(),
        input_stride: input.stride as i64,
        weight_stride: weight.stride as i64,
        out_stride: out.stride as i64,
        rows: rows as i32,
        in_features: in_features as i32,
        out_features: out_features as i32,
        num_splits: splits as i32,
    };
    let kernel = format!("linear_skinny_{}", T::NAME);
    let (got, left) = run_all(library, &kernel, &params, [tiles as u32, splits as u32, 1], || {
        let result = (out_buffer.to_vec(), counters_buffer.to_vec());
        out_buffer.fill(&out.data);
        result
    })?;
    if left != counters {
        return Err(format!("{kernel} {case:?}: counters are left at {left:?}"));
    }
    let got = out.rows_of(&got)?;
    let oracle = map(rows, out_features, |row, feature| {
        let products = (0..in_features).map(|k| input.at(row, k) * weight.at(feature, k));
        products.sum::<f64>() + if bias { biases[feature].to_f64() } else { 0.0 }
    });
    check_error(&format!("{kernel} {case:?}"), &got, &oracle, &rounded::<T>(&oracle), 1e-4)?;
    Ok(got)
}

fn check(case: Case) {
    run::<bf16>(Library::kernels(), case).unwrap();
    run::<f16>(Library::kernels(), case).unwrap();
}

#[test]
fn matches_the_oracle_at_every_row_count() {
    for rows in 1..=16 {
        check(Case { rows, bias: rows % 2 == 0, ..BASE });
    }
}

#[test]
fn matches_the_oracle_at_odd_features() {
    for (in_features, gap) in [(1, 0), (7, 1), (64, 0), (129, 0), (520, 8), (1000, 0), (1001, 7), (1096, 3)] {
        for (rows, out_features) in [(3, 1), (9, 33), (16, 70)] {
            check(Case { rows, in_features, out_features, gap, bias: true, ..BASE });
        }
    }
}

#[test]
fn matches_the_oracle_in_splits() {
    for (in_features, splits) in [(2048, 2), (1000, 3), (1544, 5), (200, 7)] {
        for rows in [1, 8, 16] {
            check(Case { rows, in_features, splits, out_features: 40, bias: true, ..BASE });
        }
    }
}

/// The order of a sum depends on the weight's shape, not on how many rows are computed with it.
#[test]
fn a_row_does_not_depend_on_the_others() {
    let case = Case { in_features: 1100, out_features: 48, splits: 2, ..BASE };
    let all = run::<bf16>(Library::kernels(), Case { rows: 16, ..case }).unwrap();
    for rows in [1, 2, 8, 9] {
        let some = run::<bf16>(Library::kernels(), Case { rows, ..case }).unwrap();
        assert_eq!(some, all[..some.len()], "{rows} rows");
    }
}

#[test]
fn bugs_are_noticed() {
    let case = Case { rows: 10, in_features: 1100, out_features: 40, gap: 4, splits: 3, bias: true };
    for (old, nth, new) in [
        ("    sync_threads();", 0, ""),
        ("k += kWarps * kStep;", 0, "k += kStep;"),
        ("source.end - kStep", 0, "source.end"),
        ("{low.z, high.z, low.w, high.w}", 0, "{low.z, low.w, high.z, high.w}"),
        ("e / 2 * 8", 0, "e % 2 * 8"),
        ("row < rows && feature < params.out_features", 0, "feature < params.out_features"),
        ("if (feature >= params.out_features) return;", 0, ""),
        ("params.num_splits, shared", 0, "params.num_splits - 1, shared"),
        ("totals[i] + bias", 0, "totals[i] - bias"),
    ] {
        assert!(
            run::<bf16>(&mutate("linear_skinny.cu", old, nth, new, |_| true), case).is_err(),
            "{old:?} → {new:?} was not noticed"
        );
    }
}
