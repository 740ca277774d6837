// Both gradients of logits y[i, j] = x[i] . w[ids[j]] on the tile unit, in one visit of
// their cotangent v:
//
//   z[i] = sum_j v[i, j] * w[ids[j]]        rows[j] = sum_i v[i, j] * x[i]
//
// Splitting v into parts costs as much as multiplying it. Here it is read and split
// once, a few ids at a time, and the parts are put down twice: paired along j for z,
// along i for rows.
#ifndef FSPARSE_AMX_GRADS_H_
#define FSPARSE_AMX_GRADS_H_

#include "amx_gemm.h"

namespace fsparse::FSPARSE_LEVEL {

// A few ids by a chunk of examples, packed twice (384 KiB), these ids' rows of w, the
// chunk of x, z, and the sums of rows: 900 KiB at a width of 128, half of an L2.
constexpr int64_t kFewIds = 128, kChunk = kDepth, kMaxGradWidth = 256;
constexpr int64_t kPackedHalves = kMaxParts * kFewIds * kDepth;
constexpr int64_t kGradScratchFloats =
    16 + 3 * kPackedHalves / 2 + kMaxGradWidth * kFewIds + kRedoFloats;

constexpr int64_t RoundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
constexpr int64_t Steps(int64_t depth) {
  return RoundUp(depth, kTileDepth) / kTileDepth;
}

// Halves of all panels of an operand with `outer` outer indices.
inline int64_t PackedHalves(int64_t outer, int64_t depth, int parts) {
  return RoundUp(outer, kPanel) / kPanel * parts * PanelHalves(Steps(depth));
}

inline uint16_t* Aligned(float* p) {
  return reinterpret_cast<uint16_t*>((reinterpret_cast<uintptr_t>(p) + 63) / 64 * 64);
}

// The panels of an operand packed whole.
struct PackedOperand {
  uint16_t* tiles;
  int parts;
  int64_t steps;

