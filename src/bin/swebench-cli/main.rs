//! `swebench-cli`: a small consumer of the C ABI.
use swebench_infer as _;
fn main() {}
