//! Kernels that memory limits: norms, gates, rotation and append, the few-row product, in bytes a second.

use half::bf16;
use swebench_infer::backend::HeadLayout;
use swebench_infer::backend::cuda::launch::{
    Cache, LinearSkinny, RmsNorm, RotaryAppend, SkinnyWorkspace, linear_skinny, rms_norm, rotary_append,
    silu_mul,
};
use swebench_infer::backend::cuda::{Buffer, Indices};
use swebench_infer::error::Result;

use crate::measure::Bench;
use crate::report::{Figure, Report};

/// Rows of a prefill step.
const ROWS: usize = 8192;

/// The shape of SWE-Llama 13B.
const HIDDEN: usize = 5120;
const INTERMEDIATE: usize = 13_824;
const HEADS: HeadLayout = HeadLayout { num_heads: 40, num_kv_heads: 40, head_dim: 128 };

/// All of them.
pub fn all(bench: &Bench, report: &mut Report) -> Result<()> {
    norm(bench, report)?;
    gate(bench, report)?;
    rotary(bench, report)?;
    product(bench, report)
}

fn figure(kernel: &str, case: String, seconds: f64, bytes: usize, operations: usize) -> Figure {
    Figure {
        kernel: kernel.into(),
        case,
        seconds,
        bytes: bytes as f64,
        operations: operations as f64,
        peers: Vec::new(),
    }
}

/// `count` buffers, one a turn.
fn turns(count: usize, make: impl Fn() -> Result<Buffer>) -> Result<Vec<Buffer>> {
    (0..count).map(|_| make()).collect()
}

fn norm(bench: &Bench, report: &mut Report) -> Result<()> {
    let cells = ROWS * HIDDEN;
    // The residual in f32 is read and written, the delta read, the result written.
    let bytes = cells * (4 + 4 + 2 + 2);
    let count = bench.turns(bytes);
    let residual = turns(count, || bench.zeros(cells))?;
    let delta = turns(count, || bench.random(cells))?;
    let out = turns(count, || bench.random(cells))?;
    let weight = bench.random(HIDDEN)?;
    let seconds = bench.seconds(count, |turn| {
        let arguments = RmsNorm {
            residual: residual[turn].matrix(0, ROWS, HIDDEN, HIDDEN)?,
            delta: Some(delta[turn].matrix(0, ROWS, HIDDEN, HIDDEN)?),
            weight: weight.vector(),
            out: out[turn].matrix(0, ROWS, HIDDEN, HIDDEN)?,
            rows: ROWS,
            eps: 1e-5,
        };
        rms_norm(bench.launcher.as_ref(), &arguments)
    })?;
    report.add(figure("rms_norm", format!("{ROWS} × {HIDDEN}"), seconds, bytes, 0));
    Ok(())
}

fn gate(bench: &Bench, report: &mut Report) -> Result<()> {
    let cells = ROWS * INTERMEDIATE;
    let bytes = cells * (2 + 2 + 2);
    let count = bench.turns(bytes);
    let gate_up = turns(count, || bench.random(2 * cells))?;
    let out = turns(count, || bench.random(cells))?;
    let seconds = bench.seconds(count, |turn| {
        let gate_up = gate_up[turn].matrix(0, ROWS, 2 * INTERMEDIATE, 2 * INTERMEDIATE)?;
        let out = out[turn].matrix(0, ROWS, INTERMEDIATE, INTERMEDIATE)?;
        silu_mul(bench.launcher.as_ref(), ROWS, &gate_up, &out)
    })?;
    report.add(figure("silu_mul", format!("{ROWS} × {INTERMEDIATE}"), seconds, bytes, 0));
    Ok(())
}

fn rotary(bench: &Bench, report: &mut Report) -> Result<()> {
    let (width, half) = (HEADS.qkv_width(), HEADS.head_dim / 2);
    // Queries and keys are read and written, values read, keys and values written to the cache, angles read.
    let bytes = ROWS * (2 * (2 * HEADS.q_width() + 5 * HEADS.kv_width()) + 2 * 4 * half);
    let count = bench.turns(bytes);
    let qkv = turns(count, || bench.random(ROWS * width))?;
    let pool = || bench.random(ROWS * HEADS.kv_width());
    let (keys, values) = (turns(count, pool)?, turns(count, pool)?);
    let angles = bench.zeros(ROWS * half)?;
    let slots: Vec<i64> = (0..ROWS as i64).collect();
    let slots = Indices::new(&bench.launcher, &slots)?;
    let seconds = bench.seconds(count, |turn| {
        let arguments = RotaryAppend {
            qkv: qkv[turn].matrix(0, ROWS, width, width)?,
            cos: angles.matrix(0, ROWS, half, half)?,
            sin: angles.matrix(0, ROWS, half, half)?,
            norm: None,
            slots: &slots,
            cache: Cache {
                keys: keys[turn].vector(),
                values: values[turn].vector(),
                scales: None,
                block_size: 64,
                num_kv_heads: HEADS.num_kv_heads,
                head_dim: HEADS.head_dim,
            },
            heads: HEADS,
        };
        rotary_append(bench.launcher.as_ref(), &arguments)
    })?;
    report.add(figure("rotary_append", format!("{ROWS} tokens, 40 heads of 128"), seconds, bytes, 0));
    Ok(())
}

fn product(bench: &Bench, report: &mut Report) -> Result<()> {
    let weight_bytes = size_of::<bf16>() * HIDDEN * INTERMEDIATE;
    let count = bench.turns(weight_bytes);
    let weight = turns(count, || bench.random(HIDDEN * INTERMEDIATE))?;
    let mut workspace = SkinnyWorkspace::new(&bench.launcher)?;
    for rows in [1, 4, 8, 16] {
        let (input, out) = (bench.random(rows * HIDDEN)?, bench.random(rows * INTERMEDIATE)?);
        let seconds = bench.seconds(count, |turn| {
            let arguments = LinearSkinny {
                input: input.matrix(0, rows, HIDDEN, HIDDEN)?,
                weight: weight[turn].matrix(0, INTERMEDIATE, HIDDEN, HIDDEN)?,
                bias: None,
                out: out.matrix(0, rows, INTERMEDIATE, INTERMEDIATE)?,
                rows,
            };
            linear_skinny(bench.launcher.as_ref(), &arguments, &mut workspace)
        })?;
        let operations = 2 * rows * HIDDEN * INTERMEDIATE;
        let bytes = weight_bytes + 2 * rows * (HIDDEN + INTERMEDIATE);
        report.add(figure(
            "linear_skinny",
            format!("{rows} × {HIDDEN} × {INTERMEDIATE}"),
            seconds,
            bytes,
            operations,
        ));
    }
    Ok(())
}
