// RMSNorm fused with the residual add before it: memory is read and written once, at 12 bytes an element (6 without a delta).
//
// A block holds a row in registers between the sum of squares and the scaling. The f32 residual stream decides the width of an access: 16 bytes of it go
// with 8 bytes of the 16-bit rows, so that every warp touches whole lines. What is in flight, a whole row of some 30 KB a block with several blocks on a
// multiprocessor, is more than latency times bandwidth asks for.
#include "rows.cuh"

using namespace simt;

namespace {

constexpr int kThreads = 512;
// Columns of a row that stay in registers; columns behind them are read again, from L2.
constexpr int kHeldQuads = 4;
constexpr int kSharedBytes = kThreads / kWarpSize * sizeof(float);

template <typename T> SIMT_DEVICE void rms_norm(const RmsNormParams &params) {
    const int64_t row = block_x() * params.row_stride;
    float *residual = params.residual + row;                          // [cols]
    const T *delta = static_cast<const T *>(params.delta) + (params.delta ? row : 0);  // [cols] or null
    const T *weight = static_cast<const T *>(params.weight);          // [cols]
    T *out = static_cast<T *>(params.out) + row;                      // [cols]
    const int cols = params.cols;
    const bool aligned = rows_aligned(params.residual, params.row_stride * 4, 16) && rows_aligned(params.delta, params.row_stride * 2, 8) &&
                         rows_aligned(params.out, params.row_stride * 2, 8);
    const bool weight_aligned = rows_aligned(params.weight, 0, 8);

    float held[kHeldQuads][4], weights[kHeldQuads][4], sum = 0.0f;
    const auto add_delta = [&](int column, float(&values)[4]) {
        load_quad(residual, column, cols, aligned, values);
        if (!params.delta) return;
        float added[4];
        load_quad(delta, column, cols, aligned, added);
#pragma unroll
        for (int i = 0; i < 4; ++i) values[i] += added[i];
    };
    const auto square = [&](const float(&values)[4]) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sum = simt::fma(values[i], values[i], sum);
    };
#pragma unroll
    for (int q = 0; q < kHeldQuads; ++q) {
        const int column = (q * kThreads + thread_index()) * 4;
        add_delta(column, held[q]);
        load_quad(weight, column, cols, weight_aligned, weights[q]);
    }
#pragma unroll
    for (int q = 0; q < kHeldQuads; ++q) {
        if (params.delta) store_quad(residual, (q * kThreads + thread_index()) * 4, cols, aligned, held[q]);
        square(held[q]);
    }
    for (int column = (kHeldQuads * kThreads + thread_index()) * 4; column < cols; column += kThreads * 4) {
        float values[4];
        add_delta(column, values);
        if (params.delta) store_quad(residual, column, cols, aligned, values);
        square(values);
    }

    const float total = block_reduce(sum, shared_base(), [](float a, float b) { return a + b; });
    const float factor = rsqrt_approx(total / cols + params.eps);
    const auto finish = [&](int column, const float(&values)[4], const float(&scales)[4]) {
        float scaled[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) scaled[i] = values[i] * factor * scales[i];
        store_quad(out, column, cols, aligned, scaled);
    };
#pragma unroll
    for (int q = 0; q < kHeldQuads; ++q) finish((q * kThreads + thread_index()) * 4, held[q], weights[q]);
    for (int column = (kHeldQuads * kThreads + thread_index()) * 4; column < cols; column += kThreads * 4) {
        float values[4], scales[4];
        load_quad(residual, column, cols, aligned, values);
        load_quad(weight, column, cols, weight_aligned, scales);
        finish(column, values, scales);
    }
}

}  // namespace

SIMT_KERNEL(rms_norm_bf16, RmsNormParams, kThreads, 2, kSharedBytes, rms_norm<Bf16>)
SIMT_KERNEL(rms_norm_f16, RmsNormParams, kThreads, 2, kSharedBytes, rms_norm<Half>)
