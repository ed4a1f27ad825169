//! The paged keys and values of all layers in device memory.

use std::sync::Arc;

use super::buffer::{Buffer, Element};
use super::launch::{Cache, CacheMaps};
use super::launcher::Launcher;
use crate::backend::{DType, KvLayout};
use crate::error::Result;

/// Keys and values, `[layer][num_blocks, num_kv_heads, block_size, head_dim]` each.
#[derive(Debug)]
pub struct CudaKvCache {
    layout: KvLayout,
    keys: Buffer,
    values: Buffer,
    /// One a layer where Hopper's kernel reads the cache, none elsewhere.
    maps: Vec<CacheMaps>,
}

impl CudaKvCache {
    /// A pool whose contents are undefined: kernels read what steps have appended, and no more.
    ///
    /// # Errors
    /// `OutOfMemory`, stating the bytes asked for.
    pub(super) fn new(
        launcher: &Arc<dyn Launcher>,
        dtype: DType,
        layout: &KvLayout,
        with_maps: bool,
    ) -> Result<Self> {
        let len = layout.elements_per_token() / 2 * layout.block_size * layout.num_blocks;
        let pool = || {
            Buffer::new(launcher, Element::Float(dtype), len).map_err(|error| {
                let what = format!("a KV cache of {} blocks", layout.num_blocks);
                error.context(what).with_hint("give it less memory with --kv-memory")
            })
        };
        let mut cache = Self { layout: layout.clone(), keys: pool()?, values: pool()?, maps: Vec::new() };
        if with_maps {
            cache.maps = (0..layout.num_layers)
                .map(|layer| cache.layer(layer)?.maps(launcher.as_ref()))
                .collect::<Result<_>>()?;
        }
        Ok(cache)
    }

    /// Bytes of device memory.
    pub(super) fn bytes(&self) -> usize {
        self.keys.bytes() + self.values.bytes()
    }

    /// One layer's part, as launches take it.
    pub(super) fn layer(&self, layer: usize) -> Result<Cache<'_>> {
        let len = self.keys.len() / self.layout.num_layers;
        Ok(Cache {
            keys: self.keys.vector().part(layer * len, len)?,
            values: self.values.vector().part(layer * len, len)?,
            scales: None,
            block_size: self.layout.block_size,
            num_kv_heads: self.layout.num_kv_heads,
            head_dim: self.layout.head_dim,
        })
    }

    /// Tensor maps of one layer's part.
    pub(super) fn maps(&self, layer: usize) -> Option<&CacheMaps> {
        self.maps.get(layer)
    }
}
