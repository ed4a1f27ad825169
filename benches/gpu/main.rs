//! Times every CUDA kernel on a device, beside PyTorch where it is installed, and writes a table and a JSON file.
//!
//! `--probe` only says which device would be used; `--json FILE` also writes the figures; `--torch PYTHON` names a Python with torch.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own")]

mod attention;
mod measure;
mod report;
mod rows;
mod torch;

use std::process::{Command, ExitCode};
use std::sync::Arc;

use swebench_infer::backend::cuda::CudaDevice;
use swebench_infer::error::{Error, Result};

use measure::Bench;
use report::Report;
use torch::Torch;

#[derive(Debug, Default)]
struct Arguments {
    probe: bool,
    json: Option<String>,
    torch: Option<String>,
}

fn main() -> ExitCode {
    let done = arguments().and_then(|arguments| run(&arguments));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            eprintln!("gpu: {error}{hint}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Arguments> {
    let mut parsed = Arguments::default();
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let mut value =
            || given.next().ok_or_else(|| Error::invalid_argument(format!("{argument} needs a value")));
        match argument.as_str() {
            "--probe" => parsed.probe = true,
            "--json" => parsed.json = Some(value()?),
            "--torch" => parsed.torch = Some(value()?),
            // What `cargo bench` adds.
            "--bench" => {}
            _ => {
                return Err(Error::invalid_argument("unknown argument")
                    .with_expected("--probe, --json FILE or --torch PYTHON", argument));
            }
        }
    }
    Ok(parsed)
}

fn run(arguments: &Arguments) -> Result<()> {
    let device = CudaDevice::open_kernels(0)?;
    let (major, minor) = device.info().properties.compute_capability;
    let cuda = device.driver_version()?;
    println!(
        "{} (compute capability {major}.{minor}), driver for CUDA {}.{}",
        device.info().name,
        cuda.0,
        cuda.1
    );
    if arguments.probe {
        return Ok(());
    }
    let bench = Bench::new(Arc::clone(&device))?;
    let mut torch = arguments.torch.as_deref().map(Torch::start).transpose()?;
    let mut report = Report::new(device.info(), cuda, clocks(), bench.copy_bandwidth()?);
    attention::prefill(&bench, torch.as_mut(), &mut report)?;
    attention::decode(&bench, torch.as_mut(), &mut report)?;
    rows::all(&bench, &mut report)?;
    report.finish(clocks());
    print!("{report}");
    match &arguments.json {
        Some(path) => std::fs::write(path, report.to_json()).map_err(|error| Error::io("write", path, error)),
        None => Ok(()),
    }
}

/// Driver, clocks, power and temperature, as `nvidia-smi` says them; empty where it is missing.
fn clocks() -> String {
    const QUERY: &str = "--query-gpu=driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,temperature.gpu";
    let output = Command::new("nvidia-smi").args([QUERY, "--format=csv"]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
