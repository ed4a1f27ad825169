// What the attention kernels share: a sequence's place in the batch, tiles of the paged cache in shared memory, one step of the online softmax.
#pragma once

#include "simt.cuh"

namespace simt {

struct SequenceSpan {
    int64_t query_start;
    int32_t query_len, kv_len;
};

SIMT_DEVICE SequenceSpan load_span(const Sequences &sequences, int sequence) {
    const int32_t start = global_load<int32_t>(sequences.query_starts + sequence);
    return {start, global_load<int32_t>(sequences.query_starts + sequence + 1) - start, global_load<int32_t>(sequences.kv_lens + sequence)};
}

// One sequence's blocks of one head.
struct KvHead {
    const int32_t *block_table;
    int64_t block_stride, offset;
    int32_t block_size_log2;
};

SIMT_DEVICE KvHead kv_head(const KvCache &cache, const Sequences &sequences, int sequence, int head) {
    return {sequences.block_tables + sequence * sequences.block_table_stride, cache.block_stride, head * cache.head_stride, cache.block_size_log2};
}

// Elements from the pool's start to a token's row.
template <int HeadDim> SIMT_DEVICE int64_t token_offset(const KvHead &kv, int token) {
    const int64_t block = global_load<int32_t>(kv.block_table + (token >> kv.block_size_log2));
    return block * kv.block_stride + kv.offset + (token & ((1 << kv.block_size_log2) - 1)) * HeadDim;
}

// Byte offset of 16-byte column `column` of a row in a tile of rows of HeadDim 16-bit elements, arranged so that eight rows of one column lie in all
// banks: rows of whole 128-byte lines exchange columns by row % 8; rows of an odd number of half lines start in alternating halves and exchange within
// those; rows of an odd number of quarters (96 FP8 elements) start in all four and exchange pairs.
template <int HeadDim> SIMT_DEVICE uint32_t tile_offset(int row, int column) {
    static_assert(HeadDim % 16 == 0, "head_dim without a bank-conflict-free arrangement");
    const int exchanged = column ^ (HeadDim % 64 == 0 ? row & 7 : HeadDim % 32 == 0 ? row >> 1 & 3 : row >> 2 & 1);
    return (row * (HeadDim / 8) + exchanged) * 16;
}

// Starts copying `Rows` tokens of `Stored` from `first_token` on; tokens from `kv_len` on become zeros, for whatever is stored there could be NaN.
template <typename Stored, int HeadDim, int Rows, int Threads>
SIMT_DEVICE void copy_kv_tile(uint32_t to_shared, const void *pool, const KvHead &kv, int first_token, int kv_len) {
    constexpr int kRowBytes = HeadDim * sizeof(Stored), kColumns = kRowBytes / 16;
    static_assert(Rows * kColumns % Threads == 0, "threads share a tile's columns evenly");
    // Half a tile of 128 columns: unrolled as a whole, its addresses would be kept in registers from one tile to the next, and do not fit.
#pragma unroll(2 * sizeof(Stored))
    for (int i = 0; i < Rows * kColumns / Threads; ++i) {
        const int index = i * Threads + thread_index(), row = index / kColumns, column = index % kColumns;
        const bool valid = first_token + row < kv_len;
        const char *from = static_cast<const char *>(pool);
        if (valid) from += token_offset<HeadDim>(kv, first_token + row) * sizeof(Stored) + column * 16;
        copy_async_16(to_shared + tile_offset<kRowBytes / 2>(row, column), from, valid);
    }
}

// Widens an E4M3 tile that has arrived to one of T, exactly; the scale is the caller's.
template <typename T, int HeadDim, int Rows, int Threads> SIMT_DEVICE void widen_kv_tile(uint32_t to_shared, uint32_t from_shared) {
    constexpr int kColumns = HeadDim / 8;
    static_assert(Rows * kColumns % Threads == 0, "threads share a tile's columns evenly");
    // Unpacking takes every other element: with the middle ones exchanged those are neighbours.
    const auto unpack4 = [](uint32_t packed, uint32_t &low, uint32_t &high) {
        unpack4_e4m3<T>((packed & 0xff0000ff) | (packed & 0xff00) << 8 | (packed >> 8 & 0xff00), low, high);
    };
#pragma unroll 4
    for (int i = 0; i < Rows * kColumns / Threads; ++i) {
        const int index = i * Threads + thread_index(), row = index / kColumns, column = index % kColumns;
        const U32x2 packed = shared_load<U32x2>(from_shared + tile_offset<HeadDim / 2>(row, column / 2) + column % 2 * 8);
        U32x4 values;
        unpack4(packed.x, values.x, values.y);
        unpack4(packed.y, values.z, values.w);
        shared_store(to_shared + tile_offset<HeadDim>(row, column), values);
    }
}

// One row (half `h`) of a warp's score tiles: replaces scores by exp2((score - max) · scale), updates the row's maximum and this lane's part of its sum,
// and returns the factor for what was accumulated under the old maximum. Rows with nothing visible yet keep a maximum of -inf and weights of 0.
template <int KeyTiles> SIMT_DEVICE float softmax_rows(float (&scores)[KeyTiles][4], int h, float scale_log2e, float &row_max, float &row_sum) {
    float highest = row_max;
#pragma unroll
    for (int n = 0; n < KeyTiles; ++n) highest = maximum(highest, maximum(scores[n][2 * h], scores[n][2 * h + 1]));
    highest = warp_max<4>(highest);
    const float scaled = highest == -infinity() ? 0.0f : highest * scale_log2e;
    const float factor = exp2_approx(row_max * scale_log2e - scaled);
    float sum = row_sum * factor;
#pragma unroll
    for (int n = 0; n < KeyTiles; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            float &score = scores[n][2 * h + i];
            score = exp2_approx(fma(score, scale_log2e, -scaled));
            sum += score;
        }
    row_max = highest;
    row_sum = sum;
    return factor;
}

}  // namespace simt
