//! Which files of a model repository are needed to run it.

/// Configuration, tokenizer, adapter, and the weights in one format: safetensors, or else PyTorch's.
pub(super) fn choose(names: &[String]) -> Vec<String> {
    let top: Vec<&str> = names.iter().map(String::as_str).filter(|name| !name.contains('/')).collect();
    let weights = weights(&top);
    let adapter =
        ["adapter_model.safetensors", "adapter_model.bin"].into_iter().find(|name| top.contains(name));
    top.iter()
        .copied()
        .filter(|name| is_side_file(name) || weights.contains(name) || adapter == Some(name))
        .map(str::to_owned)
        .collect()
}

fn is_side_file(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "chat_template.jinja",
        "adapter_config.json",
    ];
    NAMES.contains(&name) || name.starts_with("tokenizer")
}

/// The model's own files, if there are any of the usual name: others, such as `consolidated.safetensors`, repeat them.
fn weights<'a>(top: &[&'a str]) -> Vec<&'a str> {
    let of = |start: &str, end: &str| -> Vec<&'a str> {
        let is_weights = |name: &str| {
            name.starts_with(start)
                && !name.starts_with("adapter_model")
                && (name.ends_with(end) || name.ends_with(&format!("{end}.index.json")))
        };
        top.iter().copied().filter(|name| is_weights(name)).collect()
    };
    [of("model", ".safetensors"), of("", ".safetensors"), of("pytorch_model", ".bin")]
        .into_iter()
        .find(|files| !files.is_empty())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], unwanted: &[&str]) {
        let all: Vec<String> = names.iter().chain(unwanted).map(ToString::to_string).collect();
        assert_eq!(choose(&all), names);
    }

    #[test]
    fn one_format_of_weights_is_enough() {
        check(
            &[
                "config.json",
                "tokenizer.json",
                "model-00001-of-00002.safetensors",
                "model.safetensors.index.json",
            ],
            &[
                "consolidated.safetensors",
                "pytorch_model.bin",
                "README.md",
                "onnx/model.safetensors",
                "tf_model.h5",
            ],
        );
        check(
            &[
                "config.json",
                "tokenizer.model",
                "pytorch_model-00001-of-00003.bin",
                "pytorch_model.bin.index.json",
            ],
            &["training_args.bin", "flax_model.msgpack", "original/consolidated.00.pth"],
        );
        check(&["weights.safetensors", "config.json"], &["pytorch_model.bin"]);
    }

    #[test]
    fn an_adapter_comes_with_its_configuration() {
        check(&["adapter_config.json", "adapter_model.safetensors"], &["adapter_model.bin"]);
        check(&["adapter_config.json", "adapter_model.bin"], &[".gitattributes"]);
    }
}
