// Prefill attention for sm_90a: FlashAttention-3's schedule (arXiv 2407.08608) over the paged cache.
//
// A persistent block has one producer thread, which feeds queries, keys and values through the copy engine, and two or three warpgroups that consume
// them, 64 query rows each. A consumer issues the scores of the next keys, then the product of the current weights and values, and takes the exponentials
// of those scores while the second product runs; consumers take turns to issue, so that one's exponentials run under another's products.
// A query row is a (query, head of the group) pair: heads that share keys and values share a tile.
#include "attention_tile.cuh"

using namespace simt;

namespace {

constexpr int kGroupThreads = 128;  // a warpgroup
constexpr int kGroupRows = 64;      // of a warpgroup's products
constexpr int kAtomColumns = 64;    // 16-bit elements of a swizzled line of 128 bytes
constexpr uint32_t kLineBytes = 128;

// What the producer tells consumers about an item of work; no queries mean that nothing is left.
struct alignas(16) Work {
    int32_t first_tile, last_tile;  // of keys
    int32_t first_position;         // of the first query
    int32_t kv_len;
    int32_t first_token, num_queries;  // rows of q and out
    int32_t kv_head;
    int32_t sequence;
};

template <int HeadDim> struct Shape {
    static constexpr int kConsumers = HeadDim == 64 ? 3 : 2;
    static constexpr int kThreads = (1 + kConsumers) * kGroupThreads;
    static constexpr int kQueryRows = kConsumers * kGroupRows;
    static constexpr int kKvRows = HeadDim <= 128 ? 128 : 64;
    static constexpr int kStages = 2;
    // setmaxnreg: what the launch gives every warpgroup alike is moved from the producer to the consumers.
    static constexpr int kProducerRegisters = kConsumers == 2 ? 40 : 32;
    static constexpr int kConsumerRegisters = kConsumers == 2 ? 232 : 160;
    // Beside 256 columns of output the products are long enough, and turns only cost.
    static constexpr bool kTakesTurns = HeadDim <= 128;

    // A tile is a plane of lines for every 64 columns; columns past HeadDim arrive as zeros. The second product computes them too: as N of a transposed
    // operand with the 128-byte swizzle only whole atoms of 64 columns are known to be right (CUTLASS allows no others).
    static constexpr int kPlanes = (HeadDim + kAtomColumns - 1) / kAtomColumns, kOutColumns = kPlanes * kAtomColumns;
    static constexpr uint32_t kQueryPlane = kQueryRows * kLineBytes, kKvPlane = kKvRows * kLineBytes;
    static constexpr uint32_t kQueryBytes = kPlanes * kQueryPlane, kKvBytes = kPlanes * kKvPlane;

    static constexpr uint32_t kKeys = kQueryBytes, kValues = kKeys + kStages * kKvBytes, kWork = kValues + kStages * kKvBytes;
    static constexpr uint32_t kBarriers = kWork + sizeof(Work), kSharedBytes = kBarriers + (2 + 4 * kStages) * 8;
};

// A ring of buffers in shared memory and its barriers: [kStages] filled by the copy engine, then [kStages] emptied by every consuming warp.
template <int HeadDim> struct Ring {
    uint32_t buffers, barriers;
    uint32_t stage = 0, parity = 0;

    SIMT_DEVICE uint32_t buffer() const { return buffers + stage * Shape<HeadDim>::kKvBytes; }
    SIMT_DEVICE uint32_t filled() const { return barriers + stage * 8; }
    SIMT_DEVICE uint32_t emptied() const { return barriers + (Shape<HeadDim>::kStages + stage) * 8; }
    SIMT_DEVICE void advance() {
        stage = stage + 1 == Shape<HeadDim>::kStages ? 0 : stage + 1;
        parity ^= stage == 0;
    }
    // A consumer's warp is done with the buffer; its lanes have passed the product's wait together.
    SIMT_DEVICE void release() {
        if (lane_index() == 0) mbarrier_arrive(emptied());
        advance();
    }
};

template <int HeadDim> struct Shared {
    uint32_t queries, queries_filled, queries_emptied, work;
    Ring<HeadDim> keys, values;
};

template <int HeadDim> SIMT_DEVICE Shared<HeadDim> shared_layout() {
    using S = Shape<HeadDim>;
    const uint32_t base = shared_base(), barriers = base + S::kBarriers;
    return {base, barriers, barriers + 8, base + S::kWork, {base + S::kKeys, barriers + 16}, {base + S::kValues, barriers + 16 + 2 * S::kStages * 8}};
}

// Items are ordered by section of heads, tile (longest first), head: blocks that run at one time share keys and values in L2.
template <int HeadDim> SIMT_DEVICE Work load_work(const AttentionPrefillSm90Params &params, int item) {
    using S = Shape<HeadDim>;
    const AttentionPrefillParams &attention = params.attention;
    const int kv_heads = attention.cache.num_kv_heads;
    if (item >= attention.num_tiles * kv_heads) return {};
    const int section = item / (attention.num_tiles * params.heads_per_section);
    const int first_head = section * params.heads_per_section;
    const int heads = minimum(params.heads_per_section, kv_heads - first_head);
    const int in_section = item - first_head * attention.num_tiles;
    const AttentionTile *at = attention.tiles + in_section / heads;
    const AttentionTile tile = {global_load<int32_t>(&at->sequence), global_load<int32_t>(&at->first_query)};
    const SequenceSpan span = load_span(attention.sequences, tile.sequence);
    Work work;
    work.sequence = tile.sequence;
    work.kv_head = first_head + in_section % heads;
    work.num_queries = minimum(S::kQueryRows / (attention.num_heads / kv_heads), span.query_len - tile.first_query);
    work.first_token = static_cast<int32_t>(span.query_start) + tile.first_query;
    work.kv_len = span.kv_len;
    work.first_position = span.kv_len - span.query_len + tile.first_query;
    work.first_tile = attention.window ? maximum(0, work.first_position - attention.window + 1) / S::kKvRows : 0;
    work.last_tile = maximum(0, work.first_position + work.num_queries - 1) / S::kKvRows;
    return work;
}

// ---- the producer ----

// Asks for tile `j` of keys or values. Boxes past the sequence's last block are asked for outside of the pool, which makes them zeros.
template <int HeadDim>
SIMT_DEVICE void load_kv_tile(const TensorMap &map, Ring<HeadDim> &ring, const KvHead &kv, const Work &work, int j) {
    using S = Shape<HeadDim>;
    const int block_size = 1 << kv.block_size_log2, box_rows = minimum(block_size, S::kKvRows);
    mbarrier_wait(ring.emptied(), ring.parity ^ 1);
    mbarrier_arrive_expect(ring.filled(), S::kKvBytes);
    for (int row = 0; row < S::kKvRows; row += box_rows) {
        const int token = j * S::kKvRows + row;
        const int block = token < work.kv_len ? global_load<int32_t>(kv.block_table + (token >> kv.block_size_log2)) : -1;
#pragma unroll
        for (int plane = 0; plane < S::kPlanes; ++plane)
            tensor_load(ring.buffer() + plane * S::kKvPlane + row * kLineBytes, &map, ring.filled(), plane * kAtomColumns, token & (block_size - 1),
                        work.kv_head, block);
    }
    ring.advance();
}

// Draws from the counter, once for every item: the last draw leaves it at zero for the next launch.
SIMT_DEVICE int next_item(const AttentionPrefillSm90Params &params) {
    const int drawn = atomic_add(params.tile_counter, 1);
    if (drawn + 1 == params.attention.num_tiles * params.attention.cache.num_kv_heads) global_store(params.tile_counter, 0);
    return drawn;
}

template <int HeadDim> SIMT_DEVICE void produce(const AttentionPrefillSm90Params &params, Shared<HeadDim> shared) {
    using S = Shape<HeadDim>;
    const int group = params.attention.num_heads / params.attention.cache.num_kv_heads;
    const uint32_t query_bytes = S::kPlanes * kLineBytes * (S::kQueryRows / group * group);
    int item = block_x();
    for (uint32_t parity = 1;; parity ^= 1) {
        const Work work = load_work<HeadDim>(params, item);
        if (work.num_queries) item = grid_x() + next_item(params);
        const KvHead kv = kv_head(params.attention.cache, params.attention.sequences, work.sequence, work.kv_head);
        if (work.num_queries) load_kv_tile(params.keys, shared.keys, kv, work, work.last_tile);

        mbarrier_wait(shared.queries_emptied, parity);
        shared_store(shared.work, work);
        mbarrier_arrive_expect(shared.queries_filled, work.num_queries ? query_bytes : 0);
        if (!work.num_queries) return;
#pragma unroll
        for (int plane = 0; plane < S::kPlanes; ++plane)
            tensor_load(shared.queries + plane * S::kQueryPlane, &params.queries, shared.queries_filled, plane * kAtomColumns, work.kv_head * group,
                        work.first_token);

        for (int j = work.last_tile; j >= work.first_tile; --j) {
            if (j > work.first_tile) load_kv_tile(params.keys, shared.keys, kv, work, j - 1);
            load_kv_tile(params.values, shared.values, kv, work, j);
        }
    }
}

// ---- consumers ----

// Barriers 1 to kConsumers are the consumers' turns to issue products: one takes its turn once all others have given theirs away. Those above are barriers
// of one consumer's threads.
template <int HeadDim> struct Turns {
    using S = Shape<HeadDim>;
    static constexpr uint32_t kThreads = S::kConsumers * kGroupThreads;
    uint32_t consumer;

    SIMT_DEVICE void begin() const {
        if constexpr (S::kTakesTurns)
#pragma unroll
            for (int other = 0; other + 1 < S::kConsumers; ++other)
                if (other < static_cast<int>(consumer)) barrier_arrive(1 + other, kThreads);
    }
    SIMT_DEVICE void take() const {
        if constexpr (S::kTakesTurns) barrier_sync(1 + consumer, kThreads);
    }
    SIMT_DEVICE void give() const {
        if constexpr (S::kTakesTurns)
#pragma unroll
            for (int i = 1; i < S::kConsumers; ++i) barrier_arrive(1 + (consumer + i) % S::kConsumers, kThreads);
    }
    SIMT_DEVICE void sync_consumer() const { barrier_sync(1 + S::kConsumers + consumer, kGroupThreads); }
};

// scores = queries · keysᵀ, under way on return.
template <typename T, int HeadDim>
SIMT_DEVICE void score_keys(float (&scores)[Shape<HeadDim>::kKvRows / 2], uint32_t queries, uint32_t keys) {
    using S = Shape<HeadDim>;
    const uint64_t a = wgmma_descriptor(queries), b = wgmma_descriptor(keys);
    wgmma_hold(scores);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < HeadDim / 16; ++k)
        wgmma_shared<T, S::kKvRows, false>(scores, wgmma_advance(a, k / 4 * S::kQueryPlane + k % 4 * 32),
                                           wgmma_advance(b, k / 4 * S::kKvPlane + k % 4 * 32), k > 0);
    wgmma_commit();
}

