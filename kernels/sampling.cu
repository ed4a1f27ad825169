// One token a row of logits: greedy, or drawn after temperature, top-k and top-p; the rules and the draws of src/engine/sampler.rs.
//
// The blocks of a row reduce a chunk each to its maximum and sums, read once at memory speed; the last to finish has the row's. That is all a greedy row
// takes. For a drawn one it goes on alone, with the row in L2. Weights are integers, units of 2^-44 of the largest one: their sums are exact in any order,
// so whatever the order of threads, the same token comes out, and 2^18 tokens fit into 64 bits. Candidates rank by (logit, then lower id), as one 64-bit
// key; the fewest best whose weights, or counts, sum to more than a target are what top-k, top-p and the draw itself each ask for.
//   nothing cut off: the draw goes by id, one pass over the row.
//   otherwise: one pass, seldom more, collects the candidates near the maximum; where they hold the kept set, they are sorted in shared memory.
//   a flat distribution whose kept set is larger: the cut is searched for bit by bit of the key, a pass over the row a bit.
#include "philox.cuh"
#include "rows.cuh"

using namespace simt;

namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kQuads = 2;                         // of a chunk, a thread
constexpr int kChunk = kThreads * kQuads * 4;     // logits a block reduces
constexpr int kLoads = 4;                         // quads a thread has in flight in a pass over the row
constexpr int kCandidates = 4096;                 // that are sorted in shared memory
constexpr int kCandidatesPerThread = kCandidates / kThreads;
constexpr float kLog2E = 1.44269504f;
constexpr float kLn2 = 0.693147181f;
constexpr float kUnit = 17592186044416.0f;        // 2^44
constexpr float kWeightless = 31.0f;              // e^-31 < 2^-44: candidates that far below the maximum weigh nothing
constexpr uint64_t kInvalid = ~uint64_t{0};       // the key of NaN

// Shared memory: the candidates' keys, a reduction's scratch, words to tell other threads.
constexpr int kScratch = kCandidates * sizeof(uint64_t);
constexpr int kMessage = kScratch + kWarps * sizeof(uint64_t);  // 16 bytes
constexpr int kCounter = kMessage + 16;
constexpr int kSharedBytes = kCounter + 16;

// What a block finds out about its chunk; sums are relative to the chunk's maximum.
struct ChunkStats {
    uint64_t best;       // key of the maximum
    float sum;           // of exponentials at temperature 1
    float scaled_sum;    // at the row's temperature
};

// Larger for better candidates: larger logits, then lower ids. The order of f32::total_cmp.
SIMT_DEVICE uint64_t candidate_key(float logit, int id) {
    const uint32_t bits = float_bits(logit);
    return static_cast<uint64_t>(bits >> 31 ? ~bits : bits | 0x80000000u) << 32 | ~static_cast<uint32_t>(id);
}
SIMT_DEVICE float key_logit(uint64_t key) {
    const uint32_t ordered = static_cast<uint32_t>(key >> 32);
    return bits_float(ordered >> 31 ? ordered & 0x7fffffff : ~ordered);
}
SIMT_DEVICE int key_id(uint64_t key) { return static_cast<int>(~static_cast<uint32_t>(key)); }

// exp(logit - max) by a scale of log2(e) / temperature.
SIMT_DEVICE float exponential(float logit, float max, float scale) {
    return max == -infinity() ? 0.0f : exp2_approx((logit - max) * scale);
}

