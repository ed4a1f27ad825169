// Decode attention: a few query rows of a sequence over its whole paged cache, with mma.sync.
//
// The cache is read once, at the memory's speed, so everything else is kept out of its way: the query heads of a KV group and the query rows (a token and
// its draft) are packed into one tile of 16 or 64 rows, padded for the tensor cores, which have time to spare; long contexts are split over blocks; inside
// a block, teams of warps take turns at tiles of 16 tokens, each team with a ring of cp.async copies of its own, so that no barrier of the whole block
// stands between two copies. Teams are merged in shared memory; splits by the block of a sequence and head that finishes last.
//
// Splits and tiles begin at multiples of their length, teams take tiles by number, and all sums run in ascending order: a row's bits depend on its
// sequence alone, and with 16 rows, 64 rows, one query row and sixteen they are the same.
//
// An FP8 cache (E4M3, one scale a head) is widened to bf16 or f16 in registers, exactly; products and sums are those of a 16-bit cache, in f32.
#include "attention_tile.cuh"
#include "simt.cuh"

using namespace simt;

namespace {

constexpr int kTokens = 16;  // of a tile: the depth of one product, and no more than the smallest block, so that a tile is one run of memory
constexpr int kMaxSplits = 128;  // of a sequence: the last block keeps their weights in shared memory

template <typename Stored, int HeadDim, int Rows, bool Deep> struct DecodeShape {
    static_assert(Rows == 16 || Rows == 64, "rows of a tile");
    // Not by `Rows`: the teams' number is part of the order of summation.
    static constexpr int kTeams = HeadDim <= 128 ? 4 : 2;
    // 16-row tiles a warp holds: two halve the reads of shared memory, and do not fit beside the output of 256 columns.
    static constexpr int kRowTiles = Rows == 64 && HeadDim <= 128 ? 2 : 1;
    static constexpr int kTeamWarps = Rows / 16 / kRowTiles;
    static constexpr int kTeamThreads = kTeamWarps * kWarpSize;
    static constexpr int kThreads = kTeams * kTeamThreads;

    static constexpr int kRowBytes = HeadDim * sizeof(Stored);
    static constexpr uint32_t kTileBytes = kTokens * kRowBytes;
    static constexpr uint32_t kStageBytes = kTeams * 2 * kTileBytes;
    // A block fits the 99 KB that sm_86, sm_89 and sm_120 give it. Little's law asks for 30 KB under way on an H200 (4.8 TB/s, 800 ns): with 16 rows three
    // blocks of a multiprocessor bring 96 to 150 KB at a time; 64 rows over 16-bit keys of 128 and 256 have the registers for one block, which a third
    // stage brings from 32 to 64 KB where the chip has room for it.
    static constexpr int kFitting = (Deep ? 98304 : 81920) / kStageBytes, kStages = kFitting < 4 ? kFitting : 4;
    static_assert(kStages >= 2, "a tile arrives while another is computed with");
    static constexpr uint32_t kQueryBytes = Rows * HeadDim * 2;
    // Rows of the merged output, f32; the 32 bytes spread a fragment's rows over the banks.
    static constexpr uint32_t kOutStride = HeadDim * 4 + 32;
    static constexpr uint32_t kKvBytes = kStages * kStageBytes > Rows * kOutStride ? kStages * kStageBytes : Rows * kOutStride;
    static_assert(kTeams * Rows * sizeof(F32x2) <= kQueryBytes, "the teams' sums take the queries' place");
    static_assert(Rows * kMaxSplits * sizeof(float) <= kKvBytes, "the splits' weights take the tiles' place");
    static constexpr uint32_t kSharedBytes = kQueryBytes + kKvBytes;
    static_assert(Deep || kSharedBytes <= 101376, "more shared memory than the smallest chips give a block");
};

// The rows that a block computes, of one sequence and one KV head: row r is query r / group, head r % group of the group.
struct DecodeRows {
    int64_t query_start;  // row of the batch
    int32_t first, count;
    int32_t group, first_head;

