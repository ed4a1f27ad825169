// simt.cuh for a plain C++20 compiler: the same functions on the emulated multiprocessor. Included by simt.cuh alone.
#pragma once

#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "machine.h"

#define SIMT_DEVICE inline

#define SIMT_KERNEL(name, Params, threads, min_blocks, shared_bytes, ...)                                                          \
    static_assert((shared_bytes) <= 232448, #name ": more shared memory than a multiprocessor of the largest chip gives a block"); \
    static ::simt::host::Entry simt_entry_##name(#name, sizeof(Params), threads, shared_bytes,                                     \
                                                 [](const void *params) { __VA_ARGS__(*static_cast<const Params *>(params)); });

namespace simt {

inline uint32_t thread_index() { return host::current->running->thread; }
inline uint32_t block_threads() { return host::current->threads; }
inline uint32_t lane_index() { return thread_index() % kWarpSize; }
inline uint32_t warp_index() { return thread_index() / kWarpSize; }
inline uint32_t block_x() { return host::current->index[0]; }
inline uint32_t block_y() { return host::current->index[1]; }
inline uint32_t block_z() { return host::current->index[2]; }
inline uint32_t grid_x() { return host::current->grid[0]; }
inline uint32_t grid_y() { return host::current->grid[1]; }
inline uint32_t grid_z() { return host::current->grid[2]; }

// ---- barriers and warp collectives ----

namespace host {

struct BarrierArguments { uint32_t id, threads; bool waits; };

inline bool arrive_at_barrier(Block &block, Warp &warp, uint32_t, void **arguments) {
    auto *first = static_cast<BarrierArguments *>(arguments[__builtin_ctz(warp.all)]);
    for (int i = 0; i < 32; ++i) {
        auto *other = static_cast<BarrierArguments *>(arguments[i]);
        if (other && (other->id != first->id || other->threads != first->threads)) fail("lanes of a warp name different barriers");
    }
    if (first->id >= 16) fail("barrier %u of 16", first->id);
    Barrier &barrier = block.barriers[first->id];
    if (barrier.arrived && barrier.expected != first->threads)
        fail("barrier %u of %u threads, which others entered for %u", first->id, first->threads, barrier.expected);
    barrier.expected = first->threads;
    barrier.arrived += __builtin_popcount(warp.all);
    if (first->waits) barrier.waiting.push_back(&warp);
    if (barrier.arrived > barrier.expected) fail("barrier %u of %u threads reached by %u", first->id, barrier.expected, barrier.arrived);
    if (barrier.arrived == barrier.expected) {
        for (Warp *waiting : barrier.waiting) block.wake(*waiting, waiting->all);
        barrier.waiting.clear();
        barrier.arrived = 0;
    }
    return first->waits;
}

inline void barrier(const char *name, BarrierArguments arguments) {
    collective(name, current->running->warp->all, &arguments, arrive_at_barrier);
}

}  // namespace host

inline void sync_threads() { host::barrier("__syncthreads", {0, host::current->threads, true}); }
inline void barrier_sync(uint32_t id, uint32_t threads) { host::barrier("bar.sync", {id, threads, true}); }
inline void barrier_arrive(uint32_t id, uint32_t threads) { host::barrier("bar.arrive", {id, threads, false}); }
inline void sync_warp(uint32_t lanes = kFullWarp) {
    host::collective("__syncwarp", lanes, nullptr, [](host::Block &, host::Warp &, uint32_t, void **) { return false; });
}

namespace host {

template <typename T> struct ShuffleArguments { T value, result; uint32_t source; };

template <typename T> bool execute_shuffle(Block &, Warp &, uint32_t, void **arguments) {
    auto *lanes = reinterpret_cast<ShuffleArguments<T> **>(arguments);
    for (int i = 0; i < 32; ++i) lanes[i]->result = lanes[lanes[i]->source % 32]->value;
    return false;
}

template <typename T> T shuffle(const char *name, T value, uint32_t source) {
    ShuffleArguments<T> arguments{value, value, source};
    collective(name, kFullWarp, &arguments, execute_shuffle<T>);
    return arguments.result;
}

}  // namespace host

template <typename T> T shuffle(T value, uint32_t source_lane) { return host::shuffle("shfl.idx", value, source_lane); }
template <typename T> T shuffle_xor(T value, uint32_t lane_bits) { return host::shuffle("shfl.bfly", value, lane_index() ^ lane_bits); }
template <typename T> T shuffle_down(T value, uint32_t lanes) {
    return host::shuffle("shfl.down", value, lane_index() + lanes < 32 ? lane_index() + lanes : lane_index());
}
template <typename T> T shuffle_up(T value, uint32_t lanes) {
    return host::shuffle("shfl.up", value, lane_index() >= lanes ? lane_index() - lanes : lane_index());
}
inline uint32_t ballot(bool predicate) {
    struct Arguments { bool predicate; uint32_t result; } arguments{predicate, 0};
    host::collective("vote.ballot", kFullWarp, &arguments, [](host::Block &, host::Warp &, uint32_t, void **all) {
        auto *lanes = reinterpret_cast<Arguments **>(all);
        uint32_t bits = 0;
        for (int i = 0; i < 32; ++i) bits |= static_cast<uint32_t>(lanes[i]->predicate) << i;
        for (int i = 0; i < 32; ++i) lanes[i]->result = bits;
        return false;
    });
    return arguments.result;
}
inline bool elect_one() {
    host::collective("elect.sync", kFullWarp, nullptr, [](host::Block &, host::Warp &, uint32_t, void **) { return false; });
    return lane_index() == 0;
}
inline int32_t popcount(uint32_t bits) { return __builtin_popcount(bits); }

// ---- memory ----

inline uint32_t shared_base() { return host::kSharedBase; }
template <typename T> T shared_load(uint32_t address) {
    T value;
    memcpy(&value, host::current->shared_bytes(address, sizeof(T), sizeof(T), "load"), sizeof(T));
    return value;
}
template <typename T> void shared_store(uint32_t address, T value) {
    memcpy(host::current->shared_bytes(address, sizeof(T), sizeof(T), "store"), &value, sizeof(T));
}
template <typename T> T global_load(const void *from) {
    host::check_global(from, sizeof(T), sizeof(T), "load");
    T value;
    memcpy(&value, from, sizeof(T));
    return value;
}
template <typename T> void global_store(void *to, T value) {
    host::check_global(to, sizeof(T), sizeof(T), "store");
    memcpy(to, &value, sizeof(T));
}
inline U32x4 global_load_once(const void *from) { return global_load<U32x4>(from); }
inline void global_store_once(void *to, U32x4 value) { global_store(to, value); }

namespace host {

inline void copy_16(Block &block, const PendingCopy &copy) {
    uint8_t *to = block.shared_bytes(copy.to, 16, 16, "cp.async");
    if (copy.valid) memcpy(to, copy.from, 16);
    else memset(to, 0, 16);
}

}  // namespace host

inline void copy_async_16(uint32_t to_shared, const void *from, bool valid) {
    host::Block &block = *host::current;
    if (valid) host::check_global(from, 16, 16, "cp.async");
    host::PendingCopy copy{to_shared, from, valid};
    if (block.copies == host::Copies::kEager) {
        host::copy_16(block, copy);
        copy.to = 0;
    } else {
        // Until it is waited for, the device may have written it or not.
        memset(block.shared_bytes(to_shared, 16, 16, "cp.async"), 0xff, 16);
    }
    block.running->open_copies.push_back(copy);
}
inline void copy_async_commit() {
    host::Lane &lane = *host::current->running;
    lane.copy_groups.push_back(std::move(lane.open_copies));
    lane.open_copies.clear();
}
template <int Pending> void copy_async_wait() {
    host::Block &block = *host::current;
    auto &groups = block.running->copy_groups;
    while (groups.size() > Pending) {
        for (const host::PendingCopy &copy : groups.front())
            if (copy.to) host::copy_16(block, copy);
        groups.erase(groups.begin());
    }
}

inline int32_t atomic_add(int32_t *at, int32_t value) {
    host::check_global(at, 4, 4, "atomic");
    return std::atomic_ref(*at).fetch_add(value);
}
inline void atomic_add(float *at, float value) {
    host::check_global(at, 4, 4, "atomic");
    std::atomic_ref(*at).fetch_add(value);
}
inline int32_t shared_atomic_add(uint32_t address, int32_t value) {
    const int32_t old = shared_load<int32_t>(address);
    shared_store(address, old + value);
    return old;
}
inline void fence_device() { std::atomic_thread_fence(std::memory_order_seq_cst); }

// ---- arithmetic ----

inline float exp2_approx(float x) { return std::exp2(x); }
inline float log2_approx(float x) { return std::log2(x); }
inline float rsqrt_approx(float x) { return 1.0f / std::sqrt(x); }
inline float reciprocal_approx(float x) { return 1.0f / x; }
// The device's maximum and minimum return the other operand for NaN, as these do.
inline float maximum(float a, float b) { return std::fmax(a, b); }
inline float minimum(float a, float b) { return std::fmin(a, b); }
inline float fma(float a, float b, float c) { return std::fma(a, b, c); }
inline int maximum(int a, int b) { return a > b ? a : b; }
inline int minimum(int a, int b) { return a < b ? a : b; }
inline float infinity() { return std::numeric_limits<float>::infinity(); }
inline uint32_t float_bits(float x) { return std::bit_cast<uint32_t>(x); }
inline float bits_float(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t multiply_high(uint32_t a, uint32_t b) { return static_cast<uint32_t>(uint64_t{a} * b >> 32); }

// ---- conversions ----

namespace host {

inline uint16_t bf16_bits(float value) {
    uint32_t bits = std::bit_cast<uint32_t>(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline uint16_t half_bits(float value) {
    uint32_t bits = std::bit_cast<uint32_t>(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return 0x7fff;
    if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // 65520 and above round to infinity
    if (magnitude < 0x38800000) {  // subnormal: adding one half leaves units of 2^-24 in the lowest bits
        float shifted = std::bit_cast<float>(magnitude) + 0.5f;
        return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000));
    }
    uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1) - ((127 - 15) << 23);
    return static_cast<uint16_t>(sign | rounded >> 13);
}

template <typename T> float decode(uint16_t bits);
template <> inline float decode<Bf16>(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
template <> inline float decode<Half>(uint16_t bits) {
    uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16, magnitude = static_cast<uint32_t>(bits & 0x7fff) << 13;
    // Multiplying by 2^112 moves the exponent's bias and normalises subnormals.
    float value = std::bit_cast<float>(magnitude) * std::bit_cast<float>(0x77800000u);
    uint32_t special = (bits & 0x7c00) == 0x7c00 ? 0x7f800000u | magnitude : std::bit_cast<uint32_t>(value);
    return std::bit_cast<float>(special | sign);
}

}  // namespace host

template <typename T> uint32_t pack2(float low, float high);
template <> inline uint32_t pack2<Bf16>(float low, float high) { return host::bf16_bits(low) | static_cast<uint32_t>(host::bf16_bits(high)) << 16; }
template <> inline uint32_t pack2<Half>(float low, float high) { return host::half_bits(low) | static_cast<uint32_t>(host::half_bits(high)) << 16; }
template <typename T> F32x2 unpack2(uint32_t packed) {
    return {host::decode<T>(static_cast<uint16_t>(packed)), host::decode<T>(static_cast<uint16_t>(packed >> 16))};
}

template <typename T> uint32_t multiply2(uint32_t a, uint32_t b) {
    const F32x2 x = unpack2<T>(a), y = unpack2<T>(b);
    return pack2<T>(x.x * y.x, x.y * y.y);
}

}  // namespace simt

#include "matrices.h"
#include "hopper.h"