template <typename T> struct Row {
    const T *logits;  // [vocabulary]
    int vocabulary;
    bool aligned;
    float max, scale;  // log2(e) / temperature

    SIMT_DEVICE uint64_t weight(float logit) const { return static_cast<uint64_t>(exponential(logit, max, scale) * kUnit); }

    // Calls visit(logit, id) for the quads first, first + stride, … before `end`.
    template <typename Visit> SIMT_DEVICE void visit(int first, int end, int stride, Visit visit) const {
        for (int column = first; column < end; column += kLoads * stride) {
            float values[kLoads][4];
#pragma unroll
            for (int i = 0; i < kLoads; ++i) load_quad(logits, column + i * stride, end, aligned, values[i]);
#pragma unroll
            for (int i = 0; i < kLoads; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    if (column + i * stride + j < end) visit(values[i][j], column + i * stride + j);
        }
    }
    template <typename Visit> SIMT_DEVICE void visit_all(Visit function) const { visit(thread_index() * 4, vocabulary, kThreads * 4, function); }
};

SIMT_DEVICE uint64_t block_sum(uint64_t value) {
    return block_reduce(value, shared_base() + kScratch, [](uint64_t a, uint64_t b) { return a + b; });
}

// The target of the nucleus: prefixes whose sum exceeds it are those whose sum is at least `top_p` of the total.
SIMT_DEVICE uint64_t nucleus_target(float top_p, uint64_t total) {
    const double mass = static_cast<double>(top_p) * static_cast<double>(total);
    const uint64_t whole = static_cast<uint64_t>(mass);
    return whole > 0 && static_cast<double>(whole) == mass ? whole - 1 : whole;
}

template <typename T> SIMT_DEVICE ChunkStats chunk_stats(const Row<T> &row, int first) {
    float values[kQuads][4];
    uint64_t best = 0;
#pragma unroll
    for (int q = 0; q < kQuads; ++q) load_quad(row.logits, first + (q * kThreads + static_cast<int>(thread_index())) * 4, row.vocabulary, row.aligned, values[q]);
#pragma unroll
    for (int q = 0; q < kQuads; ++q)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int id = first + (q * kThreads + thread_index()) * 4 + i;
            if (id >= row.vocabulary) values[q][i] = -infinity();
            // Adding zero makes the zeros one: among equal logits the lowest id is taken.
            const uint64_t key = values[q][i] != values[q][i] ? kInvalid : candidate_key(values[q][i] + 0.0f, id);
            if (key > best) best = key;
        }
    best = block_reduce(best, shared_base() + kScratch, [](uint64_t a, uint64_t b) { return a > b ? a : b; });
    const float max = key_logit(best);
    float sum = 0.0f, scaled_sum = 0.0f;
#pragma unroll
    for (int q = 0; q < kQuads; ++q)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            sum += exponential(values[q][i], max, kLog2E);
            scaled_sum += exponential(values[q][i], max, row.scale);
        }
    const auto add = [](float a, float b) { return a + b; };
    sum = block_reduce(sum, shared_base() + kScratch, add);
    return {best, sum, block_reduce(scaled_sum, shared_base() + kScratch, add)};
}

// All chunks as one, added in ascending order.
SIMT_DEVICE ChunkStats merge_chunks(const ChunkStats *chunks, int count, float scale) {
    ChunkStats row = {0, 0.0f, 0.0f};
    for (int i = 0; i < count; ++i) {
        const uint64_t best = global_load<uint64_t>(&chunks[i].best);
        if (best > row.best) row.best = best;
    }
    const float max = key_logit(row.best);
    for (int i = 0; i < count; ++i) {
        const float chunk_max = key_logit(global_load<uint64_t>(&chunks[i].best));
        row.sum += global_load<float>(&chunks[i].sum) * exponential(chunk_max, max, kLog2E);
        row.scaled_sum += global_load<float>(&chunks[i].scaled_sum) * exponential(chunk_max, max, scale);
    }
    return row;
}

