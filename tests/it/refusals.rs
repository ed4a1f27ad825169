//! Things that are not there, or are not what they should be: exit code 1, with what was expected and found.

use std::fs;

use crate::cli::Cli;
use crate::demo;

/// A run with another model, dataset or output directory.
fn args<'a>(model: &'a str, dataset: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let flags = ["run-llama", "--model-name-or-path", model, "--dataset-path", dataset];
    flags.iter().chain(more).copied().collect()
}

#[test]
fn models_and_datasets_that_are_not_there() {
    let cli = Cli::new();
    let (model, dataset) = (demo::data("demo"), demo::data("swe-bench-lite-mit"));
    cli.refuses(&args("./no-model", &dataset, &[]), 1, &["error: ", "no-model"]);
    cli.refuses(&args(&demo::data("README.md"), &dataset, &[]), 1, &["README.md", "expected a directory"]);
    cli.refuses(&args(&model, "./no-dataset", &[]), 1, &["no-dataset"]);
    cli.refuses(&args(&model, &dataset, &["--split", "train"]), 1, &["train", "test"]);
    cli.refuses(&args(&model, &dataset, &["--peft-path", "./no-adapter"]), 1, &["no-adapter"]);
    cli.refuses(&args(&model, &dataset, &["--instance-ids", "a__b-1"]), 1, &["a__b-1"]);
    cli.refuses(&args(&model, &dataset, &["--device", "cuda:4096"]), 1, &["error: "]);
}

#[test]
fn a_dataset_without_prompts_says_how_to_make_them() {
    let cli = Cli::new();
    let dataset = cli.dir().join("bare.jsonl");
    fs::write(&dataset, "{\"instance_id\": \"a__b-1\", \"repo\": \"a/b\"}\n").unwrap();
    let model = demo::data("demo");
    cli.refuses(
        &args(&model, dataset.to_str().unwrap(), &[]),
        1,
        &["text", "repo", "hint: ", "create-text-dataset"],
    );
}

#[test]
fn an_output_directory_that_cannot_be_written() {
    let cli = Cli::new();
    fs::write(cli.dir().join("taken"), "a file").unwrap();
    let (model, dataset) = (demo::data("demo"), demo::data("swe-bench-lite-mit"));
    cli.refuses(&args(&model, &dataset, &["--output-dir", "taken"]), 1, &["taken"]);
    cli.refuses(&args(&model, &dataset, &["--output-dir", "/proc/nothing"]), 1, &["/proc/nothing"]);
}

#[test]
fn broken_models_are_named_by_file() {
    let cli = Cli::new();
    let model = cli.dir().join("model");
    fs::create_dir(&model).unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        fs::copy(demo::data(&format!("demo/{name}")), model.join(name)).unwrap();
    }
    let dataset = demo::data("swe-bench-lite-mit");
    let path = model.to_str().unwrap();
    cli.refuses(&args(path, &dataset, &[]), 1, &["model", "safetensors"]);
    let weights = fs::read(demo::data("demo/model.safetensors")).unwrap();
    fs::write(model.join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    cli.refuses(&args(path, &dataset, &[]), 1, &["model.safetensors"]);
    fs::write(model.join("config.json"), "{\"architectures\": [\"GPT2LMHeadModel\"]}").unwrap();
    fs::write(model.join("model.safetensors"), &weights).unwrap();
    cli.refuses(&args(path, &dataset, &[]), 1, &["GPT2LMHeadModel", "LlamaForCausalLM"]);
}
