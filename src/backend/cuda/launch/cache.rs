//! The paged cache of one layer as launches take it.

use super::super::buffer::{Element, Vector};
use super::super::check::Check;
use super::super::geometry::{CacheFormat, sm90_kv_rows};
use super::super::launcher::{Launcher, TensorMapShape};
use super::super::params::{KvCache, TensorMap};
use super::super::sequences::DeviceSequences;
use crate::backend::DType;
use crate::error::Result;

/// Keys and values `[num_blocks, num_kv_heads, block_size, head_dim]` each.
#[derive(Debug, Clone, Copy)]
pub struct Cache<'a> {
    /// All keys.
    pub keys: Vector<'a>,
    /// All values.
    pub values: Vector<'a>,
    /// Of an FP8 cache.
    pub scales: Option<KvScales<'a>>,
    /// Tokens of a block.
    pub block_size: usize,
    /// Key/value heads.
    pub num_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

/// What stored values are multiplied with, `[num_kv_heads]` f32 each.
#[derive(Debug, Clone, Copy)]
pub struct KvScales<'a> {
    /// Of keys.
    pub keys: Vector<'a>,
    /// Of values.
    pub values: Vector<'a>,
}

/// Tensor maps of a cache, which Hopper's copy engine reads it through; encoded once when the cache is made.
#[derive(Debug, Clone, Copy)]
pub struct CacheMaps {
    pub(super) keys: TensorMap,
    pub(super) values: TensorMap,
    pub(super) addresses: [u64; 2],
}

impl Cache<'_> {
    /// How it stores numbers.
    pub fn format(&self) -> CacheFormat {
        if self.keys.element == Element::E4m3 { CacheFormat::Fp8 } else { CacheFormat::Model }
    }

    /// Blocks that the memory holds.
    pub fn num_blocks(&self) -> usize {
        self.keys.len.min(self.values.len) / (self.num_kv_heads * self.block_size * self.head_dim).max(1)
    }

    /// Encodes its tensor maps.
    ///
    /// # Errors
    /// `InvalidArgument` with the shape, when the driver takes no map of it.
    pub fn maps(&self, launcher: &dyn Launcher) -> Result<CacheMaps> {
        let map = |vector: &Vector<'_>| {
            let row = (self.head_dim * vector.element.size()) as u64;
            let head = row * self.block_size as u64;
            launcher.tensor_map(&TensorMapShape {
                address: vector.address,
                sizes: [self.head_dim, self.block_size, self.num_kv_heads, self.num_blocks()]
                    .map(|n| n as u64)
                    .into(),
                strides: vec![row, head, head * self.num_kv_heads as u64],
                // 64 elements are the 128 bytes of one swizzled row.
                tile: vec![64, (self.block_size as u32).min(sm90_kv_rows(self.head_dim as u32)), 1, 1],
                swizzle_128: true,
            })
        };
        let addresses = [self.keys.address, self.values.address];
        Ok(CacheMaps { keys: map(&self.keys)?, values: map(&self.values)?, addresses })
    }

    /// Checks it against a model in `dtype` and returns what kernels get.
    pub(super) fn params(&self, check: Check, dtype: DType) -> Result<KvCache> {
        let block_stride = self.num_kv_heads * self.block_size * self.head_dim;
        let element = match self.format() {
            CacheFormat::Model => Element::Float(dtype),
            CacheFormat::Fp8 => Element::E4m3,
        };
        check.that(
            self.block_size.is_power_of_two() && (16..=128).contains(&self.block_size),
            "cache.block_size",
            "16, 32, 64 or 128",
            self.block_size,
        )?;
        let num_kv_heads = check.count("cache.num_kv_heads", self.num_kv_heads, super::MOST_GRID_Y)?;
        check.vector("cache.keys", &self.keys, element, block_stride)?;
        check.vector("cache.values", &self.values, element, block_stride)?;
        check.that(
            self.scales.is_some() == (self.format() == CacheFormat::Fp8),
            "cache.scales",
            "scales for an FP8 cache and for no other",
            format_args!("{element} with scales: {}", self.scales.is_some()),
        )?;
        let mut scales = [0; 2];
        if let Some(given) = &self.scales {
            let float = Element::Float(DType::F32);
            check.vector("cache.scales.keys", &given.keys, float, self.num_kv_heads)?;
            check.vector("cache.scales.values", &given.values, float, self.num_kv_heads)?;
            scales = [given.keys.address, given.values.address];
        }
        Ok(KvCache {
            keys: self.keys.address,
            values: self.values.address,
            key_scales: scales[0],
            value_scales: scales[1],
            block_stride: block_stride as i64,
            head_stride: (self.block_size * self.head_dim) as i64,
            block_size_log2: self.block_size.ilog2() as i32,
            num_kv_heads,
        })
    }

    /// Checks that the sequences' block tables stay inside.
    pub(super) fn holds(&self, check: Check, sequences: &DeviceSequences) -> Result<()> {
        check.that(
            sequences.block_size() == self.block_size,
            "sequences.block_size",
            self.block_size,
            sequences.block_size(),
        )?;
        check.that(
            sequences.highest_block() < self.num_blocks(),
            "sequences' block tables",
            format_args!("blocks below {}", self.num_blocks()),
            sequences.highest_block(),
        )
    }
}
