//! Datasets of prompts with their token ids and labels, for training and for models that take ids.

mod config;
mod ids;

pub use config::TokenizeDatasetConfig;

use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;

use super::split::open_split;
use super::text_tokenizer::TextTokenizer;
use crate::cancel::CancelToken;
use crate::dataset::{self, Cell, Column, ColumnKind, DatasetSpec, DatasetWriter, Instance, require_column};
use crate::error::{Error, Result};
use crate::hub::Hub;
use ids::{Tokens, tokens};

/// Prompts that are longer have no use in a dataset of tokens; in characters.
const MAX_TEXT_CHARS: usize = 5_000_000;
/// Instances that are tokenized at once, by all threads together.
const BATCH: usize = 128;
const TEXT: &str = "text";
const PATCH: &str = "patch";
const INPUT_IDS: &str = "input_ids";
const LABELS: &str = "labels";

/// A report of a running run, in the order in which things happen.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RunEvent {
    /// The instances of the next split are known.
    Started {
        /// Where the dataset goes.
        output_dir: PathBuf,
        /// The split.
        split: String,
        /// Its instances.
        total: usize,
    },
    /// An instance has its ids.
    InstanceFinished {
        /// The instance.
        instance_id: String,
        /// Tokens of its prompt.
        prompt_tokens: usize,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RunSummary {
    /// Where the dataset is.
    pub output_dir: PathBuf,
    /// Instances of the splits.
    pub total: usize,
    /// Instances with ids.
    pub finished: usize,
    /// Always 0: an instance that cannot be tokenized ends the run.
    pub failed: usize,
    /// Instances left out because they have no prompt or patch, or one that is too long.
    pub skipped: usize,
    /// Tokens of the prompts.
    pub prompt_tokens: u64,
    /// Wall time.
    pub seconds: f64,
    /// Whether the run was cancelled before its end; nothing is written then.
    pub interrupted: bool,
}

/// Adds `input_ids` and `labels` to every split and writes the dataset.
///
/// In every split but `test` the ids are the prompt's and then the patch's but the last, and the labels have -100 in place of the
/// prompt; in `test` the ids are the prompt's and the labels the patch's.
///
/// # Errors
/// `InvalidArgument` for the configuration, `NotFound` for what it names, `Io` when the dataset cannot be written.
pub fn run(
    config: &TokenizeDatasetConfig,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(RunEvent),
) -> Result<RunSummary> {
    let start = Instant::now();
    let mut summary = RunSummary::default();
    summary.interrupted = cancel.interrupted(run_stages(config, cancel, on_event, &mut summary))?;
    summary.seconds = start.elapsed().as_secs_f64();
    Ok(summary)
}

fn run_stages(
    config: &TokenizeDatasetConfig,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(RunEvent),
    summary: &mut RunSummary,
) -> Result<()> {
    config.validate()?;
    let tokenizer = TextTokenizer::open(&config.tokenizer_name, config.cache_dir.as_deref(), cancel)?;
    let hub = || Ok(Hub::from_env(config.cache_dir.as_deref())?.with_cancel(cancel.clone()));
    let splits = match &config.splits[..] {
        [] => dataset::splits(&config.dataset_name_or_path, hub)?,
        splits => splits.to_vec(),
    };
    let output = config.output_dir.join(config.output_name());
    summary.output_dir.clone_from(&output);
    let mut writer = DatasetWriter::create(&output, config.output_format)?;
    for split in &splits {
        let mut total = 0;
        let found = open_split(spec(config, split, &[]), cancel)?.for_each(|_| {
            total += 1;
            cancel.check()
        })?;
        [TEXT, PATCH].iter().try_for_each(|column| require_column(&found, column))?;
        let names: Vec<String> =
            found.into_iter().filter(|name| ![INPUT_IDS, LABELS].contains(&name.as_str())).collect();
        let columns = columns(&names);
        let mut rows = writer.split(split, &columns)?;
        summary.total += total;
        on_event(RunEvent::Started { output_dir: output.clone(), split: split.clone(), total });

        let is_test = split == "test";
        let mut finish = |batch: &[Instance]| -> Result<()> {
            cancel.check()?;
            let tokenized = in_parallel(batch, config.threads(), |instance| {
                tokens(&tokenizer, text(instance), patch(instance), is_test)
                    .map_err(|error| error.context(format!("cannot tokenize {}", instance.instance_id)))
            });
            for (instance, tokens) in batch.iter().zip(tokenized) {
                let tokens = tokens?;
                push(&mut rows, &names, instance, &tokens)?;
                summary.finished += 1;
                summary.prompt_tokens += tokens.prompt_len as u64;
                on_event(RunEvent::InstanceFinished {
                    instance_id: instance.instance_id.clone(),
                    prompt_tokens: tokens.prompt_len,
                });
            }
            Ok(())
        };
        let mut batch = Vec::with_capacity(BATCH);
        let mut skipped = 0;
        open_split(spec(config, split, &names), cancel)?.for_each(|instance| {
            if !is_usable(&instance) {
                skipped += 1;
                return Ok(());
            }
            batch.push(instance);
            if batch.len() == BATCH {
                finish(&batch)?;
                batch.clear();
            }
            Ok(())
        })?;
        finish(&batch)?;
        summary.skipped += skipped;
        rows.finish()?;
    }
    writer.finish()
}

fn spec(config: &TokenizeDatasetConfig, split: &str, columns: &[String]) -> DatasetSpec {
    DatasetSpec {
        name_or_path: config.dataset_name_or_path.clone(),
        split: split.to_owned(),
        columns: columns.to_vec(),
        cache_dir: config.cache_dir.clone(),
    }
}

fn columns(names: &[String]) -> Vec<Column> {
    let kept = names.iter().map(|name| Column::new(name, ColumnKind::Text));
    let added = [Column::new(INPUT_IDS, ColumnKind::Int32List), Column::new(LABELS, ColumnKind::Int64List)];
    kept.chain(added).collect()
}

fn text(instance: &Instance) -> &str {
    instance.text.as_deref().unwrap_or_default()
}

fn patch(instance: &Instance) -> &str {
    instance.fields.get(PATCH).and_then(Value::as_str).unwrap_or_default()
}

fn is_usable(instance: &Instance) -> bool {
    let text = text(instance);
    // Bytes first: only what has that many bytes can have that many characters.
    let is_too_long = text.len() > MAX_TEXT_CHARS && text.chars().count() > MAX_TEXT_CHARS;
    !text.is_empty() && !patch(instance).is_empty() && !is_too_long
}

fn push(
    rows: &mut dataset::SplitWriter<'_>,
    names: &[String],
    instance: &Instance,
    tokens: &Tokens,
) -> Result<()> {
    let others: Vec<Option<String>> = names
        .iter()
        .map(|name| match instance.fields.get(name) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Null) | None => None,
            Some(other) => Some(other.to_string()),
        })
        .collect();
    let mut row: Vec<Cell<'_>> = names
        .iter()
        .zip(&others)
        .map(|(name, other)| {
            Cell::Text(match name.as_str() {
                "instance_id" => Some(&instance.instance_id),
                TEXT => Some(&tokens.text),
                PATCH => Some(&tokens.patch),
                _ => other.as_deref(),
            })
        })
        .collect();
    row.extend([Cell::Int32s(&tokens.input_ids), Cell::Int64s(&tokens.labels)]);
    rows.push(&row)
}

