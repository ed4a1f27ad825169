// Runs a grid of emulated blocks on all processors.
#include "launch.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <numeric>
#include <thread>

#include "machine.h"
#include "warpgroup.h"

using namespace simt::host;

int kernels_host_launch(const HostLaunch *launch) {
    auto refuse = [&](const std::string &message) {
        snprintf(launch->error, launch->error_capacity, "%s", message.c_str());
        return -1;
    };
    std::string name = launch->kernel;
    Entry *entry = find_entry(launch->kernel);
    if (!entry) return refuse(name + ": no such kernel");
    if (entry->params_size != launch->params_size)
        return refuse(name + ": parameters of " + std::to_string(launch->params_size) + " bytes, expected " + std::to_string(entry->params_size));
    if (launch->threads != entry->threads || launch->shared_bytes > 232448) {
        return refuse(name + ": launched with " + std::to_string(launch->threads) + " threads and " + std::to_string(launch->shared_bytes) +
                      " bytes of shared memory, made for " + std::to_string(entry->threads) + " and " + std::to_string(entry->shared_bytes));
    }
    size_t blocks = size_t{launch->grid[0]} * launch->grid[1] * launch->grid[2];
    std::vector<uint32_t> order(blocks);
    std::iota(order.begin(), order.end(), 0u);
    std::mt19937 random(static_cast<uint32_t>(launch->seed));
    std::shuffle(order.begin(), order.end(), random);

    std::atomic<size_t> next{0};
    std::atomic<bool> failed{false};
    std::mutex error_lock;
    std::string error;
    auto work = [&] {
        Block block;
        for (size_t i; (i = next.fetch_add(1)) < blocks && !failed;) {
            uint32_t index = order[i];
            block = Block{};
            block.kernel = entry->name;
            std::copy_n(launch->grid, 3, block.grid);
            block.index[0] = index % launch->grid[0];
            block.index[1] = index / launch->grid[0] % launch->grid[1];
            block.index[2] = index / launch->grid[0] / launch->grid[1];
            block.threads = launch->threads;
            block.shared.assign(launch->shared_bytes, 0xff);  // NaN in every floating-point format
            block.copies = launch->lazy_copies ? Copies::kLazy : Copies::kEager;
            block.random.seed(static_cast<uint32_t>(launch->seed * 0x9e3779b97f4a7c15u >> 32) + index);
            block.entry = entry->function;
            block.params = launch->params;
            block.run();
            if (block.failed) {
                std::lock_guard guard(error_lock);
                if (!failed.exchange(true)) error = block.error;
            }
        }
    };
    size_t count = launch->host_threads ? launch->host_threads : std::max(1u, std::thread::hardware_concurrency());
    // Few blocks are done before another thread has stacks; the caller has those of the launches before.
    constexpr size_t kBlocksPerThread = 4;
    std::vector<std::thread> threads;
    for (size_t i = 1; i < std::min(count, (blocks + kBlocksPerThread - 1) / kBlocksPerThread); ++i) threads.emplace_back(work);
    work();
    for (auto &thread : threads) thread.join();
    return failed ? refuse(error) : 0;
}

void *kernels_host_allocate(size_t bytes) {
    void *memory = allocate(bytes);
    if (memory) memset(memory, 0xff, bytes);
    return memory;
}

void kernels_host_release(void *memory) { release(memory); }

int kernels_host_entry(size_t index, HostEntry *out) {
    Entry *entry = first_entry();
    for (; entry && index; --index) entry = entry->next;
    if (!entry) return 0;
    *out = {entry->name, entry->params_size, entry->threads, entry->shared_bytes};
    return 1;
}

int kernels_host_encode_tensor_map(void *map, void *address, uint32_t rank, const uint64_t *sizes, const uint64_t *strides, const uint32_t *box,
                                   uint32_t swizzle_128) {
    if (reinterpret_cast<uintptr_t>(map) % 64) return 1;
    if (reinterpret_cast<uintptr_t>(address) % 16) return 2;
    if (rank < 1 || rank > 5) return 3;
    HostTensorMap encoded{};
    encoded.magic = kTensorMapMagic;
    encoded.address = static_cast<const uint8_t *>(address);
    encoded.rank = rank;
    encoded.swizzle_128 = swizzle_128;
    for (uint32_t i = 0; i < rank; ++i) {
        if (sizes[i] == 0 || sizes[i] > uint64_t{1} << 32) return 4;
        encoded.sizes[i] = sizes[i];
        if (i > 0) {
            if (strides[i - 1] % 16 || strides[i - 1] >= uint64_t{1} << 40) return 5;
            encoded.strides[i] = strides[i - 1];
        }
        if (box[i] == 0 || box[i] > 256) return 6;
        encoded.box[i] = static_cast<uint16_t>(box[i]);
    }
    if (box[0] * 2 % 16 || (swizzle_128 && box[0] * 2 > 128)) return 6;
    memcpy(map, &encoded, sizeof encoded);
    return 0;
}
