// What is built from simt.cuh's primitives, the same on the device and in the emulation: conversions, reductions, matrix descriptors.
#pragma once

namespace simt {

template <typename T> SIMT_DEVICE float to_float(T value);
template <> SIMT_DEVICE float to_float<float>(float value) { return value; }
template <> SIMT_DEVICE float to_float<Bf16>(Bf16 value) { return unpack2<Bf16>(value.bits).x; }
template <> SIMT_DEVICE float to_float<Half>(Half value) { return unpack2<Half>(value.bits).x; }

template <typename T> SIMT_DEVICE T from_float(float value);
template <> SIMT_DEVICE float from_float<float>(float value) { return value; }
template <> SIMT_DEVICE Bf16 from_float<Bf16>(float value) { return {static_cast<uint16_t>(pack2<Bf16>(value, 0.0f))}; }
template <> SIMT_DEVICE Half from_float<Half>(float value) { return {static_cast<uint16_t>(pack2<Half>(value, 0.0f))}; }

// Eight 16-bit values of a 16-byte vector.
template <typename T> SIMT_DEVICE void unpack8(U32x4 packed, float (&values)[8]) {
    F32x2 pairs[4] = {unpack2<T>(packed.x), unpack2<T>(packed.y), unpack2<T>(packed.z), unpack2<T>(packed.w)};
    for (int i = 0; i < 4; ++i) values[2 * i] = pairs[i].x, values[2 * i + 1] = pairs[i].y;
}
template <typename T> SIMT_DEVICE U32x4 pack8(const float (&v)[8]) {
    return {pack2<T>(v[0], v[1]), pack2<T>(v[2], v[3]), pack2<T>(v[4], v[5]), pack2<T>(v[6], v[7])};
}

// Reductions over the `Lanes` lanes that share lane_index() / Lanes: every lane gets the result, summed in one fixed order.
template <int Lanes = kWarpSize> SIMT_DEVICE float warp_sum(float value) {
    for (int bits = Lanes / 2; bits > 0; bits /= 2) value += shuffle_xor(value, bits);
    return value;
}
template <int Lanes = kWarpSize> SIMT_DEVICE float warp_max(float value) {
    for (int bits = Lanes / 2; bits > 0; bits /= 2) value = maximum(value, shuffle_xor(value, bits));
    return value;
}

// Matrix descriptor for wgmma of a 128-byte-swizzled tile (1024-byte aligned atoms of 8 rows of 128 bytes).
// Rows of k (keys, queries): `group_bytes` from 8 rows to the next 8; step k by adding 32 bytes to `address`.
// Rows of N (transposed b: values): `group_bytes` from 8 k-rows to the next 8, `column_bytes` from 64 columns to the next 64.
SIMT_DEVICE uint64_t wgmma_descriptor(uint32_t address, uint32_t group_bytes = 1024, uint32_t column_bytes = 16) {
    constexpr uint64_t kSwizzle128 = 1;
    return (address >> 4 & 0x3fff) | static_cast<uint64_t>(column_bytes >> 4 & 0x3fff) << 16 | static_cast<uint64_t>(group_bytes >> 4 & 0x3fff) << 32 |
           kSwizzle128 << 62;
}

// The same matrix `bytes` further on: shared memory ends before the address's 14 bits of 16 bytes do.
SIMT_DEVICE uint64_t wgmma_advance(uint64_t descriptor, uint32_t bytes) { return descriptor + (bytes >> 4); }

// Offset in a 128-byte-swizzled tile: 16-byte column c of a row lies at column c xor row % 8. The copy engine writes so, wgmma reads so.
SIMT_DEVICE uint32_t swizzle_128(uint32_t row, uint32_t column_16) { return row * 128 + ((column_16 ^ row % 8) << 4); }

// Three mantissa bits, round to nearest even, saturating at 448 (the OCP E4M3 format): for chips before sm_89, and in the emulation.
SIMT_DEVICE E4m3 e4m3_from_float_bits(float value) {
    uint32_t bits = float_bits(value), sign = bits >> 24 & 0x80, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return {static_cast<uint8_t>(sign | 0x7f)};
    uint32_t rounded;
    if (magnitude >= 0x3c800000) {  // 2^-6: normal numbers
        uint32_t shifted = magnitude + 0x7ffff + (magnitude >> 20 & 1);
        rounded = (shifted >> 20) - ((127 - 7) << 3);
        if (rounded > 0x7e || magnitude >= 0x43e00000) rounded = 0x7e;
    } else {
        // Adding 2^14 leaves units of 2^-9 in the lowest mantissa bits, rounded by the addition.
        rounded = float_bits(bits_float(magnitude) + 16384.0f) - float_bits(16384.0f);
    }
    return {static_cast<uint8_t>(sign | rounded)};
}
// Elements 0 and 2, 1 and 3 of four, exactly, as T: the bits in their place, then the exponent's bias by a product. NaN reads as 480.
template <typename T> SIMT_DEVICE void unpack4_e4m3(uint32_t packed, uint32_t &even, uint32_t &odd) {
    constexpr bool kBf16 = std::is_same_v<T, Bf16>;
    constexpr uint32_t kMagnitude = kBf16 ? 0x07f007f0 : 0x3f803f80, kBias = kBf16 ? 0x7b807b80 /* 2^120 */ : 0x5c005c00 /* 2^8 */;
    even = multiply2<T>((packed << 8 & 0x80008000) | (packed << (kBf16 ? 4 : 7) & kMagnitude), kBias);
    odd = multiply2<T>((packed & 0x80008000) | (packed >> (kBf16 ? 4 : 1) & kMagnitude), kBias);
}
// Two values as f16: the format's exponent range lies inside f16's, so shifting and scaling by 2^8 is exact. NaN reads as 480.
SIMT_DEVICE F32x2 e4m3_to_float_bits(uint32_t packed) {
    uint32_t half2 = (packed & 0x80) << 8 | (packed & 0x7f) << 7 | (packed & 0x8000) << 16 | (packed & 0x7f00) << 15;
    F32x2 values = unpack2<Half>(half2);
    return {values.x * 256.0f, values.y * 256.0f};
}
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
SIMT_DEVICE uint16_t pack2_e4m3(float low, float high) { return hardware_pack2_e4m3(low, high); }
SIMT_DEVICE F32x2 unpack2_e4m3(uint16_t packed) { return unpack2<Half>(hardware_e4m3x2_to_half2(packed)); }
#else
SIMT_DEVICE uint16_t pack2_e4m3(float low, float high) {
    return static_cast<uint16_t>(e4m3_from_float_bits(low).bits | e4m3_from_float_bits(high).bits << 8);
}
SIMT_DEVICE F32x2 unpack2_e4m3(uint16_t packed) { return e4m3_to_float_bits(packed); }
#endif

}  // namespace simt
