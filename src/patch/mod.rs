//! Unified diffs in model answers: finding them, and the reference's own rules for it. Pure functions, no I/O.

#[cfg(test)]
mod goldens;
pub mod legacy;
