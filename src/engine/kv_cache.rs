//! Bookkeeping of the paged KV cache: which physical blocks are free, and which a sequence holds.

/// Hands out the physical blocks of a [`KvLayout`](crate::backend::KvLayout) and counts who holds each.
///
/// A block may have several holders, so that sequences with a common prefix can share it.
#[derive(Debug)]
pub(super) struct BlockPool {
    block_size: usize,
    /// Holders of each block; 0 is free.
    reference_counts: Vec<u32>,
    /// Free blocks; the last one is handed out next.
    free: Vec<u32>,
}

impl BlockPool {
    /// A pool of `num_blocks` free blocks of `block_size` tokens.
    pub(super) fn new(num_blocks: usize, block_size: usize) -> Self {
        assert!(block_size > 0, "blocks of no tokens");
        let free = (0..num_blocks as u32).rev().collect();
        Self { block_size, reference_counts: vec![0; num_blocks], free }
    }

    /// Blocks that nobody holds.
    pub(super) fn num_free(&self) -> usize {
        self.free.len()
    }

    /// Blocks in all.
    pub(super) fn num_blocks(&self) -> usize {
        self.reference_counts.len()
    }

    /// Blocks that `tokens` tokens occupy.
    pub(super) fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_size)
    }

    /// A block with one holder, or `None` when all are taken.
    fn allocate(&mut self) -> Option<u32> {
        let block = self.free.pop()?;
        self.reference_counts[block as usize] = 1;
        Some(block)
    }

    /// Gives up one hold on a block; the last holder frees it.
    fn release(&mut self, block: u32) {
        let count = &mut self.reference_counts[block as usize];
        assert!(*count > 0, "block {block} released more often than held");
        *count -= 1;
        if *count == 0 {
            self.free.push(block);
        }
    }
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

    /// Gives all blocks back.
    pub(super) fn release(&mut self, pool: &mut BlockPool) {
        // Backwards, so that the pool hands them out again in logical order.
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
}
