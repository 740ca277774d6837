#include "group.h"

#include <array>
#include <utility>

namespace fsparse {
namespace {

struct Keyed {
  int32_t id, occurrence;
};

constexpr int kDigitBits = 11;  // 2,048 counters stay in L1
constexpr int64_t kDigits = int64_t{1} << kDigitBits;

// One stable pass of a least-significant-digit radix sort.
void SortByDigit(const std::vector<Keyed>& from, int shift, std::vector<Keyed>& to) {
  std::array<int64_t, kDigits> next{};
  for (const Keyed& e : from) ++next[(e.id >> shift) & (kDigits - 1)];
  int64_t sum = 0;
  for (int64_t& n : next) sum += std::exchange(n, sum);
  for (const Keyed& e : from) to[next[(e.id >> shift) & (kDigits - 1)]++] = e;
}

}  // namespace

RowGroups GroupByRow(const int32_t* ids, int64_t count, int64_t num_rows) {
  std::vector<Keyed> entries;
  entries.reserve(count);
  for (int64_t o = 0; o < count; ++o) {
    if (ids[o] >= 0 && ids[o] < num_rows) {
      entries.push_back({ids[o], static_cast<int32_t>(o)});
    }
  }
  std::vector<Keyed> other(entries.size());
  for (int shift = 0; shift < 31 && (num_rows - 1) >> shift; shift += kDigitBits) {
    SortByDigit(entries, shift, other);
    entries.swap(other);
  }
  RowGroups groups;
  groups.order.reserve(entries.size());
  for (const Keyed& e : entries) {
    if (groups.rows.empty() || groups.rows.back() != e.id) {
      groups.rows.push_back(e.id);
      groups.starts.push_back(groups.order.size());
    }
    groups.order.push_back(e.occurrence);
  }
  groups.starts.push_back(groups.order.size());
  return groups;
}

}  // namespace fsparse
