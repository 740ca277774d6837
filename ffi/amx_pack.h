// Packs an operand into the tiles that AMX multiplies, as sums of bf16 parts.
//
// An f32 has 24 significant bits and a bf16 has 8, so an f32 is the exact sum of three
// bf16, each the rest that the ones before leave, rounded to nearest. A bf16 is one.
// This fails for values so large that rounding or a product overflows, and for values
// so small that a part, or a product of parts, is subnormal, which AMX takes for 0;
// outer indices that hold such a value, or NaN, are reported, for another kernel.
#ifndef FSPARSE_AMX_PACK_H_
#define FSPARSE_AMX_PACK_H_

#include "elements.h"
#include "kernels.h"
#include "rows.h"

namespace fsparse::FSPARSE_LEVEL {

// A tile holds 16 rows of 64 bytes: 16 outer indices by 32 depths, a row for each outer
// index, or a row for each pair of depths, with the pairs of 16 outer indices.
constexpr int64_t kTileRows = 16;
constexpr int64_t kTileDepth = 32;
constexpr int64_t kTileHalves = kTileRows * kTileDepth;  // bf16 in a tile
enum class TileRowsAre { kOuter, kDepthPairs };

// A panel is two tiles of outer indices, for all depths of a chunk and all parts:
// bf16[part][step][tile][16][32], with a step of 32 depths.
constexpr int64_t kPanel = 2 * kTileRows;
constexpr int64_t kMaxParts = 3;
constexpr int64_t PanelHalves(int64_t steps) { return steps * 2 * kTileHalves; }

inline int NumParts(const Operand& op) {
  return op.rows.element == Element::kBf16 ? 1 : kMaxParts;
}

// The range of magnitudes, besides 0, whose parts and products are exact: 2^-100 to
// 2^60. Sums of 2^7 such products are finite.
constexpr uint32_t kLeastBits = (127 - 100) << 23, kMostBits = (127 + 60) << 23;

inline uint32_t OutOfRange(__m512i bits) {
  const __m512i size = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff));
  const __m512i above = _mm512_sub_epi32(size, _mm512_set1_epi32(kLeastBits));
  return _mm512_mask_cmpgt_epu32_mask(_mm512_test_epi32_mask(size, size), above,
                                      _mm512_set1_epi32(kMostBits - kLeastBits));
}

inline __m512 WidenHalf(__m256i halves) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

// 16 elements at `a`, then 16 at `b`, of those that the masks name, else 0.
struct Run {
  uint32_t mask_a, mask_b;
};

// Elements a[i], b[i] as 32-bit pairs.
inline __m512i Paired(__m512i halves) {
  alignas(64) static constexpr uint16_t kOrder[32] = {
      0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), halves);
}

// Writes the parts of a run to out, out + part_stride, ..., and returns which elements
// are out of range.
template <bool kPairs>
uint32_t SplitRun(const float* a, const float* b, Run run, uint16_t* out,
                  int64_t part_stride) {
  __m512 rest_a = _mm512_maskz_loadu_ps(run.mask_a, a);
  __m512 rest_b = _mm512_maskz_loadu_ps(run.mask_b, b);
  const uint32_t bad = OutOfRange(_mm512_castps_si512(rest_a)) |
                       OutOfRange(_mm512_castps_si512(rest_b)) << 16;
  for (int part = 0; part < kMaxParts; ++part) {
    const __m512i halves =
        reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(rest_b, rest_a));
    _mm512_storeu_si512(out + part * part_stride, kPairs ? Paired(halves) : halves);
    rest_a -= WidenHalf(_mm512_castsi512_si256(halves));
    rest_b -= WidenHalf(_mm512_extracti64x4_epi64(halves, 1));
  }
  return bad;
}

template <bool kPairs>
uint32_t SplitRun(const Bf16* a, const Bf16* b, Run run, uint16_t* out, int64_t) {
  const __m256i half_a = _mm256_maskz_loadu_epi16(run.mask_a, a);
  const __m256i half_b = _mm256_maskz_loadu_epi16(run.mask_b, b);
  const __m512i halves = _mm512_inserti64x4(_mm512_castsi256_si512(half_a), half_b, 1);
  _mm512_storeu_si512(out, kPairs ? Paired(halves) : halves);
  return OutOfRange(_mm512_castps_si512(WidenHalf(half_a))) |
         OutOfRange(_mm512_castps_si512(WidenHalf(half_b))) << 16;
}

// Where a panel lies in its operand.
struct Place {
  int64_t first, count;  // outer indices
  int64_t p0;            // the first depth
};

