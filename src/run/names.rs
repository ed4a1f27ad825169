//! Names of predictions files and models, spelled as the reference spells them so that either tool continues a run.

use std::path::Path;

use super::shard::Shard;

/// What the name of a local-model run's predictions file is made of.
#[derive(Debug, Clone, Copy)]
pub struct LlamaRunName<'a> {
    /// Hub name or path of the model.
    pub model_name_or_path: &'a str,
    /// Path of the adapter, when there is one.
    pub peft_path: Option<&'a str>,
    /// Hub name or path of the dataset.
    pub dataset_path: &'a str,
    /// The dataset's split.
    pub split: &'a str,
    /// Sampling temperature.
    pub temperature: f64,
    /// Nucleus threshold.
    pub top_p: f64,
    /// Shortest prompt, in tokens.
    pub min_len: Option<usize>,
    /// Length that prompts stay below, in tokens.
    pub max_len: Option<usize>,
    /// The part of the dataset.
    pub shard: Option<Shard>,
}

impl LlamaRunName<'_> {
    /// The file's name: [`LlamaRunName::stub`], then `[__min-A][__max-B][__shard-I-N].jsonl`.
    pub fn file_name(&self) -> String {
        let mut name = self.stub();
        if let Some(min_len) = self.min_len {
            name.push_str(&format!("__min-{min_len}"));
        }
        if let Some(max_len) = self.max_len {
            name.push_str(&format!("__max-{max_len}"));
        }
        if let Some(shard) = self.shard {
            name.push_str(&format!("__shard-{}-{}", shard.index(), shard.count()));
        }
        name + EXTENSION
    }

    /// What all shards and length filters of one run share: `{dataset}__{split}__{model}__temp-{t}__top-p-{p}`.
    pub fn stub(&self) -> String {
        format!(
            "{}__{}__{}__temp-{}__top-p-{}",
            dataset_nickname(self.dataset_path),
            self.split,
            self.model_nickname(),
            python_float(self.temperature),
            python_float(self.top_p),
        )
    }

    /// The model as the records' `model_name_or_path` names it: with the adapter's path when there is one.
    pub fn recorded_model(&self) -> String {
        match self.peft_path {
            Some(peft_path) => format!("{}__{peft_path}", self.model_name_or_path),
            None => self.model_name_or_path.to_owned(),
        }
    }

    fn model_nickname(&self) -> String {
        match self.peft_path {
            Some(peft_path) => checkpoint_nickname(peft_path),
            None if Path::new(self.model_name_or_path).exists() => {
                checkpoint_nickname(self.model_name_or_path)
            }
            None => self.model_name_or_path.replace('/', "__"),
        }
    }
}

/// The predictions file of a run against a service: `{model}__{dataset}__{split}[__shard-I__num_shards-N].jsonl`, with the
/// last part of both names; the parent's where a model's last part is a training checkpoint.
pub fn api_file_name(model: &str, dataset: &str, split: &str, shard: Option<Shard>) -> String {
    let (parent, name) = last_components(model);
    let model = if name.contains("checkpoint") { parent } else { name };
    let shard = shard
        .map_or_else(String::new, |shard| format!("__shard-{}__num_shards-{}", shard.index(), shard.count()));
    format!("{model}__{}__{split}{shard}{EXTENSION}", last_components(dataset).1)
}

/// Whether `file_name` holds predictions of the run `stub`: `{stub}[__min-A][__max-B][__shard-I-N].jsonl` and nothing
/// else.
///
/// The reference takes every name that starts with the stub, so `top-p-0.9` claims the predictions of `top-p-0.95`.
pub fn belongs_to_run(file_name: &str, stub: &str) -> bool {
    let Some(suffix) = file_name.strip_prefix(stub).and_then(|rest| rest.strip_suffix(EXTENSION)) else {
        return false;
    };
    let suffix = strip_number(suffix, "__min-").unwrap_or(suffix);
    let suffix = strip_number(suffix, "__max-").unwrap_or(suffix);
    let suffix = strip_number(suffix, "__shard-").and_then(|rest| strip_number(rest, "-")).unwrap_or(suffix);
    suffix.is_empty()
}

/// `value` as Python's `str` prints a float: shortest digits that read back, `1.0`, `1e-05`, `1e+16`.
pub fn python_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if value != 0.0 && !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ if value.fract() == 0.0 => format!("{value:.1}"),
        _ => format!("{value}"),
    }
}

const EXTENSION: &str = ".jsonl";

pub(super) fn dataset_nickname(dataset_path: &str) -> String {
    if Path::new(dataset_path).exists() {
        last_components(dataset_path).1.to_owned()
    } else {
        dataset_path.replace('/', "__")
    }
}

/// The last part of a path, after its parent's name when it is a training checkpoint and says little by itself.
fn checkpoint_nickname(path: &str) -> String {
    let (parent, name) = last_components(path);
    if name.contains("checkpoint") { format!("{parent}__{name}") } else { name.to_owned() }
}

/// `(path.parent.name, path.name)` of Python's pathlib, which keeps `..` and gives an empty name to `.` and `/`.
fn last_components(path: &str) -> (&str, &str) {
    let mut components = path.split('/').rev().filter(|component| !matches!(*component, "" | "."));
    let name = components.next().unwrap_or_default();
    (components.next().unwrap_or_default(), name)
}

