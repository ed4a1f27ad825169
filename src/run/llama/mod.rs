//! The run of a local model over a dataset.
