// The C interface of the emulation's shared library: launch by name, allocate checked memory, encode tensor maps.
#pragma once

#include <cstddef>
#include <cstdint>

#pragma GCC visibility push(default)
extern "C" {

struct HostLaunch {
    const char *kernel;
    const void *params;
    size_t params_size;
    uint32_t grid[3];
    uint32_t threads;
    uint32_t shared_bytes;
    uint32_t lazy_copies;   // 0: asynchronous copies happen at once, 1: as late as allowed
    uint64_t seed;          // order of blocks, warps and late copies
    uint32_t host_threads;  // 0 for all processors
    uint32_t reserved;
    char *error;            // receives a message, NUL-terminated
    size_t error_capacity;
};

struct HostEntry {
    const char *name;
    size_t params_size;
    uint32_t threads;
    uint32_t shared_bytes;
};

// 0, or -1 with a message in `error`.
int kernels_host_launch(const HostLaunch *launch);
// Memory that kernels may touch, filled with bytes of ones; an access outside fails the launch.
void *kernels_host_allocate(size_t bytes);
void kernels_host_release(void *memory);
// The i-th entry; 0 past the last.
int kernels_host_entry(size_t index, HostEntry *entry);
// cuTensorMapEncodeTiled's rules for 2-byte elements and the 128-byte swizzle (1) or none (0): 0, or the number of the argument that breaks one.
// `sizes`, `box`: elements, innermost first; `strides`: bytes, of dimensions 1 and up.
int kernels_host_encode_tensor_map(void *map, void *address, uint32_t rank, const uint64_t *sizes, const uint64_t *strides, const uint32_t *box,
                                   uint32_t swizzle_128);
}
#pragma GCC visibility pop
