// Groups occurrences of row ids by row, so that each row of a table has one owner.
#ifndef FSPARSE_GROUP_H_
#define FSPARSE_GROUP_H_

#include <cstdint>
#include <functional>
#include <vector>

namespace fsparse {

// Row rows[g] is named by occurrences order[starts[g]], ..., order[starts[g + 1] - 1],
// in rising order. Rows rise too; padding is left out.
struct RowGroups {
  std::vector<int32_t> rows;    // [num_groups]
  std::vector<int64_t> starts;  // [num_groups + 1]
  std::vector<int32_t> order;   // [occurrences that are not padding]
};

// ids[count]; an occurrence is padding if its id is outside [0, num_rows) or, where
// sources are given, its source outside [0, num_sources).
struct Occurrences {
  const int32_t* ids;
  int64_t count, num_rows;
  const int32_t* source = nullptr;
  int64_t num_sources = 0;
};

// Calls fn(0), ..., fn(n - 1), each of which is work for a thread, in any order.
using ForEach = std::function<void(int64_t n, const std::function<void(int64_t)>& fn)>;

RowGroups GroupByRow(const Occurrences& occurrences, const ForEach& for_each);

}  // namespace fsparse

#endif  // FSPARSE_GROUP_H_
