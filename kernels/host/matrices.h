// Emulated ldmatrix, stmatrix and mma.sync, from the fragment layouts of the PTX ISA.
#pragma once

namespace simt {

namespace host {

struct MatrixArguments { uint32_t address; uint32_t r[4]; };

// Register i of lane l holds row l / 4 and columns 2 · (l % 4) and the next of matrix i, or the transposed matrix's.
template <int Count, bool Transposed> bool execute_load_matrix(Block &block, Warp &, uint32_t, void **arguments) {
    auto *lanes = reinterpret_cast<MatrixArguments **>(arguments);
    for (int m = 0; m < Count; ++m) {
        uint16_t matrix[8][8];
        for (int row = 0; row < 8; ++row) memcpy(matrix[row], block.shared_bytes(lanes[8 * m + row]->address, 16, 16, "ldmatrix"), 16);
        for (int l = 0; l < 32; ++l) {
            int row = l / 4, column = l % 4 * 2;
            uint16_t low = Transposed ? matrix[column][row] : matrix[row][column];
            uint16_t high = Transposed ? matrix[column + 1][row] : matrix[row][column + 1];
            lanes[l]->r[m] = low | static_cast<uint32_t>(high) << 16;
        }
    }
    return false;
}

template <int Count, bool Transposed> void load_matrix(const char *name, uint32_t (&r)[Count], uint32_t row_address) {
    MatrixArguments arguments{row_address, {}};
    collective(name, kFullWarp, &arguments, execute_load_matrix<Count, Transposed>);
    memcpy(r, arguments.r, sizeof r);
}

inline bool execute_store_matrix(Block &block, Warp &, uint32_t, void **arguments) {
    auto *lanes = reinterpret_cast<MatrixArguments **>(arguments);
    for (int m = 0; m < 4; ++m)
        for (int l = 0; l < 32; ++l)
            memcpy(block.shared_bytes(lanes[8 * m + l / 4]->address, 16, 16, "stmatrix") + l % 4 * 4, &lanes[l]->r[m], 4);
    return false;
}

struct MmaArguments { float *d; const uint32_t *a; uint32_t b[2]; };

template <typename T> bool execute_mma(Block &, Warp &, uint32_t, void **arguments) {
    auto *lanes = reinterpret_cast<MmaArguments **>(arguments);
    float a[16][16], b[16][8], d[16][8];
    for (int l = 0; l < 32; ++l) {
        int group = l / 4, pair = l % 4 * 2;
        for (int i = 0; i < 4; ++i) {
            F32x2 values = unpack2<T>(lanes[l]->a[i]);
            a[group + i % 2 * 8][pair + i / 2 * 8] = values.x;
            a[group + i % 2 * 8][pair + i / 2 * 8 + 1] = values.y;
        }
        for (int i = 0; i < 2; ++i) {
            F32x2 values = unpack2<T>(lanes[l]->b[i]);
            b[pair + i * 8][group] = values.x;
            b[pair + i * 8 + 1][group] = values.y;
        }
        for (int i = 0; i < 4; ++i) d[group + i / 2 * 8][pair + i % 2] = lanes[l]->d[i];
    }
    for (int row = 0; row < 16; ++row)
        for (int k = 0; k < 16; ++k)
            for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
    for (int l = 0; l < 32; ++l)
        for (int i = 0; i < 4; ++i) lanes[l]->d[i] = d[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2];
    return false;
}

}  // namespace host

inline void load_matrix_x4(uint32_t (&r)[4], uint32_t row_address) { host::load_matrix<4, false>("ldmatrix.x4", r, row_address); }
inline void load_matrix_x4_transposed(uint32_t (&r)[4], uint32_t row_address) { host::load_matrix<4, true>("ldmatrix.x4.trans", r, row_address); }
inline void load_matrix_x2(uint32_t (&r)[2], uint32_t row_address) { host::load_matrix<2, false>("ldmatrix.x2", r, row_address); }
inline void load_matrix_x2_transposed(uint32_t (&r)[2], uint32_t row_address) { host::load_matrix<2, true>("ldmatrix.x2.trans", r, row_address); }
inline void store_matrix_x4(uint32_t row_address, const uint32_t (&r)[4]) {
    host::MatrixArguments arguments{row_address, {r[0], r[1], r[2], r[3]}};
    host::collective("stmatrix.x4", kFullWarp, &arguments, host::execute_store_matrix);
}

template <typename T> void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    host::MmaArguments arguments{d, a, {b0, b1}};
    host::collective("mma.m16n8k16", kFullWarp, &arguments, host::execute_mma<T>);
}

}  // namespace simt
