//! Bookkeeping of the paged KV cache: which physical blocks are free, which a sequence holds, and which hold what a later
//! one may need.

use super::prefix_cache::PrefixCache;
use super::prefix_hash::BlockHash;

/// Hands out the physical blocks of a [`KvLayout`](crate::backend::KvLayout) and counts who holds each.
///
/// A full block that is [registered](BlockPool::register) may have several holders, who only read it. When the last one
/// is gone it counts as free, but keeps its contents until all other free blocks are taken and it is the least recently
/// used.
#[derive(Debug)]
pub(super) struct BlockPool {
    block_size: usize,
    /// Holders of each block.
    reference_counts: Vec<u32>,
    /// Blocks without holder and without contents of use; the last one is handed out next.
    free: Vec<u32>,
    cache: PrefixCache,
}

impl BlockPool {
    /// A pool of `num_blocks` free blocks of `block_size` tokens.
    pub(super) fn new(num_blocks: usize, block_size: usize) -> Self {
        assert!(block_size > 0, "blocks of no tokens");
        let free = (0..num_blocks as u32).rev().collect();
        Self { block_size, reference_counts: vec![0; num_blocks], free, cache: PrefixCache::new(num_blocks) }
    }

    /// Tokens in one block.
    pub(super) fn block_size(&self) -> usize {
        self.block_size
    }

    /// Blocks that nobody holds.
    pub(super) fn num_free(&self) -> usize {
        self.free.len() + self.cache.num_idle()
    }

    /// Those of the free blocks whose contents can still be found.
    pub(super) fn num_cached(&self) -> usize {
        self.cache.num_idle()
    }

    /// Blocks in all.
    pub(super) fn num_blocks(&self) -> usize {
        self.reference_counts.len()
    }

    /// Blocks that `tokens` tokens occupy.
    pub(super) fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_size)
    }

    /// Whether a block with these contents exists, and whether anybody holds it.
    pub(super) fn find(&self, hash: &BlockHash) -> Option<Found> {
        let block = self.cache.find(hash)?;
        Some(if self.reference_counts[block as usize] == 0 { Found::Free } else { Found::Held })
    }

    /// A hold on the block with these contents.
    fn share(&mut self, hash: &BlockHash) -> Option<u32> {
        let block = self.cache.find(hash)?;
        let count = &mut self.reference_counts[block as usize];
        *count += 1;
        if *count == 1 {
            self.cache.revive(block);
        }
        Some(block)
    }

    /// Makes a held block, all of whose keys and values are computed, findable by its contents.
    fn register(&mut self, hash: BlockHash, block: u32) {
        assert!(self.reference_counts[block as usize] > 0, "block {block} is free");
        self.cache.insert(hash, block);
    }

    /// Makes a held block impossible to find by its contents.
    fn forget(&mut self, block: u32) {
        assert!(self.reference_counts[block as usize] > 0, "block {block} is free");
        self.cache.forget(block);
    }

    /// A block with one holder, or `None` when all are taken.
    fn allocate(&mut self) -> Option<u32> {
        let block = self.free.pop().or_else(|| self.cache.evict())?;
        self.reference_counts[block as usize] = 1;
        Some(block)
    }

    /// Gives up one hold on a block; the last holder frees it.
    fn release(&mut self, block: u32) {
        let count = &mut self.reference_counts[block as usize];
        assert!(*count > 0, "block {block} released more often than held");
        *count -= 1;
        if *count == 0 && !self.cache.retire(block) {
            self.free.push(block);
        }
    }
}

/// A block that has the contents asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nobody holds it: it counts as free.
    Free,
    /// Somebody holds it: to share it takes nothing from the free ones.
    Held,
}

/// The physical blocks of one sequence's context, in logical order.
///
/// It has to be emptied by [`BlockTable::release`] before it is dropped, as only the pool knows what is free.
#[derive(Debug, Default)]
pub(super) struct BlockTable {
    blocks: Vec<u32>,
}

impl BlockTable {
    /// Takes blocks until the table holds `tokens` tokens; takes none and returns false when the pool has too few.
    pub(super) fn grow(&mut self, pool: &mut BlockPool, tokens: usize) -> bool {
        let missing = pool.blocks_for(tokens).saturating_sub(self.blocks.len());
        if missing > pool.num_free() {
            return false;
        }
        self.blocks.extend((0..missing).map_while(|_| pool.allocate()));
        true
    }

    /// Puts the block with these contents at `index`, at most one behind the last; false when there is none.
    pub(super) fn share(&mut self, pool: &mut BlockPool, index: usize, hash: &BlockHash) -> bool {
        let Some(shared) = pool.share(hash) else { return false };
        match self.blocks.get_mut(index) {
            Some(block) => pool.release(std::mem::replace(block, shared)),
            None => self.blocks.push(shared),
        }
        true
    }

    /// Makes the block at `index`, all of whose keys and values are computed, findable by its contents.
    pub(super) fn register(&self, pool: &mut BlockPool, index: usize, hash: BlockHash) {
        pool.register(hash, self.blocks[index]);
    }

    /// Makes all blocks impossible to find by their contents; who holds them keeps them.
    pub(super) fn forget(&self, pool: &mut BlockPool) {
        self.blocks.iter().for_each(|&block| pool.forget(block));
    }

    /// Gives all blocks back.
    pub(super) fn release(&mut self, pool: &mut BlockPool) {
        // Backwards, so that the pool hands them out again in logical order, and forgets a text from its end.
        for block in self.blocks.drain(..).rev() {
            pool.release(block);
        }
    }