    SIMT_DEVICE int64_t offset(int row, int64_t stride, int head_dim) const {
        const uint32_t packed = first + row, query = packed / static_cast<uint32_t>(group);
        return (query_start + query) * stride + int64_t{first_head + static_cast<int32_t>(packed - query * group)} * head_dim;
    }
};

// Starts copying a tile's tokens, which lie side by side; from token `valid` on they become zeros, for whatever is stored there could be NaN.
template <typename Shape> SIMT_DEVICE void copy_tokens(uint32_t to_shared, const char *from, int valid, int team_thread) {
    constexpr int kColumns = Shape::kRowBytes / 16, kPieces = kTokens * kColumns;
#pragma unroll
    for (int first = 0; first < kPieces; first += Shape::kTeamThreads) {
        const int piece = first + team_thread, row = piece / kColumns, column = piece % kColumns;
        if (kPieces % Shape::kTeamThreads == 0 || piece < kPieces)
            copy_async_16(to_shared + tile_offset<Shape::kRowBytes / 2>(row, column), row < valid ? from + piece * 16 : from, row < valid);
    }
}

// Brings the rows' queries to shared memory, zeros behind them. An FP8 key's register widens to elements 0 and 2, then 1 and 3 of four neighbours;
// queries take the same order inside each 16.
template <typename Shape, typename Stored, int HeadDim, int Rows>
SIMT_DEVICE void load_queries(uint32_t shared_q, const AttentionDecodeParams &params, const DecodeRows &rows) {
    for (int i = thread_index(); i < Rows * HeadDim / 16; i += Shape::kThreads) {
        const int row = i / (HeadDim / 16), column = i % (HeadDim / 16) * 2;
        U32x4 low = {}, high = {};
        if (row < rows.count) {
            const char *from = static_cast<const char *>(params.q) + (rows.offset(row, params.q_stride, HeadDim) + column * 8) * 2;
            low = global_load<U32x4>(from);
            high = global_load<U32x4>(from + 16);
        }
        if constexpr (sizeof(Stored) == 1) {
            const auto even = [](uint32_t a, uint32_t b) { return (a & 0xffff) | b << 16; };
            const auto odd = [](uint32_t a, uint32_t b) { return a >> 16 | (b & 0xffff0000); };
            const U32x4 a = low, b = high;
            low = {even(a.x, a.y), even(a.z, a.w), even(b.x, b.y), even(b.z, b.w)};
            high = {odd(a.x, a.y), odd(a.z, a.w), odd(b.x, b.y), odd(b.z, b.w)};
        }
        shared_store(shared_q + tile_offset<HeadDim>(row, column), low);
        shared_store(shared_q + tile_offset<HeadDim>(row, column + 1), high);
    }
}

// What a warp accumulates: RowTiles tiles of 16 rows. Element (h, i) of a lane: row lane / 4 + 8 · h.
template <int HeadDim, int RowTiles> struct Accumulator {
    float out[RowTiles][HeadDim / 8][4] = {};
    float row_max[RowTiles][2], row_sum[RowTiles][2] = {};
};

// scores = queries · keysᵀ. A step reads 32 bytes of each key: the operands of one product of depth 16, or of two when they are FP8.
template <typename T, typename Stored, int HeadDim, int RowTiles>
SIMT_DEVICE void multiply_keys(float (&scores)[RowTiles][2][4], uint32_t shared_q, uint32_t shared_k, int warp_row) {
    constexpr int kProducts = 2 / sizeof(Stored);
    const int lane = lane_index();
#pragma unroll 2
    for (int step = 0; step < HeadDim / 16 / kProducts; ++step) {
        uint32_t r[4], keys[kProducts][2][2];
        load_matrix_x4(r, shared_k + tile_offset<HeadDim * sizeof(Stored) / 2>(lane / 16 * 8 + lane % 8, step * 2 + lane / 8 % 2));
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if constexpr (sizeof(Stored) == 1) unpack4_e4m3<T>(r[i], keys[i % 2][i / 2][0], keys[i % 2][i / 2][1]);
            else keys[0][i / 2][i % 2] = r[i];
        }
#pragma unroll
        for (int p = 0; p < kProducts; ++p)
#pragma unroll
            for (int t = 0; t < RowTiles; ++t) {
                uint32_t a[4];
                load_matrix_x4(a, shared_q + tile_offset<HeadDim>(warp_row + t * 16 + lane % 16, (step * kProducts + p) * 2 + lane / 16));
                mma_m16n8k16<T>(scores[t][0], a, keys[p][0][0], keys[p][0][1]);
                mma_m16n8k16<T>(scores[t][1], a, keys[p][1][0], keys[p][1][1]);
            }
    }
}

