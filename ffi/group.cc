// A stable radix sort, the first digit first: its parts, ranges of rows, fit L1, and
// each can be finished by another thread.
#include "group.h"

#include <algorithm>
#include <array>
#include <utility>

namespace fsparse {
namespace {

struct Keyed {
  int32_t id, occurrence;
};
using Entries = std::vector<Keyed>;

constexpr int64_t kBlock = 1 << 15;  // occurrences that a thread takes at a time
constexpr int64_t kPerRange = 512;   // of them wanted in a range of rows
constexpr int kMaxRangeBits = 10;    // as many streams are written at once
constexpr int kDigitBits = 8;        // of the passes within a range

int BitsOf(int64_t n) { return n > 0 ? 64 - __builtin_clzll(n) : 0; }

bool IsPadding(const Occurrences& all, int64_t o) {
  auto in_range = [](int32_t i, int64_t n) { return i >= 0 && i < n; };
  return !in_range(all.ids[o], all.num_rows) ||
         (all.source && !in_range(all.source[o], all.num_sources));
}

// Occurrences that are no padding, in order; of the ranges of 2^shift rows, entries
// [starts[r], starts[r + 1]) belong to range r.
struct Ranges {
  Entries entries;
  std::vector<int64_t> starts;
};

template <typename Visit>
void VisitBlock(const Occurrences& all, int64_t block, const Visit& visit) {
  const int64_t end = std::min(all.count, (block + 1) * kBlock);
  for (int64_t o = block * kBlock; o < end; ++o) {
    if (!IsPadding(all, o)) visit(all.ids[o], static_cast<int32_t>(o));
  }
}

Ranges SplitByRange(const Occurrences& all, int shift, const ForEach& for_each) {
  const int64_t blocks = (all.count + kBlock - 1) / kBlock;
  const int64_t ranges = all.num_rows > 0 ? ((all.num_rows - 1) >> shift) + 1 : 0;
  std::vector<int64_t> next(blocks * ranges);
  for_each(blocks, [&](int64_t b) {
    VisitBlock(all, b,
               [&](int32_t id, int32_t) { ++next[b * ranges + (id >> shift)]; });
  });
  Ranges out;
  int64_t sum = 0;
  for (int64_t r = 0; r < ranges; ++r) {
    out.starts.push_back(sum);
    for (int64_t b = 0; b < blocks; ++b)
      sum += std::exchange(next[b * ranges + r], sum);
  }
  out.starts.push_back(sum);
  out.entries.resize(sum);
  for_each(blocks, [&](int64_t b) {
    VisitBlock(all, b, [&](int32_t id, int32_t o) {
      out.entries[next[b * ranges + (id >> shift)]++] = {id, o};
    });
  });
  return out;
}

// A stable pass by kDigitBits bits of the ids.
void SortByDigit(const Keyed* from, int64_t count, int shift, Keyed* to) {
  constexpr int kDigits = 1 << kDigitBits;
  std::array<int32_t, kDigits> next{};
  auto digit = [=](const Keyed& e) { return e.id >> shift & (kDigits - 1); };
  for (int64_t i = 0; i < count; ++i) ++next[digit(from[i])];
  int32_t sum = 0;
  for (int32_t& n : next) sum += std::exchange(n, sum);
  for (int64_t i = 0; i < count; ++i) to[next[digit(from[i])]++] = from[i];
}

void SortRange(Keyed* entries, int64_t count, int bits) {
  thread_local Entries other;
  other.resize(std::max<size_t>(other.size(), count));
  for (int shift = 0; count > 1 && shift < bits; shift += kDigitBits) {
    SortByDigit(entries, count, shift, other.data());
    std::copy_n(other.data(), count, entries);
  }
}

int64_t CountRows(const Keyed* entries, int64_t count) {
  int64_t rows = count > 0;
  for (int64_t i = 1; i < count; ++i) rows += entries[i].id != entries[i - 1].id;
  return rows;
}

// The groups of entries [begin, end), of which the first is group g.
void Write(const Entries& entries, int64_t begin, int64_t end, int64_t g,
           RowGroups& groups) {
  for (int64_t i = begin; i < end; ++i) {
    if (i == begin || entries[i].id != entries[i - 1].id) {
      groups.rows[g] = entries[i].id;
      groups.starts[g++] = i;
    }
    groups.order[i] = entries[i].occurrence;
  }
}

RowGroups Collect(const Ranges& ranges, std::vector<int64_t> num_rows,
                  const ForEach& for_each) {
  RowGroups groups;
  int64_t sum = 0;
  for (int64_t& rows : num_rows) sum += std::exchange(rows, sum);
  groups.rows.resize(sum);
  groups.starts.resize(sum + 1);
  groups.order.resize(ranges.entries.size());
  for_each(num_rows.size(), [&](int64_t r) {
    Write(ranges.entries, ranges.starts[r], ranges.starts[r + 1], num_rows[r], groups);
  });
  groups.starts[sum] = ranges.entries.size();
  return groups;
}

}  // namespace

RowGroups GroupByRow(const Occurrences& all, const ForEach& on_threads) {
  const ForEach here = [](int64_t n, const std::function<void(int64_t)>& fn) {
    for (int64_t i = 0; i < n; ++i) fn(i);
  };
  const ForEach& for_each = all.count > kBlock ? on_threads : here;
  const int bits = all.num_rows > 0 ? BitsOf(all.num_rows - 1) : 0;
  // Active sets come sorted, and so does the list of all rows.
  const bool is_sorted = std::is_sorted(all.ids, all.ids + all.count);
  const int range_bits =
      is_sorted ? 0 : std::min({bits, kMaxRangeBits, BitsOf(all.count / kPerRange)});
  const int shift = bits - range_bits;
  Ranges ranges = SplitByRange(all, shift, for_each);
  std::vector<int64_t> num_rows(ranges.starts.size() - 1);
  for_each(num_rows.size(), [&](int64_t r) {
    Keyed* first = ranges.entries.data() + ranges.starts[r];
    const int64_t count = ranges.starts[r + 1] - ranges.starts[r];
    if (!is_sorted) SortRange(first, count, shift);
    num_rows[r] = CountRows(first, count);
  });
  return Collect(ranges, std::move(num_rows), for_each);
}

}  // namespace fsparse
