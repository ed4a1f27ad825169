//! Operations that copy rows: the embedding lookup and the choice of the rows whose logits are wanted.

use super::layer::CpuLinear;
use super::threads::{SharedSlice, ThreadPool};

/// `out[i] = table[tokens[i]]`; `out` is `[tokens, in_features]`.
pub fn embed(pool: &ThreadPool, tokens: &[u32], table: &CpuLinear, out: &mut [f32]) {
    let cols = table.in_features();
    assert_eq!(out.len(), tokens.len() * cols, "output of the embedding");
    let out = SharedSlice::new(out);
    pool.for_ranges(tokens.len(), 8 * cols, &|rows| {
        for row in rows {
            // SAFETY: rows are handed out once.
            table.read_row(tokens[row] as usize, unsafe { out.range(row * cols..(row + 1) * cols) });
        }
    });
}

/// `out[i] = input[rows[i]]`; both have `cols` columns.
pub fn gather(rows: &[u32], cols: usize, input: &[f32], out: &mut [f32]) {
    for (row, out) in rows.iter().zip(out.chunks_exact_mut(cols)) {
        out.copy_from_slice(&input[*row as usize * cols..][..cols]);
    }
}