/// The results of `work` on every item, in order, from this many threads.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Vec<Result<R>> {
    let share = items.len().div_ceil(threads.max(1)).max(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .chunks(share)
            .map(|items| scope.spawn(|| items.iter().map(&work).collect::<Vec<_>>()))
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .flat_map(|results| {
                results.unwrap_or_else(|_| vec![Err(Error::internal("a tokenizer panicked"))])
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::OutputFormat;

    fn write(path: &std::path::Path, rows: &[Value]) {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        std::fs::write(path, text).unwrap();
    }

    fn row(id: &str, text: &str) -> Value {
        serde_json::json!({"instance_id": id, "text": text, "patch": "<patch>\nhello world\n</patch>", "repo": "o/r", "FAIL_TO_PASS": ["a"], "version": null})
    }

    #[test]
    fn every_split_gets_ids_and_labels() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("prompts");
        std::fs::create_dir(&source).unwrap();
        write(
            &source.join("train.jsonl"),
            &[row("a", "hello world\n\n"), row("empty", ""), row("b", " hi ")],
        );
        write(&source.join("test.jsonl"), &[row("c", "hello world")]);
        let config = TokenizeDatasetConfig {
            dataset_name_or_path: source.to_str().unwrap().into(),
            output_dir: dir.path().join("out"),
            tokenizer_name: "cl100k".into(),
            output_format: OutputFormat::Jsonl,
            ..TokenizeDatasetConfig::default()
        };
        let mut totals = 0;
        let summary = run(&config, &CancelToken::new(), &mut |event| {
            if let RunEvent::Started { total, .. } = event {
                totals += total;
            }
        })
        .unwrap();
        assert_eq!((summary.total, summary.finished, summary.skipped, totals), (4, 3, 1, 4));
        assert!(summary.output_dir.ends_with("prompts__tok-cl100k"));
        let lines = |split: &str| -> Vec<Value> {
            let text = std::fs::read_to_string(summary.output_dir.join(format!("{split}.jsonl"))).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let (train, test) = (lines("train"), lines("test"));
        assert_eq!((train.len(), test.len()), (2, 1));
        let (ids, labels) =
            (train[0]["input_ids"].as_array().unwrap(), train[0]["labels"].as_array().unwrap());
        assert_eq!(ids.len(), labels.len());
        // "hello world\n" has three tokens.
        assert_eq!(ids[..3], [15339, 1917, 198]);
        assert_eq!((&labels[..2], labels[2] == -100), (&[Value::from(-100), Value::from(-100)][..], false));
        assert_eq!(ids[3..], labels[2..labels.len() - 1]);
        assert_eq!(train[0]["text"], "hello world\n");
        assert_eq!(
            (&train[0]["FAIL_TO_PASS"], &train[0]["version"]),
            (&Value::from("[\"a\"]"), &Value::Null)
        );
        assert_eq!(test[0]["input_ids"], serde_json::json!([15339, 1917, 198]));
        assert_eq!(test[0]["labels"], Value::from(labels[2..].to_vec()));
    }

    #[test]
    fn a_single_file_has_to_be_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("prompts.jsonl");
        write(&file, &[row("a", "x")]);
        let mut config = TokenizeDatasetConfig {
            dataset_name_or_path: file.to_str().unwrap().into(),
            output_dir: dir.path().join("out"),
            tokenizer_name: "cl100k".into(),
            ..TokenizeDatasetConfig::default()
        };
        let error = run(&config, &CancelToken::new(), &mut drop).unwrap_err();
        assert!(error.hint().unwrap().contains("--splits"), "{error:?}");
        config.splits = vec!["test".into()];
        assert_eq!(run(&config, &CancelToken::new(), &mut drop).unwrap().finished, 1);
        let cancel = CancelToken::new();
        cancel.cancel();
        assert!(run(&config, &cancel, &mut drop).unwrap().interrupted);
    }
}