// out += weights · values, under way on return.
template <typename T, int HeadDim>
SIMT_DEVICE void add_values(float (&out)[Shape<HeadDim>::kOutColumns / 2], uint32_t (&weights)[Shape<HeadDim>::kKvRows / 16][4], uint32_t values) {
    using S = Shape<HeadDim>;
    const uint64_t b = wgmma_descriptor(values, 8 * kLineBytes, S::kKvPlane);
    wgmma_hold(out);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < S::kKvRows / 16; ++k)
        wgmma_registers<T, S::kOutColumns, true>(out, weights[k], wgmma_advance(b, k * 16 * kLineBytes), true);
    wgmma_commit();
}

// Weights as the second product's operand: the accumulator's layout of the first.
template <typename T, int KeyTiles> SIMT_DEVICE void pack_weights(uint32_t (&weights)[KeyTiles / 2][4], const float (&scores)[KeyTiles * 4]) {
#pragma unroll
    for (int k = 0; k < KeyTiles / 2; ++k)
#pragma unroll
        for (int i = 0; i < 4; ++i) weights[k][i] = pack2<T>(scores[8 * k + 2 * i], scores[8 * k + 2 * i + 1]);
}

// The keys that a thread's two rows see.
struct Visible {
    int first[2], last[2];
};

