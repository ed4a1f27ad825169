//! The paged KV cache, each block laid out as the operands of attention's two products.
//!
//! For every layer, physical block and key/value head there are two packed matrices ([`super::format`]), side by side:
//! the keys `[head_dim, block_size]`, so that query · keysᵀ gives the scores of a block's tokens in columns, and the values
//! `[block_size, head_dim]`, so that probabilities · values gives the elements of the head in columns. Widths are padded to
//! [`COLUMN_ALIGNMENT`]. Nothing is repacked when it is read.

#[cfg(test)]
use super::format::read_element;
use super::format::{packed_bytes, packed_index, write_element};
use super::memory::Buffer;
use super::multiply::{COLUMN_ALIGNMENT, INPUT_STRIDE};
use crate::backend::{DType, KvLayout};
use crate::error::{Error, Result};

/// Keys and values of all layers.
pub struct CpuKvCache {
    layout: KvLayout,
    dtype: DType,
    key_bytes: usize,
    value_bytes: usize,
    data: Buffer<u8>,
}

/// The packed matrices of one head of one block.
#[derive(Clone, Copy)]
pub struct KvBlock {
    /// `[head_dim, key_width]`.
    pub keys: *const u8,
    /// `[block_size, value_width]`.
    pub values: *const u8,
}

impl CpuKvCache {
    /// A zeroed cache.
    ///
    /// # Errors
    /// `Unsupported` for block or head sizes beyond the kernels, `OutOfMemory`.
    pub fn new(layout: &KvLayout, dtype: DType) -> Result<Self> {
        let max = INPUT_STRIDE;
        if layout.block_size == 0 || layout.block_size > max || !layout.block_size.is_multiple_of(2) {
            return Err(Error::unsupported("KV block size")
                .with_expected(format_args!("an even number up to {max}"), layout.block_size));
        }
        if layout.head_dim == 0 || layout.head_dim > max || !layout.head_dim.is_multiple_of(2) {
            return Err(Error::unsupported("head dimension")
                .with_expected(format_args!("an even number up to {max}"), layout.head_dim));
        }
        let key_bytes = packed_bytes(dtype, width(layout.block_size), layout.head_dim);
        let value_bytes = packed_bytes(dtype, width(layout.head_dim), layout.block_size);
        let bytes = [layout.num_layers, layout.num_blocks, layout.num_kv_heads]
            .iter()
            .fold(key_bytes + value_bytes, |bytes, &count| bytes.saturating_mul(count));
        let data = Buffer::zeroed(bytes, "the KV cache")?;
        Ok(Self { layout: layout.clone(), dtype, key_bytes, value_bytes, data })
    }

    /// Its layout.
    pub fn layout(&self) -> &KvLayout {
        &self.layout
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Columns of a packed block of keys.
    pub fn key_width(&self) -> usize {
        width(self.layout.block_size)
    }

    /// Columns of a packed block of values.
    pub fn value_width(&self) -> usize {
        width(self.layout.head_dim)
    }

    fn offset(&self, layer: usize, block: usize, head: usize) -> usize {
        let layout = &self.layout;
        assert!(
            layer < layout.num_layers && block < layout.num_blocks && head < layout.num_kv_heads,
            "layer {layer}, block {block}, head {head} of {layout:?}"
        );
        ((layer * layout.num_blocks + block) * layout.num_kv_heads + head)
            * (self.key_bytes + self.value_bytes)
    }

    /// One head of one block.
    pub fn block(&self, layer: usize, block: usize, head: usize) -> KvBlock {
        let keys = self.data[self.offset(layer, block, head)..].as_ptr();
        KvBlock { keys, values: keys.wrapping_add(self.key_bytes) }
    }

    /// For writing tokens from several threads.
    pub fn writer(&mut self) -> KvWriter<'_> {
        KvWriter { data: self.data.as_mut_ptr(), cache: self }
    }

    /// The key and the value of one token, for tests.
    #[cfg(test)]
    pub fn read(&self, layer: usize, block: usize, head: usize, slot: usize) -> (Vec<f32>, Vec<f32>) {
        let block = self.block(layer, block, head);
        (0..self.layout.head_dim)
            .map(|i| {
                let key = packed_index(self.dtype, self.key_width(), i, slot);
                let value = packed_index(self.dtype, self.value_width(), slot, i);
                // SAFETY: both indices lie within the block's matrices.
                unsafe {
                    (read_element(self.dtype, block.keys, key), read_element(self.dtype, block.values, value))
                }
            })
            .unzip()
    }
}

/// Writes tokens of distinct slots from several threads.
pub struct KvWriter<'a> {
    cache: &'a CpuKvCache,
    data: *mut u8,
}

// SAFETY: the cache is borrowed exclusively for the writer's life, and `write` makes distinct slots the caller's duty.
unsafe impl Sync for KvWriter<'_> {}

