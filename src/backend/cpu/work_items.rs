//! How a linear layer is shared out to the threads: each work item is a block of rows times a few panels of the weight.

use std::ops::Range;

use super::threads::{SharedSlice, ThreadPool};
use super::weights::PANEL_WIDTH;

/// Most panels of a work item.
const MAX_ITEM_PANELS: usize = 4;
/// Rows from which on a work item takes several panels; below, the inputs are in the cache anyway.
const MANY_ROWS: usize = 32;
/// Block boundaries are multiples of this, so that only the last block has register tiles that are not full.
const ROW_GRANULE: usize = 14;
/// The same where rows are multiplied on tiles, two by two.
const TILES_ROW_GRANULE: usize = 32;

/// f32 that one thread needs as scratch memory when blocks have at most so many rows.
pub const fn thread_scratch(max_block_rows: usize) -> usize {
    max_block_rows * MAX_ITEM_PANELS * PANEL_WIDTH
}

/// The work items of one product.
pub struct WorkItems {
    /// Rows of input and output.
    pub rows: usize,
    /// Panels of the weight.
    pub num_panels: usize,
    /// Whether the kernel multiplies on tiles.
    pub has_tiles: bool,
    /// Most rows of a block: their inputs stay in the second-level cache.
    pub max_block_rows: usize,
}

impl WorkItems {
    /// Calls `work` on all threads, once an item, with its rows, its panels, and [`thread_scratch`] f32 of the thread's own.
    pub fn for_each(
        &self,
        pool: &ThreadPool,
        scratch: &mut [f32],
        work: impl Fn(Range<usize>, Range<usize>, &mut [f32]) + Sync,
    ) {
        let scratch_len = thread_scratch(self.max_block_rows);
        assert!(scratch.len() >= pool.num_threads() * scratch_len, "scratch memory");
        let granule = if self.has_tiles { TILES_ROW_GRANULE } else { ROW_GRANULE };
        let granules = self.rows.div_ceil(granule);
        let blocks = granules.div_ceil(self.max_block_rows / granule);
        let item_panels = if self.rows < MANY_ROWS { 1 } else { MAX_ITEM_PANELS };
        let panel_groups = self.num_panels.div_ceil(item_panels);
        let scratch = SharedSlice::new(scratch);
        pool.for_each(blocks * panel_groups, &|thread, index| {
            let (block, group) = (index / panel_groups, index % panel_groups);
            let first_row = |block: usize| self.rows.min(granules * block / blocks * granule);
            let first_panel = group * item_panels;
            // SAFETY: every thread has its own part.
            let scratch = unsafe { scratch.range(thread * scratch_len..(thread + 1) * scratch_len) };
            work(
                first_row(block)..first_row(block + 1),
                first_panel..self.num_panels.min(first_panel + item_panels),
                scratch,
            );
        });
    }
}
