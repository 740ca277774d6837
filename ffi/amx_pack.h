// Packs an operand into the tiles that AMX multiplies, as sums of bf16 parts.
//
// An f32 has 24 significant bits and a bf16 has 8, so an f32 is the exact sum of three
// bf16, each the rest that the ones before leave, rounded to nearest. A bf16 is one;
// and who wants no more than its precision takes the first part of an f32 alone. This
// fails for values so large that rounding or a product overflows, and for values so
// small that a part is subnormal, which AMX takes for 0; outer indices that hold such a
// value, or NaN, are reported, for another kernel. A product of parts below 2^-126 is
// taken for 0, too: of each term at most 6 x 2^-126 is lost.
#ifndef FSPARSE_AMX_PACK_H_
#define FSPARSE_AMX_PACK_H_

#include "elements.h"
#include "kernels.h"
#include "rows.h"

namespace fsparse::FSPARSE_LEVEL {

// A tile holds 16 rows of 64 bytes: a row for each outer index, with 16 pairs of
// depths; or a row for each pair of depths, with those of 16 outer indices. Depths are
// taken in steps of 32, and the pairs of a step are its depths q and q + 16.
constexpr int64_t kTileRows = 16;
constexpr int64_t kTileDepth = 32;
constexpr int64_t kTileHalves = kTileRows * kTileDepth;  // bf16 in a tile
enum class TileRowsAre { kOuter, kDepthPairs };

// A panel is two tiles of outer indices, for all depths of a chunk and all parts:
// bf16[part][step][tile][16][32], with a step of 32 depths.
constexpr int64_t kPanel = 2 * kTileRows;
constexpr int64_t kMaxParts = kAllParts;
constexpr int64_t PanelHalves(int64_t steps) { return steps * 2 * kTileHalves; }

inline int NumParts(const Operand& op) {
  return op.rows.element == Element::kBf16 ? 1 : op.parts;
}

// The range of magnitudes, besides 0, whose parts are exact: 2^-100 to 2^60. Sums of
// 2^7 products of such values are finite.
constexpr uint32_t kLeastBits = (127 - 100) << 23, kMostBits = (127 + 60) << 23;

// The extremes of magnitudes seen in each lane, as bits; 0 does not count.
struct Extremes {
  __m512i most = _mm512_setzero_si512();
  __m512i least_minus_1 = _mm512_set1_epi32(-1);

  void Add(__m512 x) {
    const __m512i size = _mm512_castps_si512(_mm512_abs_ps(x));
    most = _mm512_max_epu32(most, size);
    least_minus_1 =
        _mm512_min_epu32(least_minus_1, _mm512_sub_epi32(size, _mm512_set1_epi32(1)));
  }

  // Lanes that held values out of range.
  uint32_t OutOfRange() const {
    return _mm512_cmpgt_epu32_mask(most, _mm512_set1_epi32(kMostBits)) |
           _mm512_cmplt_epu32_mask(least_minus_1, _mm512_set1_epi32(kLeastBits - 1));
  }
};

// Of 16 elements, those that the mask names, else 0.
inline __m512 LoadMasked(const float* p, uint32_t mask) {
  return _mm512_maskz_loadu_ps(mask, p);
}

inline __m512 LoadMasked(const Bf16* p, uint32_t mask) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

// The upper halves of a[i] and b[i] as pair i.
inline __m512i Paired(__m512 a, __m512 b) {
  return _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(a), 16),
                         _mm512_castps_si512(b));
}

// The nearest bf16, as f32.
inline __m512 Rounded(__m512 x) {
  const __m512i up =
      _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
  return _mm512_castsi512_ps(_mm512_and_si512(up, _mm512_set1_epi32(~0xffff)));
}

// The same, ties to even.
inline __m512 RoundedToEven(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd =
      _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up =
      _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  return _mm512_castsi512_ps(_mm512_and_si512(up, _mm512_set1_epi32(~0xffff)));
}

// Takes the next part of x off it, of which the last of all parts leaves nothing.
template <int kParts>
inline __m512 TakePart(int part, __m512& x) {
  if (kParts == 1) return RoundedToEven(x);
  if (part + 1 == kParts) return x;
  const __m512 rounded = Rounded(x);
  x -= rounded;
  return rounded;
}

