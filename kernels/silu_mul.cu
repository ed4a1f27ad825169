// SiLU(gate) · up, at 6 bytes an output element. Every thread has four loads of 16 bytes in flight.
#include "rows.cuh"

using namespace simt;

namespace {

constexpr int kThreads = 256;
constexpr int kOctets = 2;
// Columns of a row that a block computes; the grid is (rows, columns / kColumns rounded up).
constexpr int kColumns = kThreads * kOctets * 8;

template <typename T> SIMT_DEVICE void silu_mul(const SiluMulParams &params) {
    const int64_t cols = params.cols;
    const uint16_t *gate = static_cast<const uint16_t *>(params.gate_up) + block_x() * params.gate_up_stride;  // [cols]
    const uint16_t *up = gate + cols;                                                                          // [cols]
    uint16_t *out = static_cast<uint16_t *>(params.out) + block_x() * params.out_stride;                       // [cols]
    const bool gate_aligned = rows_aligned(params.gate_up, params.gate_up_stride * 2, 16);
    const bool up_aligned = gate_aligned && cols % 8 == 0;
    const bool out_aligned = rows_aligned(params.out, params.out_stride * 2, 16);

    const int64_t first = int64_t{block_y()} * kColumns + thread_index() * 8;
    U32x4 gates[kOctets], ups[kOctets];
#pragma unroll
    for (int i = 0; i < kOctets; ++i) {
        gates[i] = load_octet<true>(gate, first + i * kThreads * 8, cols, gate_aligned);
        ups[i] = load_octet<true>(up, first + i * kThreads * 8, cols, up_aligned);
    }
#pragma unroll
    for (int i = 0; i < kOctets; ++i) {
        float x[8], y[8];
        unpack8<T>(gates[i], x);
        unpack8<T>(ups[i], y);
        constexpr float kLog2E = 1.44269504f;
#pragma unroll
        for (int j = 0; j < 8; ++j) y[j] *= x[j] * reciprocal_approx(1.0f + exp2_approx(-kLog2E * x[j]));
        store_octet(out, first + i * kThreads * 8, cols, out_aligned, pack8<T>(y));
    }
}

}  // namespace

SIMT_KERNEL(silu_mul_bf16, SiluMulParams, kThreads, 4, 0, silu_mul<Bf16>)
SIMT_KERNEL(silu_mul_f16, SiluMulParams, kThreads, 4, 0, silu_mul<Half>)