/// What follows `marker` and a number at the start of `text`.
fn strip_number<'a>(text: &'a str, marker: &str) -> Option<&'a str> {
    let digits = text.strip_prefix(marker)?;
    let rest = digits.trim_start_matches(|c: char| c.is_ascii_digit());
    (rest.len() < digits.len()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub_run<'a>() -> LlamaRunName<'a> {
        LlamaRunName {
            model_name_or_path: "princeton-nlp/SWE-Llama-7b",
            peft_path: None,
            dataset_path: "princeton-nlp/SWE-bench_oracle",
            split: "test",
            temperature: 0.0,
            top_p: 1.0,
            min_len: None,
            max_len: None,
            shard: None,
        }
    }

    #[test]
    fn file_names_are_those_of_the_reference() {
        #[track_caller]
        fn check(name: &LlamaRunName<'_>, expected: &str) {
            assert_eq!(name.file_name(), expected);
        }
        let hub = hub_run();
        check(
            &hub,
            "princeton-nlp__SWE-bench_oracle__test__princeton-nlp__SWE-Llama-7b__temp-0.0__top-p-1.0.jsonl",
        );
        check(
            &LlamaRunName {
                temperature: 0.2,
                top_p: 0.95,
                min_len: Some(10),
                max_len: Some(16000),
                shard: Some(Shard::new(3, 8).unwrap()),
                ..hub
            },
            "princeton-nlp__SWE-bench_oracle__test__princeton-nlp__SWE-Llama-7b__temp-0.2__top-p-0.95\
             __min-10__max-16000__shard-3-8.jsonl",
        );
        let peft = LlamaRunName { dataset_path: "d", model_name_or_path: "m", ..hub };
        check(
            &LlamaRunName { peft_path: Some("/a/run-1/lora/"), ..peft },
            "d__test__lora__temp-0.0__top-p-1.0.jsonl",
        );
        check(
            &LlamaRunName { peft_path: Some("run-1/checkpoint-500"), ..peft },
            "d__test__run-1__checkpoint-500__temp-0.0__top-p-1.0.jsonl",
        );
    }

    #[test]
    fn local_models_and_datasets_are_named_by_their_last_part() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = dir.path().join("tuned/checkpoint-7");
        let dataset = dir.path().join("lite/oracle");
        std::fs::create_dir_all(&checkpoint).unwrap();
        std::fs::create_dir_all(&dataset).unwrap();
        let run = LlamaRunName {
            model_name_or_path: checkpoint.to_str().unwrap(),
            dataset_path: dataset.to_str().unwrap(),
            ..hub_run()
        };
        assert_eq!(run.file_name(), "oracle__test__tuned__checkpoint-7__temp-0.0__top-p-1.0.jsonl");
        let model = dir.path().join("tuned");
        let run = LlamaRunName { model_name_or_path: model.to_str().unwrap(), ..run };
        assert_eq!(run.file_name(), "oracle__test__tuned__temp-0.0__top-p-1.0.jsonl");
    }

    #[test]
    fn files_of_services_are_named_as_the_reference_names_them() {
        #[track_caller]
        fn check(model: &str, shard: Option<(usize, usize)>, expected: &str) {
            let shard = shard.map(|(index, count)| Shard::new(index, count).unwrap());
            assert_eq!(api_file_name(model, "princeton-nlp/SWE-bench_oracle", "test", shard), expected);
        }
        check("gpt-4o", None, "gpt-4o__SWE-bench_oracle__test.jsonl");
        check(
            "meta-llama/Llama-3",
            Some((1, 4)),
            "Llama-3__SWE-bench_oracle__test__shard-1__num_shards-4.jsonl",
        );
        check("runs/tuned/checkpoint-5", None, "tuned__SWE-bench_oracle__test.jsonl");
    }

    #[test]
    fn an_adapter_is_named_once() {
        assert_eq!(hub_run().recorded_model(), "princeton-nlp/SWE-Llama-7b");
        let tuned = LlamaRunName { peft_path: Some("out/lora"), ..hub_run() };
        assert_eq!(tuned.recorded_model(), "princeton-nlp/SWE-Llama-7b__out/lora");
    }

    #[test]
    fn only_files_of_the_same_run_belong_to_it() {
        #[track_caller]
        fn check(suffix: &str, expected: bool) {
            let stub = "d__test__m__temp-0.2__top-p-0.9";
            assert_eq!(belongs_to_run(&format!("{stub}{suffix}"), stub), expected, "{suffix}");
        }
        check(".jsonl", true);
        check("__shard-0-4.jsonl", true);
        check("__min-1__max-20__shard-0-4.jsonl", true);
        check("__max-20.jsonl", true);
        check("5.jsonl", false);
        check("5__shard-0-4.jsonl", false);
        check("__shard-0.jsonl", false);
        check("__shard-0-4__max-20.jsonl", false);
        check("__min-.jsonl", false);
        check(".jsonl.torn", false);
        check(".json", false);
        assert!(!belongs_to_run("other.jsonl", "d__test"));
    }

    #[test]
    fn floats_are_printed_as_python_prints_them() {
        #[track_caller]
        fn check(value: f64, expected: &str) {
            assert_eq!(python_float(value), expected);
        }
        check(0.0, "0.0");
        check(1.0, "1.0");
        check(0.2, "0.2");
        check(0.1 + 0.2, "0.30000000000000004");
        check(0.0001, "0.0001");
        check(0.00012, "0.00012");
        check(0.00001, "1e-05");
        check(1.25e-7, "1.25e-07");
        check(1e-300, "1e-300");
        check(123_456.0, "123456.0");
        check(1e15, "1000000000000000.0");
        check(1e16, "1e+16");
        check(1.5e22, "1.5e+22");
    }
}
