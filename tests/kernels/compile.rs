//! Compiles kernels and the emulation with the system's C++ compiler; what has not changed is not compiled again.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, thread};

/// All kernel files.
pub fn kernel_files() -> Vec<PathBuf> {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut kernels: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "cu")).collect();
    kernels.sort();
    kernels
}

/// `kernels/`.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

/// Where compiled files are kept between runs.
pub fn scratch() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels");
    fs::create_dir_all(&path).unwrap();
    path
}

/// A name for a content.
pub fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn headers_hash() -> u64 {
    let mut files: Vec<_> = [folder(), folder().join("host")]
        .iter()
        .flat_map(|dir| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|end| end == "h" || end == "cuh"))
        .collect();
    files.sort();
    hash(&files.iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>())
}

/// The shared library of `objects`.
pub fn link(objects: &[PathBuf]) -> Result<PathBuf, String> {
    let library = scratch().join(format!("libkernels_{:016x}.so", hash(&objects)));
    if !library.exists() {
        let partial = partial(&library);
        run(compiler()
            .args(["-shared", "-pthread"])
            .args(extra_flags())
            .arg("-o")
            .arg(&partial)
            .args(objects))?;
        fs::rename(partial, &library).unwrap();
    }
    Ok(library)
}

/// A name of this process and thread, so that test processes that build the same file do not see each other's halves.
fn partial(path: &Path) -> PathBuf {
    path.with_extension(format!("{}-{:x}", std::process::id(), hash(&thread::current().id())))
}

/// The system's C++ compiler, or `CXX`.
fn compiler() -> Command {
    Command::new(env::var_os("CXX").unwrap_or_else(|| "c++".into()))
}

/// Objects of `sources`, compiled by as many processes as there are processors.
pub fn compile_all(sources: &[PathBuf], flags: &[&str]) -> Result<Vec<PathBuf>, String> {
    let headers = headers_hash();
    let next = AtomicUsize::new(0);
    let work = || {
        let indices = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        let indices = indices.take_while(|&index| index < sources.len());
        indices
            .map(|index| Ok((index, compile(&sources[index], headers, flags)?)))
            .collect::<Result<Vec<_>, String>>()
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let parts = thread::scope(|scope| {
        let running: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect::<Result<Vec<_>, _>>()
    })?;
    let mut objects = parts.concat();
    objects.sort();
    Ok(objects.into_iter().map(|(_, object)| object).collect())
}

/// What `SWEBENCH_KERNEL_CXXFLAGS` adds: CI compiles with the undefined-behaviour and address sanitizers.
fn extra_flags() -> Vec<String> {
    let flags = env::var("SWEBENCH_KERNEL_CXXFLAGS").unwrap_or_default();
    flags.split_whitespace().map(Into::into).collect()
}

/// An unchanged source gives the same object, so that a second run of the tests compiles nothing.
fn compile(source: &Path, headers: u64, more: &[&str]) -> Result<PathBuf, String> {
    let extra = extra_flags();
    let key = hash(&(fs::read(source).unwrap(), headers, &extra, more, env::var_os("CXX")));
    let stem = source.file_stem().unwrap().to_str().unwrap();
    let object = scratch().join(format!("{stem}-{key:016x}.o"));
    if !object.exists() {
        let partial = partial(&object);
        // No fused multiply-adds but those written as such: results are the same on every machine.
        let flags = [
            "-std=c++20",
            "-O2",
            "-fPIC",
            "-fvisibility=hidden",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unknown-pragmas",
            "-ffp-contract=off",
        ];
        let mut command = compiler();
        command.args(flags).args(extra).args(more).args(["-x", "c++", "-c"]).arg(source);
        run(command.arg("-I").arg(folder()).arg("-o").arg(&partial))?;
        fs::rename(partial, &object).unwrap();
    }
    Ok(object)
}

/// Runs a compiler; errors are what it prints.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
