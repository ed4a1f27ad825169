//! How work is cut into blocks: tiles of query rows, splits of a context, splits of a product's depth. None of it depends on what else is in the batch.

use super::params::AttentionTile;

/// Tokens that one split of a context has at least, a multiple of 64: below, combining the splits costs more than they save.
pub const MIN_SPLIT_LEN: usize = 256;

/// How much of the best occupancy is enough: more splits than needed cost memory traffic.
const ENOUGH: f64 = 0.85;

/// Tiles of `query_rows` query rows over all sequences of `(query_len, kv_len)`, those that see most keys first, so that the last blocks to finish
/// are the short ones.
pub fn prefill_tiles(
    sequences: impl Iterator<Item = (usize, usize)>,
    query_rows: usize,
) -> Vec<AttentionTile> {
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

/// Splits of a context of `kv_len` tokens, as the kernel cuts it: their length is [`MIN_SPLIT_LEN`], raised by quarters until `max_splits` reach.
pub fn decode_splits(kv_len: usize, max_splits: usize) -> usize {
    let (mut octave, mut len) = (MIN_SPLIT_LEN, MIN_SPLIT_LEN);
    while len * max_splits < kv_len {
        len += octave / 4;
        if len == 2 * octave {
            octave = len;
        }
    }
    kv_len.div_ceil(len)
}

/// The most splits that one context is cut into, for `blocks` blocks a split (one a KV head) and `slots` blocks that the device holds at a time.
///
/// Chosen as if one sequence were alone, so that a sequence is cut in the same places whatever else is in the batch. As a long context is cut into more
/// than four fifths as many, the mean occupancy over those counts: the fewest splits within 85 % of the best.
pub fn max_decode_splits(blocks: usize, slots: usize, most: usize) -> usize {
    let mean = |splits: usize| {
        let counts = (splits * 4 / 5 + 1).min(splits)..=splits;
        let number = counts.clone().count();
        counts.map(|count| occupancy(blocks * count, slots)).sum::<f64>() / number as f64
    };
    fewest(most, mean)
}

/// Splits of the inner dimension of a product with `tiles` output tiles, each split being at least `min_depth` deep.
pub fn linear_splits(tiles: usize, slots: usize, depth: usize, min_depth: usize) -> usize {
    fewest(depth / min_depth, |splits| occupancy(tiles * splits, slots))
}

/// Share of the device's time that `blocks` equal blocks use, when it holds `slots` at a time.
fn occupancy(blocks: usize, slots: usize) -> f64 {
    blocks as f64 / (blocks.div_ceil(slots) * slots) as f64
}

/// The smallest number from 1 to `most` that reaches [`ENOUGH`] of the best.
fn fewest(most: usize, occupancy: impl Fn(usize) -> f64) -> usize {
    let best = (1..=most.max(1)).map(&occupancy).fold(0.0, f64::max);
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
        // An H200 with two blocks a multiprocessor, 8 and 40 key/value heads.
        for (kv_heads, kv_len) in [(8, 8192_usize), (8, 16_384), (8, 100_000), (40, 8192), (40, 16_384)] {
            let max_splits = max_decode_splits(kv_heads, 264, 64);
            let splits = decode_splits(kv_len, max_splits);
            assert!(
                splits <= max_splits && 5 * splits + 5 > 4 * max_splits,
                "{kv_len}: {splits} of {max_splits}"
            );
            let used = occupancy(kv_heads * splits, 264);
            assert!(used > 0.7, "{kv_heads} heads, {kv_len} tokens: {splits} splits use {used}");
        }
        assert_eq!([1, 256, 257, 16_384, 16_385].map(|kv_len| decode_splits(kv_len, 64)), [1, 1, 2, 64, 52]);
        assert_eq!(max_decode_splits(1000, 264, 64), 1);
    }

    #[test]
    fn products_with_enough_tiles_are_not_split() {
        assert_eq!(linear_splits(1000, 264, 5120, 512), 1);
        assert_eq!(linear_splits(66, 264, 5120, 512), 4);
        assert_eq!(linear_splits(66, 264, 256, 512), 1);
    }
}