// Scores of keys that a row does not see become -inf; `first_key` is the tile's.
template <int Count> SIMT_DEVICE void mask_scores(float (&scores)[Count], const Visible &visible, int first_key) {
    const int offset = first_key + lane_index() % 4 * 2;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int first = visible.first[h] - offset, last = visible.last[h] - offset;
#pragma unroll
        for (int n = 0; n < Count / 4; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const int key = n * 8 + i;
                if (key < first || key > last) scores[4 * n + 2 * h + i] = -infinity();
            }
    }
}

// Makes zeros of the values from `kv_len` on, which a weight of 0 would not if they are NaN.
template <int HeadDim> SIMT_DEVICE void clear_tail(uint32_t values, int valid_rows) {
    using S = Shape<HeadDim>;
    for (int i = valid_rows * 8 + static_cast<int>(thread_index() % kGroupThreads); i < S::kKvRows * 8; i += kGroupThreads)
#pragma unroll
        for (int plane = 0; plane < S::kPlanes; ++plane) shared_store(values + plane * S::kKvPlane + i * 16, U32x4{0, 0, 0, 0});
    fence_proxy_async();
}

// Lane q of four gets word q of every lane: words of columns 2q become 16-byte runs.
SIMT_DEVICE void transpose_quad(uint32_t (&words)[4]) {
    const bool odd = lane_index() & 1, high = lane_index() & 2;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const uint32_t other = shuffle_xor(odd ? words[i] : words[i + 1], 1);
        (odd ? words[i] : words[i + 1]) = other;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const uint32_t other = shuffle_xor(high ? words[i] : words[i + 2], 2);
        (high ? words[i] : words[i + 2]) = other;
    }
}

