// Rotary embedding, the optional norm of queries and keys before it, and the append to the paged cache, in one pass over the fused QKV rows.
//
// Each element is read once and written once. A lane holds the same eight columns of a head's two halves, which the rotation mixes, so a head is a few
// neighbouring lanes and a norm's sum a few shuffles. Rotated keys go to the cache only: attention reads them there, and nothing else does.
#include "simt.cuh"

using namespace simt;

namespace {

constexpr int kThreads = 256;

template <int HeadDim> struct RotaryShape {
    static constexpr int kHalf = HeadDim / 2;
    static constexpr int kColumns = kHalf / 8;
    // Lanes of a head: a power of two, for the sum.
    static constexpr int kLanes = kColumns <= 4 ? 4 : kColumns <= 8 ? 8 : 16;
    static constexpr int kHeads = kThreads / kLanes;  // of a block
    static_assert(HeadDim % 16 == 0 && kColumns <= kLanes, "a head's halves are whole vectors of its lanes");
};

// Eight values in the cache's format.
template <typename T, typename Stored> SIMT_DEVICE void store_cached(void *pool, int64_t at, const float (&values)[8], float inverse_scale) {
    Stored *to = static_cast<Stored *>(pool) + at;
    if constexpr (sizeof(Stored) == 1) {
        uint32_t packed[2];
#pragma unroll
        for (int i = 0; i < 2; ++i)
            packed[i] = pack2_e4m3(values[4 * i] * inverse_scale, values[4 * i + 1] * inverse_scale) |
                        static_cast<uint32_t>(pack2_e4m3(values[4 * i + 2] * inverse_scale, values[4 * i + 3] * inverse_scale)) << 16;
        global_store(to, U32x2{packed[0], packed[1]});
    } else {
        global_store(to, pack8<T>(values));
    }
}

SIMT_DEVICE void load_angles(const float *from, float (&angles)[8]) {
    const F32x4 low = global_load<F32x4>(from), high = global_load<F32x4>(from + 4);
    angles[0] = low.x, angles[1] = low.y, angles[2] = low.z, angles[3] = low.w;
    angles[4] = high.x, angles[5] = high.y, angles[6] = high.z, angles[7] = high.w;
}

template <typename T> SIMT_DEVICE void multiply(float (&values)[8], float scale, const void *weights) {
    float factors[8];
    unpack8<T>(global_load<U32x4>(weights), factors);
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] *= scale * factors[i];
}

template <typename T, typename Stored, int HeadDim> SIMT_DEVICE void rotary_append(const RotaryAppendParams &params) {
    using Shape = RotaryShape<HeadDim>;
    const int64_t token = block_x();
    const int num_kv_heads = params.cache.num_kv_heads;
    const int head = block_y() * Shape::kHeads + thread_index() / Shape::kLanes, column = thread_index() % Shape::kLanes * 8;
    const int kv_head = head < params.num_heads + num_kv_heads ? head - params.num_heads : head - params.num_heads - num_kv_heads;
    const bool is_query = head < params.num_heads, is_value = head >= params.num_heads + num_kv_heads;
    const bool active = head < params.num_heads + 2 * num_kv_heads && column < Shape::kHalf;

    // Lanes without a part take one of zeros along to the sums.
    char *at = static_cast<char *>(params.qkv) + (token * params.qkv_stride + int64_t{head} * HeadDim + column) * 2;
    float first[8] = {}, second[8] = {};
    if (active) {
        unpack8<T>(global_load<U32x4>(at), first);
        unpack8<T>(global_load<U32x4>(at + Shape::kHalf * 2), second);
    }
    if (params.q_norm || params.k_norm) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < 8; ++i) sum += first[i] * first[i] + second[i] * second[i];
        const float scale = rsqrt_approx(warp_sum<Shape::kLanes>(sum) / HeadDim + params.norm_eps);
        const auto *weights = static_cast<const char *>(is_query ? params.q_norm : params.k_norm);
        if (active && !is_value && weights) {
            multiply<T>(first, scale, weights + column * 2);
            multiply<T>(second, scale, weights + (Shape::kHalf + column) * 2);
        }
    }
    if (!active) return;
    if (!is_value) {
        float cos[8], sin[8];
        load_angles(params.cos + token * Shape::kHalf + column, cos);
        load_angles(params.sin + token * Shape::kHalf + column, sin);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float a = first[i], b = second[i];
            first[i] = a * cos[i] - b * sin[i];
            second[i] = b * cos[i] + a * sin[i];
        }
    }
    if (is_query) {
        global_store(at, pack8<T>(first));
        global_store(at + Shape::kHalf * 2, pack8<T>(second));
        return;
    }
    const int64_t slot = global_load<int64_t>(params.slots + token);
    const int64_t row = (slot >> params.cache.block_size_log2) * params.cache.block_stride + kv_head * params.cache.head_stride +
                        (slot & ((1 << params.cache.block_size_log2) - 1)) * HeadDim + column;
    float inverse_scale = 1.0f;
    if constexpr (sizeof(Stored) == 1) inverse_scale = 1.0f / global_load<float>((is_value ? params.cache.value_scales : params.cache.key_scales) + kv_head);
    void *pool = is_value ? params.cache.values : params.cache.keys;
    store_cached<T, Stored>(pool, row, first, inverse_scale);
    store_cached<T, Stored>(pool, row + Shape::kHalf, second, inverse_scale);
}

}  // namespace

#define ROTARY_APPEND(type, T, HeadDim)                                                                                       \
    SIMT_KERNEL(rotary_append_##type##_##HeadDim, RotaryAppendParams, kThreads, 1, 0, rotary_append<T, T, HeadDim>)           \
    SIMT_KERNEL(rotary_append_##type##_##HeadDim##_fp8, RotaryAppendParams, kThreads, 1, 0, rotary_append<T, E4m3, HeadDim>)

ROTARY_APPEND(bf16, Bf16, 64)
ROTARY_APPEND(bf16, Bf16, 96)
ROTARY_APPEND(bf16, Bf16, 128)
ROTARY_APPEND(bf16, Bf16, 256)
ROTARY_APPEND(f16, Half, 64)
ROTARY_APPEND(f16, Half, 96)
ROTARY_APPEND(f16, Half, 128)
ROTARY_APPEND(f16, Half, 256)
