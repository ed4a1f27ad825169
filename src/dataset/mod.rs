//! SWE-bench datasets from the hub, `save_to_disk` directories, parquet, JSON Lines and JSON.

mod arrow;
mod arrow_frames;
mod batch;
mod budget;
mod columns;
mod hub;
mod instance;
mod json;
mod jsonl;
mod parquet;
mod row;
mod save_to_disk;
mod source;
#[cfg(test)]
mod test_files;
#[cfg(test)]
mod tests;
mod write;

pub use instance::Instance;
pub use write::{Cell, Column, ColumnKind, DatasetWriter, OutputFormat, SplitWriter, existing_splits};

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use columns::{WantedColumns, missing_column};
use source::{DataFile, Format};

use crate::error::{Error, Result};
use crate::hub::{Hub, HubConfig, RepoId, RepoKind};

/// Which dataset, which split, and which columns.
#[derive(Debug, Clone, Default)]
pub struct DatasetSpec {
    /// A local path, or a hub name such as `princeton-nlp/SWE-bench_oracle`.
    pub name_or_path: String,
    /// The split, such as `test`. A single file counts as the split that was asked for.
    pub split: String,
    /// Columns wanted besides `instance_id`; those that the dataset lacks are left out of the instances.
    pub columns: Vec<String>,
    /// Hub cache directory instead of the usual one.
    pub cache_dir: Option<PathBuf>,
}

/// A loaded split.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// All columns that the dataset has, in order.
    pub columns: Vec<String>,
    /// The rows, in the dataset's order.
    pub instances: Vec<Instance>,
}

impl Dataset {
    /// `Err` of kind [`NotFound`](crate::ErrorKind::NotFound), listing the columns that there are, when the dataset lacks
    /// `column`.
    pub fn require(&self, column: &str) -> Result<()> {
        match self.columns.iter().any(|name| name == column) {
            true => Ok(()),
            false => Err(missing_column(column, &self.columns)),
        }
    }
}

/// Loads one split, from the hub as the environment configures it when nothing local has the name.
///
/// # Errors
/// `NotFound` for a path, name, split or `instance_id` that is not there, `InvalidData` for corrupt files and for two rows
/// with one id, `Network` when the hub does not answer.
pub fn load(spec: &DatasetSpec) -> Result<Dataset> {
    if let Some(files) = local_files(spec)? {
        return read(&files, spec);
    }
    let mut config = HubConfig::from_env()?;
    if let Some(cache) = &spec.cache_dir {
        config.cache.clone_from(cache);
    }
    load_from_hub(spec, &Hub::new(config))
}

/// [`load`] with this hub, whose configuration and cancel token then apply; `cache_dir` is not looked at.
pub fn load_with(spec: &DatasetSpec, hub: &Hub) -> Result<Dataset> {
    match local_files(spec)? {
        Some(files) => read(&files, spec),
        None => load_from_hub(spec, hub),
    }
}

/// The splits of a dataset, in order of their names.
///
/// # Errors
/// As [`load`]; `InvalidArgument` for a single file, which does not say what split it is.
pub fn splits(name_or_path: &str, hub: impl FnOnce() -> Result<Hub>) -> Result<Vec<String>> {
    let path = Path::new(name_or_path);
    if path.try_exists().map_err(|error| Error::io("look for the dataset", path, error))? {
        return source::splits(path);
    }
    hub::splits(name_or_path, &hub()?)
}

/// The files of a local dataset, `None` when the name can only be one of the hub's.
fn local_files(spec: &DatasetSpec) -> Result<Option<Vec<DataFile>>> {
    let path = Path::new(&spec.name_or_path);
    if path.try_exists().map_err(|error| Error::io("look for the dataset", path, error))? {
        return source::find(path, &spec.split).map(Some);
    }
    let may_be_on_the_hub = spec.name_or_path.contains('/')
        && Format::of(&spec.name_or_path).is_none()
        && RepoId::parse(RepoKind::Dataset, &spec.name_or_path).is_ok();
    if may_be_on_the_hub { Ok(None) } else { Err(hub::not_here(spec)) }
}

fn load_from_hub(spec: &DatasetSpec, hub: &Hub) -> Result<Dataset> {
    read(&hub::fetch(spec, hub)?, spec)
}

fn read(files: &[DataFile], spec: &DatasetSpec) -> Result<Dataset> {
    let wanted = WantedColumns(&spec.columns);
    let mut dataset = Dataset { columns: Vec::new(), instances: Vec::new() };
    for DataFile { path, format } in files {
        match format {
            Format::Parquet => parquet::read(path, wanted, &mut dataset)?,
            Format::Arrow => arrow::read(path, wanted, &mut dataset)?,
            Format::JsonLines => jsonl::read(path, wanted, &mut dataset)?,
            Format::Json => json::read(path, &spec.split, wanted, &mut dataset)?,
        }
    }
    check_ids(&dataset).map_err(|error| error.with_path(&spec.name_or_path))?;
    log::info!("{}: {} instances in split `{}`", spec.name_or_path, dataset.instances.len(), spec.split);
    Ok(dataset)
}

/// Predictions are matched to instances by id: every row needs one, and no other row may have it.
fn check_ids(dataset: &Dataset) -> Result<()> {
    if dataset.columns.is_empty() && dataset.instances.is_empty() {
        return Err(Error::invalid_data("the dataset has no rows"));
    }
    dataset.require(columns::INSTANCE_ID)?;
    let mut rows = HashMap::with_capacity(dataset.instances.len());
    for (index, instance) in dataset.instances.iter().enumerate() {
        let row = index + 1;
        if instance.instance_id.is_empty() {
            return Err(Error::invalid_data(format!("row {row} has no `instance_id`")));
        }
        if let Some(first) = rows.insert(instance.instance_id.as_str(), row) {
            return Err(Error::invalid_data(format!(
                "rows {first} and {row} have the same `instance_id`, `{}`",
                instance.instance_id.escape_debug()
            )));
        }
    }
    Ok(())
}