// The id in whose share of all weights, in the order of ids, the `fraction` of their sum falls.
template <typename T> SIMT_DEVICE int draw_by_id(const Row<T> &row, uint64_t fraction) {
    constexpr int kRun = kWarpSize * 4;
    const int lane = lane_index(), warp = warp_index();
    const int segment = (row.vocabulary + kWarps * kRun - 1) / (kWarps * kRun) * kRun;  // of a warp
    const int first = warp * segment, end = minimum(first + segment, row.vocabulary);
    uint64_t sum = 0;
    row.visit(first + lane * 4, end, kRun, [&](float logit, int) { sum += row.weight(logit); });
#pragma unroll
    for (int bits = kWarpSize / 2; bits > 0; bits /= 2) sum += shuffle_xor(sum, bits);
    const uint32_t sums = shared_base() + kScratch, message = shared_base() + kMessage;
    if (lane == 0) shared_store(sums + warp * 8, sum);
    sync_threads();
    uint64_t total = 0, before = 0;
    for (int w = 0; w < kWarps; ++w) {
        if (w == warp) before = total;
        total += shared_load<uint64_t>(sums + w * 8);
    }
    const uint64_t point = multiply_fraction(fraction, total);
    if (point >= before && point < before + sum) {
        for (int run = first; run < end; run += kRun) {
            float values[4];
            load_quad(row.logits, run + lane * 4, end, row.aligned, values);
            uint64_t weights[4], inclusive = 0;
#pragma unroll
            for (int i = 0; i < 4; ++i) inclusive += weights[i] = run + lane * 4 + i < end ? row.weight(values[i]) : 0;
            const uint64_t own = inclusive;
#pragma unroll
            for (int lanes = 1; lanes < kWarpSize; lanes *= 2) {
                const uint64_t lower = shuffle_up(inclusive, lanes);
                if (lane >= lanes) inclusive += lower;
            }
            if (before + inclusive > point && before + inclusive - own <= point) {
                uint64_t reached = before + inclusive - own;
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    if (reached <= point && reached + weights[i] > point) shared_store<int32_t>(message, run + lane * 4 + i);
                    reached += weights[i];
                }
            }
            before += shuffle(inclusive, kWarpSize - 1);
            if (before > point) break;
        }
    }
    sync_threads();
    return shared_load<int32_t>(message);
}

// The candidates in shared memory, best first once sorted.
struct Candidates {
    int count;
    uint64_t before, sum;  // weights of candidates that other threads hold before this one's, and of this one's

    static SIMT_DEVICE uint32_t at(int index) { return shared_base() + index * sizeof(uint64_t); }

    // Collects what lies at most `distance` temperatures below the maximum; `count` may exceed what was kept.
    template <typename T> SIMT_DEVICE void collect(const Row<T> &row, float lowest) {
        const uint32_t counter = shared_base() + kCounter;
        sync_threads();
        if (thread_index() == 0) shared_store<int32_t>(counter, 0);
        sync_threads();
        row.visit_all([&](float logit, int id) {
            if (logit < lowest) return;
            const int slot = shared_atomic_add(counter, 1);
            if (slot < kCandidates) shared_store(at(slot), candidate_key(logit, id));
        });
        sync_threads();
        count = shared_load<int32_t>(counter);
    }

    template <typename T> SIMT_DEVICE uint64_t mass(const Row<T> &row) const {
        uint64_t mass = 0;
        for (int i = thread_index(); i < count; i += kThreads) mass += row.weight(key_logit(shared_load<uint64_t>(at(i))));
        return block_sum(mass);
    }

    // Bitonic, over the next power of two; keys are unique, so that the order they were collected in is forgotten.
    SIMT_DEVICE void sort() const {
        int size = kWarpSize;
        while (size < count) size *= 2;
        for (int i = count + thread_index(); i < size; i += kThreads) shared_store<uint64_t>(at(i), 0);
        for (int run = 2; run <= size; run *= 2)
            for (int step = run / 2; step > 0; step /= 2) {
                sync_threads();
                for (int i = thread_index(); i < size / 2; i += kThreads) {
                    const int low = i / step * step * 2 + i % step, high = low + step;
                    const uint64_t a = shared_load<uint64_t>(at(low)), b = shared_load<uint64_t>(at(high));
                    const bool descending = (low & run) == 0;
                    if (descending ? a < b : a > b) {
                        shared_store(at(low), b);
                        shared_store(at(high), a);
                    }
                }
            }
        sync_threads();
    }

