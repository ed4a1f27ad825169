// The only place with intrinsics and inline PTX, with simt_sm90.cuh: what kernels are written in. Under nvcc it is PTX; under a plain C++20 compiler it
// is the emulation in host/. Shared memory is named by 32-bit addresses, so that both can check it; collectives name what has to take part.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "params.h"

namespace simt {

constexpr int kWarpSize = 32;
constexpr uint32_t kFullWarp = 0xffffffffu;

// Storage types of 16 and 8 bits; arithmetic is f32.
struct Bf16 { uint16_t bits; };
struct Half { uint16_t bits; };
struct E4m3 { uint8_t bits; };

struct alignas(8) U32x2 { uint32_t x, y; };
struct alignas(16) U32x4 { uint32_t x, y, z, w; };
struct alignas(8) F32x2 { float x, y; };
struct alignas(16) F32x4 { float x, y, z, w; };

}  // namespace simt

#ifndef __CUDACC__
#include "host/simt_host.h"
#else

#define SIMT_DEVICE __device__ __forceinline__

// Defines the entry `name`, launched with `threads` threads a block and `shared_bytes` of dynamic shared memory; the last argument is a
// function of `const Params &`. The launch layer's geometry is compared with these numbers by a test.
#define SIMT_KERNEL(name, Params, threads, min_blocks, shared_bytes, ...)                                                        \
    static_assert((shared_bytes) <= 232448, #name ": more shared memory than a multiprocessor of the largest chip gives a block"); \
    extern "C" __global__ void __launch_bounds__(threads, min_blocks) name(const __grid_constant__ Params params) {              \
        __VA_ARGS__(params);                                                                                                     \
    }

namespace simt {

// ---- where a thread is ----

SIMT_DEVICE uint32_t thread_index() { return threadIdx.x; }
SIMT_DEVICE uint32_t block_threads() { return blockDim.x; }
SIMT_DEVICE uint32_t lane_index() { return threadIdx.x % kWarpSize; }
// The same in all lanes, and known to be so by the compiler.
SIMT_DEVICE uint32_t warp_index() { return __shfl_sync(kFullWarp, threadIdx.x / kWarpSize, 0); }
SIMT_DEVICE uint32_t block_x() { return blockIdx.x; }
SIMT_DEVICE uint32_t block_y() { return blockIdx.y; }
SIMT_DEVICE uint32_t block_z() { return blockIdx.z; }
SIMT_DEVICE uint32_t grid_x() { return gridDim.x; }
SIMT_DEVICE uint32_t grid_y() { return gridDim.y; }
SIMT_DEVICE uint32_t grid_z() { return gridDim.z; }

// ---- barriers and warp collectives ----

SIMT_DEVICE void sync_threads() { __syncthreads(); }
SIMT_DEVICE void sync_warp(uint32_t lanes = kFullWarp) { __syncwarp(lanes); }
// Named barriers: ids 1 to 15, `threads` a multiple of 32.
SIMT_DEVICE void barrier_sync(uint32_t id, uint32_t threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
SIMT_DEVICE void barrier_arrive(uint32_t id, uint32_t threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
template <typename T> SIMT_DEVICE T shuffle(T value, uint32_t source_lane) { return __shfl_sync(kFullWarp, value, source_lane); }
template <typename T> SIMT_DEVICE T shuffle_xor(T value, uint32_t lane_bits) { return __shfl_xor_sync(kFullWarp, value, lane_bits); }
template <typename T> SIMT_DEVICE T shuffle_down(T value, uint32_t lanes) { return __shfl_down_sync(kFullWarp, value, lanes); }
template <typename T> SIMT_DEVICE T shuffle_up(T value, uint32_t lanes) { return __shfl_up_sync(kFullWarp, value, lanes); }
SIMT_DEVICE uint32_t ballot(bool predicate) { return __ballot_sync(kFullWarp, predicate); }
// True in exactly one lane of a converged warp, with a branch that the compiler knows to be uniform.
SIMT_DEVICE bool elect_one() {
#if __CUDA_ARCH__ >= 900
    uint32_t elected;
    asm volatile("{ .reg .pred p; elect.sync _|p, 0xffffffff; selp.u32 %0, 1, 0, p; }" : "=r"(elected));
    return elected != 0;
#else
    return lane_index() == 0;
#endif
}
SIMT_DEVICE int32_t popcount(uint32_t bits) { return __popc(bits); }

// ---- memory ----

// Start of the block's dynamic shared memory, 1024-byte aligned.
SIMT_DEVICE uint32_t shared_base() {
    extern __shared__ __align__(1024) uint8_t dynamic_shared[];
    return static_cast<uint32_t>(__cvta_generic_to_shared(dynamic_shared));
}
template <typename T> SIMT_DEVICE T shared_load(uint32_t address) {
    return *static_cast<const T *>(__cvta_shared_to_generic(address));
}
template <typename T> SIMT_DEVICE void shared_store(uint32_t address, T value) {
    *static_cast<T *>(__cvta_shared_to_generic(address)) = value;
}
template <typename T> SIMT_DEVICE T global_load(const void *from) { return *static_cast<const T *>(from); }
template <typename T> SIMT_DEVICE void global_store(void *to, T value) { *static_cast<T *>(to) = value; }
// Sixteen bytes that nothing writes while the kernel runs, read once: kept out of L1, fetched into L2 by 256 bytes.
SIMT_DEVICE U32x4 global_load_once(const void *from) {
    U32x4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
    return v;
}
// Sixteen bytes that are not read again soon.
SIMT_DEVICE void global_store_once(void *to, U32x4 v) {
    asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

// Copies 16 bytes from global to shared memory behind the thread's back; zeroes when not `valid` (then `from` is not read but has to be a real address).
SIMT_DEVICE void copy_async_16(uint32_t to_shared, const void *from, bool valid) {
    uint32_t bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to_shared), "l"(from), "r"(bytes) : "memory");
}
SIMT_DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `Pending` of the calling thread's groups are under way.
template <int Pending> SIMT_DEVICE void copy_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory"); }

// Adds and returns the old value; ordered with the fences below.
SIMT_DEVICE int32_t atomic_add(int32_t *at, int32_t value) { return atomicAdd(at, value); }
SIMT_DEVICE void atomic_add(float *at, float value) { atomicAdd(at, value); }
// The same in shared memory.
SIMT_DEVICE int32_t shared_atomic_add(uint32_t address, int32_t value) {
    int32_t old;
    asm volatile("atom.shared.add.s32 %0, [%1], %2;" : "=r"(old) : "r"(address), "r"(value) : "memory");
    return old;
}
// Orders the thread's writes before its later ones for the whole device: with an atomic, publishes results to the last block.
SIMT_DEVICE void fence_device() { __threadfence(); }

// ---- matrices: PTX ISA, "Matrix multiply-accumulate operation using mma instruction" ----

// Lane l names row l % 8 of matrix l / 8 (16 bytes each); register i holds elements (l / 4, 2 · (l % 4)) and the next of matrix i.
SIMT_DEVICE void load_matrix_x4(uint32_t (&r)[4], uint32_t row_address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row_address) : "memory");
}
// The same, each matrix transposed.
SIMT_DEVICE void load_matrix_x4_transposed(uint32_t (&r)[4], uint32_t row_address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row_address) : "memory");
}
SIMT_DEVICE void load_matrix_x2(uint32_t (&r)[2], uint32_t row_address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(row_address) : "memory");
}
SIMT_DEVICE void load_matrix_x2_transposed(uint32_t (&r)[2], uint32_t row_address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(row_address) : "memory");
}

