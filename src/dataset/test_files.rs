//! Small data files for this layer's tests.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use parquet::arrow::ArrowWriter;

use super::{Dataset, DatasetSpec, load};
use crate::error::Result;

pub(super) fn strings(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

pub(super) fn batch(columns: &[(&str, ArrayRef)]) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(
        columns.iter().map(|(name, column)| (*name, column.clone(), true)),
    )
    .unwrap()
}

/// Two columns, `instance_id` and `text`, where the text of `a` is `text of a`.
pub(super) fn prompts(ids: &[&str]) -> RecordBatch {
    let texts: Vec<String> = ids.iter().map(|id| format!("text of {id}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    batch(&[("instance_id", strings(ids)), ("text", strings(&texts))])
}

pub(super) fn write_stream(path: &Path, batches: &[RecordBatch], compression: Option<CompressionType>) {
    let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
    let file = File::create(path).unwrap();
    let mut writer = StreamWriter::try_new_with_options(file, &batches[0].schema(), options).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
}

pub(super) fn write_ipc_file(path: &Path, batches: &[RecordBatch]) {
    let mut writer = FileWriter::try_new(File::create(path).unwrap(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
}

pub(super) fn write_parquet(path: &Path, batches: &[RecordBatch]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batches[0].schema(), None).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.close().unwrap();
}

pub(super) fn load_columns(path: &Path, split: &str, columns: &[&str]) -> Result<Dataset> {
    load(&DatasetSpec {
        name_or_path: path.to_str().unwrap().to_owned(),
        split: split.to_owned(),
        columns: columns.iter().map(ToString::to_string).collect(),
        cache_dir: None,
    })
}

pub(super) fn ids(dataset: &Dataset) -> Vec<&str> {
    dataset.instances.iter().map(|instance| instance.instance_id.as_str()).collect()
}
