// Prefill attention for sm_80 and later: FlashAttention-2's schedule (arXiv 2307.08691) over the paged cache, with mma.sync.
//
// A block computes a tile of query rows of one head and walks over tiles of keys and values from the last visible one to the first. While the scores of
// a tile are computed its values arrive, and while it is normalised and multiplied with them the next keys do, so one buffer of each is enough and two
// blocks fit on a multiprocessor. Scores stay in registers: the accumulator's layout of the first product is the operand's layout of the second.
//
// An FP8 cache (E4M3, one scale a head) arrives as it is stored and is widened, exactly, into one tile of bf16 or f16 that keys and values take in turn:
// the same shared memory, products and sums as a 16-bit cache. The keys' scale goes into the softmax's, the values' into the rows' normalisation.
#include "attention_tile.cuh"
#include "simt.cuh"

using namespace simt;

namespace {

template <typename Stored, int HeadDim> struct PrefillShape {
    static constexpr bool kFp8 = sizeof(Stored) == 1;
    static constexpr int kWarps = 4;
    static constexpr int kThreads = kWarps * kWarpSize;
    // 16-row tiles a warp holds: two halve the shared-memory reads per product, and do not fit beside the output of 256 columns.
    static constexpr int kRowTiles = HeadDim <= 128 ? 2 : 1;
    static constexpr int kQueryRows = kWarps * kRowTiles * 16;
    static constexpr int kKvRows = 64;
    static constexpr uint32_t kQueryBytes = kQueryRows * HeadDim * 2;
    static constexpr uint32_t kStoredBytes = kKvRows * HeadDim * sizeof(Stored);
    static constexpr uint32_t kWidenedBytes = kFp8 ? kKvRows * HeadDim * 2 : 0;
    static constexpr uint32_t kSharedBytes = kQueryBytes + 2 * kStoredBytes + kWidenedBytes;
};

template <typename T, typename Stored, int HeadDim> SIMT_DEVICE void attention_prefill(const AttentionPrefillParams &params) {
    using Shape = PrefillShape<Stored, HeadDim>;
    constexpr int kRowTiles = Shape::kRowTiles, kKvRows = Shape::kKvRows, kThreads = Shape::kThreads;
    constexpr int kKeyTiles = kKvRows / 8, kOutTiles = HeadDim / 8;

    const int head = block_x(), kv_head_index = head / (params.num_heads / params.cache.num_kv_heads);
    const AttentionTile tile = {global_load<int32_t>(&params.tiles[block_y()].sequence), global_load<int32_t>(&params.tiles[block_y()].first_query)};
    const SequenceSpan span = load_span(params.sequences, tile.sequence);
    const KvHead kv = kv_head(params.cache, params.sequences, tile.sequence, kv_head_index);
    const int first_position = span.kv_len - span.query_len + tile.first_query;
    const int last_position = minimum(first_position + Shape::kQueryRows, span.kv_len) - 1;
    const int first_key = params.window ? maximum(0, first_position - params.window + 1) : 0;
    const int first_tile = first_key / kKvRows;
    const int last_tile = last_position / kKvRows;

    const uint32_t shared_q = shared_base();
    const uint32_t stored_k = shared_q + Shape::kQueryBytes;
    const uint32_t stored_v = stored_k + Shape::kStoredBytes;
    // What the tensor cores read.
    const uint32_t widened = stored_v + Shape::kStoredBytes;
    const uint32_t shared_k = Shape::kFp8 ? widened : stored_k;
    const uint32_t shared_v = Shape::kFp8 ? widened : stored_v;
    const int warp_row = warp_index() * kRowTiles * 16;
    const int lane = lane_index();

    // Rows past the sequence's end are zero.
    const char *q = static_cast<const char *>(params.q) + ((span.query_start + tile.first_query) * params.q_stride + int64_t{head} * HeadDim) * 2;
    for (int i = thread_index(); i < Shape::kQueryRows * HeadDim / 8; i += kThreads) {
        const int row = i / (HeadDim / 8), column = i % (HeadDim / 8);
        const bool valid = tile.first_query + row < span.query_len;
        copy_async_16(shared_q + tile_offset<HeadDim>(row, column), valid ? q + (row * params.q_stride + column * 8) * 2 : params.q, valid);
    }
    copy_kv_tile<Stored, HeadDim, kKvRows, kThreads>(stored_k, params.cache.keys, kv, last_tile * kKvRows, span.kv_len);
    copy_async_commit();

    float scale_log2e = params.scale_log2e;
    if constexpr (Shape::kFp8) scale_log2e *= global_load<float>(params.cache.key_scales + kv_head_index);
    float out[kRowTiles][kOutTiles][4] = {};
    float row_max[kRowTiles][2], row_sum[kRowTiles][2] = {};
    for (auto &rows : row_max) rows[0] = rows[1] = -infinity();

    for (int j = last_tile; j >= first_tile; --j) {
        copy_async_wait<0>();
        sync_threads();
        copy_kv_tile<Stored, HeadDim, kKvRows, kThreads>(stored_v, params.cache.values, kv, j * kKvRows, span.kv_len);
        copy_async_commit();

        if constexpr (Shape::kFp8) {
            widen_kv_tile<T, HeadDim, kKvRows, kThreads>(shared_k, stored_k);
            sync_threads();
        }
        float scores[kRowTiles][kKeyTiles][4] = {};
#pragma unroll
        for (int k = 0; k < HeadDim / 16; ++k) {
            uint32_t a[kRowTiles][4];
#pragma unroll
            for (int t = 0; t < kRowTiles; ++t)
                load_matrix_x4(a[t], shared_q + tile_offset<HeadDim>(warp_row + t * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
            for (int n = 0; n < kKvRows / 16; ++n) {
                uint32_t b[4];
                load_matrix_x4(b, shared_k + tile_offset<HeadDim>(n * 16 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2));
#pragma unroll
                for (int t = 0; t < kRowTiles; ++t) {
                    mma_m16n8k16<T>(scores[t][2 * n], a[t], b[0], b[1]);
                    mma_m16n8k16<T>(scores[t][2 * n + 1], a[t], b[2], b[3]);
                }
            }
        }

        // Element (h, i) of a score tile: row lane / 4 + 8 · h, key 2 · (lane % 4) + i.
        const bool masked = (j + 1) * kKvRows - 1 > first_position || (params.window && j * kKvRows + params.window <= last_position);
        if (masked) {
#pragma unroll
            for (int t = 0; t < kRowTiles; ++t)
#pragma unroll
                for (int n = 0; n < kKeyTiles; ++n)
#pragma unroll
                    for (int e = 0; e < 4; ++e) {
                        const int position = first_position + warp_row + t * 16 + lane / 4 + e / 2 * 8;
                        const int key = j * kKvRows + n * 8 + lane % 4 * 2 + e % 2;
                        const bool visible = key <= position && (!params.window || key + params.window > position);
                        if (!visible) scores[t][n][e] = -infinity();
                    }
        }

        copy_async_wait<0>();
        sync_threads();
#pragma unroll
        for (int t = 0; t < kRowTiles; ++t)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const float factor = softmax_rows<kKeyTiles>(scores[t], h, scale_log2e, row_max[t][h], row_sum[t][h]);
#pragma unroll
                for (int n = 0; n < kOutTiles; ++n) {
                    out[t][n][2 * h] *= factor;
                    out[t][n][2 * h + 1] *= factor;
                }
            }

        uint32_t weights[kKvRows / 16][kRowTiles][4];
#pragma unroll
        for (int k = 0; k < kKvRows / 16; ++k)
#pragma unroll
            for (int t = 0; t < kRowTiles; ++t)
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    weights[k][t][i] = pack2<T>(scores[t][2 * k + i / 2][i % 2 * 2], scores[t][2 * k + i / 2][i % 2 * 2 + 1]);

        // Only now, for addresses and the unpacked scores together do not fit into registers.
        if constexpr (Shape::kFp8) {
            widen_kv_tile<T, HeadDim, kKvRows, kThreads>(shared_v, stored_v);
            sync_threads();
        }
        if (j > first_tile) {
            copy_kv_tile<Stored, HeadDim, kKvRows, kThreads>(stored_k, params.cache.keys, kv, (j - 1) * kKvRows, span.kv_len);
            copy_async_commit();
        }

#pragma unroll
        for (int k = 0; k < kKvRows / 16; ++k) {
#pragma unroll
            for (int n = 0; n < HeadDim / 16; ++n) {
                uint32_t b[4];
                load_matrix_x4_transposed(b, shared_v + tile_offset<HeadDim>(k * 16 + lane % 16, n * 2 + lane / 16));
#pragma unroll
                for (int t = 0; t < kRowTiles; ++t) {
                    mma_m16n8k16<T>(out[t][2 * n], weights[k][t], b[0], b[1]);
                    mma_m16n8k16<T>(out[t][2 * n + 1], weights[k][t], b[2], b[3]);
                }
            }
        }
    }

    float value_scale = 1.0f;
    if constexpr (Shape::kFp8) value_scale = global_load<float>(params.cache.value_scales + kv_head_index);
    // Through shared memory, where each warp reuses its own query rows, so that global memory sees whole lines.
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float sum = warp_sum<4>(row_sum[t][h]);
            const float scale = sum > 0.0f ? value_scale / sum : 0.0f;
            const int row = warp_row + t * 16 + lane / 4 + h * 8;
#pragma unroll
            for (int n = 0; n < kOutTiles; ++n)
                shared_store(shared_q + tile_offset<HeadDim>(row, n) + lane % 4 * 4, pack2<T>(out[t][n][2 * h] * scale, out[t][n][2 * h + 1] * scale));
        }
    sync_warp();
    char *to = static_cast<char *>(params.out) + ((span.query_start + tile.first_query) * params.out_stride + int64_t{head} * HeadDim) * 2;
    for (int i = lane; i < kRowTiles * 16 * HeadDim / 8; i += kWarpSize) {
        const int row = warp_row + i / (HeadDim / 8), column = i % (HeadDim / 8);
        if (tile.first_query + row < span.query_len)
            global_store(to + (row * params.out_stride + column * 8) * 2, shared_load<U32x4>(shared_q + tile_offset<HeadDim>(row, column)));
    }
}

}  // namespace

