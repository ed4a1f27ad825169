//! PEFT LoRA adapters, merged into the base weights in f32 when they are loaded.

mod config;
mod merge;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use config::{AdapterConfig, ModuleScale};
use merge::{LowRank, transposed};

use super::weights::Checkpoint;
use crate::backend::HostTensor;
use crate::error::{Error, Result};

/// What PEFT puts before the base model's own names.
const PREFIX: &str = "base_model.model.";

/// An adapter directory: `adapter_config.json` with `adapter_model.safetensors` or `adapter_model.bin`.
pub struct LoraAdapter {
    dir: PathBuf,
    config: AdapterConfig,
    checkpoint: Checkpoint,
    /// By the name of the base weight.
    targets: BTreeMap<String, Target>,
}

/// The two matrices that change one base weight.
struct Target {
    /// Name of `lora_A` `[rank, in]` in the adapter's file.
    a: String,
    /// Name of `lora_B` `[out, rank]`.
    b: String,
    module: ModuleScale,
    /// Of the product `[out, in]`.
    shape: [usize; 2],
}

/// Which of the two matrices a tensor of the adapter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    A,
    B,
}

impl LoraAdapter {
    /// Opens an adapter; what cannot be merged exactly (DoRA, `modules_to_save`, biases) is refused by name.
    ///
    /// # Errors
    /// `NotFound`, `InvalidData` and `Unsupported`, with the file, and the setting or the tensor.
    pub fn open(dir: &Path) -> Result<Self> {
        let config = AdapterConfig::read(&dir.join("adapter_config.json"))?;
        let checkpoint = Checkpoint::open_adapter(dir)?;
        let targets = read_targets(&config, &checkpoint).map_err(|error| error.with_path(dir))?;
        if config.fan_in_fan_out {
            log::warn!(
                "{}: fan_in_fan_out is ignored for weights stored [out, in], as in PEFT",
                dir.display()
            );
        }
        Ok(Self { dir: dir.to_path_buf(), config, checkpoint, targets })
    }

    /// The base model that the adapter says it was trained on.
    pub fn base_model(&self) -> Option<&str> {
        self.config.base_model.as_deref()
    }

    /// Whether the adapter changes the weight of this checkpoint name (`model.layers.0.self_attn.q_proj.weight`).
    pub fn targets(&self, name: &str) -> bool {
        self.targets.contains_key(name)
    }