    /// The blocks of the first `tokens` tokens.
    pub(super) fn prefix(&self, pool: &BlockPool, tokens: usize) -> &[u32] {
        &self.blocks[..pool.blocks_for(tokens)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::prefix_hash::HashChain;

    #[test]
    fn a_table_grows_by_whole_blocks_and_gives_them_back() {
        let mut pool = BlockPool::new(4, 16);
        let mut table = BlockTable::default();
        for (tokens, free) in [(1, 3), (16, 3), (17, 2), (10, 2), (64, 0)] {
            assert!(table.grow(&mut pool, tokens));
            assert_eq!(pool.num_free(), free, "after growing to {tokens}");
        }
        assert_eq!(table.prefix(&pool, 33), [0, 1, 2]);
        table.release(&mut pool);
        assert_eq!(pool.num_free(), 4);
    }

    #[test]
    fn a_table_that_does_not_fit_takes_nothing() {
        let mut pool = BlockPool::new(3, 2);
        let (mut first, mut second) = (BlockTable::default(), BlockTable::default());
        assert!(first.grow(&mut pool, 4));
        assert!(!second.grow(&mut pool, 3));
        assert_eq!(pool.num_free(), 1);
        assert!(second.grow(&mut pool, 2));
        assert_eq!(second.prefix(&pool, 2), [2]);
    }

    #[test]
    #[should_panic(expected = "released more often than held")]
    fn a_block_cannot_be_freed_twice() {
        let mut pool = BlockPool::new(1, 1);
        let block = pool.allocate().unwrap();
        pool.release(block);
        pool.release(block);
    }

    /// The hashes of `[0]`, `[0, 1]`, … in blocks of one token.
    fn hashes(count: u32) -> Vec<BlockHash> {
        let mut chain = HashChain::new(0);
        chain.extend(&(0..count).collect::<Vec<_>>(), 1);
        (0..count as usize).map(|block| *chain.get(block).unwrap()).collect()
    }

    /// A pool of `num_blocks` blocks of one token, the first `hashes.len()` of them registered and held by a table.
    fn registered(num_blocks: usize, hashes: &[BlockHash]) -> (BlockPool, BlockTable) {
        let mut pool = BlockPool::new(num_blocks, 1);
        let mut table = BlockTable::default();
        assert!(table.grow(&mut pool, hashes.len()));
        for (index, hash) in hashes.iter().enumerate() {
            table.register(&mut pool, index, *hash);
        }
        (pool, table)
    }

    #[test]
    fn a_shared_block_is_free_when_its_last_holder_is_gone() {
        let hashes = hashes(2);
        let (mut pool, mut first) = registered(4, &hashes);
        let mut second = BlockTable::default();
        assert!(second.share(&mut pool, 0, &hashes[0]) && second.share(&mut pool, 1, &hashes[1]));
        assert_eq!(second.prefix(&pool, 2), first.prefix(&pool, 2));
        assert_eq!(pool.num_free(), 2);
        first.release(&mut pool);
        assert_eq!((pool.num_free(), pool.find(&hashes[1])), (2, Some(Found::Held)));
        second.release(&mut pool);
        assert_eq!((pool.num_free(), pool.find(&hashes[1])), (4, Some(Found::Free)));
    }

    #[test]
    fn the_ends_of_the_oldest_texts_are_forgotten_first() {
        let hashes = hashes(3);
        let (mut pool, mut table) = registered(4, &hashes);
        table.release(&mut pool);
        for (tokens, found) in [(1, 3), (2, 2), (3, 1), (4, 0)] {
            assert!(table.grow(&mut pool, tokens));
            let cached = hashes.iter().take_while(|hash| pool.find(hash).is_some()).count();
            assert_eq!((cached, pool.num_cached()), (found, found), "with {tokens} blocks in use");
        }
        assert!(!table.share(&mut pool, 0, &hashes[0]));
    }

    #[test]
    fn a_block_in_use_is_not_forgotten_and_a_used_one_is_young_again() {
        let hashes = hashes(3);
        let (mut pool, mut table) = registered(3, &hashes);
        table.release(&mut pool);
        let mut reader = BlockTable::default();
        assert!(reader.share(&mut pool, 0, &hashes[2]));
        assert!(!table.grow(&mut pool, 3));
        reader.release(&mut pool);
        assert!(table.grow(&mut pool, 2));
        let found: Vec<_> = hashes.iter().map(|hash| pool.find(hash)).collect();
        assert_eq!(found, [None, None, Some(Found::Free)]);
    }

    #[test]
    fn of_two_blocks_with_the_same_contents_one_is_found() {
        let hashes = hashes(1);
        let (mut pool, mut first) = registered(2, &hashes);
        let mut second = BlockTable::default();
        assert!(second.grow(&mut pool, 1));
        second.register(&mut pool, 0, hashes[0]);
        second.release(&mut pool);
        assert_eq!((pool.num_free(), pool.num_cached()), (1, 0));
        // What takes a shared block's place gives its own back.
        assert!(second.grow(&mut pool, 1) && second.share(&mut pool, 0, &hashes[0]));
        assert_eq!(pool.num_free(), 1);
        first.release(&mut pool);
        second.release(&mut pool);
        assert_eq!((pool.num_free(), pool.num_cached()), (2, 1));
    }
}
