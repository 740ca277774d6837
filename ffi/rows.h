// Kernels that visit a few rows of a table: dot products and weighted sums.
//
// A row of 128 floats is 8 cache lines at a random place, so every loop over rows asks
// for a row some visits ahead.
#ifndef FSPARSE_ROWS_H_
#define FSPARSE_ROWS_H_

#include "gemm.h"
#include "kernels.h"
#include "simd.h"

namespace fsparse::FSPARSE_LEVEL {

constexpr int64_t kRowsAhead = 4;
constexpr int64_t kFloatsPerLine = 16;

inline void PrefetchRow(const Rows& rows, int64_t r, int64_t d) {
  const float* row = RowPointer(rows, r);
  for (int64_t c = 0; row && c < d; c += kFloatsPerLine) __builtin_prefetch(row + c);
}

// Four sums, since an add takes four cycles and two can start in each.
inline float Dot(const float* x, const float* w, int64_t d) {
  Vec sum[4] = {};
  int64_t c = 0;
  for (; c + 4 * kLanes <= d; c += 4 * kLanes) {
    for (int u = 0; u < 4; ++u) {
      sum[u] += Load(x + c + u * kLanes) * Load(w + c + u * kLanes);
    }
  }
  for (; c + kLanes <= d; c += kLanes) sum[0] += Load(x + c) * Load(w + c);
  float tail = 0.0f;
  for (; c < d; ++c) tail += x[c] * w[c];
  return SumLanes((sum[0] + sum[1]) + (sum[2] + sum[3])) + tail;
}

// y[:] += s * x[:].
inline void AddScaled(float s, const float* x, int64_t d, float* y) {
  int64_t c = 0;
  const Vec sv = Splat(s);
  for (; c + kLanes <= d; c += kLanes) Store(y + c, Load(y + c) + sv * Load(x + c));
  for (; c < d; ++c) y[c] += s * x[c];
}

inline void DotRows(const float* x, Rows rows, int64_t k, int64_t d, float* y) {
  for (int64_t j = 0; j < k; ++j) {
    if (j + kRowsAhead < k) PrefetchRow(rows, j + kRowsAhead, d);
    const float* row = RowPointer(rows, j);
    y[j] = row ? Dot(x, row, d) : 0.0f;
  }
}

inline void SumRows(const float* v, Rows rows, int64_t k, int64_t d, float* z) {
  std::memset(z, 0, d * sizeof(float));
  for (int64_t j = 0; j < k; ++j) {
    if (j + kRowsAhead < k) PrefetchRow(rows, j + kRowsAhead, d);
    const float* row = RowPointer(rows, j);
    if (row) AddScaled(v[j], row, d, z);
  }
}

inline void SumOuter(const int32_t* occurrences, int64_t count, const float* scale,
                     const float* x, int64_t k, int64_t d, float* g) {
  std::memset(g, 0, d * sizeof(float));
  for (int64_t o = 0; o < count; ++o) {
    const int64_t at = occurrences[o];
    AddScaled(scale ? scale[at] : 1.0f, x + at / k * d, d, g);
  }
}

}  // namespace fsparse::FSPARSE_LEVEL

#endif  // FSPARSE_ROWS_H_