/// Where a token's key and value of one head go.
#[derive(Debug, Clone, Copy)]
pub struct KvSlot {
    /// Decoder layer.
    pub layer: usize,
    /// Physical block.
    pub block: usize,
    /// Key/value head.
    pub head: usize,
    /// Token in the block.
    pub slot: usize,
}

impl<'a> KvWriter<'a> {
    /// The layout of the cache.
    pub fn layout(&self) -> &'a KvLayout {
        &self.cache.layout
    }

    /// Writes one head's key and value of one token, `[head_dim]` each.
    ///
    /// # Safety
    /// No other thread writes or reads this slot at the same time.
    pub unsafe fn write(&self, at: KvSlot, key: &[f32], value: &[f32]) {
        let cache = self.cache;
        assert!(at.slot < cache.layout.block_size, "slot {} of {:?}", at.slot, cache.layout);
        assert!(key.len() == cache.layout.head_dim && value.len() == cache.layout.head_dim, "head width");
        // SAFETY: `offset` checks that the block is in bounds; slot and elements lie within its matrices.
        unsafe {
            let keys = self.data.add(cache.offset(at.layer, at.block, at.head));
            let values = keys.add(cache.key_bytes);
            for (i, (key, value)) in key.iter().zip(value).enumerate() {
                let key_index = packed_index(cache.dtype, cache.key_width(), i, at.slot);
                write_element(cache.dtype, keys, key_index, *key);
                let value_index = packed_index(cache.dtype, cache.value_width(), at.slot, i);
                write_element(cache.dtype, values, value_index, *value);
            }
        }
    }

    /// Zeroes the value of a slot that no token has: the last token of a context is multiplied in one pair with the slot
    /// after it, and 0 · NaN of an earlier owner of the block would be NaN.
    ///
    /// # Safety
    /// As for [`KvWriter::write`].
    pub unsafe fn clear_value(&self, at: KvSlot) {
        let cache = self.cache;
        assert!(at.slot < cache.layout.block_size, "slot {} of {:?}", at.slot, cache.layout);
        // SAFETY: as in `write`.
        unsafe {
            let values = self.data.add(cache.offset(at.layer, at.block, at.head) + cache.key_bytes);
            for i in 0..cache.layout.head_dim {
                write_element(
                    cache.dtype,
                    values,
                    packed_index(cache.dtype, cache.value_width(), at.slot, i),
                    0.0,
                );
            }
        }
    }
}

fn width(columns: usize) -> usize {
    columns.next_multiple_of(COLUMN_ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn layout(head_dim: usize, block_size: usize) -> KvLayout {
        KvLayout { num_layers: 2, num_kv_heads: 3, head_dim, block_size, num_blocks: 4 }
    }

    #[test]
    fn every_slot_is_its_own() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for (head_dim, block_size) in [(8, 16), (24, 32), (2, 2), (96, 6)] {
                let layout = layout(head_dim, block_size);
                let mut cache = CpuKvCache::new(&layout, dtype).unwrap();
                let tokens: Vec<KvSlot> = (0..2 * 4 * 3 * block_size)
                    .map(|i| KvSlot { layer: i % 2, block: i / 2 % 4, head: i / 8 % 3, slot: i / 24 })
                    .collect();
                let value = |token: usize, i: usize| ((token * 5 + i * 3) % 127) as f32;
                let writer = cache.writer();
                for (token, at) in tokens.iter().enumerate() {
                    let key: Vec<f32> = (0..head_dim).map(|i| value(token, i)).collect();
                    let negated: Vec<f32> = key.iter().map(|x| -x).collect();
                    // SAFETY: one thread.
                    unsafe { writer.write(*at, &key, &negated) };
                }
                for (token, at) in tokens.iter().enumerate() {
                    let (keys, values) = cache.read(at.layer, at.block, at.head, at.slot);
                    let want: Vec<f32> = (0..head_dim).map(|i| value(token, i)).collect();
                    assert_eq!(keys, want, "{dtype} {at:?}");
                    assert!(values.iter().zip(&want).all(|(got, want)| *got == -want), "{dtype} {at:?}");
                }
            }
        }
    }

    #[test]
    fn impossible_layouts_are_errors() {
        let kind = |layout: &KvLayout| CpuKvCache::new(layout, DType::BF16).err().map(|error| error.kind());
        assert_eq!(kind(&layout(64, 3)), Some(ErrorKind::Unsupported));
        assert_eq!(kind(&layout(512, 32)), Some(ErrorKind::Unsupported));
        let huge = KvLayout { num_blocks: usize::MAX / 2, ..layout(64, 32) };
        assert_eq!(kind(&huge), Some(ErrorKind::OutOfMemory));
        assert_eq!(kind(&layout(64, 32)), None);
    }
}