// out += weights · values. FP8 values widen to two tiles of columns, of the even and of the odd ones.
template <typename T, typename Stored, int HeadDim, int RowTiles>
SIMT_DEVICE void multiply_values(float (&out)[RowTiles][HeadDim / 8][4], const uint32_t (&weights)[RowTiles][4], uint32_t shared_v) {
    constexpr int kTiles = 4 / sizeof(Stored);
    const int lane = lane_index();
#pragma unroll
    for (int step = 0; step < HeadDim / 8 / kTiles; ++step) {
        uint32_t r[4], values[kTiles][2];
        load_matrix_x4_transposed(r, shared_v + tile_offset<HeadDim * sizeof(Stored) / 2>(lane % 16, step * 2 + lane / 16));
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if constexpr (sizeof(Stored) == 1) unpack4_e4m3<T>(r[i], values[i / 2 * 2][i % 2], values[i / 2 * 2 + 1][i % 2]);
            else values[i / 2][i % 2] = r[i];
        }
#pragma unroll
        for (int n = 0; n < kTiles; ++n)
#pragma unroll
            for (int t = 0; t < RowTiles; ++t) mma_m16n8k16<T>(out[t][step * kTiles + n], weights[t], values[n][0], values[n][1]);
    }
}

// Merges the teams' outputs into shared memory, f32 and normalised, in the order of the teams; stores the rows' logarithms when asked.
template <typename Shape, typename Stored, int HeadDim, int Rows>
SIMT_DEVICE void merge_teams(uint32_t shared_sums, uint32_t shared_out, const Accumulator<HeadDim, Shape::kRowTiles> &sums, float scale_log2e,
                             float value_scale, int num_rows, float *lse) {
    const int lane = lane_index(), team = warp_index() / Shape::kTeamWarps, warp_row = warp_index() % Shape::kTeamWarps * Shape::kRowTiles * 16;
    float factor[Shape::kRowTiles][2];
#pragma unroll
    for (int t = 0; t < Shape::kRowTiles; ++t)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int row = warp_row + t * 16 + lane / 4 + h * 8;
            const float sum = warp_sum<4>(sums.row_sum[t][h]);
            if (lane % 4 == 0) shared_store(shared_sums + (team * Rows + row) * 8, F32x2{sums.row_max[t][h], sum});
        }
    sync_threads();
#pragma unroll
    for (int t = 0; t < Shape::kRowTiles; ++t)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int row = warp_row + t * 16 + lane / 4 + h * 8;
            F32x2 teams[Shape::kTeams];
            float highest = -infinity(), sum = 0.0f;
#pragma unroll
            for (int i = 0; i < Shape::kTeams; ++i) {
                teams[i] = shared_load<F32x2>(shared_sums + (i * Rows + row) * 8);
                highest = maximum(highest, teams[i].x);
            }
            // A row that sees nothing of this split has a weight of 0 everywhere.
            const float scaled = highest == -infinity() ? 0.0f : highest * scale_log2e;
#pragma unroll
            for (int i = 0; i < Shape::kTeams; ++i) sum += teams[i].y * exp2_approx(simt::fma(teams[i].x, scale_log2e, -scaled));
            const float own = exp2_approx(simt::fma(sums.row_max[t][h], scale_log2e, -scaled));
            factor[t][h] = sum > 0.0f ? own * (value_scale / sum) : 0.0f;
            if (lse && team == 0 && lane % 4 == 0 && row < num_rows) global_store(lse + row, sum > 0.0f ? scaled + log2_approx(sum) : -infinity());
        }

    for (int turn = 0; turn < Shape::kTeams; ++turn) {
        if (turn == team) {
#pragma unroll
            for (int t = 0; t < Shape::kRowTiles; ++t)
#pragma unroll
                for (int n = 0; n < HeadDim / 8; ++n)
#pragma unroll
                    for (int h = 0; h < 2; ++h) {
                        const int row = warp_row + t * 16 + lane / 4 + h * 8;
                        // Columns of FP8 tiles come as even and odd: two tiles hold four neighbours.
                        const auto &even = sums.out[t][n / 2 * 2], &odd = sums.out[t][n / 2 * 2 + 1], &own = sums.out[t][n];
                        const bool stored_8_bits = sizeof(Stored) == 1;
                        const int column = stored_8_bits ? n / 2 * 16 + lane % 4 * 4 + n % 2 * 2 : n * 8 + lane % 4 * 2;
                        const float x = stored_8_bits ? even[2 * h + n % 2] : own[2 * h], y = stored_8_bits ? odd[2 * h + n % 2] : own[2 * h + 1];
                        const uint32_t at = shared_out + row * Shape::kOutStride + column * 4;
                        if (row < num_rows) {
                            F32x2 merged = turn ? shared_load<F32x2>(at) : F32x2{};
                            merged.x = simt::fma(x, factor[t][h], merged.x);
                            merged.y = simt::fma(y, factor[t][h], merged.y);
                            shared_store(at, merged);
                        }
                    }
        }
        sync_threads();
    }
}

