// out = input · weightᵀ (+ bias) for 1 to 16 rows, where all that costs is streaming the weights once.
//
// Tensor cores or FMA: at 4.3 TB/s each of 132 multiprocessors at 1.75 GHz takes in 18.6 bytes a cycle, 9.3 16-bit weights. By FMA every weight costs one
// conversion and one FMA a row, so 16 rows take 158 of the 128 instructions a multiprocessor issues to its lanes in a cycle, and 8 rows 84 before a single
// address is computed. One m16n8k16 takes 256 weights as they are stored times 8 rows: one every 28 cycles, under 5 % of the tensor cores. So mma, and
// one row costs what eight do.
//
// The sum over k may take its elements in any order, as long as both operands do: lane l loads the 16 bytes at k = 8 · (l % 4) of weight rows l / 4 and
// l / 4 + 8 and of input row l / 4, and their words are the fragments of two products. Nothing passes through shared memory. 32 features a warp keep the
// inputs' traffic from L2 at rows / 32 of the weights'. A thread asks for 128 bytes of weights before it multiplies the 128 before them, eight warps share k,
// and two blocks lie on a multiprocessor: 64 KB in flight, where a latency of 1 µs times the bandwidth is 33 KB.
//
// The order of a sum depends on in_features and num_splits alone, so num_splits has to be chosen by the weight's shape, never by the rows.
#include "rows.cuh"

using namespace simt;

namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kFeatures = 32;    // of a block: the grid is (out_features / kFeatures rounded up, num_splits)
constexpr int kFeatureTiles = kFeatures / 16;
constexpr int kLoads = 2;        // 16-byte loads of a row of weights that a lane has in flight a step
constexpr int kStep = kLoads * 32;  // elements of k that a warp takes at once: whole 128-byte lines
constexpr int kMaxRows = 16;
// Floats from one row's features to the next in shared memory: the four lanes of a fragment's row fall into different banks.
constexpr int kPitch = kFeatures + 4;
constexpr int kSharedBytes = (kWarps * kMaxRows * kPitch + 1) * sizeof(float);

// Where a lane reads; rows that do not exist are clamped to the last one, for their results are dropped.
struct Source {
    const uint16_t *weights[kFeatureTiles][2];  // [in_features]
    const uint16_t *inputs[kMaxRows / 8];       // [in_features]
    int64_t end;                                // of k
};

// One lane's weights of a step.
struct Weights {
    U32x4 octets[kFeatureTiles][2][kLoads];
};

// `Ragged`: the step may lie across the end of k, or rows may be misaligned.
template <bool Ragged> SIMT_DEVICE void load_weights(Weights &to, const Source &from, int64_t k) {
#pragma unroll
    for (int t = 0; t < kFeatureTiles; ++t)
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
            for (int i = 0; i < kLoads; ++i)
                to.octets[t][h][i] = Ragged ? load_octet(from.weights[t][h], k + i * 32, from.end, false) : global_load_once(from.weights[t][h] + k + i * 32);
}

template <int RowTiles, bool Ragged> SIMT_DEVICE void load_inputs(U32x4 (&to)[RowTiles][kLoads], const Source &from, int64_t k) {
#pragma unroll
    for (int n = 0; n < RowTiles; ++n)
#pragma unroll
        for (int i = 0; i < kLoads; ++i)
            to[n][i] = Ragged ? load_octet(from.inputs[n], k + i * 32, from.end, false) : global_load<U32x4>(from.inputs[n] + k + i * 32);
}

template <typename T, int RowTiles>
SIMT_DEVICE void multiply(float (&sums)[RowTiles][kFeatureTiles][4], const Weights &weights, const U32x4 (&inputs)[RowTiles][kLoads]) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i)
#pragma unroll
        for (int t = 0; t < kFeatureTiles; ++t) {
            const U32x4 low = weights.octets[t][0][i], high = weights.octets[t][1][i];
            const uint32_t first[4] = {low.x, high.x, low.y, high.y}, second[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
            for (int n = 0; n < RowTiles; ++n) {
                mma_m16n8k16<T>(sums[n][t], first, inputs[n][i].x, inputs[n][i].y);
                mma_m16n8k16<T>(sums[n][t], second, inputs[n][i].z, inputs[n][i].w);
            }
        }
}