template <typename T, int HeadDim> SIMT_DEVICE void consume(const AttentionPrefillSm90Params &params, Shared<HeadDim> shared) {
    using S = Shape<HeadDim>;
    constexpr int kKvRows = S::kKvRows, kKeyTiles = kKvRows / 8;
    const AttentionPrefillParams &attention = params.attention;
    const int group = attention.num_heads / attention.cache.num_kv_heads;
    const Turns<HeadDim> turns{warp_index() / 4 - 1};
    const uint32_t queries = shared.queries + turns.consumer * kGroupRows * kLineBytes;
    const int first_row = static_cast<int>(warp_index() - 4) * 16 + lane_index() / 4;
    Ring<HeadDim> keys = shared.keys, values = shared.values;
    turns.begin();

    for (uint32_t parity = 0;; parity ^= 1) {
        mbarrier_wait(shared.queries_filled, parity);
        const Work work = shared_load<Work>(shared.work);
        if (work.num_queries == 0) return;
        Visible visible;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            visible.last[h] = work.first_position + (first_row + h * 8) / group;
            visible.first[h] = attention.window ? visible.last[h] - attention.window + 1 : 0;
        }

        float scores[kKvRows / 2], out[S::kOutColumns / 2] = {};
        float row_max[2] = {-infinity(), -infinity()}, row_sum[2] = {}, factors[2];
        uint32_t weights[kKvRows / 16][4];
        const auto softmax = [&] {
            auto &tiles = reinterpret_cast<float(&)[kKeyTiles][4]>(scores);
#pragma unroll
            for (int h = 0; h < 2; ++h) factors[h] = softmax_rows<kKeyTiles>(tiles, h, attention.scale_log2e, row_max[h], row_sum[h]);
        };

        mbarrier_wait(keys.filled(), keys.parity);
        score_keys<T, HeadDim>(scores, queries, keys.buffer());
        wgmma_wait<0>();
        wgmma_hold(scores);
        keys.release();
        mask_scores(scores, visible, work.last_tile * kKvRows);
        softmax();
        pack_weights<T, kKeyTiles>(weights, scores);
        if (const int valid_rows = work.kv_len - work.last_tile * kKvRows; valid_rows < kKvRows) {
            mbarrier_wait(values.filled(), values.parity);
            clear_tail<HeadDim>(values.buffer(), valid_rows);
            turns.sync_consumer();
        }

        const auto step = [&](int j, bool masked) {
            mbarrier_wait(keys.filled(), keys.parity);
            turns.take();
            score_keys<T, HeadDim>(scores, queries, keys.buffer());
            mbarrier_wait(values.filled(), values.parity);
            add_values<T, HeadDim>(out, weights, values.buffer());
            turns.give();
            wgmma_wait<1>();
            wgmma_hold(scores);
            keys.release();
            if (masked) mask_scores(scores, visible, j * kKvRows);
            softmax();
#pragma unroll
            for (float sum : row_sum) computed_by_now(sum);
            wgmma_wait<0>();
            wgmma_hold(out);
#pragma unroll
            for (auto &operand : weights) wgmma_hold(operand);
            values.release();
            pack_weights<T, kKeyTiles>(weights, scores);
#pragma unroll
            for (int i = 0; i < HeadDim / 2; ++i) out[i] *= factors[i / 2 % 2];
        };
        // Only tiles on the diagonal and on the window's edge hold keys that some row does not see.
        const int below_diagonal = maximum(0, work.first_position + 1) / kKvRows;
        const int hidden = attention.window ? maximum(0, work.first_position + work.num_queries - attention.window) : 0;
        const int inside_window = (hidden + kKvRows - 1) / kKvRows;
        int j = work.last_tile - 1;
        for (; j >= maximum(work.first_tile, below_diagonal); --j) step(j, true);
        for (; j >= maximum(work.first_tile, inside_window); --j) step(j, false);
        for (; j >= work.first_tile; --j) step(j, true);

        if (lane_index() == 0) mbarrier_arrive(shared.queries_emptied);
        mbarrier_wait(values.filled(), values.parity);
        add_values<T, HeadDim>(out, weights, values.buffer());
        wgmma_wait<0>();
        wgmma_hold(out);
        values.release();

        // Four lanes hold 64 bytes of a row: whole sectors leave, and no shared memory is waited for.
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float sum = warp_sum<4>(row_sum[h]);
            const float scale = sum > 0.0f ? 1.0f / sum : 0.0f;
            const int row = first_row + h * 8, query = row / group;
            char *to = static_cast<char *>(attention.out) +
                       ((int64_t{work.first_token} + query) * attention.out_stride + int64_t{work.kv_head * group + row % group} * HeadDim) * 2;
#pragma unroll
            for (int n = 0; n < HeadDim / 8; n += 4) {
                uint32_t words[4];
#pragma unroll
                for (int i = 0; i < 4; ++i) words[i] = pack2<T>(out[4 * (n + i) + 2 * h] * scale, out[4 * (n + i) + 2 * h + 1] * scale);
                transpose_quad(words);
                if (query < work.num_queries) global_store(to + (n + lane_index() % 4) * 16, U32x4{words[0], words[1], words[2], words[3]});
            }
        }
    }
}

