// Scores of a few examples with rows of a table, each read once.
//
// A tile has as many sums as a vector has lanes: of 1, 2 or 4 examples by as many rows
// as that leaves. The lanes of all of them are then added up together.
#ifndef FSPARSE_SCAN_H_
#define FSPARSE_SCAN_H_

#include "elements.h"
#include "int8.h"
#include "kernels.h"
#include "rows.h"
#include "simd.h"

namespace fsparse::FSPARSE_LEVEL {

inline Vec MultiplyAdd(Vec sum, Vec x, Vec w) { return sum + x * w; }

inline Vec ToFloat(Vec v) { return v; }

// How many products of an element are added up before the sum becomes a float: as many
// as surely fit into 32 bits.
template <typename T>
struct Summed {
  using Total = Vec;
  static constexpr int64_t kMost = INT64_MAX / 2;
};
template <>
struct Summed<int8_t> {
  using Total = Ints;
  static constexpr int64_t kMost = 512;
};
static_assert(512 * int64_t{kMostShort} * kMostByte < INT32_MAX);

template <int... kLane>
struct Indices {};

#if defined(__AVX512F__)
using AllLanes = Indices<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>;
#elif defined(__AVX2__)
using AllLanes = Indices<0, 1, 2, 3, 4, 5, 6, 7>;
#else
using AllLanes = Indices<0, 1, 2, 3>;
#endif

// Where a lane of the sum of halves comes from, in a and b end to end.
template <int kHalf>
constexpr int LowerHalf(int lane) {
  return lane / kHalf * 2 * kHalf + lane % kHalf;
}

// Cuts a and b into groups of 2 kHalf lanes, and adds the halves of each.
template <int kHalf, typename V, int... kLane>
V AddHalves(V a, V b, Indices<kLane...>) {
  return __builtin_shufflevector(a, b, LowerHalf<kHalf>(kLane)...) +
         __builtin_shufflevector(a, b, (LowerHalf<kHalf>(kLane) + kHalf)...);
}

// Lane i is the sum of the lanes of v[i], added in the order of SumLanes.
template <typename V, int kHalf = kLanes / 2>
V SumEach(V* v) {
  for (int i = 0; i < kHalf; ++i) {
    v[i] = AddHalves<kHalf>(v[2 * i], v[2 * i + 1], AllLanes{});
  }
  if constexpr (kHalf > 1) {
    return SumEach<V, kHalf / 2>(v);
  } else {
    return v[0];
  }
}

constexpr int64_t kRowsAtOnce = 256;
constexpr int64_t kBytesAhead = 4096;  // the hardware stops at the end of a page

// Pointers to rows [first, first + k), then to the last one over and over. A row whose
// id is out of range is as row 0 of the data.
template <typename T>
struct Pointers {
  const T* row[kRowsAtOnce + 2 * kLanes];
  bool in_order;

  Pointers(const Rows& rows, int64_t first, int64_t k) : in_order(!rows.ids) {
    for (int64_t j = 0; j < k; ++j) {
      row[j] = RowPointer<T>(rows, first + j);
      if (!row[j]) row[j] = static_cast<const T*>(rows.data);
    }
    for (int64_t j = k; j < k + 2 * kLanes; ++j) row[j] = row[k - 1];
  }

