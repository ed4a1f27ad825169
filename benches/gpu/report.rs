//! The figures as a table and as JSON.

use std::fmt;

use serde_json::{Value, json};
use swebench_infer::backend::cuda::DeviceInfo;

/// One kernel on one input.
pub struct Figure {
    pub kernel: String,
    pub case: String,
    /// Of one launch.
    pub seconds: f64,
    /// Read and written at least.
    pub bytes: f64,
    /// Floating-point operations, 0 where memory alone counts.
    pub operations: f64,
    /// Seconds of others on the same input.
    pub peers: Vec<(String, f64)>,
}

/// All figures of one run.
pub struct Report {
    device: Value,
    copy_bandwidth: f64,
    clocks: [String; 2],
    figures: Vec<Figure>,
}

impl Figure {
    /// How much faster than the fastest of the others.
    fn ratio(&self) -> Option<f64> {
        let best = self.peers.iter().map(|(_, seconds)| *seconds).reduce(f64::min)?;
        Some(best / self.seconds)
    }
}

impl Report {
    pub fn new(info: &DeviceInfo, cuda: (u32, u32), clocks: String, copy_bandwidth: f64) -> Self {
        let (major, minor) = info.properties.compute_capability;
        let device = json!({
            "name": info.name,
            "compute_capability": format!("{major}.{minor}"),
            "multiprocessors": info.properties.multiprocessors,
            "memory_bytes": info.memory_bytes,
            "l2_bytes": info.properties.l2_bytes,
            "cuda": format!("{}.{}", cuda.0, cuda.1),
        });
        Self { device, copy_bandwidth, clocks: [clocks, String::new()], figures: Vec::new() }
    }

    pub fn add(&mut self, figure: Figure) {
        eprintln!("{} {}: {:.1} µs", figure.kernel, figure.case, figure.seconds * 1e6);
        self.figures.push(figure);
    }

    /// Takes the clocks after the last figure.
    pub fn finish(&mut self, clocks: String) {
        self.clocks[1] = clocks;
    }

    pub fn to_json(&self) -> String {
        let figures: Vec<_> = self
            .figures
            .iter()
            .map(|figure| {
                json!({
                    "kernel": figure.kernel,
                    "case": figure.case,
                    "seconds": figure.seconds,
                    "bytes_per_second": figure.bytes / figure.seconds,
                    "share_of_copy": figure.bytes / figure.seconds / self.copy_bandwidth,
                    "operations_per_second": figure.operations / figure.seconds,
                    "peers": figure.peers.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
                    "ratio_to_best_peer": figure.ratio(),
                })
            })
            .collect();
        let report = json!({
            "device": self.device,
            "clocks_before": self.clocks[0],
            "clocks_after": self.clocks[1],
            "copy_bytes_per_second": self.copy_bandwidth,
            "figures": figures,
        });
        format!("{report:#}\n")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "copy: {:.2} TB/s", self.copy_bandwidth / 1e12)?;
        writeln!(
            f,
            "{:28} {:48} {:>10} {:>9} {:>8} {:>7}  peers",
            "kernel", "case", "µs", "TFLOP/s", "TB/s", "of copy"
        )?;
        for figure in &self.figures {
            let rate = figure.bytes / figure.seconds;
            write!(
                f,
                "{:28} {:48} {:10.1} {:9.1} {:8.2} {:6.0}% ",
                figure.kernel,
                figure.case,
                figure.seconds * 1e6,
                figure.operations / figure.seconds / 1e12,
                rate / 1e12,
                100.0 * rate / self.copy_bandwidth,
            )?;
            for (name, seconds) in &figure.peers {
                write!(f, " {name} {:.1} µs", seconds * 1e6)?;
            }
            match figure.ratio() {
                Some(ratio) => writeln!(f, " ({ratio:.2} ×)")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}
