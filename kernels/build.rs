//! The build script's part for CUDA: compiles `kernels/*.cu` with nvcc, when there is one, into the images that the library embeds.
//!
//! Read from the environment: `NVCC` (the compiler), `CUDA_HOME` (its toolkit), `PATH`; `SWEBENCH_CUDA_ARCHS` (what to compile for, `none` for no kernels).

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Code for 8.x chips and for Hopper, and PTX that the driver compiles for what comes later.
const DEFAULT_ARCHITECTURES: &str = "sm_80 sm_90a compute_80";

/// What kernels named `*_sm90.cu` need.
const HOPPER: &str = "sm_90a";

const SOURCES: &str = "kernels";

/// Writes `cuda_images.rs` into `out_dir`: what was compiled, for what, and by which toolkit. Without nvcc nothing is, and cargo says so.
pub fn build(out_dir: &Path) -> Result<(), String> {
    for variable in ["NVCC", "CUDA_HOME", "SWEBENCH_CUDA_ARCHS", "DOCS_RS"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let architectures = env::var("SWEBENCH_CUDA_ARCHS").unwrap_or_else(|_| DEFAULT_ARCHITECTURES.into());
    let architectures: Vec<_> =
        architectures.split([' ', ',']).filter(|name| !name.is_empty() && *name != "none").collect();
    let nvcc = if architectures.is_empty() || env::var_os("DOCS_RS").is_some() { None } else { find_nvcc()? };
    let table = match nvcc {
        Some(nvcc) => compile_all(&nvcc, &architectures, out_dir)?,
        None => {
            if !architectures.is_empty() {
                println!(
                    "cargo:warning=nvcc was not found: building without CUDA kernels (set NVCC or CUDA_HOME; kernels/install_nvcc.sh installs it)"
                );
            }
            table(&[], (0, 0), &[])
        }
    };
    write_if_changed(&out_dir.join("cuda_images.rs"), &table)
}

/// A compiler and what it calls itself.
struct Nvcc {
    path: PathBuf,
    version: String,
}

/// The compiler that `NVCC` or `CUDA_HOME` name, which has to exist then, or the one on `PATH`.
fn find_nvcc() -> Result<Option<Nvcc>, String> {
    let named = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let path = match (named("NVCC"), named("CUDA_HOME")) {
        (Some(path), _) => path,
        (None, Some(home)) => home.join("bin/nvcc"),
        (None, None) => {
            println!("cargo:rerun-if-env-changed=PATH");
            let folders = env::var_os("PATH").unwrap_or_default();
            match env::split_paths(&folders).map(|folder| folder.join("nvcc")).find(|path| path.is_file()) {
                Some(path) => path,
                None => return Ok(None),
            }
        }
    };
    let output = Command::new(&path).arg("--version").output();
    let output = output.map_err(|error| {
        format!("{}, which NVCC or CUDA_HOME name, does not run: {error}", path.display())
    })?;
    if path.is_file() {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    Ok(Some(Nvcc { path, version: String::from_utf8_lossy(&output.stdout).into_owned() }))
}

impl Nvcc {
    /// `(13, 0)` for `Cuda compilation tools, release 13.0, V13.0.88`.
    fn release(&self) -> Result<(u32, u32), String> {
        let parse = || {
            let (_, rest) = self.version.split_once("release ")?;
            let (major, rest) = rest.split_once('.')?;
            Some((major.parse().ok()?, rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?))
        };
        parse()
            .ok_or_else(|| format!("{} is no nvcc: it calls itself {:?}", self.path.display(), self.version))
    }
}

/// Compiles every kernel for what it supports of `architectures`, in as many processes as cargo allows jobs.
fn compile_all(nvcc: &Nvcc, architectures: &[&str], out_dir: &Path) -> Result<String, String> {
    let release = nvcc.release()?;
    let mut kernels = Vec::new();
    let mut headers = Vec::new();
    for entry in fs::read_dir(SOURCES).map_err(|error| format!("{SOURCES}: {error}"))? {
        let path = entry.map_err(|error| format!("{SOURCES}: {error}"))?.path();
        let kind = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
        match kind {
            "cu" => kernels.push(path.clone()),
            "cuh" | "h" => headers.push(path.clone()),
            _ => continue,
        }
        println!("cargo:rerun-if-changed={}", path.display());
    }
    // Names every kernel file, so it changes when one comes or goes.
    println!("cargo:rerun-if-changed=src/backend/cuda/geometry.rs");
    kernels.sort();
    headers.sort();
    let read = |path: &PathBuf| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let shared = headers.iter().map(read).collect::<Result<Vec<_>, _>>()?;

    let mut jobs = Vec::new();
    for kernel in kernels {
        let only_hopper = kernel.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("_sm90"));
        let wanted: Vec<_> =
            architectures.iter().copied().filter(|name| !only_hopper || *name == HOPPER).collect();
        if wanted.is_empty() {
            continue;
        }
        let arguments = arguments(&wanted)?;
        let mut hasher = DefaultHasher::new();
        (read(&kernel)?, &shared, &arguments, &nvcc.version).hash(&mut hasher);
        let stem = kernel.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let image = out_dir.join(format!("{stem}-{:016x}.fatbin", hasher.finish()));
        jobs.push(Job { stem, kernel, arguments, image });
    }
    run_all(nvcc, &jobs)?;
    remove_stale(out_dir, &jobs);
    Ok(table(&jobs, release, architectures))
}

/// One kernel file and the image to make of it, whose name is a hash of all that goes in.
struct Job {
    stem: String,
    kernel: PathBuf,
    arguments: Vec<String>,
    image: PathBuf,
}

/// nvcc's arguments for `sm_N` (code for a chip) and `compute_N` (PTX).
fn arguments(architectures: &[&str]) -> Result<Vec<String>, String> {
    let mut arguments: Vec<String> =
        ["-std=c++20", "-fatbin", "-compress-mode=size", "-I", SOURCES].map(Into::into).into();
    for name in architectures {
        let number = name.strip_prefix("sm_").or_else(|| name.strip_prefix("compute_"));
        let number = number.filter(|number| number.starts_with(|c: char| c.is_ascii_digit())).ok_or_else(|| {
            format!("SWEBENCH_CUDA_ARCHS names {name:?}: expected sm_N or compute_N, as in \"{DEFAULT_ARCHITECTURES}\"")
        })?;
        arguments.push(format!("-gencode=arch=compute_{number},code={name}"));
    }
    Ok(arguments)
}

fn run_all(nvcc: &Nvcc, jobs: &[Job]) -> Result<(), String> {
    let processes = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            run(nvcc, job)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..processes).map(|_| scope.spawn(work)).collect();
        running
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err("a job panicked".into())))
    })
}

