// State of the emulated Hopper units: tensor maps as the emulation encodes them, and a warpgroup's products under way.
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <vector>

#include "machine.h"

namespace simt::host {

constexpr uint64_t kTensorMapMagic = 0x70616d726f736e65;

struct HostTensorMap {
    uint64_t magic;
    const uint8_t *address;
    uint32_t rank, swizzle_128;
    uint64_t sizes[5], strides[5];  // elements; bytes, strides[0] unused
    uint16_t box[5];
};
static_assert(sizeof(HostTensorMap) <= 128);

struct Product {
    int n;
    bool transposed_b, accumulate, a_in_registers;
    uint64_t a, b;
    float (*decode)(uint16_t);
    float *d[128] = {};
    const uint32_t *a_registers[128] = {};
    uint32_t a_values[128][4] = {};
    bool computed = false;
};

// Values of an accumulator while products on it are under way; the lanes' own copies are poisoned meanwhile.
struct Accumulator {
    std::vector<float> values;  // [128, n / 2]
    float *lanes[128];
    int n, products;
};

struct WarpgroupState {
    int arrived = 0;
    const char *name = nullptr;
    void *arguments[128];
    bool fenced = false;
    std::vector<Product> open;
    std::deque<std::vector<Product>> groups;  // committed, oldest first
    std::map<float *, Accumulator> accumulators;
};

}  // namespace simt::host
