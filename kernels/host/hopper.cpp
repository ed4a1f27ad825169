// The emulated copy engine and warpgroup products.
#include "../simt.cuh"

namespace simt::host {

namespace {

// Bits 4 to 6 of an address are exchanged with the row's number in its 1024-byte atom.
uint32_t swizzled(uint32_t address) { return address ^ (address >> 3 & 0x70); }

void bring(uint32_t barrier, uint32_t bytes) {
    Block &block = *current;
    Mbarrier &at = block.mbarrier(barrier, "completion");
    at.bytes -= bytes;
    block.complete(at);
}

void engine_copy(std::function<void()> copy) {
    Block &block = *current;
    if (block.copies == Copies::kEager) copy();
    else block.engine.push_back(std::move(copy));
}

float poison() { return std::bit_cast<float>(0xffffffffu); }
bool is_poison(float value) { return std::bit_cast<uint32_t>(value) == 0xffffffffu; }

// Reads element (row, k) of a, (k, column) of b where the descriptor says they are.
struct Operand {
    uint32_t address, column_bytes, group_bytes;
    Operand(uint64_t descriptor, const char *what)
        : address((descriptor & 0x3fff) << 4), column_bytes((descriptor >> 16 & 0x3fff) << 4), group_bytes((descriptor >> 32 & 0x3fff) << 4) {
        if (descriptor >> 62 != 1) fail("wgmma: %s's descriptor has swizzle mode %d, the emulation knows 128 bytes (1)", what, static_cast<int>(descriptor >> 62));
        if (descriptor >> 49 & 7) fail("wgmma: %s's descriptor has a base offset", what);
        if (group_bytes % 1024) fail("wgmma: %s's groups of 8 rows are %u bytes apart, not a multiple of 1024", what, group_bytes);
    }
    uint16_t read(uint32_t offset) const {
        uint16_t bits;
        memcpy(&bits, current->shared_bytes(swizzled(address + offset), 2, 2, "wgmma"), 2);
        return bits;
    }
    uint16_t by_rows(int row, int k) const { return read(row / 8 * group_bytes + row % 8 * 128 + k * 2); }
    uint16_t by_k(int k, int column) const { return read(column / 64 * column_bytes + k / 8 * group_bytes + k % 8 * 128 + column % 64 * 2); }
};

void compute(WarpgroupState &state, Product &product) {
    if (product.computed) return;
    product.computed = true;
    Accumulator &accumulator = state.accumulators.at(product.d[0]);
    static thread_local float a[64][16], b[16][256], d[64][256];
    int n = product.n;
    if (product.a_in_registers) {
        for (int t = 0; t < 128; ++t)
            for (int i = 0; i < 4; ++i) {
                if (product.a_registers[t][i] != product.a_values[t][i])
                    fail("wgmma: thread %d changed a's registers before the wait", t);
                int row = t / 32 * 16 + t % 32 / 4 + i % 2 * 8, k = t % 4 * 2 + i / 2 * 8;
                a[row][k] = product.decode(static_cast<uint16_t>(product.a_values[t][i]));
                a[row][k + 1] = product.decode(static_cast<uint16_t>(product.a_values[t][i] >> 16));
            }
    } else {
        Operand operand(product.a, "a");
        for (int row = 0; row < 64; ++row)
            for (int k = 0; k < 16; ++k) a[row][k] = product.decode(operand.by_rows(row, k));
    }
    Operand operand(product.b, "b");
    for (int k = 0; k < 16; ++k)
        for (int column = 0; column < n; ++column)
            b[k][column] = product.decode(product.transposed_b ? operand.by_k(k, column) : operand.by_rows(column, k));
    auto at = [&](int t, int i) -> float & {
        return d[t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8][i / 4 * 8 + t % 4 * 2 + i % 2];
    };
    for (int t = 0; t < 128; ++t)
        for (int i = 0; i < n / 2; ++i) at(t, i) = product.accumulate ? accumulator.values[t * (n / 2) + i] : 0.0f;
    for (int row = 0; row < 64; ++row)
        for (int k = 0; k < 16; ++k)
            for (int column = 0; column < n; ++column) d[row][column] += a[row][k] * b[k][column];
    for (int t = 0; t < 128; ++t)
        for (int i = 0; i < n / 2; ++i) accumulator.values[t * (n / 2) + i] = at(t, i);
}

void finish(WarpgroupState &state, Product &product) {
    compute(state, product);
    auto found = state.accumulators.find(product.d[0]);
    Accumulator &accumulator = found->second;
    if (--accumulator.products) return;
    for (int t = 0; t < 128; ++t)
        for (int i = 0; i < accumulator.n / 2; ++i) {
            if (!is_poison(accumulator.lanes[t][i])) fail("wgmma: thread %d wrote an accumulator before the wait", t);
            accumulator.lanes[t][i] = accumulator.values[t * (accumulator.n / 2) + i];
        }
    state.accumulators.erase(found);
}

void issue(Block &block, WarpgroupState &state) {
    auto **lanes = reinterpret_cast<ProductArguments **>(state.arguments);
    const ProductArguments &first = *lanes[0];
    if (!state.fenced) fail("wgmma without a wgmma.fence since the last wait");
    if (first.transposed_b && first.n % 64) fail("wgmma: %d columns of a transposed b are not whole atoms of 64", first.n);
    Product product{.n = first.n, .transposed_b = first.transposed_b, .accumulate = first.accumulate,
                    .a_in_registers = first.a_registers != nullptr, .a = first.a, .b = first.b, .decode = first.decode};
    for (int t = 0; t < 128; ++t) {
        if (lanes[t]->n != first.n || lanes[t]->a != first.a || lanes[t]->b != first.b || lanes[t]->accumulate != first.accumulate)
            fail("wgmma: thread %d of the warpgroup disagrees with the first about descriptors or accumulation", t);
        product.d[t] = lanes[t]->d;
        product.a_registers[t] = lanes[t]->a_registers;
        if (product.a_in_registers) memcpy(product.a_values[t], lanes[t]->a_registers, 16);
    }
    auto [found, fresh] = state.accumulators.try_emplace(product.d[0]);
    Accumulator &accumulator = found->second;
    if (fresh) {
        accumulator.n = first.n;
        accumulator.products = 0;
        accumulator.values.resize(128 * first.n / 2);
        for (int t = 0; t < 128; ++t) {
            accumulator.lanes[t] = product.d[t];
            memcpy(&accumulator.values[t * (first.n / 2)], product.d[t], first.n / 2 * 4);
            std::fill_n(product.d[t], first.n / 2, poison());
        }
    } else if (accumulator.n != first.n) {
        fail("wgmma: two shapes on one accumulator");
    }
    accumulator.products += 1;
    state.open.push_back(product);
    if (block.copies == Copies::kEager) compute(state, state.open.back());
}

using WarpgroupExecute = void (*)(Block &, WarpgroupState &);
struct GroupArguments {
    const char *name;
    void *arguments;
    WarpgroupExecute execute;
};

// Four warps make a warpgroup: the last to arrive executes and wakes the others.
bool arrive_at_warpgroup(Block &block, Warp &warp, uint32_t, void **arguments) {
    size_t group = warp.index / 4;
    if (block.threads % 128) fail("a warpgroup instruction in a block of %u threads", block.threads);
    if (block.warpgroups.size() < block.threads / 128) block.warpgroups.resize(block.threads / 128);
    if (!block.warpgroups[group]) block.warpgroups[group] = std::make_shared<WarpgroupState>();
    WarpgroupState &state = *block.warpgroups[group];
    auto *first = static_cast<GroupArguments *>(arguments[0]);
    if (state.arrived && strcmp(state.name, first->name)) fail("warps of a warpgroup diverged: %s and %s", state.name, first->name);
    state.name = first->name;
    for (int l = 0; l < 32; ++l) state.arguments[warp.index % 4 * 32 + l] = static_cast<GroupArguments *>(arguments[l])->arguments;
    if (++state.arrived < 4) return true;
    state.arrived = 0;
    first->execute(block, state);
    for (size_t w = group * 4; w < group * 4 + 4; ++w) block.wake(block.warps[w], kFullWarp);
    return true;
}

void warpgroup(const char *name, void *arguments, WarpgroupExecute execute) {
    GroupArguments group{name, arguments, execute};
    collective(name, kFullWarp, &group, arrive_at_warpgroup);
}

}  // namespace

void mbarrier_init(uint32_t barrier, uint32_t arrivals) {
    Block &block = *current;
    block.shared_bytes(barrier, 8, 8, "mbarrier.init");
    if (arrivals == 0) fail("mbarrier.init for 0 arrivals");
    for (Mbarrier &at : block.mbarriers)
        if (at.address == barrier) fail("mbarrier at %u initialised twice", barrier - kSharedBase);
    block.mbarriers.push_back({.address = barrier, .count = arrivals, .pending = arrivals});
}

void mbarrier_arrive(uint32_t barrier, uint32_t bytes) {
    Block &block = *current;
    Mbarrier &at = block.mbarrier(barrier, "arrival");
    if (at.pending == 0) fail("mbarrier at %u: more than %u arrivals in a phase", barrier - kSharedBase, at.count);
    at.bytes += bytes;
    at.pending -= 1;
    block.complete(at);
}

void mbarrier_wait(uint32_t barrier, uint32_t parity) {
    Block &block = *current;
    if (parity > 1) fail("mbarrier wait for parity %u", parity);
    for (;;) {
        Mbarrier &at = block.mbarrier(barrier, "wait");
        if ((at.phase & 1) != parity) return;
        at.waiting.push_back({block.running, parity});
        reschedule(true, "mbarrier.try_wait");
    }
}

void tensor_load(uint32_t to_shared, const TensorMap *map, uint32_t barrier, uint32_t rank, const int32_t *at) {
    Block &block = *current;
    HostTensorMap tensor;
    memcpy(&tensor, map, sizeof tensor);
    if (reinterpret_cast<uintptr_t>(map) % 64) fail("tensor load: the map is not 64-byte aligned");
    if (tensor.magic != kTensorMapMagic) fail("tensor load: not a tensor map");
    if (tensor.rank != rank) fail("tensor load of rank %u with a map of rank %u", rank, tensor.rank);
    uint32_t bytes = 2;
    for (uint32_t i = 0; i < rank; ++i) bytes *= tensor.box[i];
    uint8_t *to = block.shared_bytes(to_shared, bytes, tensor.swizzle_128 ? 1024 : 128, "tensor load");
    block.mbarrier(barrier, "tensor load");
    if (block.copies == Copies::kLazy) memset(to, 0xff, bytes);
    int64_t start[5] = {};
    for (uint32_t i = 0; i < rank; ++i) start[i] = at[i];
    engine_copy([=, &block] {
        uint32_t row_bytes = tensor.box[0] * 2u;
        for (uint32_t row = 0; row < bytes / row_bytes; ++row) {
            const uint8_t *from = tensor.address;
            bool inside = true;
            uint32_t rest = row;
            for (uint32_t i = 1; i < rank; ++i) {
                int64_t position = start[i] + rest % tensor.box[i];
                rest /= tensor.box[i];
                inside &= position >= 0 && position < static_cast<int64_t>(tensor.sizes[i]);
                from += position * static_cast<int64_t>(tensor.strides[i]);
            }
            for (uint32_t x = 0; x < tensor.box[0]; ++x) {
                int64_t column = start[0] + x;
                uint32_t address = to_shared + row * row_bytes + x * 2;
                uint8_t *target = block.shared.data() + (tensor.swizzle_128 ? swizzled(address) : address) - kSharedBase;
                if (inside && column >= 0 && column < static_cast<int64_t>(tensor.sizes[0])) memcpy(target, from + column * 2, 2);
                else memset(target, 0, 2);
            }
        }
        bring(barrier, bytes);
    });
}

void bulk_load(uint32_t to_shared, const void *from, uint32_t bytes, uint32_t barrier) {
    Block &block = *current;
    if (bytes % 16) fail("bulk load of %u bytes, not a multiple of 16", bytes);
    uint8_t *to = block.shared_bytes(to_shared, bytes, 16, "bulk load");
    check_global(from, bytes, 16, "bulk load");
    block.mbarrier(barrier, "bulk load");
    if (block.copies == Copies::kLazy) memset(to, 0xff, bytes);
    engine_copy([=] {
        memcpy(to, from, bytes);
        bring(barrier, bytes);
    });
}

void bulk_store(void *to, uint32_t from_shared, uint32_t bytes) {
    Block &block = *current;
    if (bytes % 16) fail("bulk store of %u bytes, not a multiple of 16", bytes);
    const uint8_t *from = block.shared_bytes(from_shared, bytes, 16, "bulk store");
    check_global(to, bytes, 16, "bulk store");
    auto store = [=] { memcpy(to, from, bytes); };
    if (block.copies == Copies::kEager) store();
    else block.running->open_stores.push_back(store);
}

void bulk_commit() {
    Lane &lane = *current->running;
    lane.store_groups.push_back(std::move(lane.open_stores));
    lane.open_stores.clear();
}

void bulk_wait_read(size_t pending) {
    auto &groups = current->running->store_groups;
    for (; groups.size() > pending; groups.erase(groups.begin()))
        for (auto &store : groups.front()) store();
}

void wgmma_fence() {
    warpgroup("wgmma.fence", nullptr, [](Block &, WarpgroupState &state) { state.fenced = true; });
}

void wgmma_commit() {
    warpgroup("wgmma.commit_group", nullptr, [](Block &, WarpgroupState &state) {
        state.groups.push_back(std::move(state.open));
        state.open.clear();
    });
}

void wgmma_wait(size_t pending) {
    warpgroup("wgmma.wait_group", &pending, [](Block &, WarpgroupState &state) {
        size_t pending = *static_cast<size_t *>(state.arguments[0]);
        for (; state.groups.size() > pending; state.groups.pop_front())
            for (Product &product : state.groups.front()) finish(state, product);
        state.fenced = false;
    });
}

void wgmma(ProductArguments arguments) {
    warpgroup("wgmma.mma_async", &arguments, issue);
}

}  // namespace simt::host
