//! Sampling through the launch layer, its workspace kept from step to step.

use half::bf16;
use swebench_infer::backend::cuda::launch::{Sample, SampleWorkspace, sample};
use swebench_infer::backend::cuda::{Buffer, Stored};

use super::{run_in_every_order, upload};
use crate::numerics::Element;
use crate::sampling::{GREEDY, Row, check_tokens, peaked, row};

/// Two steps of different vocabularies, then the first again: what they chose.
fn check<T: Element + Stored>(rows: &[Row]) {
    let steps = [5000, 304, 5000]
        .map(|vocabulary| (vocabulary, peaked::<T>(rows.len(), vocabulary, vocabulary + 8, 12.0)));
    let chosen = run_in_every_order("sample", |launcher| {
        let mut workspace = SampleWorkspace::new(launcher).unwrap();
        let upload_each = |of: fn(&Row) -> f32| upload(launcher, &rows.iter().map(of).collect::<Vec<_>>());
        let (temperatures, top_ps) = (upload_each(|row| row.temperature), upload_each(|row| row.top_p));
        let top_ks = upload(launcher, &rows.iter().map(|row| row.top_k as i32).collect::<Vec<_>>());
        let seeds = upload(launcher, &rows.iter().map(|row| row.seed).collect::<Vec<_>>());
        let offsets = upload(launcher, &rows.iter().map(|row| row.offset).collect::<Vec<_>>());
        let mut chosen = Vec::new();
        for (vocabulary, logits) in &steps {
            let logits = upload(launcher, logits);
            let tokens: Buffer = upload(launcher, &vec![i32::MIN; rows.len()]);
            let logprobs: Buffer = upload(launcher, &vec![f32::NAN; rows.len()]);
            let arguments = Sample {
                logits: logits.matrix(0, rows.len(), *vocabulary, vocabulary + 8).unwrap(),
                temperatures: temperatures.vector(),
                top_ps: top_ps.vector(),
                top_ks: top_ks.vector(),
                seeds: seeds.vector(),
                offsets: offsets.vector(),
                tokens: tokens.vector(),
                logprobs: logprobs.vector(),
                rows: rows.len(),
            };
            sample(launcher.as_ref(), &arguments, &mut workspace).unwrap();
            chosen.extend(tokens.to_vec::<i32>().unwrap().into_iter().zip(logprobs.to_vec::<f32>().unwrap()));
        }
        chosen
    });
    for ((vocabulary, logits), got) in steps.iter().zip(chosen.chunks_exact(rows.len())) {
        check_tokens(logits, *vocabulary, rows, got).unwrap();
    }
}

#[test]
fn sampling_runs_through_the_launch_layer() {
    let rows = [GREEDY, row(0.8, 50, 0.95), row(1.0, 0, 1.0), row(0.7, 1, 0.5)];
    check::<f32>(&rows);
    check::<bf16>(&rows);
}
