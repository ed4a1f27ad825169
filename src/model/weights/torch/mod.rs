//! `pytorch_model*.bin`: a zip archive of a pickle, which names tensors, and the storages that these are views of
//! (written by `torch.save` since 1.6).

mod archive;
mod global;
mod pickle;

use std::ops::Range;

use archive::Archive;
use global::Element;
use pickle::PickledTensor;

use super::TensorInfo;
use super::stored::{ReadableTensor, StoredTensor};
use crate::error::{Error, Result};

/// The largest pickle that is read; that of a model with a thousand tensors has 150 KB.
const MAX_PICKLE_LEN: usize = 64 << 20;

/// How files begin that `torch.save` wrote before 1.6: protocol 2 and a ten-byte magic number.
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// Reads the names, shapes and places of all tensors; no tensor's data is touched and nothing is executed.
///
/// # Errors
/// `InvalidData` for a corrupt or hostile file, `Unsupported` for another format of torch's: both say what was found.
pub(super) fn read_tensors(file: &[u8]) -> Result<Vec<(String, StoredTensor)>> {
    if file.starts_with(LEGACY_MAGIC) {
        return Err(Error::unsupported("the file has torch's format from before 1.6").with_hint(
            "convert it once with Python: torch.save(torch.load(path, weights_only=True), path), or to safetensors",
        ));
    }
    let archive = Archive::read(file)?;
    let root = find_root(&archive)?;
    if let Some(order) = archive.range(&format!("{root}/byteorder"))
        && file[order.clone()] != *b"little"
    {
        return Err(Error::unsupported("the checkpoint's byte order is not supported")
            .with_expected("little", file[order].escape_ascii()));
    }
    let pickle = archive
        .range(&format!("{root}/data.pkl"))
        .ok_or_else(|| Error::internal("the archive's root is not where its pickle is"))?;
    if pickle.len() > MAX_PICKLE_LEN {
        return Err(Error::invalid_data("the checkpoint's pickle is too large")
            .with_expected(format_args!("at most {MAX_PICKLE_LEN} bytes"), pickle.len()));
    }
    let tensors = pickle::read_state_dict(&file[pickle])?;
    tensors
        .into_iter()
        .map(|(name, tensor)| {
            let tensor = locate(tensor, &archive, root, file.len())
                .map_err(|error| error.context(format!("tensor `{}` is not valid", name.escape_debug())))?;
            Ok((name.to_owned(), tensor))
        })
        .collect()
}

/// The directory of the archive that holds `data.pkl`, named after the file that `torch.save` wrote.
fn find_root<'a>(archive: &Archive<'a>) -> Result<&'a str> {
    let mut roots = archive.names().filter_map(|name| name.strip_suffix("/data.pkl"));
    let root = match (roots.next(), roots.next()) {
        (Some(root), None) => root,
        (None, _) => {
            return Err(Error::invalid_data("the zip archive holds no data.pkl, so torch did not write it"));
        }
        (Some(_), Some(_)) => {
            return Err(Error::invalid_data("the zip archive holds more than one data.pkl"));
        }
    };
    if archive.range(&format!("{root}/constants.pkl")).is_some() {
        return Err(Error::unsupported("the file is a TorchScript program, not a checkpoint")
            .with_hint("save the model's state_dict() with torch.save"));
    }
    Ok(root)
}

/// Turns the pickle's description into a place in the file.
fn locate(
    tensor: PickledTensor<'_>,
    archive: &Archive<'_>,
    root: &str,
    file_len: usize,
) -> Result<StoredTensor> {
    let PickledTensor { storage, element, offset, shape, strides } = tensor;
    let dtype = match element {
        Element::Supported(dtype) => dtype,
        Element::Other(element) => {
            return Ok(StoredTensor::Unsupported { element: element.to_owned(), shape });
        }
    };
    let key = format!("{root}/data/{}", storage.key);
    let bytes: Range<usize> = archive.range(&key).ok_or_else(|| {
        Error::invalid_data(format!("the archive lacks the storage `{}`", key.escape_debug()))
    })?;
    let element_size = match storage.element {
        Element::Supported(dtype) => dtype.size(),
        Element::Other(_) => 1,
    };
    let declared = storage.len.checked_mul(element_size);
    if declared.is_none_or(|declared| declared > bytes.len()) {
        return Err(Error::invalid_data("the storage is shorter than the pickle says")
            .with_expected(format_args!("{} elements of {element_size} bytes", storage.len), bytes.len())
            .with_hint("the file is truncated or corrupt; download it again"));
    }
    let info = TensorInfo { dtype, shape };
    ReadableTensor::view(info, &strides, offset, bytes, file_len).map(StoredTensor::Readable)
}

#[cfg(test)]
mod tests;