    template <typename T> SIMT_DEVICE uint64_t weight(const Row<T> &row, int index) const {
        return index < count ? row.weight(key_logit(shared_load<uint64_t>(at(index)))) : 0;
    }

    // Prefix sums over the threads, which hold kCandidatesPerThread neighbours each.
    template <typename T> SIMT_DEVICE void scan(const Row<T> &row) {
        sum = 0;
        for (int i = 0; i < kCandidatesPerThread; ++i) sum += weight(row, thread_index() * kCandidatesPerThread + i);
        uint64_t inclusive = sum;
#pragma unroll
        for (int lanes = 1; lanes < kWarpSize; lanes *= 2) {
            const uint64_t lower = shuffle_up(inclusive, lanes);
            if (static_cast<int>(lane_index()) >= lanes) inclusive += lower;
        }
        const uint32_t sums = shared_base() + kScratch;
        sync_threads();
        if (lane_index() == kWarpSize - 1) shared_store(sums + warp_index() * 8, inclusive);
        sync_threads();
        before = inclusive - sum;
        for (uint32_t w = 0; w < warp_index(); ++w) before += shared_load<uint64_t>(sums + w * 8);
    }

    struct Prefix {
        uint64_t sum;
        int last;
    };
    // The shortest prefix whose sum exceeds `target` or that ends with candidate `last`.
    template <typename T> SIMT_DEVICE Prefix prefix(const Row<T> &row, uint64_t target, int last) const {
        const uint32_t message = shared_base() + kMessage;
        const int first = thread_index() * kCandidatesPerThread;
        sync_threads();
        if (before <= target && first <= last) {
            uint64_t reached = before;
            for (int i = first; i < first + kCandidatesPerThread && i <= last; ++i) {
                reached += weight(row, i);
                if (reached > target || i == last) {
                    shared_store(message, reached);
                    shared_store<int32_t>(message + 8, i);
                    break;
                }
            }
        }
        sync_threads();
        return {shared_load<uint64_t>(message), shared_load<int32_t>(message + 8)};
    }
};

// The sum of `measure(logit)` over the row's candidates from `cut` up.
template <typename T, typename Measure> SIMT_DEVICE uint64_t sum_from(const Row<T> &row, uint64_t cut, Measure measure) {
    uint64_t sum = 0;
    row.visit_all([&](float logit, int id) { sum += candidate_key(logit, id) >= cut ? measure(logit) : 0; });
    return block_sum(sum);
}

// The key of the last candidate of the shortest prefix whose sum exceeds `target`.
template <typename T, typename Measure> SIMT_DEVICE uint64_t search_cut(const Row<T> &row, uint64_t target, Measure measure) {
    uint64_t cut = 0;
    for (int bit = 63; bit >= 0; --bit) {
        const uint64_t higher = cut | uint64_t{1} << bit;
        // The high bits of an inverted id are ones.
        const bool constant = bit < 32 && uint64_t{1} << bit >= static_cast<uint64_t>(row.vocabulary);
        if (constant || sum_from(row, higher, measure) > target) cut = higher;
    }
    return cut;
}

template <typename T> SIMT_DEVICE int draw_by_search(const Row<T> &row, int top_k, float top_p, uint64_t fraction) {
    const auto weight = [&](float logit) { return row.weight(logit); };
    uint64_t cut = top_k > 0 ? search_cut(row, top_k - 1, [](float) { return uint64_t{1}; }) : 0;
    if (top_p < 1.0f) cut = search_cut(row, nucleus_target(top_p, sum_from(row, cut, weight)), weight);
    return key_id(search_cut(row, multiply_fraction(fraction, sum_from(row, cut, weight)), weight));
}

