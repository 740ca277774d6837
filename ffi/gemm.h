// A blocked matrix product whose operands may be rows picked by id.
//
//   out[i, j] = sum_p a(i, p) * b(j, p)
//
// Both operands are copied ("packed") into panels that the inner loop reads in order,
// so gathering rows, and widening bf16 to f32, cost nothing beyond the copy that a
// product makes anyway. The sum runs over p in order, in chunks of kDepth, one fused
// multiply-add at a time: its bits do not depend on the block that a pair (i, j) falls
// into.
#ifndef FSPARSE_GEMM_H_
#define FSPARSE_GEMM_H_

#include "elements.h"
#include "kernels.h"
#include "simd.h"

namespace fsparse::FSPARSE_LEVEL {

// The tile of `out` held in registers: kTileM x 2 vectors. AVX-512 has 32 registers,
// AVX2 16 (12 sums, 2 for b, 1 for a), and so has the baseline.
constexpr int kTileM = kLanes == 16 ? 14 : 6;
constexpr int kTileN = 2 * kLanes;
constexpr int64_t kDepth = 256;
// The packed panels of a block, 240 x 256 and 256 x 256 floats, fit a 512 KiB L2.
constexpr int64_t kBlockM = kTileM * (kLanes == 16 ? 18 : 40);  // 252 or 240
constexpr int64_t kBlockN = kTileN * (256 / kTileN);            // 256
constexpr int64_t kScratchFloats = (kBlockM + kBlockN) * kDepth;

// panel[p, lane] = operand(first + lane, p0 + p); zeros past `count` lanes.
template <int kWidth, typename T>
void PackPanel(const Operand& op, int64_t first, int64_t count, int64_t p0,
               int64_t depth, float* panel) {
  if (op.rows_are == RowsAre::kOuter) {
    constexpr int kStep = 8;  // depth values copied at a time: half a cache line a row
    const T* row[kWidth];
    for (int lane = 0; lane < kWidth; ++lane) {
      row[lane] = lane < count ? RowPointer<T>(op.rows, first + lane) : nullptr;
    }
    int64_t p = 0;
    for (; p + kStep <= depth; p += kStep) {
      float block[kWidth][kStep];
      for (int lane = 0; lane < kWidth; ++lane) {
        if (row[lane]) {
          Widen<kStep>(row[lane] + p0 + p, block[lane]);
        } else {
          std::memset(block[lane], 0, sizeof(block[lane]));
        }
      }
      for (int q = 0; q < kStep; ++q) {
        for (int lane = 0; lane < kWidth; ++lane) {
          panel[(p + q) * kWidth + lane] = block[lane][q];
        }
      }
    }
    for (; p < depth; ++p) {
      for (int lane = 0; lane < kWidth; ++lane) {
        panel[p * kWidth + lane] = row[lane] ? Widen(row[lane][p0 + p]) : 0.0f;
      }
    }
    return;
  }
  for (int64_t p = 0; p < depth; ++p) {
    const T* row = RowPointer<T>(op.rows, p0 + p);
    float* out = panel + p * kWidth;
    if (row && count == kWidth) {
      Widen<kWidth>(row + first, out);
    } else {
      for (int lane = 0; lane < kWidth; ++lane) {
        out[lane] = row && lane < count ? Widen(row[first + lane]) : 0.0f;
      }
    }
  }
}

template <int kWidth>
void PackBlock(const Operand& op, int64_t first, int64_t count, int64_t p0,
               int64_t depth, float* out) {
  const auto pack = op.rows.element == Element::kBf16 ? PackPanel<kWidth, Bf16>
                                                      : PackPanel<kWidth, float>;
  for (int64_t i = 0; i < count; i += kWidth) {
    pack(op, first + i, Min(kWidth, count - i), p0, depth, out + i * depth);
  }
}

// tile[i, j] (+)= sum_p a[p, i] * b[p, j].
inline void Tile(const float* a, const float* b, int64_t depth, bool accumulate,
                 float* out, int64_t ldc) {
  Vec sum[kTileM][2];
  for (int i = 0; i < kTileM; ++i) {
    sum[i][0] = accumulate ? Load(out + i * ldc) : Vec{};
    sum[i][1] = accumulate ? Load(out + i * ldc + kLanes) : Vec{};
  }
  for (int64_t p = 0; p < depth; ++p) {
    const Vec b0 = Load(b + p * kTileN), b1 = Load(b + p * kTileN + kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kTileM; ++i) {
      const Vec ai = Splat(a[p * kTileM + i]);
      sum[i][0] += ai * b0;
      sum[i][1] += ai * b1;
    }
  }
  for (int i = 0; i < kTileM; ++i) {
    Store(out + i * ldc, sum[i][0]);
    Store(out + i * ldc + kLanes, sum[i][1]);
  }
}

// The same tile where fewer than kTileM x kTileN elements exist.
inline void EdgeTile(const float* a, const float* b, int64_t depth, bool accumulate,
                     float* out, int64_t ldc, int64_t m, int64_t n) {
  float full[kTileM * kTileN] = {};
  for (int64_t i = 0; accumulate && i < m; ++i) {
    std::memcpy(full + i * kTileN, out + i * ldc, n * sizeof(float));
  }
  Tile(a, b, depth, accumulate, full, kTileN);
  for (int64_t i = 0; i < m; ++i) {
    std::memcpy(out + i * ldc, full + i * kTileN, n * sizeof(float));
  }
}

// Depth indices whose id is out of range must not reach the sum, even as NaN * 0.
inline void ClearPaddedDepths(const Rows& rows, int64_t m, int64_t p0, int64_t depth,
                              float* packed_a) {
  for (int64_t p = 0; rows.ids && p < depth; ++p) {
    if (!IsPadding(rows, p0 + p)) continue;
    for (int64_t i = 0; i < m; i += kTileM) {
      std::memset(packed_a + i * depth + p * kTileM, 0, kTileM * sizeof(float));
    }
  }
}

inline void ClearPaddedColumns(const Rows& rows, const Block& block, float* out,
                               int64_t ldc) {
  for (int64_t j = 0; rows.ids && j < block.n; ++j) {
    if (!IsPadding(rows, block.j0 + j)) continue;
    for (int64_t i = 0; i < block.m; ++i) out[i * ldc + j] = 0.0f;
  }
}

inline void Gemm(Operand a, Operand b, Block block, float* out, int64_t ldc,
                 float* scratch) {
  float* packed_a = scratch;
  float* packed_b = scratch + kBlockM * kDepth;
  for (int64_t i = 0; block.depth == 0 && i < block.m; ++i) {
    std::memset(out + i * ldc, 0, block.n * sizeof(float));
  }
  for (int64_t p0 = 0; p0 < block.depth; p0 += kDepth) {
    const int64_t depth = Min(kDepth, block.depth - p0);
    PackBlock<kTileM>(a, block.i0, block.m, p0, depth, packed_a);
    PackBlock<kTileN>(b, block.j0, block.n, p0, depth, packed_b);
    if (b.rows_are == RowsAre::kDepth) {
      ClearPaddedDepths(b.rows, block.m, p0, depth, packed_a);
    }
    for (int64_t j = 0; j < block.n; j += kTileN) {
      const int64_t n = Min(kTileN, block.n - j);
      for (int64_t i = 0; i < block.m; i += kTileM) {
        const int64_t m = Min(kTileM, block.m - i);
        const float* pa = packed_a + i * depth;
        const float* pb = packed_b + j * depth;
        float* tile = out + i * ldc + j;
        if (m == kTileM && n == kTileN) {
          Tile(pa, pb, depth, p0 > 0, tile, ldc);
        } else {
          EdgeTile(pa, pb, depth, p0 > 0, tile, ldc, m, n);
        }
      }
    }
  }
  if (b.rows_are == RowsAre::kOuter) ClearPaddedColumns(b.rows, block, out, ldc);
}

}  // namespace fsparse::FSPARSE_LEVEL

#endif  // FSPARSE_GEMM_H_