  uint16_t* At(int64_t outer) const {
    return tiles + outer / kPanel * parts * PanelHalves(steps);
  }
  PackedPanel Panel(int64_t outer) const { return {At(outer), parts}; }
};

// Packs all outer indices of an operand; adds those that are out of range to `bad`.
inline void PackWhole(const Operand& op, TileRowsAre tile_rows, int64_t outer,
                      int64_t p0, int64_t depth, PackedOperand to, uint32_t* bad) {
  uint32_t depths[kMaxSteps];
  CountedDepths(op, p0, depth, depths);
  for (int64_t i = 0; i < outer; i += kPanel) {
    const Place place{i, Min(kPanel, outer - i), p0};
    bad[i / kPanel] |=
        PackPanelOfTiles(op, tile_rows, place, depths, to.steps, to.At(i));
  }
}

// 32 examples by 32 ids of v. Bits of `lanes` say which ids count.
struct Corner {
  const float* v;
  int64_t stride, examples;
  uint32_t lanes;
};

// Puts the parts of four vectors down: rows q and q + 16 of v, each in two halves.
template <int kParts>
void SplitQuad(__m512 (&x)[2][2], int64_t q, uint16_t* by_example,
               int64_t example_stride, uint16_t* by_id, int64_t id_stride) {
  for (int part = 0; part < kParts; ++part) {
    __m512 r[2][2];
    for (int i = 0; i < 4; ++i) {
      r[i / 2][i % 2] = TakePart<kParts>(part, x[i / 2][i % 2]);
    }
    uint16_t* e = by_example + part * example_stride + q * kTileDepth;
    uint16_t* d = by_id + part * id_stride + q * kTileDepth;
    _mm512_storeu_si512(e, Paired(r[0][0], r[0][1]));
    _mm512_storeu_si512(e + kTileHalves, Paired(r[1][0], r[1][1]));
    _mm512_storeu_si512(d, Paired(r[0][0], r[1][0]));
    _mm512_storeu_si512(d + kTileHalves, Paired(r[0][1], r[1][1]));
  }
}

// Packs a corner; returns the ids that hold values out of range, and adds the examples.
template <int kParts>
uint32_t SplitCorner(Corner corner, uint16_t* by_example, int64_t example_stride,
                     uint16_t* by_id, int64_t id_stride, uint32_t* examples) {
  constexpr int64_t kFloatsAhead = 3 * kTileDepth;
  const uint32_t lanes[2] = {corner.lanes & 0xffff, corner.lanes >> 16};
  Extremes extremes[2];
  for (int64_t q = 0; q < kTileRows; ++q) {
    __m512 x[2][2];
    for (int half = 0; half < 2; ++half) {
      const int64_t r = q + half * kTileRows;
      const float* row = corner.v + r * corner.stride;
      const bool exists = r < corner.examples;
      __builtin_prefetch(row + kFloatsAhead);
      __builtin_prefetch(row + kFloatsAhead + kTileRows);
      for (int side = 0; side < 2; ++side) {
        x[half][side] = LoadMasked(row + side * kTileRows, exists ? lanes[side] : 0);
        extremes[side].Add(x[half][side]);
      }
    }
    SplitQuad<kParts>(x, q, by_example, example_stride, by_id, id_stride);
  }
  const uint32_t bad = extremes[0].OutOfRange() | extremes[1].OutOfRange() << 16;
  for (int64_t r = 0; bad && r < corner.examples; ++r) {
    const float* row = corner.v + r * corner.stride;
    *examples |= uint32_t{IsOutOfRange(row, lanes[0], lanes[1])} << r;
  }
  return bad;
}

inline void Multiply(PackedPanel a, PackedPanel b, int64_t steps, bool accumulate,
                     float* out, int64_t ldc, int64_t m, int64_t n) {
  if (m >= kPanel && n >= kPanel) {
    MultiplyPanels(a, b, steps, accumulate, out, ldc);
  } else {
    MultiplyEdge(a, b, steps, accumulate, out, ldc, Min(m, kPanel), Min(n, kPanel));
  }
}

// out[i, j] (+)= sum_p a(i, p) * b(j, p), all panels by all panels.
inline void MultiplyPacked(PackedOperand a, PackedOperand b, bool accumulate, int64_t m,
                           int64_t n, float* out, int64_t ldc) {
  for (int64_t j = 0; j < n; j += kPanel) {
    for (int64_t i = 0; i < m; i += kPanel) {
      Multiply(a.Panel(i), b.Panel(j), a.steps, accumulate, out + i * ldc + j, ldc,
               m - i, n - j);
    }
  }
}

// rows[j, c] = columns[c, j].
inline void PutRows(const float* columns, int64_t ldc, const GradSlice& s) {
  for (int64_t j = 0; j < s.m; j += kTileRows) {
    for (int64_t c = 0; c < s.d; c += kTileRows) {
      alignas(64) float block[kTileRows * kTileRows];
      for (int64_t i = 0; i < kTileRows; ++i) {
        std::memcpy(block + i * kTileRows, columns + (c + i) * ldc + j, 64);
      }
      TransposeTile(reinterpret_cast<uint16_t*>(block));
      const int64_t width = Min(kTileRows, s.d - c);
      for (int64_t i = 0; i < Min(kTileRows, s.m - j); ++i) {
        std::memcpy(s.rows + (j + i) * s.d + c, block + i * kTileRows,
                    width * sizeof(float));
      }
    }
  }
}

inline int64_t PackedFloats(int64_t b, int64_t d) {
  const int64_t chunks = (b + kChunk - 1) / kChunk;
  return 16 + chunks * PackedHalves(d, kChunk, kMaxParts) / 2;
}

// The chunk of x that begins with example i0, in what PackExamples wrote.
inline PackedOperand PackedChunk(const float* packed, int64_t i0, int64_t b, int64_t d,
                                 int parts) {
  const int64_t halves = PackedHalves(d, kChunk, kMaxParts);
  return {Aligned(const_cast<float*>(packed)) + i0 / kChunk * halves, parts,
          Steps(Min(kChunk, b - i0))};
}

// Bits of `bad` are columns of x that are to be done again.
inline void PackExamples(const float* x, int64_t b, int64_t d, int parts, float* packed,
                         uint32_t* bad) {
  const Operand op{{x, d}, RowsAre::kDepth, parts};
  for (int64_t i0 = 0; i0 < b; i0 += kChunk) {
    const PackedOperand to = PackedChunk(packed, i0, b, d, parts);
    PackWhole(op, TileRowsAre::kOuter, d, i0, Min(kChunk, b - i0), to, bad);
  }
}

// The cotangents of a chunk of examples and a few ids, packed for z and for rows.
struct PackedCotangents {
  PackedOperand by_example, by_id;
};

inline void PackCotangents(const float* v, int64_t stride, int64_t examples, int64_t m,
                           const uint32_t* lanes, PackedCotangents to,
                           uint32_t* bad_examples, uint32_t* bad_ids) {
  const auto split = to.by_id.parts == 1 ? SplitCorner<1> : SplitCorner<kMaxParts>;
  const int64_t of_examples = PanelHalves(to.by_example.steps);
  const int64_t of_ids = PanelHalves(to.by_id.steps);
  for (int64_t i = 0; i < examples; i += kPanel) {
    for (int64_t j = 0; j < m; j += kPanel) {
      const Corner corner{v + i * stride + j, stride, Min(kPanel, examples - i),
                          lanes[j / kPanel]};
      uint16_t* by_example = to.by_example.At(i) + j / kPanel * 2 * kTileHalves;
      uint16_t* by_id = to.by_id.At(j) + i / kPanel * 2 * kTileHalves;
      bad_ids[j / kPanel] |= split(corner, by_example, of_examples, by_id, of_ids,
                                   &bad_examples[i / kPanel]);
    }
  }
}

// The slice with its first ids left out, and at most kFewIds others.
inline GradSlice FewOf(const GradSlice& s, int64_t first) {
  GradSlice few = s;
  few.v += first;
  few.w.ids += first;
  few.rows += first * s.d;
  few.m = Min(kFewIds, s.m - first);
  return few;
}

// The gradients for a few ids; adds to z if told to. Adds columns of w that are out of
// range to bad_w.
inline void GradsOfFew(const GradSlice& s, bool accumulate, uint32_t* bad_w,
                       float* scratch) {
  uint16_t* tiles = Aligned(scratch);
  const Operand of_w{s.w, RowsAre::kDepth, s.parts};
  const PackedOperand w{tiles, NumParts(of_w), Steps(s.m)};
  float* columns = reinterpret_cast<float*>(tiles + 3 * kPackedHalves);
  uint32_t lanes[kMaxSteps];
  OutOfRangeRows bad = {};
  CountedDepths(of_w, 0, s.m, lanes);
  PackWhole(of_w, TileRowsAre::kDepthPairs, s.d, 0, s.m, w, bad_w);
  for (int64_t i0 = 0; i0 < s.b; i0 += kChunk) {
    const int64_t examples = Min(kChunk, s.b - i0);
    const PackedCotangents v{{tiles + kPackedHalves, s.parts, w.steps},
                             {tiles + 2 * kPackedHalves, s.parts, Steps(examples)}};
    PackCotangents(s.v + i0 * s.stride, s.stride, examples, s.m, lanes, v,
                   s.bad_examples + i0 / kPanel, bad.a);
    MultiplyPacked(v.by_example, w, accumulate, examples, s.d, s.z + i0 * s.d, s.d);
    MultiplyPacked(PackedChunk(s.packed_x, i0, s.b, s.d, s.parts), v.by_id, i0 > 0, s.d,
                   s.m, columns, kFewIds);
  }
  PutRows(columns, kFewIds, s);
  std::memcpy(bad.b, s.bad_x, kMaxGradWidth / 8);
  DoAgain({{s.v, s.stride}, RowsAre::kDepth}, {{s.x, s.d}, RowsAre::kDepth},
          {0, s.m, 0, s.d, s.b}, bad, s.rows, s.d, columns + kMaxGradWidth * kFewIds);
  for (int64_t j = 0; j < s.m; ++j) {
    if (IsPadding(s.w, j)) std::memset(s.rows + j * s.d, 0, s.d * sizeof(float));
  }
}

inline void GradsOfSlice(const GradSlice& s, float* scratch) {
  std::memset(s.bad_examples, 0, RoundUp(s.b, kPanel) / 8);
  OutOfRangeRows bad = {};
  const TileConfig config;
  FinishStores();
  _tile_loadconfig(&config);
  for (int64_t first = 0; first < s.m; first += kFewIds) {
    GradsOfFew(FewOf(s, first), first > 0, bad.b, scratch);
  }
  _tile_release();
  for (int64_t i0 = 0; i0 < s.b; i0 += kChunk) {
    const int64_t examples = Min(kChunk, s.b - i0);
    std::memcpy(bad.a, s.bad_examples + i0 / kPanel, RoundUp(examples, kPanel) / 8);
    DoAgain({{s.v + i0 * s.stride, s.stride}, RowsAre::kOuter}, {s.w, RowsAre::kDepth},
            {0, examples, 0, s.d, s.m}, bad, s.z + i0 * s.d, s.d, scratch);
  }
}

}  // namespace fsparse::FSPARSE_LEVEL

#endif  // FSPARSE_AMX_GRADS_H_
