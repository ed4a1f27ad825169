// What row-wise kernels share: vectors of a row with ragged ends, and sums over a block.
#pragma once

#include "simt.cuh"

namespace simt {

// Whether vectors of `bytes` may be used on rows that start at `rows` and are `stride_bytes` apart.
SIMT_DEVICE bool rows_aligned(const void *rows, int64_t stride_bytes, uint32_t bytes) {
    return (reinterpret_cast<uintptr_t>(rows) | static_cast<uint64_t>(stride_bytes)) % bytes == 0;
}

SIMT_DEVICE void unpack(F32x4 packed, float (&values)[4]) { values[0] = packed.x, values[1] = packed.y, values[2] = packed.z, values[3] = packed.w; }
template <typename T> SIMT_DEVICE void unpack(U32x2 packed, float (&values)[4]) {
    const F32x2 low = unpack2<T>(packed.x), high = unpack2<T>(packed.y);
    values[0] = low.x, values[1] = low.y, values[2] = high.x, values[3] = high.y;
}

// Elements [column, column + 4) of a row as f32, and 0 past `cols`; at once where `aligned` (16 bytes of f32, 8 of 16-bit types).
template <typename T> SIMT_DEVICE void load_quad(const T *row, int column, int cols, bool aligned, float (&values)[4]) {
    if (aligned && column + 4 <= cols) {
        if constexpr (sizeof(T) == 4) unpack(global_load<F32x4>(row + column), values);
        else unpack<T>(global_load<U32x2>(row + column), values);
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) values[i] = column + i < cols ? to_float(global_load<T>(row + column + i)) : 0.0f;
    }
}

// The reverse; nothing is written past `cols`.
template <typename T> SIMT_DEVICE void store_quad(T *row, int column, int cols, bool aligned, const float (&v)[4]) {
    if (aligned && column + 4 <= cols) {
        if constexpr (sizeof(T) == 4) global_store(row + column, F32x4{v[0], v[1], v[2], v[3]});
        else global_store(row + column, U32x2{pack2<T>(v[0], v[1]), pack2<T>(v[2], v[3])});
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (column + i < cols) global_store(row + column + i, from_float<T>(v[i]));
    }
}

// Eight 16-bit elements [column, column + 8) as they are stored, and zeros past `cols`. `Once`: nothing reads them again.
template <bool Once = false> SIMT_DEVICE U32x4 load_octet(const uint16_t *row, int64_t column, int64_t cols, bool aligned) {
    if (aligned && column + 8 <= cols) return Once ? global_load_once(row + column) : global_load<U32x4>(row + column);
    uint32_t pairs[4] = {};
#pragma unroll
    for (int i = 0; i < 8; ++i)
        if (column + i < cols) pairs[i / 2] |= static_cast<uint32_t>(global_load<uint16_t>(row + column + i)) << i % 2 * 16;
    return {pairs[0], pairs[1], pairs[2], pairs[3]};
}

SIMT_DEVICE void store_octet(uint16_t *row, int64_t column, int64_t cols, bool aligned, U32x4 values) {
    if (aligned && column + 8 <= cols) return global_store(row + column, values);
    const uint32_t pairs[4] = {values.x, values.y, values.z, values.w};
#pragma unroll
    for (int i = 0; i < 8; ++i)
        if (column + i < cols) global_store(row + column + i, static_cast<uint16_t>(pairs[i / 2] >> i % 2 * 16));
}

// Combines one value a thread by an associative `Combine`, in one fixed order; every thread gets the result. `scratch` is shared memory for one value a
// warp, which nobody else touches between two barriers; the block has whole warps.
template <typename V, typename Combine> SIMT_DEVICE V block_reduce(V value, uint32_t scratch, Combine combine) {
#pragma unroll
    for (int bits = kWarpSize / 2; bits > 0; bits /= 2) value = combine(value, shuffle_xor(value, bits));
    sync_threads();
    if (lane_index() == 0) shared_store(scratch + warp_index() * sizeof(V), value);
    sync_threads();
    V total = shared_load<V>(scratch);
    for (uint32_t warp = 1; warp < block_threads() / kWarpSize; ++warp) total = combine(total, shared_load<V>(scratch + warp * sizeof(V)));
    return total;
}

// True in the last of `blocks` blocks that get here with one counter, which is zero before and after; what the others stored before is visible to it.
SIMT_DEVICE bool is_last_block(int32_t *counter, int32_t blocks, uint32_t shared_flag) {
    fence_device();
    sync_threads();
    if (thread_index() == 0) shared_store<int32_t>(shared_flag, atomic_add(counter, 1));
    sync_threads();
    if (shared_load<int32_t>(shared_flag) != blocks - 1) return false;
    if (thread_index() == 0) global_store<int32_t>(counter, 0);
    fence_device();
    return true;
}

}  // namespace simt