template <typename T, int RowTiles> SIMT_DEVICE void linear_skinny_tiles(const LinearSkinnyParams &params) {
    const int lane = lane_index(), warp = warp_index(), first_feature = block_x() * kFeatures;
    const int64_t steps = (params.in_features + kStep - 1) / kStep;
    const int64_t split_len = (steps + params.num_splits - 1) / params.num_splits * kStep;
    const int64_t begin = block_y() * split_len;
    Source source;
#pragma unroll
    for (int i = 0; i < kFeatureTiles * 2; ++i) {
        const int64_t feature = minimum(first_feature + i * 8 + lane / 4, params.out_features - 1);
        source.weights[i / 2][i % 2] = static_cast<const uint16_t *>(params.weight) + feature * params.weight_stride;
    }
#pragma unroll
    for (int n = 0; n < kMaxRows / 8; ++n)
        source.inputs[n] = static_cast<const uint16_t *>(params.input) + minimum(n * 8 + lane / 4, params.rows - 1) * params.input_stride;
    source.end = begin + split_len < params.in_features ? begin + split_len : params.in_features;
    const bool aligned = rows_aligned(params.weight, params.weight_stride * 2, 16) && rows_aligned(params.input, params.input_stride * 2, 16);

    float sums[RowTiles][kFeatureTiles][4] = {};
    U32x4 inputs[RowTiles][kLoads];
    Weights weights;
    const int octet = lane % 4 * 8;
    const int64_t whole_end = aligned ? source.end - kStep : -1;  // the last k at which a whole step begins
    int64_t k = begin + warp * kStep;
    if (k <= whole_end) load_weights<false>(weights, source, k + octet);
    while (k <= whole_end) {
        const Weights now = weights;
        load_inputs<RowTiles, false>(inputs, source, k + octet);
        k += kWarps * kStep;
        if (k <= whole_end) load_weights<false>(weights, source, k + octet);
        multiply<T>(sums, now, inputs);
    }
    for (; k < source.end; k += kWarps * kStep) {
        load_inputs<RowTiles, true>(inputs, source, k + octet);
        load_weights<true>(weights, source, k + octet);
        multiply<T>(sums, weights, inputs);
    }

    // Element e of a sum: feature lane / 4 + 8 · (e / 2), row 2 · (lane % 4) + e % 2.
    const uint32_t shared = shared_base();
#pragma unroll
    for (int n = 0; n < RowTiles; ++n)
#pragma unroll
        for (int t = 0; t < kFeatureTiles; ++t)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int row = n * 8 + lane % 4 * 2 + e % 2, feature = t * 16 + lane / 4 + e / 2 * 8;
                shared_store(shared + ((warp * kMaxRows + row) * kPitch + feature) * 4, sums[n][t][e]);
            }
    sync_threads();

    const int feature = first_feature + thread_index() % kFeatures, rows = params.rows;
    constexpr int kRowsAtOnce = kThreads / kFeatures;
    float totals[RowTiles * 8 / kRowsAtOnce];
#pragma unroll
    for (int i = 0; i < RowTiles * 8 / kRowsAtOnce; ++i) {
        const int row = i * kRowsAtOnce + thread_index() / kFeatures;
        totals[i] = 0.0f;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) totals[i] += shared_load<float>(shared + ((w * kMaxRows + row) * kPitch + thread_index() % kFeatures) * 4);
        if (params.num_splits > 1 && row < rows && feature < params.out_features)
            global_store(params.partial + (int64_t{block_y()} * rows + row) * params.out_features + feature, totals[i]);
    }
    if (params.num_splits > 1 && !is_last_block(params.counters + block_x(), params.num_splits, shared + kSharedBytes - 4)) return;

    if (feature >= params.out_features) return;
    const float bias = params.bias ? to_float(global_load<T>(static_cast<const T *>(params.bias) + feature)) : 0.0f;
#pragma unroll
    for (int i = 0; i < RowTiles * 8 / kRowsAtOnce; ++i) {
        const int row = i * kRowsAtOnce + thread_index() / kFeatures;
        if (row >= rows) continue;
        if (params.num_splits > 1) {
            totals[i] = 0.0f;
            for (int64_t split = 0; split < params.num_splits; ++split)
                totals[i] += global_load<float>(params.partial + (split * rows + row) * params.out_features + feature);
        }
        global_store(static_cast<T *>(params.out) + row * params.out_stride + feature, from_float<T>(totals[i] + bias));
    }
}

template <typename T> SIMT_DEVICE void linear_skinny(const LinearSkinnyParams &params) {
    if (params.rows <= 8) linear_skinny_tiles<T, 1>(params);
    else linear_skinny_tiles<T, 2>(params);
}

}  // namespace

SIMT_KERNEL(linear_skinny_bf16, LinearSkinnyParams, kThreads, 2, kSharedBytes, linear_skinny<Bf16>)
SIMT_KERNEL(linear_skinny_f16, LinearSkinnyParams, kThreads, 2, kSharedBytes, linear_skinny<Half>)
