// The emulated multiprocessor: CUDA threads as fibers, warp collectives, barriers, checked shared memory. What simt_host.h is written in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace simt::host {

// Addresses start here, so that zero and small offsets are caught; 1024-byte aligned as on the device.
constexpr uint32_t kSharedBase = 1024;

struct Fiber;
struct Block;
struct Warp;

// When asynchronous copies happen: both extremes of what the device may do.
enum class Copies { kEager, kLazy };

// What a lane brings to a collective; `arguments` points into the lane's stack.
struct Arrival {
    const char *name = nullptr;
    uint32_t mask = 0;
    void *arguments = nullptr;
};

// Runs once all lanes of `mask` arrived. `arguments[lane]` is null for lanes outside. Returns whether the lanes stay parked until `Block::wake`.
using Execute = bool (*)(Block &, Warp &, uint32_t mask, void **arguments);

struct PendingCopy {
    uint32_t to;
    const void *from;
    bool valid;
};

// A CUDA thread.
struct Lane {
    Fiber *fiber = nullptr;
    Warp *warp = nullptr;
    uint32_t thread = 0;
    const char *waits_for = "";
    Execute execute = nullptr;
    std::vector<std::vector<PendingCopy>> copy_groups;  // committed, oldest first
    std::vector<PendingCopy> open_copies;
    std::vector<std::vector<std::function<void()>>> store_groups;
    std::vector<std::function<void()>> open_stores;
};

struct Warp {
    Block *block = nullptr;
    uint32_t index = 0;
    uint32_t all = 0;    // lanes that exist
    uint32_t ready = 0;  // lanes that can run
    uint32_t done = 0;
    uint32_t parked = 0;  // lanes that wait in `arrivals`
    Arrival arrivals[32];
    Lane *lanes = nullptr;  // [32]
};

struct Barrier {
    uint32_t expected = 0, arrived = 0;
    std::vector<Warp *> waiting;
};

struct Mbarrier {
    uint32_t address, count, pending;
    int64_t bytes = 0;
    uint32_t phase = 0;
    struct Waiter { Lane *lane; uint32_t parity; };
    std::vector<Waiter> waiting = {};
};

struct WarpgroupState;

// One block on one host thread.
struct Block {
    const char *kernel;
    uint32_t grid[3], index[3], threads;
    std::vector<uint8_t> shared;
    Copies copies;
    std::mt19937 random;
    std::vector<Warp> warps;
    std::vector<Lane> lanes;
    Lane *running = nullptr;
    Barrier barriers[16];
    std::vector<Mbarrier> mbarriers;
    std::vector<std::function<void()>> engine;  // lazy copies of the copy engine, in no order
    std::vector<std::shared_ptr<WarpgroupState>> warpgroups;
    void (*entry)(const void *);
    const void *params;
    std::string error;
    bool failed = false;

    void run();
    void wake(Warp &warp, uint32_t lanes) { warp.ready |= lanes; }
    // Bytes of shared memory; fails on addresses outside the block's and on misaligned ones.
    uint8_t *shared_bytes(uint32_t address, size_t bytes, size_t alignment, const char *what);
    Mbarrier &mbarrier(uint32_t address, const char *what);
    void complete(Mbarrier &barrier);
};

extern thread_local Block *current;

// Ends the launch with "kernel, block, thread: message".
[[noreturn]] __attribute__((format(printf, 1, 2))) void fail(const char *format, ...);

// Parks the calling lane until all lanes of `mask` called the same collective, which then runs once.
void collective(const char *name, uint32_t mask, void *arguments, Execute execute);

// Lets other warps run, as the hardware might; parks until woken when `parked`.
void reschedule(bool parked, const char *waits_for);

// Fails unless `[address, address + bytes)` lies in memory from `allocate` or in the launch's parameters and is aligned.
void check_global(const void *address, size_t bytes, size_t alignment, const char *what);

void *allocate(size_t bytes);
void release(void *memory);

// A kernel's entry; objects of SIMT_KERNEL register themselves.
struct Entry {
    const char *name;
    size_t params_size;
    uint32_t threads, shared_bytes;
    void (*function)(const void *);
    Entry *next;
    Entry(const char *name, size_t params_size, uint32_t threads, uint32_t shared_bytes, void (*function)(const void *));
};
Entry *find_entry(const char *name);
Entry *first_entry();

}  // namespace simt::host
