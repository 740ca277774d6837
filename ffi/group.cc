#include "group.h"

#include <algorithm>
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

void SortById(std::vector<Keyed>& entries, int64_t num_rows) {
  auto less = [](const Keyed& a, const Keyed& b) { return a.id < b.id; };
  // Active sets come sorted, and so does the list of all rows.
  if (std::is_sorted(entries.begin(), entries.end(), less)) return;
  std::vector<Keyed> other(entries.size());
  for (int shift = 0; shift < 31 && (num_rows - 1) >> shift; shift += kDigitBits) {
    SortByDigit(entries, shift, other);
    entries.swap(other);
  }
}

}  // namespace

RowGroups GroupByRow(const int32_t* ids, int64_t count, int64_t num_rows,
                     const int32_t* source, int64_t num_sources) {
  auto in_range = [](int32_t i, int64_t n) { return i >= 0 && i < n; };
  std::vector<Keyed> entries;
  entries.reserve(count);
  for (int64_t o = 0; o < count; ++o) {
    if (in_range(ids[o], num_rows) && (!source || in_range(source[o], num_sources))) {
      entries.push_back({ids[o], static_cast<int32_t>(o)});
    }
  }
  SortById(entries, num_rows);
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
