// Visits the rows of many examples in the order of the table.
//
// Each example has a set of ids of its own, rising. One after the other, examples would
// read the table once each. Here all of them visit a range of rows that fits the cache,
// then the next: a row that several examples name comes from memory once, and what is
// read lies close together.
#ifndef FSPARSE_SWEEP_H_
#define FSPARSE_SWEEP_H_

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace fsparse {

// ids[groups, m]; those outside [0, num_rows) come along with the first or last row.
struct IdSets {
  const int32_t* ids;
  int64_t groups, m, num_rows;

  const int32_t* begin(int64_t g) const { return ids + g * m; }
  const int32_t* end(int64_t g) const { return begin(g) + m; }
  bool IsSorted() const {
    for (int64_t g = 0; g < groups; ++g) {
      if (!std::is_sorted(begin(g), end(g))) return false;
    }
    return true;
  }
  // Where the ids of group g that are at least `row` begin.
  int64_t LowerBound(int64_t g, int64_t row) const {
    if (row <= 0) return 0;
    if (row >= num_rows) return m;
    return std::lower_bound(begin(g), end(g), row) - begin(g);
  }
};

// Rows of a range: of at most 1 MiB, unless it had less than 8 ids of a group.
inline int64_t RowsPerRange(const IdSets& sets, int64_t row_bytes) {
  constexpr int64_t kRangeBytes = 1 << 20, kIdsOfGroup = 8;
  return std::max({int64_t{1}, kRangeBytes / std::max<int64_t>(1, row_bytes),
                   kIdsOfGroup * sets.num_rows / std::max<int64_t>(1, sets.m)});
}

// visit(g, j, count) for the ids j, ..., j + count - 1 of each group in [g0, g1) that
// lie in [row0, row1): range by range, those of a group in rising order.
template <typename Visit>
void Sweep(const IdSets& sets, int64_t g0, int64_t g1, int64_t row0, int64_t row1,
           int64_t rows_per_range, const Visit& visit) {
  std::vector<int64_t> at;
  for (int64_t g = g0; g < g1; ++g) at.push_back(sets.LowerBound(g, row0));
  for (int64_t r = row0; r < row1; r += rows_per_range) {
    int64_t limit = std::min(row1, r + rows_per_range);
    if (limit >= sets.num_rows) limit = std::numeric_limits<int64_t>::max();
    for (int64_t g = g0; g < g1; ++g) {
      const int32_t* ids = sets.begin(g);
      const int64_t first = at[g - g0];
      int64_t& j = at[g - g0];
      while (j < sets.m && ids[j] < limit) ++j;
      if (j > first) visit(g, first, j - first);
    }
  }
}

// The first rows of `parts` parts of the table, and n, such that each part has about as
// many of a typical group's ids as another.
inline std::vector<int64_t> SplitRows(const IdSets& sets, int64_t parts) {
  const int32_t* typical = sets.begin(sets.groups / 2);
  std::vector<int64_t> first{0};
  for (int64_t p = 1; p < parts; ++p) {
    const int64_t row = typical[p * sets.m / parts];
    first.push_back(std::clamp(row, first.back(), sets.num_rows));
  }
  first.push_back(sets.num_rows);
  return first;
}

}  // namespace fsparse

#endif  // FSPARSE_SWEEP_H_