#define ATTENTION_PREFILL(name, T, Stored, HeadDim)                                                                                        \
    SIMT_KERNEL(name, AttentionPrefillParams, (PrefillShape<Stored, HeadDim>::kThreads), 1, (PrefillShape<Stored, HeadDim>::kSharedBytes), \
                attention_prefill<T, Stored, HeadDim>)
#define ATTENTION_PREFILL_FORMATS(type, T, HeadDim)                                 \
    ATTENTION_PREFILL(attention_prefill_##type##_##HeadDim, T, T, HeadDim)          \
    ATTENTION_PREFILL(attention_prefill_##type##_##HeadDim##_fp8, T, E4m3, HeadDim)

ATTENTION_PREFILL_FORMATS(bf16, Bf16, 64)
ATTENTION_PREFILL_FORMATS(bf16, Bf16, 96)
ATTENTION_PREFILL_FORMATS(bf16, Bf16, 128)
ATTENTION_PREFILL_FORMATS(bf16, Bf16, 256)
ATTENTION_PREFILL_FORMATS(f16, Half, 64)
ATTENTION_PREFILL_FORMATS(f16, Half, 96)
ATTENTION_PREFILL_FORMATS(f16, Half, 128)
ATTENTION_PREFILL_FORMATS(f16, Half, 256)
