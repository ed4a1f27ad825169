// simt_sm90.cuh on the emulated multiprocessor: mbarriers, the copy engine, warpgroup products (compiled in hopper.cpp).
#pragma once

#include "warpgroup.h"

namespace simt {

namespace host {

void mbarrier_init(uint32_t barrier, uint32_t arrivals);
void mbarrier_arrive(uint32_t barrier, uint32_t bytes);
void mbarrier_wait(uint32_t barrier, uint32_t parity);
void tensor_load(uint32_t to_shared, const TensorMap *map, uint32_t barrier, uint32_t rank, const int32_t *at);
void bulk_load(uint32_t to_shared, const void *from, uint32_t bytes, uint32_t barrier);
void bulk_store(void *to, uint32_t from_shared, uint32_t bytes);
void bulk_commit();
void bulk_wait_read(size_t pending);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(size_t pending);

struct ProductArguments {
    float *d;
    const uint32_t *a_registers;
    uint64_t a, b;
    bool accumulate, transposed_b;
    int n;
    float (*decode)(uint16_t);
};
void wgmma(ProductArguments arguments);

}  // namespace host

inline void mbarrier_init(uint32_t barrier, uint32_t arrivals) { host::mbarrier_init(barrier, arrivals); }
inline void mbarrier_init_fence() {}
inline void mbarrier_arrive(uint32_t barrier) { host::mbarrier_arrive(barrier, 0); }
inline void mbarrier_arrive_expect(uint32_t barrier, uint32_t bytes) { host::mbarrier_arrive(barrier, bytes); }
inline void mbarrier_wait(uint32_t barrier, uint32_t parity) { host::mbarrier_wait(barrier, parity); }
inline void tensor_map_prefetch(const TensorMap *) {}
template <typename... At> void tensor_load(uint32_t to_shared, const TensorMap *map, uint32_t barrier, At... at) {
    static_assert(sizeof...(At) >= 3 && sizeof...(At) <= 5, "tensor maps of rank 3 to 5");
    const int32_t coordinates[] = {static_cast<int32_t>(at)...};
    host::tensor_load(to_shared, map, barrier, sizeof...(At), coordinates);
}
inline void bulk_load(uint32_t to_shared, const void *from, uint32_t bytes, uint32_t barrier) { host::bulk_load(to_shared, from, bytes, barrier); }
inline void bulk_store(void *to, uint32_t from_shared, uint32_t bytes) { host::bulk_store(to, from_shared, bytes); }
inline void bulk_commit() { host::bulk_commit(); }
template <int Pending> void bulk_wait_read() { host::bulk_wait_read(Pending); }
inline void fence_proxy_async() {}

template <int Count> void registers_increase() { static_assert(Count % 8 == 0 && Count >= 24 && Count <= 240); }
template <int Count> void registers_decrease() { static_assert(Count % 8 == 0 && Count >= 24 && Count <= 240); }

inline void wgmma_fence() { host::wgmma_fence(); }
inline void wgmma_commit() { host::wgmma_commit(); }
template <int Pending> void wgmma_wait() { host::wgmma_wait(Pending); }
template <int Count> void wgmma_hold(float (&)[Count]) {}
template <int Count> void wgmma_hold(uint32_t (&)[Count]) {}
inline void computed_by_now(float) {}

template <typename T, int N, bool TransposedB> void wgmma_shared(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate) {
    static_assert(N == 64 || N == 128 || N == 256, "simt_sm90.cuh has no such product");
    host::wgmma({d, nullptr, a, b, accumulate, TransposedB, N, host::decode<T>});
}
template <typename T, int N, bool TransposedB>
void wgmma_registers(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
    static_assert(N == 64 || N == 128 || N == 256, "simt_sm90.cuh has no such product");
    host::wgmma({d, a, 0, b, accumulate, TransposedB, N, host::decode<T>});
}

}  // namespace simt
