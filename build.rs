//! Writes the C header into `OUT_DIR` (a test compares it with the committed one) and gives the shared library its SONAME.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

/// The files of `src/capi` that export something, in the order of the header.
const GROUPS: [&str; 15] = [
    "mod", "status", "library", "text", "buf", "error", "log", "config", "model", "tokenizer", "generate", "job", "event",
    "run", "diff",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=cbindgen.toml");
    println!("cargo:rerun-if-changed=src/capi");
    if env::var("CARGO_CFG_TARGET_OS")? == "linux" {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libswebench_infer.so.0");
    }
    let mut builder = cbindgen::Builder::new().with_config(cbindgen::Config::from_file("cbindgen.toml")?);
    let mut banners = Vec::new();
    for group in GROUPS {
        let file = ["", "/mod"].iter().map(|end| format!("src/capi/{group}{end}.rs"));
        let file = file.into_iter().find(|file| Path::new(file).exists()).ok_or(group)?;
        banners.push(fs::read_to_string(&file)?);
        builder = builder.with_src(file);
    }
    let mut header = Vec::new();
    builder.generate()?.write(&mut header);
    let header = banners.iter().try_fold(String::from_utf8(header)?, |header, source| add_banner(&header, source));
    fs::write(Path::new(&env::var("OUT_DIR")?).join("swebench_infer.h"), header?)?;
    Ok(())
}

/// Puts the module's first sentence above the comment of the first function that it exports.
fn add_banner(header: &str, source: &str) -> Result<String, Box<dyn Error>> {
    let title = source.lines().find_map(|line| line.strip_prefix("//! ")).ok_or("a module without //!")?;
    let Some((_, exported)) = source.split_once("extern \"C\" fn ") else { return Ok(header.to_owned()) };
    let name = exported.split('(').next().unwrap_or_default();
    let call = header.find(&format!("{name}(")).ok_or_else(|| format!("{name} is not in the header"))?;
    let comment = header[..call].rfind("/**").ok_or_else(|| format!("{name} has no comment"))?;
    let rule = "=".repeat(106);
    Ok(format!("{}/* {rule}\n * {title}\n * {rule} */\n\n{}", &header[..comment], &header[comment..]))
}
