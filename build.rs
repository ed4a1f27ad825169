//! Writes the C header into `OUT_DIR` (a test compares it with the committed one), gives the shared library its SONAME, and compiles the CUDA kernels.

#[path = "kernels/build.rs"]
mod kernels;

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::{env, fs};

/// The files of `src/capi` that export something, in the order of the header.
const GROUPS: &str =
    "status library text buf error log config model tokenizer generate client job event run diff";

/// Why the build failed, printed as it is: compilers' messages have many lines.
struct Failure(String);

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn main() -> Result<(), Failure> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=kernels/build.rs");
    let out_dir = env::var_os("OUT_DIR").ok_or_else(|| Failure("OUT_DIR is not set".into()))?;
    write_header(Path::new(&out_dir)).map_err(|error| Failure(error.to_string()))?;
    kernels::build(Path::new(&out_dir)).map_err(Failure)
}

fn write_header(out_dir: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=cbindgen.toml");
    println!("cargo:rerun-if-changed=src/capi");
    if env::var("CARGO_CFG_TARGET_OS")? == "linux" {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libswebench_infer.so.0");
    }
    let mut builder = cbindgen::Builder::new().with_config(cbindgen::Config::from_file("cbindgen.toml")?);
    let mut banners = Vec::new();
    for group in GROUPS.split(' ') {
        let file = ["", "/mod"].iter().map(|end| format!("src/capi/{group}{end}.rs"));
        let file = file.into_iter().find(|file| Path::new(file).exists()).ok_or(group)?;
        banners.push(fs::read_to_string(&file)?);
        builder = builder.with_src(file);
    }
    let mut header = Vec::new();
    builder.generate()?.write(&mut header);
    let header =
        banners.iter().try_fold(String::from_utf8(header)?, |header, source| add_banner(&header, source));
    fs::write(out_dir.join("swebench_infer.h"), header?)?;
    Ok(())
}

/// Puts the module's first sentence above what it exports: its first function or, without one, its first constant.
fn add_banner(header: &str, source: &str) -> Result<String, Box<dyn Error>> {
    let title = source.lines().find_map(|line| line.strip_prefix("//! ")).ok_or("a module without //!")?;
    let exported = source.split_once("#[unsafe(no_mangle)]").and_then(|(_, rest)| rest.split_once("fn "));
    let constant = || source.split_once("pub const ");
    let (_, name) = exported.or_else(constant).ok_or("a module that exports nothing")?;
    let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let is_declaration = |line: &&str| !line.starts_with([' ', '/']) && line.contains(&name);
    let line = header.lines().find(is_declaration).ok_or_else(|| format!("{name} is not in the header"))?;
    let offset = line.as_ptr() as usize - header.as_ptr() as usize;
    let comment = header[..offset].rfind("/**").ok_or_else(|| format!("{name} has no comment"))?;
    let rule = "=".repeat(106);
    Ok(format!("{}/* {rule}\n * {title}\n * {rule} */\n\n{}", &header[..comment], &header[comment..]))
}
