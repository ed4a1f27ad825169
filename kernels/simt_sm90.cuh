// Hopper's part of simt.cuh: mbarriers, the tensor memory accelerator, warpgroup matrix products, register reallocation. Only under nvcc; the
// instructions exist on sm_90a alone, so kernels that use this are compiled for no other architecture.
#pragma once

namespace simt {

// ---- mbarriers: 8 bytes of shared memory; phases alternate, a wait names the parity of the phase that has to be complete ----

SIMT_DEVICE void mbarrier_init(uint32_t barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Makes initialised mbarriers visible to the copy engine; before the barrier that lets other threads use them.
SIMT_DEVICE void mbarrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
SIMT_DEVICE void mbarrier_arrive(uint32_t barrier) {
    asm volatile("{ .reg .b64 state; mbarrier.arrive.shared::cta.b64 state, [%0]; }" ::"r"(barrier) : "memory");
}
// Arrives and adds `bytes` that copies of this phase will bring.
SIMT_DEVICE void mbarrier_arrive_expect(uint32_t barrier, uint32_t bytes) {
    asm volatile("{ .reg .b64 state; mbarrier.arrive.expect_tx.shared::cta.b64 state, [%0], %1; }" ::"r"(barrier), "r"(bytes) : "memory");
}
SIMT_DEVICE void mbarrier_wait(uint32_t barrier, uint32_t parity) {
    asm volatile(
        "{ .reg .pred done;\n"
        "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra finished;\n"
        "bra again;\n"
        "finished: }" ::"r"(barrier), "r"(parity) : "memory");
}

// ---- tensor memory accelerator: one thread issues ----

SIMT_DEVICE void tensor_map_prefetch(const TensorMap *map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
// Copies the map's box at the coordinates (innermost first) to shared memory; elements outside the tensor arrive as zeros and count as bytes.
// With the 128-byte swizzle `to_shared` is 1024-byte aligned.
SIMT_DEVICE void tensor_load(uint32_t to_shared, const TensorMap *map, uint32_t barrier, int32_t x, int32_t y, int32_t z) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];"
                 ::"r"(to_shared), "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z) : "memory");
}
SIMT_DEVICE void tensor_load(uint32_t to_shared, const TensorMap *map, uint32_t barrier, int32_t x, int32_t y, int32_t z, int32_t w) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];"
                 ::"r"(to_shared), "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w) : "memory");
}
SIMT_DEVICE void tensor_load(uint32_t to_shared, const TensorMap *map, uint32_t barrier, int32_t x, int32_t y, int32_t z, int32_t w, int32_t v) {
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6, %7}], [%2];"
                 ::"r"(to_shared), "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w), "r"(v) : "memory");
}
// Copies a run of bytes (a multiple of 16, both ends 16-byte aligned).
SIMT_DEVICE void bulk_load(uint32_t to_shared, const void *from, uint32_t bytes, uint32_t barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(to_shared), "l"(from), "r"(bytes), "r"(barrier) : "memory");
}
SIMT_DEVICE void bulk_store(void *to, uint32_t from_shared, uint32_t bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from_shared), "r"(bytes) : "memory");
}
SIMT_DEVICE void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Waits until the shared memory of all but `Pending` groups of stores may be written again.
template <int Pending> SIMT_DEVICE void bulk_wait_read() { asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(Pending) : "memory"); }
// Orders the thread's own shared-memory writes before reads by wgmma and by the copy engine.
SIMT_DEVICE void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

SIMT_DEVICE void store_matrix_x4(uint32_t row_address, const uint32_t (&r)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row_address), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory");
}

// ---- registers: all warps of a warpgroup together, `Count` a multiple of 8 from 24 to 240 ----

template <int Count> SIMT_DEVICE void registers_increase() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count)); }
template <int Count> SIMT_DEVICE void registers_decrease() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count)); }

// ---- wgmma: PTX ISA, "Asynchronous warpgroup level matrix multiply-accumulate instructions" ----

