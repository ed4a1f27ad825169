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
mod rows;
mod save_to_disk;
mod source;
#[cfg(test)]
mod test_files;
#[cfg(test)]
mod tests;
mod write;

pub use instance::Instance;
pub use write::{Cell, Column, ColumnKind, DatasetWriter, OutputFormat, SplitWriter, existing_splits};

use std::path::{Path, PathBuf};

use columns::{WantedColumns, missing_column};
use rows::Rows;
use source::{DataFile, Format};

use crate::error::{Error, Result};
use crate::hub::{Hub, RepoId, RepoKind};

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
    /// As [`require_column`].
    pub fn require(&self, column: &str) -> Result<()> {
        require_column(&self.columns, column)
    }
}

/// `Err` of kind [`NotFound`](crate::ErrorKind::NotFound), listing the `columns` that there are, when `column` is not
/// among them.
pub fn require_column(columns: &[String], column: &str) -> Result<()> {
    match columns.iter().any(|name| name == column) {
        true => Ok(()),
        false => Err(missing_column(column, columns)),
    }
}

/// Loads one split, from the hub as the environment configures it when nothing local has the name.
///
/// # Errors
/// `NotFound` for a path, name, split or `instance_id` that is not there, `InvalidData` for corrupt files and for two rows
/// with one id, `Network` when the hub does not answer.
pub fn load(spec: &DatasetSpec) -> Result<Dataset> {
    Split::open(spec.clone(), || Hub::from_env(spec.cache_dir.as_deref()))?.load()
}

/// One split whose files are here, to be read row by row and as often as it takes: memory does not grow with it.
#[derive(Debug)]
pub struct Split {
    spec: DatasetSpec,
    files: Vec<DataFile>,
}

impl Split {
    /// Finds the split's files; those of a name that is not local are fetched from `hub`, which nothing else asks for.
    ///
    /// # Errors
    /// `NotFound` for a path, name or split that is not there, `Network` when the hub does not answer.
    pub fn open(spec: DatasetSpec, hub: impl FnOnce() -> Result<Hub>) -> Result<Self> {
        let files = match local_files(&spec)? {
            Some(files) => files,
            None => hub::fetch(&spec, &hub()?)?,
        };
        Ok(Self { spec, files })
    }

    /// Calls `visit` with every row, in the dataset's order; the columns that the dataset has.
    ///
    /// # Errors
    /// `NotFound` without a column `instance_id`, `InvalidData` for corrupt files and for two rows with one id, and the
    /// visitor's first error.
    pub fn for_each(&self, mut visit: impl FnMut(Instance) -> Result<()>) -> Result<Vec<String>> {
        let mut refusal = None;
        let mut visit = |instance| {
            visit(instance).map_err(|error| {
                refusal = Some(error);
                Error::internal("the row was refused")
            })
        };
        let mut rows = Rows::new(&self.spec.name_or_path, &mut visit);
        let result = self.read(&mut rows).and_then(|()| {
            log::debug!("{}: {} rows in split `{}`", self.spec.name_or_path, rows.len(), self.spec.split);
            rows.finish()
        });
        // What the caller could not do is not about the dataset.
        refusal.map_or(result, Err)
    }

    /// All rows.
    ///
    /// # Errors
    /// As [`Split::for_each`].
    pub fn load(&self) -> Result<Dataset> {
        let mut instances = Vec::new();
        let columns = self.for_each(|instance| {
            instances.push(instance);
            Ok(())
        })?;
        Ok(Dataset { columns, instances })
    }

    fn read(&self, rows: &mut Rows<'_>) -> Result<()> {
        let wanted = WantedColumns(&self.spec.columns);
        for DataFile { path, format } in &self.files {
            match format {
                Format::Parquet => parquet::read(path, wanted, rows)?,
                Format::Arrow => arrow::read(path, wanted, rows)?,
                Format::JsonLines => jsonl::read(path, wanted, rows)?,
                Format::Json => json::read(path, &self.spec.split, wanted, rows)?,
            }
        }
        Ok(())
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
