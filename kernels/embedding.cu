// Rows by number, and one row added to all: embedding (16-bit table to the f32 residual stream), gather_rows, bias_add. All are copies in what they cost.
#include "rows.cuh"

using namespace simt;

namespace {

constexpr int kThreads = 256;
// Columns of a row that a block moves; the grids are (rows, columns / these rounded up).
constexpr int kQuads = 4;
constexpr int kEmbeddingColumns = kThreads * kQuads * 4;
constexpr int kOctets = 2;
constexpr int kColumns = kThreads * kOctets * 8;

// The f32 side decides the width of an access, as in rms_norm.cu.
template <typename T> SIMT_DEVICE void embedding(const EmbeddingParams &params) {
    const int64_t token = global_load<int32_t>(params.tokens + block_x());
    const T *from = static_cast<const T *>(params.table) + token * params.table_stride;  // [cols]
    float *out = params.out + block_x() * params.out_stride;                             // [cols]
    const bool table_aligned = rows_aligned(params.table, params.table_stride * 2, 8);
    const bool out_aligned = rows_aligned(params.out, params.out_stride * 4, 16);
    const int first = block_y() * kEmbeddingColumns + thread_index() * 4;
    float values[kQuads][4];
#pragma unroll
    for (int i = 0; i < kQuads; ++i) load_quad(from, first + i * kThreads * 4, params.cols, table_aligned, values[i]);
#pragma unroll
    for (int i = 0; i < kQuads; ++i) store_quad(out, first + i * kThreads * 4, params.cols, out_aligned, values[i]);
}

SIMT_DEVICE void gather_rows(const GatherRowsParams &params) {
    const int64_t row = global_load<int32_t>(params.rows + block_x());
    const uint16_t *from = static_cast<const uint16_t *>(params.input) + row * params.input_stride;  // [cols]
    uint16_t *out = static_cast<uint16_t *>(params.out) + block_x() * params.out_stride;             // [cols]
    const bool input_aligned = rows_aligned(params.input, params.input_stride * 2, 16);
    const bool out_aligned = rows_aligned(params.out, params.out_stride * 2, 16);
    const int64_t first = int64_t{block_y()} * kColumns + thread_index() * 8;
    U32x4 values[kOctets];
#pragma unroll
    for (int i = 0; i < kOctets; ++i) values[i] = load_octet<true>(from, first + i * kThreads * 8, params.cols, input_aligned);
#pragma unroll
    for (int i = 0; i < kOctets; ++i) store_octet(out, first + i * kThreads * 8, params.cols, out_aligned, values[i]);
}

template <typename T> SIMT_DEVICE void bias_add(const BiasAddParams &params) {
    uint16_t *values = static_cast<uint16_t *>(params.values) + block_x() * params.row_stride;  // [cols]
    const uint16_t *bias = static_cast<const uint16_t *>(params.bias);                          // [cols]
    const bool aligned = rows_aligned(params.values, params.row_stride * 2, 16);
    const bool bias_aligned = rows_aligned(params.bias, 0, 16);
    const int64_t first = int64_t{block_y()} * kColumns + thread_index() * 8;
    U32x4 packed[kOctets], biases[kOctets];
#pragma unroll
    for (int i = 0; i < kOctets; ++i) {
        packed[i] = load_octet(values, first + i * kThreads * 8, params.cols, aligned);
        biases[i] = load_octet(bias, first + i * kThreads * 8, params.cols, bias_aligned);
    }
#pragma unroll
    for (int i = 0; i < kOctets; ++i) {
        float sum[8], added[8];
        unpack8<T>(packed[i], sum);
        unpack8<T>(biases[i], added);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum[j] += added[j];
        store_octet(values, first + i * kThreads * 8, params.cols, aligned, pack8<T>(sum));
    }
}

}  // namespace

SIMT_KERNEL(embedding_bf16, EmbeddingParams, kThreads, 4, 0, embedding<Bf16>)
SIMT_KERNEL(embedding_f16, EmbeddingParams, kThreads, 4, 0, embedding<Half>)
SIMT_KERNEL(gather_rows_bf16, GatherRowsParams, kThreads, 4, 0, gather_rows)
SIMT_KERNEL(gather_rows_f16, GatherRowsParams, kThreads, 4, 0, gather_rows)
SIMT_KERNEL(bias_add_bf16, BiasAddParams, kThreads, 4, 0, bias_add<Bf16>)
SIMT_KERNEL(bias_add_f16, BiasAddParams, kThreads, 4, 0, bias_add<Half>)