// Writes the parts of 16 pairs, one tile row, to out, out + part_stride, ...
template <typename T, int kParts>
void SplitPairs(__m512 a, __m512 b, uint16_t* out, int64_t part_stride) {
  if (sizeof(T) == sizeof(Bf16)) return _mm512_storeu_si512(out, Paired(a, b));
  for (int part = 0; part < kParts; ++part) {
    const __m512 part_a = TakePart<kParts>(part, a);
    const __m512 part_b = TakePart<kParts>(part, b);
    _mm512_storeu_si512(out + part * part_stride, Paired(part_a, part_b));
  }
}

// Where a panel lies in its operand.
struct Place {
  int64_t first, count;  // outer indices
  int64_t p0;            // the first depth
};

// Whether elements of row r that the masks name are out of range.
template <typename T>
bool IsOutOfRange(const T* row, uint32_t mask_a, uint32_t mask_b) {
  Extremes extremes;
  extremes.Add(LoadMasked(row, mask_a));
  extremes.Add(LoadMasked(row + kTileRows, mask_b));
  return extremes.OutOfRange() != 0;
}

// One tile, from rows that are outer indices; returns which are out of range.
template <typename T, int kParts>
uint32_t SplitOuterRows(const Rows& rows, Place place, int64_t p, uint32_t depths,
                        uint16_t* tile, int64_t part_stride) {
  const uint32_t mask_a = depths & 0xffff, mask_b = depths >> 16;
  const T* row[kTileRows];
  Extremes extremes;
  for (int64_t r = 0; r < kTileRows; ++r) {
    row[r] = r < place.count ? RowPointer<T>(rows, place.first + r) : nullptr;
    __m512 a{}, b{};
    if (row[r]) {
      row[r] += place.p0 + p;
      a = LoadMasked(row[r], mask_a);
      b = LoadMasked(row[r] + kTileRows, mask_b);
    }
    extremes.Add(a);
    extremes.Add(b);
    SplitPairs<T, kParts>(a, b, tile + r * kTileDepth, part_stride);
  }
  uint32_t bad = 0;
  for (int64_t r = 0; extremes.OutOfRange() && r < kTileRows; ++r) {
    bad |= uint32_t{row[r] && IsOutOfRange(row[r], mask_a, mask_b)} << r;
  }
  return bad;
}

// One tile, from rows that are depths; asks for what the next panel wants of them.
template <typename T, int kParts>
uint32_t SplitDepthRows(const Rows& rows, Place place, int64_t p, uint32_t depths,
                        uint16_t* tile, int64_t part_stride) {
  const uint32_t lanes = place.count < kTileRows ? (1u << place.count) - 1 : 0xffff;
  Extremes extremes;
  auto load = [&](int64_t q) {
    if (!(depths >> q & 1)) return __m512{};
    const T* row = RowPointer<T>(rows, place.p0 + p + q) + place.first;
    __builtin_prefetch(row + kPanel);
    return LoadMasked(row, lanes);
  };
  for (int64_t q = 0; q < kTileRows; ++q) {
    const __m512 a = load(q), b = load(q + kTileRows);
    extremes.Add(a);
    extremes.Add(b);
    SplitPairs<T, kParts>(a, b, tile + q * kTileDepth, part_stride);
  }
  return extremes.OutOfRange();
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

template <typename T, int kParts>
uint32_t PackPanelOf(const Operand& op, TileRowsAre tile_rows, Place place,
                     const uint32_t* depths, int64_t steps, uint16_t* panel) {
  const int64_t part_stride = PanelHalves(steps);
  const bool outer = op.rows_are == RowsAre::kOuter;
  const bool transposed = outer != (tile_rows == TileRowsAre::kOuter);
  const auto split = outer ? SplitOuterRows<T, kParts> : SplitDepthRows<T, kParts>;
  uint32_t bad = 0;
  for (int64_t t = 0; t < 2 * steps; ++t) {
    const int64_t step = t / 2, skipped = t % 2 * kTileRows;
    const Place half{place.first + skipped,
                     place.count > skipped ? place.count - skipped : 0, place.p0};
    uint16_t* tile = panel + t * kTileHalves;
    bad |= split(op.rows, half, step * kTileDepth, depths[step], tile, part_stride)
           << skipped;
    for (int part = 0; transposed && part < kParts; ++part) {
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
  const auto pack = op.rows.element == Element::kBf16 ? PackPanelOf<Bf16, 1>
                    : op.parts == 1                   ? PackPanelOf<float, 1>
                                                      : PackPanelOf<float, kMaxParts>;
  return pack(op, tile_rows, place, depths, steps, panel);
}

}  // namespace fsparse::FSPARSE_LEVEL

#endif  // FSPARSE_AMX_PACK_H_
