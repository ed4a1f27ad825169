//! Which KV blocks can be found by their contents, and which of these nobody holds, least recently used first.

use std::collections::{BTreeMap, HashMap};

use super::prefix_hash::BlockHash;

/// An index over the blocks of a [`BlockPool`](super::kv_cache::BlockPool), which tells it when the last holder of a
/// block is gone and when a new one comes.
#[derive(Debug)]
pub(super) struct PrefixCache {
    blocks: HashMap<BlockHash, u32>,
    /// For each block, by what it is found and since when it is idle.
    entries: Vec<Option<Entry>>,
    /// Blocks without holders, by the moment at which they lost the last one.
    idle: BTreeMap<u64, u32>,
    clock: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: BlockHash,
    idle_since: u64,
}

impl PrefixCache {
    /// An index in which none of `num_blocks` blocks can be found.
    pub(super) fn new(num_blocks: usize) -> Self {
        Self {
            // All of it at once, so that decoding does not allocate; beside the blocks themselves it is nothing.
            blocks: HashMap::with_capacity(num_blocks),
            entries: vec![None; num_blocks],
            idle: BTreeMap::new(),
            clock: 0,
        }
    }

    /// Blocks that can be found and have no holder.
    pub(super) fn num_idle(&self) -> usize {
        self.idle.len()
    }

    /// The block with these contents.
    pub(super) fn find(&self, hash: &BlockHash) -> Option<u32> {
        self.blocks.get(hash).copied()
    }

    /// Makes a held block findable, unless another one with the same contents is.
    pub(super) fn insert(&mut self, hash: BlockHash, block: u32) {
        let entry = &mut self.entries[block as usize];
        if entry.is_none() && !self.blocks.contains_key(&hash) {
            *entry = Some(Entry { hash, idle_since: 0 });
            self.blocks.insert(hash, block);
        }
    }

    /// Makes a held block impossible to find.
    pub(super) fn forget(&mut self, block: u32) {
        if let Some(entry) = self.entries[block as usize].take() {
            self.blocks.remove(&entry.hash);
        }
    }

    /// Notes that a block has lost its last holder; false when it cannot be found, and is of no use any more.
    pub(super) fn retire(&mut self, block: u32) -> bool {
        let Some(entry) = &mut self.entries[block as usize] else { return false };
        self.clock += 1;
        entry.idle_since = self.clock;
        self.idle.insert(self.clock, block);
        true
    }

    /// Notes that an idle block has a holder again.
    pub(super) fn revive(&mut self, block: u32) {
        if let Some(entry) = &self.entries[block as usize] {
            self.idle.remove(&entry.idle_since);
        }
    }

    /// Forgets the block that has been idle for longest, and returns it.
    pub(super) fn evict(&mut self) -> Option<u32> {
        let (_, block) = self.idle.pop_first()?;
        self.forget(block);
        Some(block)
    }
}