// d += a · b: a 16 × 16, b 16 × 8, d 16 × 8 in f32.
template <typename T> SIMT_DEVICE void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <> SIMT_DEVICE void mma_m16n8k16<Bf16>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <> SIMT_DEVICE void mma_m16n8k16<Half>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- arithmetic ----

// Two units in the last place; -inf gives 0.
SIMT_DEVICE float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
SIMT_DEVICE float log2_approx(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
SIMT_DEVICE float rsqrt_approx(float x) {
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
SIMT_DEVICE float reciprocal_approx(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
SIMT_DEVICE float maximum(float a, float b) { return fmaxf(a, b); }
SIMT_DEVICE int maximum(int a, int b) { return a > b ? a : b; }
SIMT_DEVICE int minimum(int a, int b) { return a < b ? a : b; }
SIMT_DEVICE float minimum(float a, float b) { return fminf(a, b); }
SIMT_DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
SIMT_DEVICE float infinity() { return __int_as_float(0x7f800000); }
SIMT_DEVICE uint32_t float_bits(float x) { return __float_as_uint(x); }
SIMT_DEVICE float bits_float(uint32_t bits) { return __uint_as_float(bits); }
// The high half of the 64-bit product: what counter-based generators (Philox) are made of.
SIMT_DEVICE uint32_t multiply_high(uint32_t a, uint32_t b) { return __umulhi(a, b); }

// ---- conversions: round to nearest, ties to even ----

// Two values in one register, `low` in the low half.
template <typename T> SIMT_DEVICE uint32_t pack2(float low, float high);
template <> SIMT_DEVICE uint32_t pack2<Bf16>(float low, float high) {
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}
template <> SIMT_DEVICE uint32_t pack2<Half>(float low, float high) {
    uint32_t packed;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}
template <typename T> SIMT_DEVICE F32x2 unpack2(uint32_t packed);
template <> SIMT_DEVICE F32x2 unpack2<Bf16>(uint32_t packed) {
    return {__uint_as_float(packed << 16), __uint_as_float(packed & 0xffff0000u)};
}
template <> SIMT_DEVICE F32x2 unpack2<Half>(uint32_t packed) {
    F32x2 values;
    asm("{ .reg .b16 low, high; mov.b32 {low, high}, %2; cvt.f32.f16 %0, low; cvt.f32.f16 %1, high; }" : "=f"(values.x), "=f"(values.y) : "r"(packed));
    return values;
}

// Products of pairs, subnormal ones too.
template <typename T> SIMT_DEVICE uint32_t multiply2(uint32_t a, uint32_t b);
template <> SIMT_DEVICE uint32_t multiply2<Bf16>(uint32_t a, uint32_t b) {
    uint32_t product;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(product) : "r"(a), "r"(b), "r"(0x80008000u));  // plus -0
    return product;
}
template <> SIMT_DEVICE uint32_t multiply2<Half>(uint32_t a, uint32_t b) {
    uint32_t product;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
    return product;
}

#if __CUDA_ARCH__ >= 890
SIMT_DEVICE uint16_t hardware_pack2_e4m3(float low, float high) {
    uint16_t packed;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(packed) : "f"(high), "f"(low));
    return packed;
}
SIMT_DEVICE uint32_t hardware_e4m3x2_to_half2(uint16_t packed) {
    uint32_t values;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(values) : "h"(packed));
    return values;
}
#endif

}  // namespace simt

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#include "simt_sm90.cuh"
#endif
#endif

#include "simt_common.cuh"