// Adds the splits of a block of rows in ascending order; `partial_out` [splits, rows, HeadDim] and `partial_lse` [splits, rows], rows row_stride apart.
template <typename Shape, int HeadDim, int Rows, typename Store>
SIMT_DEVICE void combine_splits(uint32_t shared_weights, const float *partial_out, const float *partial_lse, int num_splits, int64_t row_stride,
                                int num_rows, Store store) {
    for (int i = thread_index(); i < num_splits * num_rows; i += Shape::kThreads) {
        const int split = i / num_rows, row = i % num_rows;
        shared_store(shared_weights + (row * kMaxSplits + split) * 4, global_load<float>(partial_lse + split * row_stride + row));
    }
    sync_threads();
    for (int row = warp_index(); row < num_rows; row += Shape::kThreads / kWarpSize) {
        const uint32_t weights = shared_weights + row * kMaxSplits * 4;
        float highest = -infinity();
        for (int split = lane_index(); split < num_splits; split += kWarpSize) highest = maximum(highest, shared_load<float>(weights + split * 4));
        highest = warp_max(highest);
        for (int split = lane_index(); split < num_splits; split += kWarpSize)
            shared_store(weights + split * 4, exp2_approx(shared_load<float>(weights + split * 4) - highest));
    }
    sync_threads();
    for (int i = thread_index(); i < num_rows * HeadDim / 4; i += Shape::kThreads) {
        const int row = i / (HeadDim / 4), column = i % (HeadDim / 4);
        F32x4 sum = {};
        float total = 0.0f;
#pragma unroll 8
        for (int split = 0; split < num_splits; ++split) {
            const float weight = shared_load<float>(shared_weights + (row * kMaxSplits + split) * 4);
            const F32x4 part = global_load<F32x4>(partial_out + (split * row_stride + row) * HeadDim + column * 4);
            sum = {simt::fma(weight, part.x, sum.x), simt::fma(weight, part.y, sum.y), simt::fma(weight, part.z, sum.z), simt::fma(weight, part.w, sum.w)};
            total += weight;
        }
        const float scale = 1.0f / total;
        store(row, column, F32x4{sum.x * scale, sum.y * scale, sum.z * scale, sum.w * scale});
    }
}

// Tokens of a split of a context: the smallest of the lengths min, 1.25 min, 1.5 min, 1.75 min, 2 min, 2.5 min … of which `most` reach.
SIMT_DEVICE int decode_split_len(int kv_len, int min, int most) {
    int octave = min, len = min;
    while (int64_t{len} * most < kv_len) {
        len += octave / 4;
        if (len == 2 * octave) octave = len;
    }
    return len;
}