// `total`: of all weights.
template <typename T> SIMT_DEVICE int draw_by_rank(const Row<T> &row, float temperature, int top_k, float top_p, uint64_t total, uint64_t fraction) {
    constexpr int kTries = 8;
    Candidates candidates = {};
    float distance = 12.0f, too_near = 0.0f, too_far = infinity();
    bool found = false;
    for (int i = 0; i < kTries && !found; ++i) {
        candidates.collect(row, row.max - distance * temperature);
        if (candidates.count > kCandidates) {
            too_far = distance;
        } else {
            found = distance >= kWeightless || (top_k > 0 ? candidates.count >= top_k : candidates.mass(row) > nucleus_target(top_p, total));
            too_near = distance;
        }
        distance = too_far == infinity() ? 2 * too_near : (too_near + too_far) / 2;
    }
    if (!found) return draw_by_search(row, top_k, top_p, fraction);
    candidates.sort();
    candidates.scan(row);
    Candidates::Prefix kept = {total, candidates.count - 1};
    if (top_k > 0) kept = candidates.prefix(row, ~uint64_t{0}, minimum(top_k, candidates.count) - 1);
    kept = candidates.prefix(row, top_p < 1.0f ? nucleus_target(top_p, kept.sum) : ~uint64_t{0}, kept.last);
    const int drawn = candidates.prefix(row, multiply_fraction(fraction, kept.sum), kept.last).last;
    return key_id(shared_load<uint64_t>(Candidates::at(drawn)));
}

template <typename T> SIMT_DEVICE void sample(const SampleParams &params) {
    const int index = block_y(), chunks = grid_x();
    const float temperature = global_load<float>(params.temperatures + index);
    Row<T> row;
    row.logits = static_cast<const T *>(params.logits) + index * params.logits_stride;
    row.vocabulary = params.vocabulary;
    row.aligned = rows_aligned(params.logits, params.logits_stride * sizeof(T), 4 * sizeof(T));
    row.max = 0.0f;
    // A tiny temperature must not make the scale infinite, for infinity times zero is not a number.
    row.scale = temperature > 0.0f ? minimum(kLog2E / temperature, 3e38f) : 0.0f;

    float *record = params.workspace + int64_t{index} * (chunks + 1) * 4;
    auto *stats = reinterpret_cast<ChunkStats *>(record + 4);  // [chunks]
    const ChunkStats own = chunk_stats(row, block_x() * kChunk);
    if (thread_index() == 0) {
        global_store(&stats[block_x()].best, own.best);
        global_store(&stats[block_x()].sum, own.sum);
        global_store(&stats[block_x()].scaled_sum, own.scaled_sum);
    }
    if (!is_last_block(reinterpret_cast<int32_t *>(record), chunks, shared_base() + kMessage)) return;

    const ChunkStats all = merge_chunks(stats, chunks, row.scale);
    row.max = key_logit(all.best);
    int token = key_id(all.best);
    const bool valid = all.best != kInvalid && row.max > -infinity() && row.max != infinity();
    const int top_k = global_load<int32_t>(params.top_ks + index);
    const float top_p = global_load<float>(params.top_ps + index);
    if (valid && temperature > 0.0f && top_k != 1) {
        const uint64_t fraction = random_fraction(global_load<uint64_t>(params.seeds + index), global_load<uint64_t>(params.offsets + index));
        const bool limited = top_k > 0 && top_k < row.vocabulary;
        if (limited || top_p < 1.0f) token = draw_by_rank(row, temperature, limited ? top_k : 0, top_p, static_cast<uint64_t>(all.scaled_sum * kUnit), fraction);
        else token = draw_by_id(row, fraction);
    }
    if (thread_index() > 0) return;
    global_store<int32_t>(params.tokens + index, valid ? token : -1);
    float logprob = bits_float(0x7fc00000);
    if (valid) logprob = to_float(global_load<T>(row.logits + token)) - row.max - log2_approx(all.sum) * kLn2;
    global_store(params.logprobs + index, logprob);
}

}  // namespace

SIMT_KERNEL(sample_f32, SampleParams, kThreads, 2, kSharedBytes, sample<float>)
SIMT_KERNEL(sample_bf16, SampleParams, kThreads, 2, kSharedBytes, sample<Bf16>)
SIMT_KERNEL(sample_f16, SampleParams, kThreads, 2, kSharedBytes, sample<Half>)