template <typename T, int HeadDim> SIMT_DEVICE void attention_prefill_sm90(const AttentionPrefillSm90Params &params) {
    using S = Shape<HeadDim>;
    const Shared<HeadDim> shared = shared_layout<HeadDim>();
    if (thread_index() == 0) {
        constexpr uint32_t kConsumerWarps = S::kConsumers * kGroupThreads / kWarpSize;
        mbarrier_init(shared.queries_filled, 1);
        mbarrier_init(shared.queries_emptied, kConsumerWarps);
        for (uint32_t ring : {shared.keys.barriers, shared.values.barriers})
            for (int i = 0; i < S::kStages; ++i) {
                mbarrier_init(ring + i * 8, 1);
                mbarrier_init(ring + (S::kStages + i) * 8, kConsumerWarps);
            }
        mbarrier_init_fence();
        for (const TensorMap *map : {&params.queries, &params.keys, &params.values}) tensor_map_prefetch(map);
    }
    sync_threads();
    if (warp_index() < 4) {
        registers_decrease<S::kProducerRegisters>();
        if (thread_index() == 0) produce<HeadDim>(params, shared);
    } else {
        registers_increase<S::kConsumerRegisters>();
        consume<T, HeadDim>(params, shared);
    }
}

}  // namespace

#define ATTENTION_PREFILL_SM90(name, T, HeadDim) \
    SIMT_KERNEL(name, AttentionPrefillSm90Params, Shape<HeadDim>::kThreads, 1, Shape<HeadDim>::kSharedBytes, attention_prefill_sm90<T, HeadDim>)

ATTENTION_PREFILL_SM90(attention_prefill_sm90_bf16_64, Bf16, 64)
ATTENTION_PREFILL_SM90(attention_prefill_sm90_bf16_96, Bf16, 96)
ATTENTION_PREFILL_SM90(attention_prefill_sm90_bf16_128, Bf16, 128)
ATTENTION_PREFILL_SM90(attention_prefill_sm90_bf16_256, Bf16, 256)
ATTENTION_PREFILL_SM90(attention_prefill_sm90_f16_64, Half, 64)
ATTENTION_PREFILL_SM90(attention_prefill_sm90_f16_96, Half, 96)
ATTENTION_PREFILL_SM90(attention_prefill_sm90_f16_128, Half, 128)
ATTENTION_PREFILL_SM90(attention_prefill_sm90_f16_256, Half, 256)
