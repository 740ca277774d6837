// Kernels that visit a few rows of a table: dot products and weighted sums.
//
// A row of 128 floats is 8 cache lines at a random place, so every loop over rows asks
// for a row many visits ahead: into L2, to which far more lines can be on their way
// than to L1.
#ifndef FSPARSE_ROWS_H_
#define FSPARSE_ROWS_H_

#include "elements.h"
#include "kernels.h"
#include "simd.h"

namespace fsparse::FSPARSE_LEVEL {

constexpr int64_t kRowsAhead = 32;

// Inlined by force: GCC takes a function that only prefetches for one without effect.
template <typename T>
__attribute__((always_inline)) inline void PrefetchRow(const Rows& rows, int64_t r,
                                                       int64_t d) {
  constexpr int64_t kStep = kBytesPerLine / sizeof(T);
  const T* row = RowPointer<T>(rows, r);
  for (int64_t c = 0; row && c < d; c += kStep) {
    __builtin_prefetch(row + c, /*rw=*/0, kIntoL2);
  }
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

// A term of a weighted sum of rows; a row that is nullptr adds nothing.
template <typename T>
struct Term {
  float scale;
  const T* row;
};

// Vectors of a sum that stay in registers while rows are added: 128 columns of AVX-512.
constexpr int kStrip = 8;
// Rows that are read again for the next strip, while L2 has them.
constexpr int64_t kRowsPerStrip = 256;

// sum[c, c + kVecs * kLanes) += the terms j0 <= j < j1.
template <int kVecs, typename Terms>
inline void AddStrip(int64_t j0, int64_t j1, const Terms& terms, int64_t c,
                     float* sum) {
  Vec strip[kVecs];
#pragma GCC unroll 8
  for (int u = 0; u < kVecs; ++u) strip[u] = Load(sum + c + u * kLanes);
  for (int64_t j = j0; j < j1; ++j) {
    if (c == 0) terms.Prefetch(j);
    const auto term = terms[j];
    if (!term.row) continue;
    const Vec scale = Splat(term.scale);
#pragma GCC unroll 8
    for (int u = 0; u < kVecs; ++u) strip[u] += scale * Load(term.row + c + u * kLanes);
  }
#pragma GCC unroll 8
  for (int u = 0; u < kVecs; ++u) Store(sum + c + u * kLanes, strip[u]);
}

// sum[:] += terms[j] for first <= j < last, in order.
template <typename Terms>
inline void AddTerms(int64_t first, int64_t last, const Terms& terms, int64_t d,
                     float* sum) {
  for (int64_t j0 = first; j0 < last; j0 += kRowsPerStrip) {
    const int64_t j1 = Min(last, j0 + kRowsPerStrip);
    int64_t c = 0;
    for (; c + kStrip * kLanes <= d; c += kStrip * kLanes) {
      AddStrip<kStrip>(j0, j1, terms, c, sum);
    }
    for (; c + kLanes <= d; c += kLanes) AddStrip<1>(j0, j1, terms, c, sum);
    for (int64_t j = j0; c < d && j < j1; ++j) {
      const auto term = terms[j];
      if (term.row) AddScaled(term.scale, term.row + c, d - c, sum + c);
    }
  }
}

// Whole vectors: what is stored in pieces cannot be loaded as one for some 15 cycles.
inline void Clear(float* x, int64_t d) {
  int64_t c = 0;
  for (; c + kLanes <= d; c += kLanes) Store(x + c, Vec{});
  for (; c < d; ++c) x[c] = 0.0f;
}

template <typename T>
void DotRowsOf(const float* x, const Rows& rows, int64_t first, int64_t k, int64_t d,
               float* y) {
  const int64_t known = Max(first + k, rows.num_ids);
  for (int64_t j = first; j < first + k; ++j) {
    if (j + kRowsAhead < known) PrefetchRow<T>(rows, j + kRowsAhead, d);
    const T* row = RowPointer<T>(rows, j);
    y[j - first] = row ? Dot(x, row, d) : 0.0f;
  }
}

inline void DotRows(const float* x, Rows rows, int64_t first, int64_t k, int64_t d,
                    float* y) {
  const auto run = rows.element == Element::kBf16 ? DotRowsOf<Bf16> : DotRowsOf<float>;
  run(x, rows, first, k, d, y);
}

// v[j] * rows[j].
template <typename T>
struct WeightedRows {
  const float* v;
  const Rows& rows;
  int64_t known, d;

  Term<T> operator[](int64_t j) const { return {v[j], RowPointer<T>(rows, j)}; }
  __attribute__((always_inline)) void Prefetch(int64_t j) const {
    if (j + kRowsAhead < known) PrefetchRow<T>(rows, j + kRowsAhead, d);
  }
};

inline void AddRows(const float* v, Rows rows, int64_t first, int64_t k, int64_t d,
                    float* z) {
  const int64_t last = first + k, known = Max(last, rows.num_ids);
  if (rows.element == Element::kBf16) {
    AddTerms(first, last, WeightedRows<Bf16>{v, rows, known, d}, d, z);
  } else {
    AddTerms(first, last, WeightedRows<float>{v, rows, known, d}, d, z);
  }
}

inline void SumRows(const float* v, Rows rows, int64_t k, int64_t d, float* z) {
  Clear(z, d);
  AddRows(v, rows, 0, k, d, z);
}

// scale[o] * x[o / k] of the occurrences o.
struct OuterTerms {
  const int32_t* occurrences;
  const float* scale;  // or nullptr, for ones
  const float* x;
  int64_t k, d;

  Term<float> operator[](int64_t i) const {
    const int64_t at = occurrences[i];
    return {scale ? scale[at] : 1.0f, x + at / k * d};
  }
  void Prefetch(int64_t) const {}
};

inline void SumOuter(const int32_t* occurrences, int64_t count, const float* scale,
                     const float* x, int64_t k, int64_t d, float* g) {
  Clear(g, d);
  AddTerms(0, count, OuterTerms{occurrences, scale, x, k, d}, d, g);
}

}  // namespace fsparse::FSPARSE_LEVEL

#endif  // FSPARSE_ROWS_H_
