// Kernels that visit a few rows of a table: dot products and weighted sums.
//
// A row of 128 floats is 8 cache lines at a random place, so every loop over rows asks
// for a row some visits ahead: twice as many for bf16, which are half as long.
#ifndef FSPARSE_ROWS_H_
#define FSPARSE_ROWS_H_

#include "elements.h"
#include "kernels.h"
#include "simd.h"

namespace fsparse::FSPARSE_LEVEL {

template <typename T>
constexpr int64_t kRowsAhead = 16 / sizeof(T);
constexpr int64_t kBytesPerLine = 64;

// Inlined by force: GCC takes a function that only prefetches for one without effect.
template <typename T>
__attribute__((always_inline)) inline void PrefetchRow(const Rows& rows, int64_t r,
                                                       int64_t d) {
  constexpr int64_t kStep = kBytesPerLine / sizeof(T);
  const T* row = RowPointer<T>(rows, r);
  for (int64_t c = 0; row && c < d; c += kStep) __builtin_prefetch(row + c);
}

// Four sums, since an add takes four cycles and two can start in each. The rest is a
// vector, too: in a scalar loop the compiler may fuse products and sums for f32 and not
// for bf16, whose bits would differ.
template <typename T>
float Dot(const float* x, const T* w, int64_t d) {
  Vec sum[4] = {};
  int64_t c = 0;
  for (; c + 4 * kLanes <= d; c += 4 * kLanes) {
    for (int u = 0; u < 4; ++u) {
      sum[u] += Load(x + c + u * kLanes) * Load(w + c + u * kLanes);
    }
  }
  for (; c + kLanes <= d; c += kLanes) sum[0] += Load(x + c) * Load(w + c);
  if (c < d) sum[1] += LoadPart(x + c, d - c) * LoadPart(w + c, d - c);
  return SumLanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// y[:] += s * x[:].
template <typename T>
void AddScaled(float s, const T* x, int64_t d, float* y) {
  int64_t c = 0;
  const Vec sv = Splat(s);
  for (; c + kLanes <= d; c += kLanes) Store(y + c, Load(y + c) + sv * Load(x + c));
  for (; c < d; ++c) y[c] += s * Widen(x[c]);
}

template <typename T>
void DotRowsOf(const float* x, const Rows& rows, int64_t first, int64_t k, int64_t d,
               float* y) {
  for (int64_t j = 0; j < k; ++j) {
    if (j + kRowsAhead<T> < k) PrefetchRow<T>(rows, first + j + kRowsAhead<T>, d);
    const T* row = RowPointer<T>(rows, first + j);
    y[j] = row ? Dot(x, row, d) : 0.0f;
  }
}

inline void DotRows(const float* x, Rows rows, int64_t first, int64_t k, int64_t d,
                    float* y) {
  const auto run = rows.element == Element::kBf16 ? DotRowsOf<Bf16> : DotRowsOf<float>;
  run(x, rows, first, k, d, y);
}

template <typename T>
void SumRowsOf(const float* v, const Rows& rows, int64_t k, int64_t d, float* z) {
  std::memset(z, 0, d * sizeof(float));
  for (int64_t j = 0; j < k; ++j) {
    if (j + kRowsAhead<T> < k) PrefetchRow<T>(rows, j + kRowsAhead<T>, d);
    const T* row = RowPointer<T>(rows, j);
    if (row) AddScaled(v[j], row, d, z);
  }
}

inline void SumRows(const float* v, Rows rows, int64_t k, int64_t d, float* z) {
  const auto run = rows.element == Element::kBf16 ? SumRowsOf<Bf16> : SumRowsOf<float>;
  run(v, rows, k, d, z);
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