// One tile, from rows that are outer indices; returns which are out of range.
template <typename T>
uint32_t SplitOuterRows(const Rows& rows, Place place, int64_t p, uint32_t depths,
                        uint16_t* tile, int64_t part_stride) {
  uint32_t bad = 0;
  for (int64_t r = 0; r < kTileRows; ++r) {
    const T* row = r < place.count ? RowPointer<T>(rows, place.first + r) : nullptr;
    const T* at = row ? row + place.p0 + p : static_cast<const T*>(rows.data);
    const Run run = row ? Run{depths & 0xffff, depths >> 16} : Run{0, 0};
    const uint32_t out_of_range =
        SplitRun<false>(at, at + kTileRows, run, tile + r * kTileDepth, part_stride);
    bad |= uint32_t{out_of_range != 0} << r;
  }
  return bad;
}

// One tile, from rows that are depths; asks for what the next panel wants of them.
template <typename T>
uint32_t SplitDepthRows(const Rows& rows, Place place, int64_t p, uint32_t depths,
                        uint16_t* tile, int64_t part_stride) {
  const uint32_t lanes = place.count < kTileRows ? (1u << place.count) - 1 : 0xffff;
  uint32_t bad = 0;
  for (int64_t q = 0; q < kTileRows; ++q) {
    const T* at[2];
    uint32_t mask[2];
    for (int side = 0; side < 2; ++side) {
      const bool valid = depths >> (2 * q + side) & 1;
      const T* row = static_cast<const T*>(rows.data);
      if (valid) row = RowPointer<T>(rows, place.p0 + p + 2 * q + side) + place.first;
      at[side] = row;
      mask[side] = valid ? lanes : 0;
      __builtin_prefetch(row + kPanel);
    }
    bad |= SplitRun<true>(at[0], at[1], {mask[0], mask[1]}, tile + q * kTileDepth,
                          part_stride);
  }
  return (bad | bad >> 16) & 0xffff;
}

// out[j][i] = in[i][j], of 32 bits each.
inline void TransposeTile(uint16_t* tile) {
  __m512i r[16], t[16];
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(tile + i * kTileDepth);
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int c = 0; c < 4; ++c) {
    const __m512i even0 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88);
    const __m512i odd0 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
    const __m512i even1 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
    const __m512i odd1 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
    t[c] = _mm512_shuffle_i32x4(even0, even1, 0x88);
    t[4 + c] = _mm512_shuffle_i32x4(odd0, odd1, 0x88);
    t[8 + c] = _mm512_shuffle_i32x4(even0, even1, 0xdd);
    t[12 + c] = _mm512_shuffle_i32x4(odd0, odd1, 0xdd);
  }
  for (int i = 0; i < 16; ++i) _mm512_storeu_si512(tile + i * kTileDepth, t[i]);
}

template <typename T>
uint32_t PackPanelOf(const Operand& op, TileRowsAre tile_rows, Place place,
                     const uint32_t* depths, int64_t steps, uint16_t* panel) {
  const int64_t part_stride = PanelHalves(steps);
  const bool outer = op.rows_are == RowsAre::kOuter;
  const bool transposed = outer != (tile_rows == TileRowsAre::kOuter);
  const auto split = outer ? SplitOuterRows<T> : SplitDepthRows<T>;
  uint32_t bad = 0;
  for (int64_t t = 0; t < 2 * steps; ++t) {
    const int64_t step = t / 2, skipped = t % 2 * kTileRows;
    const Place half{place.first + skipped,
                     place.count > skipped ? place.count - skipped : 0, place.p0};
    uint16_t* tile = panel + t * kTileHalves;
    bad |= split(op.rows, half, step * kTileDepth, depths[step], tile, part_stride)
           << skipped;
    for (int part = 0; transposed && part < NumParts(op); ++part) {
      TransposeTile(tile + part * part_stride);
    }
  }
  return bad;
}

// Returns which of the panel's outer indices have values out of range. Bit p of
// `depths` says whether depth p counts; the others are 0 in the panel.
inline uint32_t PackPanelOfTiles(const Operand& op, TileRowsAre tile_rows, Place place,
                                 const uint32_t* depths, int64_t steps,
                                 uint16_t* panel) {
  const auto pack =
      op.rows.element == Element::kBf16 ? PackPanelOf<Bf16> : PackPanelOf<float>;
  return pack(op, tile_rows, place, depths, steps, panel);
}

}  // namespace fsparse::FSPARSE_LEVEL

#endif  // FSPARSE_AMX_PACK_H_