fn run(nvcc: &Nvcc, job: &Job) -> Result<(), String> {
    if job.image.exists() {
        return Ok(());
    }
    // Under its name only when it is whole.
    let partial = job.image.with_extension("partial");
    let arguments = job.arguments.iter().map(OsString::from);
    let arguments: Vec<_> =
        arguments.chain(["-o".into(), partial.clone().into(), job.kernel.clone().into()]).collect();
    let output = Command::new(&nvcc.path).args(&arguments).output();
    let output = output.map_err(|error| format!("{}: {error}", nvcc.path.display()))?;
    if !output.status.success() {
        return Err(format!(
            "nvcc failed on {} ({})\n{}{}",
            job.kernel.display(),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        ));
    }
    fs::rename(&partial, &job.image).map_err(|error| format!("{}: {error}", job.image.display()))
}

/// Images of earlier sources only take space; that one cannot be removed is no reason to fail.
fn remove_stale(out_dir: &Path, jobs: &[Job]) {
    for entry in fs::read_dir(out_dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|end| end == "fatbin") && !jobs.iter().any(|job| job.image == path) {
            let _ = fs::remove_file(path);
        }
    }
}

/// The source of the table that `src/backend/cuda/images.rs` includes.
fn table(jobs: &[Job], release: (u32, u32), architectures: &[&str]) -> String {
    let mut images = String::new();
    for Job { stem, image, .. } in jobs {
        let _ = writeln!(
            images,
            "    Image {{ name: {stem:?}, bytes: &Aligned(*include_bytes!({image:?})).0 }},"
        );
    }
    format!(
        "/// What the kernels were compiled for.\npub const ARCHITECTURES: &[&str] = &{:?};\n\
         /// Release of the toolkit that compiled them.\npub const TOOLKIT: (u32, u32) = {release:?};\n\
         /// One image a kernel file.\npub static IMAGES: &[Image] = &[\n{images}];\n",
        if jobs.is_empty() { &[] } else { architectures },
    )
}

/// A file that is not touched is not compiled again.
fn write_if_changed(path: &Path, text: &str) -> Result<(), String> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
