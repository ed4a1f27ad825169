//! Compares a checkpoint's tensors with those that a model needs.

use std::collections::HashSet;
use std::fmt::Write;

use super::Checkpoint;
use super::stored::StoredTensor;
use crate::error::{Error, Result};

/// How many tensors of a kind an error lists before it counts the rest.
const MAX_LISTED: usize = 10;

/// What is wrong, one line for each tensor.
#[derive(Default)]
struct Differences {
    missing: Vec<String>,
    unexpected: Vec<String>,
    mis_shaped: Vec<String>,
    unsupported: Vec<String>,
}

/// See [`Checkpoint::check`].
pub(super) fn check(
    checkpoint: &Checkpoint,
    expected: &[(String, Vec<usize>)],
    ignore: &dyn Fn(&str) -> bool,
) -> Result<()> {
    let mut differences = Differences::default();
    let mut known = HashSet::with_capacity(expected.len());
    for (name, shape) in expected {
        known.insert(name.as_str());
        match checkpoint.stored(name) {
            None => differences.missing.push(format!("{name} {shape:?}")),
            Some(stored) if stored.shape() != shape => {
                differences.mis_shaped.push(format!("{name} expected {shape:?} got {:?}", stored.shape()));
            }
            Some(StoredTensor::Unsupported { element, .. }) => {
                differences.unsupported.push(format!("{name} {element}"));
            }
            Some(StoredTensor::Readable(_)) => {}
        }
    }
    for name in checkpoint.names() {
        if !known.contains(name)
            && !ignore(name)
            && let Some(stored) = checkpoint.stored(name)
        {
            differences.unexpected.push(format!("{} {:?}", name.escape_debug(), stored.shape()));
        }
    }
    differences.into_result().map_err(|error| error.with_path(&checkpoint.dir))
}

impl Differences {
    fn into_result(self) -> Result<()> {
        let kinds = [
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape", self.mis_shaped),
            ("of an unsupported element type (supported: f32, f16, bf16)", self.unsupported),
        ];
        let mut message = String::new();
        for (kind, tensors) in kinds.iter().filter(|(_, tensors)| !tensors.is_empty()) {
            let plural = if tensors.len() == 1 { "tensor" } else { "tensors" };
            let listed = tensors[..tensors.len().min(MAX_LISTED)].join(", ");
            // Writing to a string cannot fail.
            let _ = write!(message, "; {} {plural} {kind}: {listed}", tensors.len());
            if tensors.len() > MAX_LISTED {
                let _ = write!(message, " and {} more", tensors.len() - MAX_LISTED);
            }
        }
        if message.is_empty() {
            return Ok(());
        }
        Err(Error::invalid_data(format!("the checkpoint does not fit the model{message}"))
            .with_hint("check that config.json and the weights belong to the same model"))
    }
}
