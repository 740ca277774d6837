// The product of gemm.h on the tile unit (AMX), in bf16 parts and without loss of f32.
//
// Operands are packed as sums of parts, a = a0 + a1 + a2 (amx_pack.h), and products of
// parts are summed in f32: those with i + j <= 2, a0 b0 last. What is left out is below
// 2^-23 |a| |b|. An f32 takes 6 products (1, if one part is wanted), or 3 with a bf16,
// whose only part is itself: the other 3 are then of zeros, so a bf16 table gives the
// bits of the f32 table of the same values.
//
// The bits of an element depend on its own row of either operand alone, and not on the
// block: rows with values that parts cannot carry are done again by Gemm.
#ifndef FSPARSE_AMX_GEMM_H_
#define FSPARSE_AMX_GEMM_H_

#include "amx_pack.h"
#include "gemm.h"

namespace fsparse::FSPARSE_LEVEL {

// Packed, a block of kAmxBlockM is 768 KiB at most, and fits a 2 MiB L2; a panel of the
// other operand, 48 KiB, is used at once.
constexpr int64_t kAmxBlockM = 512, kAmxBlockN = 1024;
constexpr int64_t kMaxSteps = kDepth / kTileDepth;
constexpr int64_t kPanelFloats = kMaxParts * PanelHalves(kMaxSteps) / 2;
constexpr int64_t kAmxPackedFloats = kPanelFloats * (kAmxBlockM / kPanel + 1);
constexpr int64_t kRedoFloats = kScratchFloats + kBlockM * kBlockN;
constexpr int64_t kAmxScratchFloats =
    16 + (kAmxPackedFloats > kRedoFloats ? kAmxPackedFloats : kRedoFloats);

struct TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

struct PackedPanel {
  const uint16_t* tiles;
  int parts;
};

// GCC 12 does not know that tiles are loaded from memory: what was stored must be
// there.
inline void FinishStores() { __asm__ volatile("" ::: "memory"); }

// A panel's tiles of one part, in the order of steps.
inline const uint16_t* PartOf(PackedPanel panel, int part, int64_t steps) {
  return panel.tiles + part * PanelHalves(steps);
}

inline void LoadA(const uint16_t* tiles) {
  _tile_loadd(4, tiles, 64);
  _tile_loadd(5, tiles + kTileHalves, 64);
}

inline void LoadB(const uint16_t* tiles) {
  _tile_loadd(6, tiles, 64);
  _tile_loadd(7, tiles + kTileHalves, 64);
}

inline void MultiplyLoaded() {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

// Adds all products of parts but that of the first ones, in an order in which each has
// an operand in common with the one before: two threads of a core share its loads.
template <bool kSplitA, bool kSplitB>
void AddCorrections(PackedPanel a, PackedPanel b, int64_t steps) {
  for (int64_t step = 0; step < steps; ++step) {
    auto part = [&](PackedPanel panel, int i) {
      return PartOf(panel, i, steps) + step * 2 * kTileHalves;
    };
    if (kSplitB) {
      LoadA(part(a, 0));
      LoadB(part(b, 2));
      MultiplyLoaded();
      LoadB(part(b, 1));
      MultiplyLoaded();
    }
    if (kSplitA) LoadA(part(a, 1));
    if (kSplitA && kSplitB) MultiplyLoaded();
    if (kSplitA) {
      LoadB(part(b, 0));
      MultiplyLoaded();
      LoadA(part(a, 2));
      MultiplyLoaded();
    }
  }
}

inline void AddProducts(PackedPanel a, PackedPanel b, int64_t steps) {
  const bool split_a = a.parts > 1, split_b = b.parts > 1;
  if (split_a && split_b) AddCorrections<true, true>(a, b, steps);
  if (split_a && !split_b) AddCorrections<true, false>(a, b, steps);
  if (!split_a && split_b) AddCorrections<false, true>(a, b, steps);
  for (int64_t step = 0; step < steps; ++step) {
    LoadA(a.tiles + step * 2 * kTileHalves);
    LoadB(b.tiles + step * 2 * kTileHalves);
    MultiplyLoaded();
  }
}

// out[i, j] (+)= sum_p a(i, p) * b(j, p) for a panel of each: tiles 0 to 3 hold the
// sums, 4 and 5 come from a, 6 and 7 from b.
inline void MultiplyPanels(PackedPanel a, PackedPanel b, int64_t steps, bool accumulate,
                           float* out, int64_t ldc) {
  FinishStores();
  for (int64_t i = 0; i < kPanel; ++i) {
    __builtin_prefetch(out + i * ldc, /*rw=*/1);
    __builtin_prefetch(out + i * ldc + kTileRows, /*rw=*/1);
  }
  const int64_t stride = ldc * sizeof(float);
  float* below = out + kTileRows * ldc;
  if (accumulate) {
    _tile_loadd(0, out, stride);
    _tile_loadd(1, out + kTileRows, stride);
    _tile_loadd(2, below, stride);
    _tile_loadd(3, below + kTileRows, stride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  AddProducts(a, b, steps);
  _tile_stored(0, out, stride);
  _tile_stored(1, out + kTileRows, stride);
  _tile_stored(2, below, stride);
  _tile_stored(3, below + kTileRows, stride);
  FinishStores();
}

// The same where fewer than kPanel x kPanel elements exist.
inline void MultiplyEdge(PackedPanel a, PackedPanel b, int64_t steps, bool accumulate,
                         float* out, int64_t ldc, int64_t m, int64_t n) {
  alignas(64) float full[kPanel * kPanel] = {};
  for (int64_t i = 0; accumulate && i < m; ++i) {
    std::memcpy(full + i * kPanel, out + i * ldc, n * sizeof(float));
  }
  MultiplyPanels(a, b, steps, accumulate, full, kPanel);
  for (int64_t i = 0; i < m; ++i) {
    std::memcpy(out + i * ldc, full + i * kPanel, n * sizeof(float));
  }
}

// Bits of the depths that count: those that exist and are no padding of b.
inline void CountedDepths(const Operand& b, int64_t p0, int64_t depth,
                          uint32_t* depths) {
  std::memset(depths, 0, kMaxSteps * sizeof(*depths));
  for (int64_t p = 0; p < depth; ++p) {
    const bool padding = b.rows_are == RowsAre::kDepth && IsPadding(b.rows, p0 + p);
    depths[p / kTileDepth] |= uint32_t{!padding} << p % kTileDepth;
  }
}

// Asks for rows that will be gathered.
template <typename T>
void PrefetchRowsOf(const Rows& rows, int64_t begin, int64_t end, int64_t d) {
  for (int64_t r = begin; r < end; ++r) PrefetchRow<T>(rows, r, d);
}

inline void PrefetchRows(const Rows& rows, int64_t begin, int64_t end, int64_t d) {
  const auto prefetch =
      rows.element == Element::kBf16 ? PrefetchRowsOf<Bf16> : PrefetchRowsOf<float>;
  prefetch(rows, begin, end, d);
}

// Which rows of a block are to be done again.
struct OutOfRangeRows {
  uint32_t a[kAmxBlockM / kPanel], b[kAmxBlockN / kPanel];
};

inline bool HasBit(const uint32_t* bits, int64_t i) {
  return bits[i / kPanel] >> i % kPanel & 1;
}

inline bool AnyBit(const uint32_t* bits, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    if (HasBit(bits, i)) return true;
  }
  return false;
}

// Replaces the elements of such rows by those of Gemm, whose bits do not depend on the
// part of the product that it is asked for.
inline void DoAgain(Operand a, Operand b, Block block, const OutOfRangeRows& bad,
                    float* out, int64_t ldc, float* scratch) {
  float* again = scratch + kScratchFloats;
  const int64_t step = AnyBit(bad.b, 0, block.n) ? kBlockM : kTileM;
  for (int64_t i0 = 0; i0 < block.m; i0 += step) {
    const int64_t m = Min(step, block.m - i0);
    const bool any_a = AnyBit(bad.a, i0, i0 + m);
    for (int64_t j0 = 0; j0 < block.n; j0 += kBlockN) {
      const int64_t n = Min(kBlockN, block.n - j0);
      if (!any_a && !AnyBit(bad.b, j0, j0 + n)) continue;
      Gemm(a, b, {block.i0 + i0, m, block.j0 + j0, n, block.depth}, again, n, scratch);
      for (int64_t i = 0; i < m; ++i) {
        const bool whole = HasBit(bad.a, i0 + i);
        for (int64_t j = 0; j < n; ++j) {
          if (whole || HasBit(bad.b, j0 + j)) {
            out[(i0 + i) * ldc + j0 + j] = again[i * n + j];
          }
        }
      }
    }
  }
}

// Adds the product of one chunk of depths.
inline void MultiplyChunk(const Operand& a, const Operand& b, const Block& block,
                          int64_t p0, OutOfRangeRows& bad, float* out, int64_t ldc,
                          uint16_t* scratch) {
  const int64_t depth = Min(kDepth, block.depth - p0);
  const int64_t steps = (depth + kTileDepth - 1) / kTileDepth;
  const int64_t panel_a = NumParts(a) * PanelHalves(steps);
  uint32_t depths[kMaxSteps];
  CountedDepths(b, p0, depth, depths);
  uint16_t* packed_b = scratch;
  uint16_t* packed_a = scratch + kMaxParts * PanelHalves(kMaxSteps);
  for (int64_t i = 0; i < block.m; i += kPanel) {
    const int64_t m = Min(kPanel, block.m - i);
    const Place place{block.i0 + i, m, p0};
    if (b.rows_are == RowsAre::kDepth) {
      PrefetchRows(b.rows, p0 + depth * i / block.m, p0 + depth * (i + m) / block.m,
                   block.j0 + block.n);
    }
    bad.a[i / kPanel] |= PackPanelOfTiles(a, TileRowsAre::kOuter, place, depths, steps,
                                          packed_a + i / kPanel * panel_a);
  }
  for (int64_t j = 0; j < block.n; j += kPanel) {
    const int64_t n = Min(kPanel, block.n - j);
    const Place place{block.j0 + j, n, p0};
    bad.b[j / kPanel] |=
        PackPanelOfTiles(b, TileRowsAre::kDepthPairs, place, depths, steps, packed_b);
    if (b.rows_are == RowsAre::kOuter) {
      const int64_t next = block.j0 + j + n;
      PrefetchRows(b.rows, next, Min(next + kPanel, block.j0 + block.n), block.depth);
    }
    for (int64_t i = 0; i < block.m; i += kPanel) {
      const int64_t m = Min(kPanel, block.m - i);
      const PackedPanel pa{packed_a + i / kPanel * panel_a, NumParts(a)};
      const PackedPanel pb{packed_b, NumParts(b)};
      float* tile = out + i * ldc + j;
      if (m == kPanel && n == kPanel) {
        MultiplyPanels(pa, pb, steps, p0 > 0, tile, ldc);
      } else {
        MultiplyEdge(pa, pb, steps, p0 > 0, tile, ldc, m, n);
      }
    }
  }
}

inline void AmxGemm(Operand a, Operand b, Block block, float* out, int64_t ldc,
                    float* scratch) {
  if (block.depth == 0) return Gemm(a, b, block, out, ldc, scratch);
  const uintptr_t line = (reinterpret_cast<uintptr_t>(scratch) + 63) / 64 * 64;
  const TileConfig config;
  OutOfRangeRows bad = {};
  FinishStores();
  _tile_loadconfig(&config);
  for (int64_t p0 = 0; p0 < block.depth; p0 += kDepth) {
    MultiplyChunk(a, b, block, p0, bad, out, ldc, reinterpret_cast<uint16_t*>(line));
  }
  _tile_release();
  if (AnyBit(bad.a, 0, block.m) || AnyBit(bad.b, 0, block.n)) {
    DoAgain(a, b, block, bad, out, ldc, scratch);
  }
  if (b.rows_are == RowsAre::kOuter) ClearPaddedColumns(b.rows, block, out, ldc);
}

}  // namespace fsparse::FSPARSE_LEVEL

#endif  // FSPARSE_AMX_GEMM_H_