template <typename T, typename Stored, int HeadDim, int Rows, bool Deep> SIMT_DEVICE void attention_decode(const AttentionDecodeParams &params) {
    using Shape = DecodeShape<Stored, HeadDim, Rows, Deep>;
    constexpr int kStages = Shape::kStages, kTeams = Shape::kTeams, kRowTiles = Shape::kRowTiles;

    // ---- which rows, which tokens ----
    const int sequence = block_z(), group = params.num_heads / params.cache.num_kv_heads, row_tiles = grid_y() / params.cache.num_kv_heads;
    const int kv_head_index = block_y() / row_tiles, row_tile = block_y() % row_tiles;
    const SequenceSpan span = load_span(params.sequences, sequence);
    const DecodeRows rows = {span.query_start, row_tile * Rows, minimum(Rows, span.query_len * group - row_tile * Rows), group, kv_head_index * group};
    if (rows.count <= 0) return;
    const int start_position = span.kv_len - span.query_len;
    const int first_position = start_position + rows.first / group;
    const int last_position = start_position + (rows.first + rows.count - 1) / group;
    const int first_key = params.window ? maximum(0, first_position - params.window + 1) : 0;
    const int split_len = decode_split_len(span.kv_len, params.min_split_len, params.num_splits);
    const int first_split = first_key / split_len, num_splits = last_position / split_len + 1 - first_split;
    if (static_cast<int>(block_x()) >= num_splits) return;
    const int split = first_split + block_x();
    const int first_tile = maximum(split * split_len, first_key) / kTokens;
    const int end_tile = (minimum((split + 1) * split_len, last_position + 1) + kTokens - 1) / kTokens;

    const int lane = lane_index(), team = warp_index() / Shape::kTeamWarps, team_thread = thread_index() % Shape::kTeamThreads;
    const int warp_row = warp_index() % Shape::kTeamWarps * kRowTiles * 16;
    const int team_first = first_tile + ((team - first_tile) & (kTeams - 1));
    const int team_tiles = team_first < end_tile ? (end_tile - team_first + kTeams - 1) / kTeams : 0;
    const uint32_t shared_q = shared_base();
    const uint32_t shared_kv = shared_q + Shape::kQueryBytes + team * kStages * 2 * Shape::kTileBytes;

    // ---- the team's walk over its tiles ----
    const KvHead kv = kv_head(params.cache, params.sequences, sequence, kv_head_index);
    int held_blocks = 0;  // lane l: the block of the team's tile l, or 32 · n + l
    const auto copy_tile = [&](int i) {
        if (i % kWarpSize == 0 && i + lane < team_tiles)
            held_blocks = global_load<int32_t>(kv.block_table + ((team_first + (i + lane) * kTeams) * kTokens >> kv.block_size_log2));
        if (i < team_tiles) {
            const int token = (team_first + i * kTeams) * kTokens;
            const int64_t block = shuffle(held_blocks, i % kWarpSize);
            const int64_t offset = (block * kv.block_stride + kv.offset + (token & ((1 << kv.block_size_log2) - 1)) * HeadDim) * sizeof(Stored);
            const uint32_t to = shared_kv + i % kStages * 2 * Shape::kTileBytes;
            copy_tokens<Shape>(to, static_cast<const char *>(params.cache.keys) + offset, span.kv_len - token, team_thread);
            copy_tokens<Shape>(to + Shape::kTileBytes, static_cast<const char *>(params.cache.values) + offset, span.kv_len - token, team_thread);
        }
        copy_async_commit();
    };
    for (int i = 0; i < kStages - 1; ++i) copy_tile(i);
    load_queries<Shape, Stored, HeadDim, Rows>(shared_q, params, rows);
    float key_scale = 1.0f, value_scale = 1.0f;
    if constexpr (sizeof(Stored) == 1) {
        key_scale = global_load<float>(params.cache.key_scales + kv_head_index);
        value_scale = global_load<float>(params.cache.value_scales + kv_head_index);
    }
    const float scale_log2e = params.scale_log2e * key_scale;
    int positions[kRowTiles][2];
    Accumulator<HeadDim, kRowTiles> sums;
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            positions[t][h] = start_position + (rows.first + warp_row + t * 16 + lane / 4 + h * 8) / group;
            sums.row_max[t][h] = -infinity();
        }
    sync_threads();

    for (int i = 0; i < team_tiles; ++i) {
        copy_async_wait<kStages - 2>();
        // The tile has arrived for all, and all are done with the tile before, whose place the next copy takes.
        if constexpr (Shape::kTeamWarps == 1) sync_warp();
        else barrier_sync(1 + team, Shape::kTeamThreads);
        copy_tile(i + kStages - 1);

        const int first_token = (team_first + i * kTeams) * kTokens;
        const uint32_t shared_k = shared_kv + i % kStages * 2 * Shape::kTileBytes;
        float scores[kRowTiles][2][4] = {};
        multiply_keys<T, Stored, HeadDim>(scores, shared_q, shared_k, warp_row);
        if (first_token + kTokens - 1 > first_position || (params.window && first_token + params.window <= last_position)) {
#pragma unroll
            for (int t = 0; t < kRowTiles; ++t)
#pragma unroll
                for (int e = 0; e < 8; ++e) {
                    const int key = first_token + e / 4 * 8 + lane % 4 * 2 + e % 2, position = positions[t][e / 2 % 2];
                    const bool visible = key <= position && (!params.window || key + params.window > position);
                    if (!visible) scores[t][e / 4][e % 4] = -infinity();
                }
        }
        uint32_t weights[kRowTiles][4];
#pragma unroll
        for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const float factor = softmax_rows<2>(scores[t], h, scale_log2e, sums.row_max[t][h], sums.row_sum[t][h]);
#pragma unroll
                for (int n = 0; n < HeadDim / 8; ++n) {
                    sums.out[t][n][2 * h] *= factor;
                    sums.out[t][n][2 * h + 1] *= factor;
                }
            }