// Before the first product, and after registers of a product were written.
SIMT_DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
SIMT_DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int Pending> SIMT_DEVICE void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory"); }
// Keeps the compiler from moving or copying registers of a product that is under way.
template <int Count> SIMT_DEVICE void wgmma_hold(float (&d)[Count]) {
#pragma unroll
    for (int i = 0; i < Count; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
template <int Count> SIMT_DEVICE void wgmma_hold(uint32_t (&a)[Count]) {
#pragma unroll
    for (int i = 0; i < Count; ++i) asm volatile("" : "+r"(a[i])::"memory");
}

// Has `value`, which is never negative, computed before what follows. ptxas otherwise moves arithmetic below the waits for products that should hide it:
// it heeds neither volatile nor `wgmma_hold`, only control flow. Compare what `cuobjdump -sass` shows between two WARPGROUP.DEPBAR.
SIMT_DEVICE void computed_by_now(float value) {
    if (value < 0.0f) asm volatile("nanosleep.u32 1;" ::: "memory");
}

// d (+)= a · b in f32, 64 × N for a 64 × 16 and b 16 × N. Thread t holds rows 16 · (t / 32) + (t % 32) / 4 and 8 below, d[4 · j + 2 · h + i] at row + 8 · h,
// column 8 · j + 2 · (t % 4) + i; a in registers as for mma_m16n8k16. `TransposedB`: b lies in memory as rows of N (values), else as rows of k (keys).
template <typename T, int N, bool TransposedB> struct Wgmma;

#define SIMT_D8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define SIMT_D16(i) SIMT_D8(i), SIMT_D8(i + 8)
#define SIMT_D32(i) SIMT_D16(i), SIMT_D16(i + 16)
#define SIMT_D64(i) SIMT_D32(i), SIMT_D32(i + 32)
#define SIMT_L0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define SIMT_L1 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SIMT_L2 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define SIMT_L3 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SIMT_L4 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define SIMT_L5 "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define SIMT_L6 "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define SIMT_L7 "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

#define SIMT_WGMMA(T, type, N, list, outputs, r0, r1, r2, r3, r4, r5, r6)                                                                     \
    template <bool TransposedB> struct Wgmma<T, N, TransposedB> {                                                                          \
        static SIMT_DEVICE void shared(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate) {                                        \
            asm volatile("{ .reg .pred p; setp.ne.b32 p, %" #r2 ", 0;\n"                                                                    \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type "." type " {" list "}, %" #r0 ", %" #r1 ", p, 1, 1, 0, %" #r3 "; }" \
                         : outputs                                                                                                         \
                         : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(static_cast<int>(TransposedB)));                          \
        }                                                                                                                                  \
        static SIMT_DEVICE void registers(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate) {                         \
            asm volatile("{ .reg .pred p; setp.ne.b32 p, %" #r5 ", 0;\n"                                                                    \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type "." type " {" list "}, {%" #r0 ", %" #r1 ", %" #r2 ", %" #r3 "}, %" #r4 ", p, 1, 1, %" #r6 "; }" \
                         : outputs                                                                                                         \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)), "n"(static_cast<int>(TransposedB)));                          \
        }                                                                                                                                  \
    };
#define SIMT_OUT64 SIMT_D32(0)
SIMT_WGMMA(Bf16, "bf16", 64, SIMT_L0 ", " SIMT_L1, SIMT_OUT64, 32, 33, 34, 35, 36, 37, 38)
SIMT_WGMMA(Half, "f16", 64, SIMT_L0 ", " SIMT_L1, SIMT_OUT64, 32, 33, 34, 35, 36, 37, 38)
#define SIMT_OUT128 SIMT_D64(0)
SIMT_WGMMA(Bf16, "bf16", 128, SIMT_L0 ", " SIMT_L1 ", " SIMT_L2 ", " SIMT_L3, SIMT_OUT128, 64, 65, 66, 67, 68, 69, 70)
SIMT_WGMMA(Half, "f16", 128, SIMT_L0 ", " SIMT_L1 ", " SIMT_L2 ", " SIMT_L3, SIMT_OUT128, 64, 65, 66, 67, 68, 69, 70)
#define SIMT_OUT256 SIMT_D64(0), SIMT_D64(64)
SIMT_WGMMA(Bf16, "bf16", 256, SIMT_L0 ", " SIMT_L1 ", " SIMT_L2 ", " SIMT_L3 ", " SIMT_L4 ", " SIMT_L5 ", " SIMT_L6 ", " SIMT_L7, SIMT_OUT256, 128, 129, 130, 131, 132, 133, 134)
SIMT_WGMMA(Half, "f16", 256, SIMT_L0 ", " SIMT_L1 ", " SIMT_L2 ", " SIMT_L3 ", " SIMT_L4 ", " SIMT_L5 ", " SIMT_L6 ", " SIMT_L7, SIMT_OUT256, 128, 129, 130, 131, 132, 133, 134)

template <typename T, int N, bool TransposedB>
SIMT_DEVICE void wgmma_shared(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate) {
    Wgmma<T, N, TransposedB>::shared(d, a, b, accumulate);
}
// `a` must not change until the wait.
template <typename T, int N, bool TransposedB>
SIMT_DEVICE void wgmma_registers(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
    Wgmma<T, N, TransposedB>::registers(d, a, b, accumulate);
}

}  // namespace simt