    /// `base + scale · B·A` in f32, with the shape of `base` `[out, in]`.
    ///
    /// # Errors
    /// `InvalidArgument` when the adapter does not target `name`, `InvalidData` when the shapes do not fit.
    pub fn merge(&self, name: &str, base: &HostTensor<'_>) -> Result<HostTensor<'static>> {
        let Some(Target { a, b, module, shape }) = self.targets.get(name) else {
            return Err(
                Error::invalid_argument(format!("the adapter does not target `{name}`")).with_path(&self.dir)
            );
        };
        let &ModuleScale { rank, scale } = module;
        let &[out, cols] = shape;
        let (a, b) = (self.checkpoint.tensor(a)?.to_f32(), self.checkpoint.tensor(b)?.to_f32());
        if base.shape() == shape {
            LowRank { left: &b, right: &a, rank, scale }.add_to(base)
        } else if self.config.fan_in_fan_out && base.shape() == [cols, out] {
            // (B·A)ᵀ = Aᵀ·Bᵀ
            let (left, right) = (transposed(&a, cols), transposed(&b, rank));
            LowRank { left: &left, right: &right, rank, scale }.add_to(base)
        } else {
            Err(Error::invalid_data(format!("the adapter does not fit the base weight `{name}`"))
                .with_path(&self.dir)
                .with_expected(format_args!("{:?}", base.shape()), format_args!("{shape:?}"))
                .with_hint("check that the adapter was trained on this base model"))
        }
    }

    /// Names of base weights that the adapter targets; an error lists those that the model lacks.
    pub fn target_names(&self) -> Vec<&str> {
        self.targets.keys().map(String::as_str).collect()
    }

    /// The adapter's directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Pairs the adapter's tensors and checks their shapes against the configuration.
fn read_targets(config: &AdapterConfig, checkpoint: &Checkpoint) -> Result<BTreeMap<String, Target>> {
    let mut sides: BTreeMap<&str, [Option<&str>; 2]> = BTreeMap::new();
    for name in checkpoint.names() {
        let (module, side) = parse_name(name)?;
        if sides.entry(module).or_default()[side as usize].replace(name).is_some() {
            return Err(Error::invalid_data(format!(
                "the adapter holds more than one lora_{side:?} for `{module}`"
            )));
        }
    }
    if sides.is_empty() {
        return Err(Error::invalid_data("the adapter holds no tensors"));
    }
    let mut targets = BTreeMap::new();
    for (name, pair) in sides {
        let [Some(a), Some(b)] = pair else {
            let missing = if pair[Side::A as usize].is_none() { Side::A } else { Side::B };
            return Err(Error::invalid_data(format!("the adapter lacks lora_{missing:?} for `{name}`")));
        };
        let module = config.scale_of(name)?;
        let [a_rank, cols] = matrix_shape(checkpoint, a)?;
        let [rows, b_rank] = matrix_shape(checkpoint, b)?;
        if a_rank != module.rank || b_rank != module.rank {
            return Err(Error::invalid_data(format!(
                "the adapter's rank for `{name}` is not the configured one"
            ))
            .with_expected(
                format_args!("lora_A [{}, in] and lora_B [out, {0}]", module.rank),
                format_args!("[{a_rank}, {cols}] and [{rows}, {b_rank}]"),
            ));
        }
        let target = Target { a: a.to_owned(), b: b.to_owned(), module, shape: [rows, cols] };
        targets.insert(format!("{name}.weight"), target);
    }
    Ok(targets)
}

/// The module and the side of `base_model.model.<module>.lora_A.weight` or `….lora_A.<adapter>.weight`.
fn parse_name(name: &str) -> Result<(&str, Side)> {
    let unsupported = |what: &str| {
        Err(Error::unsupported(format!("the adapter's tensor `{}` is {what}", name.escape_debug()))
            .with_hint("merge the adapter with PEFT (merge_and_unload) and load the merged model"))
    };
    if name.contains(".lora_embedding_") {
        return unsupported("an adapter of an embedding, which is not supported");
    }
    if name.contains(".lora_magnitude_vector") {
        return unsupported("a DoRA magnitude, which is not supported");
    }
    let path = name.strip_prefix(PREFIX).unwrap_or(name);
    let sides = [(".lora_A.", Side::A), (".lora_B.", Side::B)];
    let found = sides
        .iter()
        .find_map(|&(infix, side)| path.rsplit_once(infix).map(|(module, rest)| (module, rest, side)));
    let Some((module, rest, side)) = found else {
        return unsupported("not a LoRA matrix; replaced weights (modules_to_save) are not supported");
    };
    let is_weight = rest == "weight"
        || rest.strip_suffix(".weight").is_some_and(|adapter| !adapter.is_empty() && !adapter.contains('.'));
    if !is_weight {
        return unsupported("not a LoRA weight; biases (lora_bias) are not supported");
    }
    Ok((module, side))
}

fn matrix_shape(checkpoint: &Checkpoint, name: &str) -> Result<[usize; 2]> {
    let Some(info) = checkpoint.info(name) else {
        return Err(Error::unsupported(format!(
            "the adapter's tensor `{name}` has an unsupported element type"
        ))
        .with_expected("f32, f16 or bf16", "another one"));
    };
    match info.shape[..] {
        [rows, cols] => Ok([rows, cols]),
        _ => Err(Error::invalid_data(format!("the adapter's tensor `{name}` is not a matrix"))
            .with_expected("rank 2", format_args!("{:?}", info.shape))),
    }
}

#[cfg(test)]
mod tests;