#pragma unroll
            for (int r = 0; r < 4; ++r) weights[t][r] = pack2<T>(scores[t][r / 2][r % 2 * 2], scores[t][r / 2][r % 2 * 2 + 1]);
        }
        multiply_values<T, Stored, HeadDim>(sums.out, weights, shared_k + Shape::kTileBytes);
    }
    copy_async_wait<0>();
    sync_threads();

    // ---- the rows of this split, then of all ----
    const uint32_t shared_out = shared_q + Shape::kQueryBytes;
    const int64_t row_stride = int64_t{params.max_query_len} * group;
    const int64_t first_partial = (int64_t{sequence} * params.cache.num_kv_heads + kv_head_index) * params.num_splits * row_stride + rows.first;
    float *partial_lse = params.partial_lse + first_partial, *partial_out = params.partial_out + first_partial * HeadDim;
    const auto store = [&](int row, int column, F32x4 v) {
        char *to = static_cast<char *>(params.out) + (rows.offset(row, params.out_stride, HeadDim) + column * 4) * 2;
        global_store(to, U32x2{pack2<T>(v.x, v.y), pack2<T>(v.z, v.w)});
    };
    merge_teams<Shape, Stored, HeadDim, Rows>(shared_q, shared_out, sums, scale_log2e, value_scale, rows.count,
                                              num_splits > 1 ? partial_lse + block_x() * row_stride : nullptr);
    for (int i = thread_index(); i < rows.count * HeadDim / 4; i += Shape::kThreads) {
        const int row = i / (HeadDim / 4), column = i % (HeadDim / 4);
        const F32x4 merged = shared_load<F32x4>(shared_out + row * Shape::kOutStride + column * 16);
        if (num_splits == 1) store(row, column, merged);
        else global_store(partial_out + (block_x() * row_stride + row) * HeadDim + column * 4, merged);
    }
    if (num_splits == 1) return;

    int32_t *counter = params.counters + int64_t{sequence} * grid_y() + block_y();
    fence_device();
    sync_threads();
    if (thread_index() == 0) shared_store(shared_q, atomic_add(counter, 1));
    sync_threads();
    if (shared_load<int32_t>(shared_q) != num_splits - 1) return;
    fence_device();
    if (thread_index() == 0) global_store(counter, 0);
    combine_splits<Shape, HeadDim, Rows>(shared_out, partial_out, partial_lse, num_splits, row_stride, rows.count, store);
}

}  // namespace

#define ATTENTION_DECODE(name, T, Stored, HeadDim, Rows, Deep)                                                       \
    SIMT_KERNEL(name, AttentionDecodeParams, (DecodeShape<Stored, HeadDim, Rows, Deep>::kThreads), 1,                \
                (DecodeShape<Stored, HeadDim, Rows, Deep>::kSharedBytes), attention_decode<T, Stored, HeadDim, Rows, Deep>)
#define ATTENTION_DECODE_ROWS(type, T, HeadDim)                                                     \
    ATTENTION_DECODE(attention_decode_##type##_##HeadDim##_rows16, T, T, HeadDim, 16, false)        \
    ATTENTION_DECODE(attention_decode_##type##_##HeadDim##_rows64, T, T, HeadDim, 64, false)        \
    ATTENTION_DECODE(attention_decode_##type##_##HeadDim##_rows16_fp8, T, E4m3, HeadDim, 16, false) \
    ATTENTION_DECODE(attention_decode_##type##_##HeadDim##_rows64_fp8, T, E4m3, HeadDim, 64, false)

ATTENTION_DECODE_ROWS(bf16, Bf16, 64)
ATTENTION_DECODE_ROWS(bf16, Bf16, 96)
ATTENTION_DECODE_ROWS(bf16, Bf16, 128)
ATTENTION_DECODE_ROWS(bf16, Bf16, 256)
ATTENTION_DECODE_ROWS(f16, Half, 64)
ATTENTION_DECODE_ROWS(f16, Half, 96)
ATTENTION_DECODE_ROWS(f16, Half, 128)
ATTENTION_DECODE_ROWS(f16, Half, 256)

ATTENTION_DECODE(attention_decode_bf16_128_rows64_deep, Bf16, Bf16, 128, 64, true)
ATTENTION_DECODE(attention_decode_bf16_256_rows64_deep, Bf16, Bf16, 256, 64, true)
ATTENTION_DECODE(attention_decode_f16_128_rows64_deep, Half, Half, 128, 64, true)
ATTENTION_DECODE(attention_decode_f16_256_rows64_deep, Half, Half, 256, 64, true)
