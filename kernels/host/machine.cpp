// The scheduler of the emulation: runs the fibers of a block in random order, executes collectives, reports what would hang or be undefined.
#include "machine.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <tuple>

#include "fiber.h"
#include "warpgroup.h"

#ifndef SIMT_FIBER_UCONTEXT
asm(R"(
.text
.globl simt_fiber_switch
.hidden simt_fiber_switch
.type simt_fiber_switch, @function
simt_fiber_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
#endif

namespace simt::host {

thread_local Block *current = nullptr;

namespace {

// Stacks are kept by each host thread: mapping them anew for every block would cost more than running it.
struct Stacks {
    Fiber scheduler;
    std::deque<std::pair<Fiber, uint8_t *>> fibers;  // lanes keep pointers

    Fiber &fiber(size_t i, void (*main)()) {
        while (fibers.size() <= i) {
            // The lowest page stays inaccessible: a kernel whose locals do not fit crashes instead of writing into a neighbour.
            auto *memory = static_cast<uint8_t *>(mmap(nullptr, kStackBytes + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
            mprotect(memory, 4096, PROT_NONE);
            fibers.emplace_back(Fiber{}, memory + 4096);
        }
        fiber_make(fibers[i].first, fibers[i].second, main);
        return fibers[i].first;
    }
    ~Stacks() {
        for (auto &[fiber, memory] : fibers) munmap(memory - 4096, kStackBytes + 4096);
    }
};
thread_local std::unique_ptr<Stacks> stacks;

// Leaves the running lane for another ready one of its warp, or for the scheduler.
void leave(bool same_warp) {
    Block &block = *current;
    Lane &lane = *block.running;
    if (same_warp && lane.warp->ready) {
        Lane &next = lane.warp->lanes[__builtin_ctz(lane.warp->ready)];
        if (&next == &lane) return;
        block.running = &next;
        fiber_switch(*lane.fiber, *next.fiber);
    } else {
        fiber_switch(*lane.fiber, stacks->scheduler);
    }
}

void lane_main() {
    fiber_entered(*current->running->fiber);
    Block &block = *current;
    block.entry(block.params);
    Lane &lane = *block.running;
    Warp &warp = *lane.warp;
    uint32_t bit = 1u << (lane.thread % 32);
    for (int i = 0; i < 32; ++i) {
        if (warp.parked >> i & 1 && warp.arrivals[i].mask & bit)
            fail("returned from the kernel while lane %d waits for it in %s", i, warp.arrivals[i].name);
    }
    if (!lane.open_copies.empty() || !lane.copy_groups.empty() || !lane.open_stores.empty() || !lane.store_groups.empty())
        fail("returned with copies under way that nobody waited for");
    const size_t group = warp.index / 4;
    if (group < block.warpgroups.size() && block.warpgroups[group]) {
        const WarpgroupState &state = *block.warpgroups[group];
        if (!state.open.empty() || !state.groups.empty()) fail("returned with warpgroup products under way that nobody waited for");
    }
    warp.ready &= ~bit;
    warp.done |= bit;
    leave(true);
    __builtin_unreachable();
}

std::string where_lanes_wait(const Block &block) {
    std::map<std::string, std::vector<uint32_t>> waiting;
    for (const Lane &lane : block.lanes) {
        if (!(lane.warp->done >> (lane.thread % 32) & 1)) waiting[lane.waits_for].push_back(lane.thread);
    }
    std::string text;
    for (auto &[what, threads] : waiting) {
        text += text.empty() ? "" : ", ";
        text += std::to_string(threads.size()) + " threads (first " + std::to_string(threads[0]) + ") in " + what;
    }
    return text;
}

std::shared_mutex allocations_lock;
std::map<uintptr_t, size_t> allocations;  // start → bytes

Entry *entries = nullptr;

}  // namespace

void fail(const char *format, ...) {
    Block &block = *current;
    char message[1024], text[1400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    snprintf(text, sizeof text, "%s, block (%u, %u, %u), thread %d: %s", block.kernel, block.index[0], block.index[1], block.index[2],
             block.running ? static_cast<int>(block.running->thread) : -1, message);
    block.error = text;
    block.failed = true;
    // The fibers are abandoned where they stand: kernels own nothing.
    fiber_switch(*block.running->fiber, stacks->scheduler);
    __builtin_unreachable();
}

void reschedule(bool parked, const char *waits_for) {
    Lane &lane = *current->running;
    if (parked) {
        lane.warp->ready &= ~(1u << (lane.thread % 32));
        lane.waits_for = waits_for;
    }
    leave(parked);
}

void collective(const char *name, uint32_t mask, void *arguments, Execute execute) {
    Block &block = *current;
    Lane &lane = *block.running;
    Warp &warp = *lane.warp;
    uint32_t bit = 1u << (lane.thread % 32);
    if (!(mask & bit)) fail("%s with lanes %08x, of which the caller is none", name, mask);
    if (mask & ~warp.all) fail("%s needs lanes %08x, but the warp has only %08x", name, mask, warp.all);
    if (mask & warp.done) fail("%s needs lanes %08x that have returned from the kernel", name, mask & warp.done);
    for (uint32_t rest = warp.parked & mask; rest; rest &= rest - 1) {
        int other = __builtin_ctz(rest);
        const Arrival &arrival = warp.arrivals[other];
        if (arrival.mask != mask || warp.lanes[other].execute != execute)
            fail("diverged: this lane is in %s with lanes %08x, lane %d in %s with lanes %08x", name, mask, other, arrival.name, arrival.mask);
    }
    warp.arrivals[lane.thread % 32] = {name, mask, arguments};
    lane.execute = execute;
    lane.waits_for = name;
    warp.parked |= bit;
    if ((warp.parked & mask) != mask) {
        warp.ready &= ~bit;
        leave(true);
        return;
    }
    void *all[32];
    for (int i = 0; i < 32; ++i) all[i] = mask >> i & 1 ? warp.arrivals[i].arguments : nullptr;
    warp.parked &= ~mask;
    warp.ready &= ~mask;
    bool stay = execute(block, warp, mask, all);
    if (!stay) warp.ready |= mask;
    // Now and then another warp goes first, so that what only a barrier orders is seen in more than one order.
    if (!(warp.ready & bit) || (block.random() & 15) == 0) leave(false);
}

void Block::run() {
    current = this;
    if (!stacks) stacks = std::make_unique<Stacks>();
    size_t count = (threads + 31) / 32;
    warps.resize(count);
    lanes.resize(count * 32);
    for (size_t w = 0; w < count; ++w) {
        uint32_t live = std::min<uint32_t>(32, threads - w * 32);
        Warp &warp = warps[w];
        warp.block = this;
        warp.index = w;
        warp.all = warp.ready = live == 32 ? 0xffffffffu : (1u << live) - 1;
        warp.lanes = &lanes[w * 32];
        for (uint32_t i = 0; i < 32; ++i) {
            warp.lanes[i].warp = &warp;
            warp.lanes[i].thread = w * 32 + i;
            if (i < live) warp.lanes[i].fiber = &stacks->fiber(w * 32 + i, lane_main);
        }
    }
    lanes.resize(threads);
    std::vector<Warp *> ready;
    while (!failed) {
        ready.clear();
        bool finished = true;
        for (Warp &warp : warps) {
            if (warp.ready) ready.push_back(&warp);
            finished &= warp.done == warp.all;
        }
        if (ready.empty()) {
            char text[256];
            snprintf(text, sizeof text, "%s, block (%u, %u, %u): ", kernel, index[0], index[1], index[2]);
            if (finished && !engine.empty()) {
                error = text + std::string("ended while the copy engine was still writing its shared memory");
                failed = true;
                break;
            }
            if (!engine.empty()) {
                std::swap(engine[random() % engine.size()], engine.back());
                auto copy = std::move(engine.back());
                engine.pop_back();
                running = &lanes[0];
                copy();
                continue;
            }
            if (finished) break;
            error = text + std::string("deadlock: ") + where_lanes_wait(*this);
            failed = true;
            break;
        }
        Warp &warp = *ready[random() % ready.size()];
        running = &warp.lanes[__builtin_ctz(warp.ready)];
        fiber_switch(stacks->scheduler, *running->fiber);
    }
    current = nullptr;
}

uint8_t *Block::shared_bytes(uint32_t address, size_t bytes, size_t alignment, const char *what) {
    if (address < kSharedBase || address - kSharedBase + bytes > shared.size())
        fail("%s of %zu bytes at shared address %d of %zu", what, bytes, static_cast<int>(address) - static_cast<int>(kSharedBase), shared.size());
    if (address % alignment) fail("%s at shared address %u, which is not a multiple of %zu", what, address - kSharedBase, alignment);
    return shared.data() + (address - kSharedBase);
}

Mbarrier &Block::mbarrier(uint32_t address, const char *what) {
    for (Mbarrier &barrier : mbarriers)
        if (barrier.address == address) return barrier;
    fail("%s of an mbarrier at %u that was not initialised", what, address - kSharedBase);
}

void Block::complete(Mbarrier &barrier) {
    if (barrier.pending != 0 || barrier.bytes != 0) return;
    barrier.phase += 1;
    barrier.pending = barrier.count;
    auto waiting = std::move(barrier.waiting);
    barrier.waiting.clear();
    for (auto &waiter : waiting) {
        if ((barrier.phase & 1) != waiter.parity) wake(*waiter.lane->warp, 1u << (waiter.lane->thread % 32));
        else barrier.waiting.push_back(waiter);
    }
}

void check_global(const void *address, size_t bytes, size_t alignment, const char *what) {
    auto start = reinterpret_cast<uintptr_t>(address);
    if (start % alignment) fail("%s of global memory at %p, which is not a multiple of %zu", what, address, alignment);
    // Accesses come in runs: most are in the allocation of the one before.
    thread_local uintptr_t first[4] = {}, last[4] = {};
    thread_local unsigned next = 0;
    for (int i = 0; i < 4; ++i)
        if (start >= first[i] && start + bytes <= last[i]) return;
    uintptr_t begin = 0;
    size_t size = 0;
    {
        // Given back before anything fails: a fiber that fails is abandoned, and with it what it holds.
        std::shared_lock guard(allocations_lock);
        auto after = allocations.upper_bound(start);
        if (after != allocations.begin()) std::tie(begin, size) = *std::prev(after);
    }
    if (start + bytes <= begin + size) {
        first[next % 4] = begin, last[next % 4] = begin + size;
        next += 1;
        return;
    }
    if (size && start < begin + size + 4096)
        fail("%s of %zu bytes at offset %zu of an allocation of %zu bytes", what, bytes, static_cast<size_t>(start - begin), size);
    fail("%s of %zu bytes at %p, which is in no allocation", what, bytes, address);
}

// Allocations are never unmapped from the address space while a cache may know them: every one is at a new place, with a guard page behind it.
void *allocate(size_t bytes) {
    size_t page = 4096, mapped = (bytes + page - 1) / page * page + page;
    auto *memory = static_cast<uint8_t *>(mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (memory == MAP_FAILED) return nullptr;
    mprotect(memory + mapped - page, page, PROT_NONE);
    std::unique_lock guard(allocations_lock);
    allocations[reinterpret_cast<uintptr_t>(memory)] = bytes;
    return memory;
}

void release(void *memory) {
    std::unique_lock guard(allocations_lock);
    auto found = allocations.find(reinterpret_cast<uintptr_t>(memory));
    if (found == allocations.end()) return;
    size_t page = 4096, mapped = (found->second + page - 1) / page * page + page;
    munmap(memory, mapped);
    allocations.erase(found);
}

Entry::Entry(const char *name, size_t params_size, uint32_t threads, uint32_t shared_bytes, void (*function)(const void *))
    : name(name), params_size(params_size), threads(threads), shared_bytes(shared_bytes), function(function), next(entries) {
    entries = this;
}
Entry *first_entry() { return entries; }
Entry *find_entry(const char *name) {
    for (Entry *entry = entries; entry; entry = entry->next)
        if (!strcmp(entry->name, name)) return entry;
    return nullptr;
}

}  // namespace simt::host
