// Plain structs that the launch layer (src/backend/cuda/params.rs) passes to the kernels, one a family.
//
// Written twice and held equal by the kernel `echo_params`. Rules: only the field types below; pointers are device addresses with their shape beside
// them; strides and offsets count elements and are 64-bit, because 2^31 elements are reached at long contexts; no implicit padding (fields in falling
// size, explicit `reserved`). Dtypes and head_dim are in the entry's name (`attention_prefill_bf16_128`), never in a field.
#pragma once

#include <cstdint>

// The paged cache of one layer.
//
// Layout: keys and values are two pools `[num_blocks, num_kv_heads, block_size, head_dim]`, block_size a power of two from 16 to 128 (64 unless asked).
// Why: an attention block reads one head, so the tokens of a head lie side by side and each (block, head) is one run of block_size · head_dim elements
// (16 KB at 64 × 128 bf16): DRAM pages, 128-byte lines, cp.async and bulk copies are used whole. A pool is a dense 4-D tensor (head_dim, block_size,
// num_kv_heads, num_blocks), so one tensor map a pool serves every sequence: the block table's entry is the outermost coordinate, and a box of
// 64 elements × block_size tokens lands in shared memory as rows of 128 bytes with the 128-byte swizzle that wgmma reads.
// Tokens past a sequence's end in its last block are never trusted: any bits, NaN included, may be there.
struct KvCache {
    void *keys;          // [num_blocks, num_kv_heads, block_size, head_dim], 16-byte aligned
    void *values;        // the same
    const float *key_scales;    // FP8 cache: [num_kv_heads], stored · scale = key; otherwise null
    const float *value_scales;  // the same for values
    int64_t block_stride;  // elements from one block to the next
    int64_t head_stride;   // elements from one head to the next: block_size · head_dim
    int32_t block_size_log2;
    int32_t num_kv_heads;
};

// The ragged batch of one step; rows of all sequences lie side by side.
struct Sequences {
    const int32_t *query_starts;  // [num_sequences + 1] first row of each sequence
    const int32_t *kv_lens;       // [num_sequences] tokens in the context, the query tokens included
    const int32_t *block_tables;  // [num_sequences, block_table_stride] physical block numbers
    int64_t block_table_stride;
    int32_t num_sequences;
    int32_t reserved;
};

// A tile of query rows that one block computes; lists are sorted longest first, so that the last wave is short.
struct AttentionTile {
    int32_t sequence;
    int32_t first_query;  // row inside the sequence
};

// An encoded cuTensorMap; the emulation keeps its own encoding in it.
struct alignas(64) TensorMap {
    uint64_t opaque[16];
};

// attention_prefill_{bf16,f16}_{64,96,128,256}[_fp8]: grid (num_heads, num_tiles): the heads of a tile run side by side and share its keys in L2.
struct AttentionPrefillParams {
    const void *q;  // [tokens, num_heads, head_dim], rows q_stride apart
    void *out;      // [tokens, num_heads, head_dim], rows out_stride apart
    const AttentionTile *tiles;  // [num_tiles]
    KvCache cache;
    Sequences sequences;
    int64_t q_stride;
    int64_t out_stride;
    int32_t num_heads;
    int32_t num_tiles;
    int32_t window;      // a query at position i sees keys i - window < j <= i; 0 for all
    float scale_log2e;   // softmax scale · log2(e)
};

// attention_prefill_sm90_{bf16,f16}_{64,96,128,256}: persistent grid, tile_counter hands out (section of KV heads, tile, KV head).
//
// A row of a tile is a (query, head of the KV head's group), so that short chunks fill tiles and heads of a group share keys and values: with `rows` query
// rows a block (192 at head_dim 64, else 128), tiles start at multiples of rows / group, where group = num_heads / num_kv_heads is at most 128.
struct AttentionPrefillSm90Params {
    TensorMap queries;  // 3-D (head_dim, num_heads, tokens), box (64, group, rows / group), 128-byte swizzle
    TensorMap keys;     // 4-D (head_dim, block_size, num_kv_heads, num_blocks), box (64, min(block_size, KV tile), 1, 1), 128-byte swizzle
    TensorMap values;   // the same; the KV tile is 64 tokens at head_dim 256, else 128
    AttentionPrefillParams attention;
    int32_t *tile_counter;      // zero before and after
    int32_t heads_per_section;  // KV heads that run side by side and share keys and values in L2, at least 1
    int32_t reserved;
};

// attention_decode_{bf16,f16}_{64,96,128,256}_rows{16,64}[_fp8|_deep]: grid (splits of the sequence that has most, num_kv_heads · row tiles, num_sequences).
//
// The query rows · group rows of a KV head are computed in tiles of 16 or 64. Splits are runs of as many tokens as the
// sequence's own length asks for, whatever else is in the batch: min_split_len, raised by quarters until num_splits reach. They are combined in ascending order by the block that finishes last. What a window or the length leaves without work returns at once.
struct AttentionDecodeParams {
    const void *q;  // [tokens, num_heads, head_dim], rows q_stride apart
    void *out;      // [tokens, num_heads, head_dim], rows out_stride apart
    float *partial_out;  // [num_sequences, num_kv_heads, num_splits, max_query_len · group, head_dim]
    float *partial_lse;  // [num_sequences, num_kv_heads, num_splits, max_query_len · group]; base-2 logarithms
    int32_t *counters;   // [num_sequences, num_kv_heads, row tiles], zero before and after
    KvCache cache;
    Sequences sequences;
    int64_t q_stride;
    int64_t out_stride;
    int32_t num_heads;
    int32_t max_query_len;  // query rows of the partial buffers per sequence
    int32_t num_splits;     // most of any context, 128 at most
    int32_t min_split_len;  // tokens, a multiple of 16, of 64 where contexts may have more than num_splits of it
    int32_t window;
    float scale_log2e;
};

