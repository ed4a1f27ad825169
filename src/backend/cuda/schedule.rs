//! How work is cut into blocks: tiles of query rows, splits of a context, splits of a product's depth. None of it depends on what else is in the batch.

use super::geometry::MAX_DECODE_SPLITS;
use super::params::AttentionTile;

/// Tokens that one split has at least: below, combining the splits costs more than they save.
const MIN_SPLIT_LEN: usize = 256;

/// How much of the best occupancy is enough: more splits than needed cost memory traffic.
const ENOUGH: f64 = 0.85;

/// Tiles of `query_rows` query rows over all sequences of `(query_len, kv_len)`, those that see most keys first, so that the last blocks to finish
/// are the short ones.
pub fn prefill_tiles(sequences: impl Iterator<Item = (usize, usize)>, query_rows: usize) -> Vec<AttentionTile> {
    let mut tiles = Vec::new();
    for (index, (query_len, kv_len)) in sequences.enumerate() {
        for first in (0..query_len).step_by(query_rows) {
            let keys = kv_len - query_len + query_len.min(first + query_rows);
            tiles.push((keys, AttentionTile { sequence: index as i32, first_query: first as i32 }));
        }
    }
    // Stable: equal tiles stay in the order of the batch.
    tiles.sort_by_key(|(keys, _)| std::cmp::Reverse(*keys));
    tiles.into_iter().map(|(_, tile)| tile).collect()
}

/// What splits of decode attention have to fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitTarget {
    /// Blocks that the device holds at a time.
    pub resident_blocks: usize,
    /// Blocks of one split: one a key/value head.
    pub num_kv_heads: usize,
    /// Tokens of a cache block, of which a split is a multiple.
    pub block_size: usize,
}

/// Tokens a split of a context of `kv_len` tokens: the fewest splits whose waves of blocks fill the device to within 85 % of the best.
///
/// Looks at the sequence alone, as if nothing else were in the batch, and at its length rounded up to a power of two: so a sequence is cut in the
/// same places whatever else runs, and the sequences of a batch share few different lengths.
pub fn decode_split_len(kv_len: usize, target: SplitTarget) -> usize {
    let longest = kv_len.max(MIN_SPLIT_LEN).next_power_of_two();
    let most = (longest / MIN_SPLIT_LEN).min(MAX_DECODE_SPLITS);
    let splits = fewest_splits(target.num_kv_heads, target.resident_blocks, most);
    longest.div_ceil(splits).next_multiple_of(target.block_size)
}

/// Splits of the inner dimension of a product with `tiles` output tiles, each split being at least `min_depth` deep.
pub fn linear_splits(tiles: usize, resident_blocks: usize, depth: usize, min_depth: usize) -> usize {
    fewest_splits(tiles, resident_blocks, depth / min_depth)
}

/// The fewest splits, from 1 to `most`, with which `blocks · splits` blocks occupy `slots` to within [`ENOUGH`] of the best.
fn fewest_splits(blocks: usize, slots: usize, most: usize) -> usize {
    let occupancy = |splits: usize| {
        let needed = blocks * splits;
        needed as f64 / (needed.div_ceil(slots) * slots) as f64
    };
    let best = (1..=most.max(1)).map(occupancy).fold(0.0, f64::max);
    (1..=most).find(|&splits| occupancy(splits) >= ENOUGH * best).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_tiles_come_first() {
        let tiles = prefill_tiles([(130, 130), (1, 1000), (70, 90)].into_iter(), 64);
        let places: Vec<_> = tiles.iter().map(|tile| (tile.sequence, tile.first_query)).collect();
        assert_eq!(places, [(1, 0), (0, 128), (0, 64), (2, 64), (2, 0), (0, 0)]);
    }

    #[test]
    fn a_context_is_split_until_the_device_is_full_and_no_further() {
        // An H200 with two blocks a multiprocessor.
        let target = |num_kv_heads| SplitTarget { resident_blocks: 264, num_kv_heads, block_size: 64 };
        for (kv_len, num_kv_heads, split_len) in
            [(1, 8, 256), (4096, 8, 256), (8192, 8, 320), (16_384, 8, 576), (16_384, 40, 2752), (100_000, 8, 4544)]
        {
            assert_eq!(decode_split_len(kv_len, target(num_kv_heads)), split_len, "{kv_len}, {num_kv_heads}");
        }
    }

    #[test]
    fn lengths_of_one_power_of_two_are_cut_alike() {
        let target = SplitTarget { resident_blocks: 264, num_kv_heads: 8, block_size: 64 };
        assert_eq!(decode_split_len(8193, target), decode_split_len(16_384, target));
    }

    #[test]
    fn products_with_enough_tiles_are_not_split() {
        assert_eq!(linear_splits(1000, 264, 5120, 512), 1);
        assert_eq!(linear_splits(66, 264, 5120, 512), 4);
        assert_eq!(linear_splits(66, 264, 256, 512), 1);
    }
}
