// Counter-based random numbers, the same as src/engine/random.rs: the n-th draw of a seed does not depend on the draws before it.
#pragma once

#include "simt.cuh"

namespace simt {

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
SIMT_DEVICE U32x4 philox(U32x4 counter, uint32_t key0, uint32_t key1) {
    constexpr uint32_t kMultiplier0 = 0xd2511f53, kMultiplier1 = 0xcd9e8d57;
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        counter = {multiply_high(kMultiplier1, counter.z) ^ counter.y ^ key0, kMultiplier1 * counter.z,
                   multiply_high(kMultiplier0, counter.x) ^ counter.w ^ key1, kMultiplier0 * counter.x};
        key0 += 0x9e3779b9, key1 += 0xbb67ae85;
    }
    return counter;
}

// The `index`-th number of `seed`: 53 random bits, the binary places of a number in [0, 1).
SIMT_DEVICE uint64_t random_fraction(uint64_t seed, uint64_t index) {
    const U32x4 bits = philox({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), 0, 0}, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
    return (static_cast<uint64_t>(bits.y) << 32 | bits.x) & ~uint64_t{0x7ff};
}

// The high half of the 128-bit product: `fraction` of `total`, rounded down.
SIMT_DEVICE uint64_t multiply_fraction(uint64_t fraction, uint64_t total) {
    const uint64_t a1 = fraction >> 32, a0 = fraction & 0xffffffff, b1 = total >> 32, b0 = total & 0xffffffff;
    const uint64_t middle = a1 * b0 + (a0 * b0 >> 32);
    return a1 * b1 + (middle >> 32) + (((middle & 0xffffffff) + a0 * b1) >> 32);
}

}  // namespace simt