  // Inlined by force: GCC takes a function that only prefetches for one without effect.
  __attribute__((always_inline)) inline void PrefetchBeyond(int64_t j,
                                                            int64_t d) const {
    const char* line = in_order ? reinterpret_cast<const char*>(row[j]) + kBytesAhead
                                : reinterpret_cast<const char*>(row[j + kLanes]);
    for (int64_t i = 0; i < d * int64_t{sizeof(T)}; i += kBytesPerLine) {
      __builtin_prefetch(line + i);
    }
  }
};

// The products of kX examples and kRows rows over [c0, c1), lane by lane:
// total[i * stride + r] = sum of x[i, :] * row[r][:].
template <int kX, int kRows, typename X, typename T, typename Total>
__attribute__((always_inline)) inline void MultiplyRows(const X* x, const T* const* row,
                                                        int64_t d, int64_t c0,
                                                        int64_t c1, Total* total,
                                                        int stride) {
  Total sum[kX * kRows] = {};
  auto add = [&](int64_t c, auto load) {
    decltype(Load(x)) xs[kX];
    for (int i = 0; i < kX; ++i) xs[i] = load(x + i * d + c);
    for (int r = 0; r < kRows; ++r) {
      const auto ws = load(row[r] + c);
      for (int i = 0; i < kX; ++i) {
        sum[i * kRows + r] = MultiplyAdd(sum[i * kRows + r], xs[i], ws);
      }
    }
  };
  constexpr int64_t kStep = sizeof(Load(x)) / sizeof(X);
  int64_t c = c0;
  for (; c + kStep <= c1; c += kStep) add(c, [](auto* p) { return Load(p); });
  if (c < c1) add(c, [=](auto* p) { return LoadPart(p, c1 - c); });
  for (int i = 0; i < kX; ++i) {
    for (int r = 0; r < kRows; ++r) total[i * stride + r] = sum[i * kRows + r];
  }
}

// Lane i * kTile + r is x[i, :] . row j + r, for kX examples and kTile rows. One
// example takes a row at a time, in the order of memory.
template <int kX, typename X, typename T>
Vec ScanTile(const X* x, const Pointers<T>& rows, int64_t j, int64_t d) {
  constexpr int kTile = kLanes / kX, kGroup = kX < kTile ? kX : kTile;
  Vec scores = {};
  int64_t c = 0;
  do {
    const int64_t end = Min(d, c + Summed<T>::kMost);
    typename Summed<T>::Total sum[kLanes];
    for (int r = 0; r < kTile; r += kGroup) {
      for (int g = 0; c == 0 && g < kGroup; ++g) rows.PrefetchBeyond(j + r + g, d);
      MultiplyRows<kX, kGroup>(x, rows.row + j + r, d, c, end, sum + r, kTile);
    }
    scores += ToFloat(SumEach(sum));
    c = end;
  } while (c < d);
  return scores;
}

// out[i * stride + j] = x[i, :] . row j for kX examples and k rows.
template <int kX, typename X, typename T>
void ScanTiles(const X* x, const Pointers<T>& rows, int64_t k, int64_t d, float* out,
               int64_t stride) {
  constexpr int kTile = kLanes / kX;
  for (int64_t j = 0; j < k; j += kTile) {
    float scores[kLanes];
    Store(scores, ScanTile<kX>(x, rows, j, d));
    for (int i = 0; i < kX; ++i) {
      std::memcpy(out + i * stride + j, scores + i * kTile,
                  Min(k - j, kTile) * sizeof(float));
    }
  }
}

template <typename X, typename T>
void Scan(const X* x, int64_t b, const Rows& rows, int64_t first, int64_t k, int64_t d,
          float* out, int64_t stride) {
  for (int64_t j = 0; j < k; j += kRowsAtOnce, out += kRowsAtOnce) {
    const int64_t count = Min(kRowsAtOnce, k - j);
    const Pointers<T> at(rows, first + j, count);
    int64_t i = 0;
    for (; i + 4 <= b; i += 4) {
      ScanTiles<4>(x + i * d, at, count, d, out + i * stride, stride);
    }
    for (; i + 2 <= b; i += 2) {
      ScanTiles<2>(x + i * d, at, count, d, out + i * stride, stride);
    }
    if (i < b) ScanTiles<1>(x + i * d, at, count, d, out + i * stride, stride);
  }
}

inline void ScanRows(const float* x, int64_t b, Rows rows, int64_t first, int64_t k,
                     int64_t d, float* y, int64_t stride) {
  const auto run =
      rows.element == Element::kBf16 ? Scan<float, Bf16> : Scan<float, float>;
  run(x, b, rows, first, k, d, y, stride);
}

inline void ScanInt8(Int8Examples x, int64_t b, Rows rows, const float* scale,
                     int64_t first, int64_t k, int64_t d, float* y, int64_t stride) {
  Scan<int16_t, int8_t>(x.values, b, rows, first, k, d, y, stride);
  for (int64_t i = 0; i < b; ++i) {
    float* of_example = y + i * stride;
    for (int64_t j = 0; !rows.ids && j < k; ++j) {
      of_example[j] = of_example[j] * x.scale[i] * scale[first + j];
    }
    for (int64_t j = first; rows.ids && j < first + k; ++j) {
      const float s = IsPadding(rows, j) ? 0.0f : scale[rows.ids[j]];
      of_example[j - first] = of_example[j - first] * x.scale[i] * s;
    }
  }
}

}  // namespace fsparse::FSPARSE_LEVEL

#endif  // FSPARSE_SCAN_H_
