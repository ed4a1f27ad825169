//! Checkpoints on disk: safetensors and torch zip pickles, one file or sharded, mapped and read once.

mod compare;
mod gather;
mod index;
mod mapped;
mod safetensors;
mod stored;
mod torch;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use index::ShardIndex;
use mapped::MappedFile;
use stored::StoredTensor;

use crate::backend::{DType, HostTensor};
use crate::error::{Error, Result};

/// A tensor's name, element type and shape, as the checkpoint's headers state them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Element type in the file.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

/// The tensors of one model directory.
///
/// The files stay mapped as long as the value lives and must not be changed meanwhile.
pub struct Checkpoint {
    dir: PathBuf,
    files: Vec<MappedFile>,
    tensors: BTreeMap<String, Located>,
}

/// A tensor and the number of its file.
struct Located {
    file: usize,
    tensor: StoredTensor,
}

#[derive(Clone, Copy)]
enum Format {
    Safetensors,
    Torch,
}

/// A file that may be there: the tensors themselves, or the index of a sharded checkpoint.
enum Candidate {
    Single(&'static str, Format),
    Index(&'static str, Format),
}

/// Where a model's weights may be, best first.
const MODEL_FILES: [Candidate; 4] = [
    Candidate::Single("model.safetensors", Format::Safetensors),
    Candidate::Index("model.safetensors.index.json", Format::Safetensors),
    Candidate::Single("pytorch_model.bin", Format::Torch),
    Candidate::Index("pytorch_model.bin.index.json", Format::Torch),
];

/// Where an adapter's weights may be, best first.
const ADAPTER_FILES: [Candidate; 2] = [
    Candidate::Single("adapter_model.safetensors", Format::Safetensors),
    Candidate::Single("adapter_model.bin", Format::Torch),
];

impl Checkpoint {
    /// Opens `model.safetensors`, `model.safetensors.index.json`, `pytorch_model.bin` or `pytorch_model.bin.index.json`
    /// in `dir`, in this order, and reads the headers.
    ///
    /// # Errors
    /// `NotFound` when the directory or all of these files are missing, `InvalidData` when one is corrupt, truncated or
    /// hostile, `Unsupported` when torch wrote it in a form that is not read.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::open_first(dir, &MODEL_FILES)
    }

    /// Opens `adapter_model.safetensors` or `adapter_model.bin` in `dir`, in this order; errors as of [`Self::open`].
    pub(in crate::model) fn open_adapter(dir: &Path) -> Result<Self> {
        Self::open_first(dir, &ADAPTER_FILES)
    }

    fn open_first(dir: &Path, candidates: &[Candidate]) -> Result<Self> {
        if !dir.is_dir() {
            return Err(Error::not_found("the directory of the weights does not exist").with_path(dir));
        }
        let mut checkpoint = Self { dir: dir.to_path_buf(), files: Vec::new(), tensors: BTreeMap::new() };
        for candidate in candidates {
            let path = dir.join(candidate.file_name());
            if !path.exists() {
                continue;
            }
            match candidate {
                Candidate::Single(_, format) => checkpoint.add_file(&path, *format)?,
                Candidate::Index(_, format) => checkpoint.add_shards(&path, *format)?,
            }
            return Ok(checkpoint);
        }
        let names: Vec<_> = candidates.iter().map(Candidate::file_name).collect();
        Err(Error::not_found("no weights found")
            .with_path(dir)
            .with_expected(names.join(", "), "none of them"))
    }

    /// Adds all tensors of a file.
    fn add_file(&mut self, path: &Path, format: Format) -> Result<()> {
        let (file, tensors) = open_file(path, format)?;
        let number = self.files.len();
        self.files.push(file);
        self.tensors
            .extend(tensors.into_iter().map(|(name, tensor)| (name, Located { file: number, tensor })));
        Ok(())
    }

    /// Adds the tensors that an index lists; what else its shards hold does not belong to the model.
    fn add_shards(&mut self, path: &Path, format: Format) -> Result<()> {
        let index = ShardIndex::read(path)?;
        for shard in index.shards() {
            let (file, tensors) = open_file(&self.dir.join(shard), format).map_err(|error| {
                error.context(format!("cannot open a shard that {} lists", path.display()))
            })?;
            let mut tensors: HashMap<_, _> = tensors.into_iter().collect();
            let number = self.files.len();
            for name in index.tensors_of(shard) {
                let Some(tensor) = tensors.remove(name) else {
                    return Err(Error::invalid_data(format!(
                        "the index lists tensor `{name}`, which its shard lacks"
                    ))
                    .with_path(file.path())
                    .with_hint("the index and the shards are of different versions; download them again"));
                };
                self.tensors.insert(name.to_owned(), Located { file: number, tensor });
            }
            self.files.push(file);
        }
        Ok(())
    }

    /// Names of all tensors, sorted, those of unsupported element types among them.
    pub fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    /// Element type and shape of a tensor; `None` when it is missing or of an element type other than f32, f16 and bf16.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        match self.stored(name)? {
            StoredTensor::Readable(tensor) => Some(tensor.info()),
            StoredTensor::Unsupported { .. } => None,
        }
    }

    /// The tensor's data, dense and row-major, borrowed from the map where the file has it so.
    ///
    /// # Errors
    /// `NotFound` when there is no such tensor, `Unsupported` when its element type is not f32, f16 or bf16, `Io` when the
    /// file cannot be read.
    pub fn tensor(&self, name: &str) -> Result<HostTensor<'_>> {
        let Some(Located { file, tensor }) = self.tensors.get(name) else {
            return Err(
                Error::not_found(format!("the checkpoint has no tensor `{name}`")).with_path(&self.dir)
            );
        };
        let file = &self.files[*file];
        match tensor {
            StoredTensor::Readable(tensor) => {
                file.populate(tensor.bytes())?;
                tensor.read(file.bytes()).map_err(|error| error.with_path(file.path()))
            }
            StoredTensor::Unsupported { element, shape } => {
                Err(Error::unsupported(format!("tensor `{name}` {shape:?} has an unsupported element type"))
                    .with_path(file.path())
                    .with_expected("f32, f16 or bf16", element))
            }
        }
    }

    /// Tells that a tensor will be read soon, so that the disk starts on it now.
    pub fn prefetch(&self, name: &str) {
        if let Some(Located { file, tensor: StoredTensor::Readable(tensor) }) = self.tensors.get(name) {
            self.files[*file].prefetch(tensor.bytes());
        }
    }

    /// Tells that a tensor's pages are not needed any more, so that a mapped file does not count as used memory.
    ///
    /// Reading the tensor again, or another one that shares its storage, reads the file again and is correct.
    pub fn release(&self, name: &str) {
        if let Some(Located { file, tensor: StoredTensor::Readable(tensor) }) = self.tensors.get(name) {
            self.files[*file].release(tensor.bytes());
        }
    }

    /// Compares the checkpoint with the tensors that the model needs.
    ///
    /// # Errors
    /// `InvalidData` listing every missing, unexpected (unless `ignore` says so) and mis-shaped tensor with both shapes.
    pub fn check(&self, expected: &[(String, Vec<usize>)], ignore: &dyn Fn(&str) -> bool) -> Result<()> {
        compare::check(self, expected, ignore)
    }

    fn stored(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name).map(|located| &located.tensor)
    }
}

impl Candidate {
    fn file_name(&self) -> &'static str {
        match self {
            Self::Single(name, _) | Self::Index(name, _) => name,
        }
    }
}

/// Maps a file and reads its tensors' places.
fn open_file(path: &Path, format: Format) -> Result<(MappedFile, Vec<(String, StoredTensor)>)> {
    let file = MappedFile::open(path)?;
    let tensors = match format {
        Format::Safetensors => safetensors::read_tensors(file.bytes()),
        Format::Torch => torch::read_tensors(file.bytes()),
    };
    let tensors = tensors.map_err(|error| error.with_path(path))?;
    Ok((file, tensors))
}

#[cfg(test)]
mod tests;