// rotary_append_{bf16,f16}_{64,96,128,256}[_fp8]: normalises (when weights are given) and rotates q in place and k on its way into the
// cache, appends v; grid (tokens, blocks of heads of q, k and v). Keys of qkv stay as they are: attention reads the cache.
struct RotaryAppendParams {
    void *qkv;           // [tokens, (num_heads + 2 · num_kv_heads) · head_dim], rows qkv_stride apart
    const float *cos;    // [tokens, head_dim / 2], any attention factor multiplied in
    const float *sin;    // the same
    const void *q_norm;  // [head_dim] or null
    const void *k_norm;  // [head_dim] or null
    const int64_t *slots;  // [tokens] physical block · block_size + offset
    KvCache cache;
    int64_t qkv_stride;
    int32_t num_tokens;
    int32_t num_heads;
    float norm_eps;
    int32_t reserved;
};

// rms_norm_{bf16,f16}: residual += delta when delta is given; out = residual / rms(residual) · weight; grid (rows).
struct RmsNormParams {
    float *residual;     // [rows, cols]
    const void *delta;   // [rows, cols] or null
    const void *weight;  // [cols]
    void *out;           // [rows, cols]
    int64_t row_stride;  // of all four
    int32_t rows;
    int32_t cols;
    float eps;
    int32_t reserved;
};

// silu_mul_{bf16,f16}: out = silu(gate) · up; grid (rows, cols / 4096 rounded up).
struct SiluMulParams {
    const void *gate_up;  // [rows, 2 · cols], a row is [gate | up]
    void *out;            // [rows, cols]
    int64_t gate_up_stride;
    int64_t out_stride;
    int32_t rows;
    int32_t cols;
};

// embedding_{bf16,f16}: residual = table[tokens]; grid (rows, cols / 4096 rounded up).
struct EmbeddingParams {
    const int32_t *tokens;  // [rows]
    const void *table;      // [vocabulary, cols]
    float *out;             // [rows, cols]
    int64_t table_stride;
    int64_t out_stride;
    int32_t rows;
    int32_t cols;
};

// bias_add_{bf16,f16}: values += bias; grid (rows, cols / 4096 rounded up).
struct BiasAddParams {
    void *values;      // [rows, cols]
    const void *bias;  // [cols]
    int64_t row_stride;
    int32_t rows;
    int32_t cols;
};

// gather_rows_{bf16,f16}: out[i] = input[rows[i]]; grid (num_rows, cols / 4096 rounded up).
struct GatherRowsParams {
    const void *input;       // [*, cols]
    void *out;               // [num_rows, cols]
    const int32_t *rows;     // [num_rows]
    int64_t input_stride;
    int64_t out_stride;
    int32_t num_rows;
    int32_t cols;
};

// linear_skinny_{bf16,f16}: out = input · weightᵀ (+ bias) for 1 to 16 rows; grid (out_features / 32 rounded up, num_splits).
struct LinearSkinnyParams {
    const void *input;   // [rows, in_features]
    const void *weight;  // [out_features, in_features]
    const void *bias;    // [out_features] or null
    void *out;           // [rows, out_features]
    float *partial;      // [num_splits, rows, out_features] when num_splits > 1
    int32_t *counters;   // [out_features / 32 rounded up], zero before and after
    int64_t input_stride;
    int64_t weight_stride;
    int64_t out_stride;
    int32_t rows;
    int32_t in_features;
    int32_t out_features;
    int32_t num_splits;  // of in_features; a function of the weight's shape alone, for the order of summation depends on it
};

// sample_{f32,bf16,f16}: one token a row of logits; grid (chunks, rows) with chunks = vocabulary / 4096 rounded up.
struct SampleParams {
    const void *logits;        // [rows, vocabulary]
    const float *temperatures; // [rows], 0 for greedy
    const float *top_ps;       // [rows]
    const int32_t *top_ks;     // [rows], 0 for all
    const uint64_t *seeds;     // [rows]
    const uint64_t *offsets;   // [rows] counter of the row's generator: the number of the token in its sequence
    int32_t *tokens;           // [rows] out; -1 where a logit is NaN or the largest is infinite
    float *logprobs;           // [rows] out, of the chosen token at temperature 1; NaN where the token is -1
    float *workspace;          // [rows, 4 · (chunks + 1)], 16-byte aligned; zero before the first launch, and kept from launch to launch
    int64_t logits_stride;
    int32_t rows;
    int32_t vocabulary;
};
