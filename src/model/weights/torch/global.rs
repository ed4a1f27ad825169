//! The names that a checkpoint's pickle may refer to; every other one is refused before anything is made of it.

use crate::backend::DType;
use crate::error::{Error, Result};

/// An element type as torch calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element<'a> {
    /// One that the library computes in.
    Supported(DType),
    /// Any other, by name.
    Other(&'a str),
}

/// What a whitelisted name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global<'a> {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch.Size`, a tuple.
    Size,
    /// `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, …)`.
    RebuildTensor,
    /// `torch._utils._rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, …)`.
    RebuildTensorWithDType,
    /// `torch._utils._rebuild_parameter(tensor, …)`.
    RebuildParameter,
    /// A typed storage, or `torch.storage.UntypedStorage`, whose tensors bring their own type.
    Storage(Element<'a>),
    /// An element type, such as `torch.float8_e4m3fn`.
    DType(Element<'a>),
}

/// Storages of types that tensors in a checkpoint may have, but weights may not.
const OTHER_STORAGES: [&str; 12] = [
    "DoubleStorage",
    "LongStorage",
    "IntStorage",
    "ShortStorage",
    "CharStorage",
    "ByteStorage",
    "BoolStorage",
    "ComplexFloatStorage",
    "ComplexDoubleStorage",
    "QInt8Storage",
    "QUInt8Storage",
    "QInt32Storage",
];

/// Element types without a typed storage of their own.
const OTHER_DTYPES: [&str; 9] = [
    "uint16",
    "uint32",
    "uint64",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
    "float4_e2m1fn_x2",
];

impl<'a> Global<'a> {
    /// Looks a name up.
    ///
    /// # Errors
    /// `Unsupported` naming what is not on the list.
    pub(super) fn resolve(module: &str, name: &'a str) -> Result<Self> {
        let global = match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch", "Size") => Self::Size,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_tensor_v3") => Self::RebuildTensorWithDType,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "FloatStorage") => Self::Storage(Element::Supported(DType::F32)),
            ("torch", "HalfStorage") => Self::Storage(Element::Supported(DType::F16)),
            ("torch", "BFloat16Storage") => Self::Storage(Element::Supported(DType::BF16)),
            ("torch", "float32") => Self::DType(Element::Supported(DType::F32)),
            ("torch", "float16") => Self::DType(Element::Supported(DType::F16)),
            ("torch", "bfloat16") => Self::DType(Element::Supported(DType::BF16)),
            ("torch.storage", "UntypedStorage") => Self::Storage(Element::Other(name)),
            ("torch", _) if OTHER_STORAGES.contains(&name) => Self::Storage(Element::Other(name)),
            ("torch", _) if OTHER_DTYPES.contains(&name) => Self::DType(Element::Other(name)),
            _ => {
                return Err(Error::unsupported(format!(
                    "the pickle refers to `{}.{}`, which is not part of a checkpoint of tensors",
                    module.escape_debug(),
                    name.escape_debug()
                ))
                .with_hint("nothing was executed; convert the checkpoint to safetensors if you trust it"));
            }
        };
        Ok(global)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_names_resolve() {
        assert_eq!(Global::resolve("collections", "OrderedDict").unwrap(), Global::OrderedDict);
        assert_eq!(
            Global::resolve("torch", "LongStorage").unwrap(),
            Global::Storage(Element::Other("LongStorage"))
        );
        for (module, name) in
            [("os", "system"), ("builtins", "eval"), ("torch", "load"), ("torch", ""), ("", "OrderedDict")]
        {
            let error = Global::resolve(module, name).unwrap_err();
            assert!(error.message().contains(&format!("`{module}.{name}`")), "{error}");
        }
    }
}
