#include "votes.h"

#include <algorithm>
#include <limits>

#include "buckets.h"

namespace fsparse {
namespace {

template <typename Count>
const CounterKernels<Count>& KernelsOf() {
  const Kernels& kernels = *Dispatch();
  if constexpr (sizeof(Count) == 1) {
    return kernels.counters_u8;
  } else if constexpr (sizeof(Count) == 2) {
    return kernels.counters_u16;
  } else {
    return kernels.counters_u32;
  }
}

constexpr int64_t kProbesAtOnce = 256, kBucketsAhead = 4;

__attribute__((always_inline)) inline void PrefetchEntries(Bucket bucket) {
  const char* line = reinterpret_cast<const char*>(bucket.entries);
  const char* end = line + bucket.size * sizeof(int32_t);
  for (; line < end; line += kBytesPerLine) __builtin_prefetch(line);
}

// Calls fn with the buckets of all probes. They lie far apart, as do their places: all
// of these are asked for first, then the entries of a few buckets ahead.
template <typename Fn>
void ForEachBucket(const BucketsView& view, const int32_t* probes, int64_t count,
                   const Fn& fn) {
  Bucket buckets[kProbesAtOnce];
  for (int64_t j = 0; j < count; ++j) view.PrefetchPlace(probes[j]);
  for (int64_t j = 0; j < count; ++j) {
    buckets[j] = view.At(probes[j]);
    if (j < kBucketsAhead) PrefetchEntries(buckets[j]);
  }
  for (int64_t j = 0; j < count; ++j) {
    if (j + kBucketsAhead < count) PrefetchEntries(buckets[j + kBucketsAhead]);
    fn(buckets[j]);
  }
}

}  // namespace

template <typename Count>
void Votes<Count>::Reserve(int64_t num_lines) {
  if (static_cast<int64_t>(lines_.size()) >= num_lines) return;
  lines_.resize(num_lines);
  is_touched_.resize(num_lines);
}

// A row has more votes than probes only in arrays that nobody built here.
template <typename Count>
void Votes<Count>::Add(const BucketsView& view, const int32_t* probes, int64_t count) {
  Reserve((view.num_rows + kLineRows - 1) / kLineRows);
  most_ = std::min<int64_t>(most_ + count, std::numeric_limits<Count>::max());
  const uint32_t num_rows = view.num_rows;
  Count* counters = Counters();
  uint8_t* is_touched = is_touched_.data();
  auto add = [=](Bucket bucket) {
    for (int32_t i = 0; i < bucket.size; ++i) {
      const uint32_t id = bucket.entries[i];
      if (id >= num_rows) continue;
      ++counters[id];
      is_touched[id / kLineRows] = 1;
    }
  };
  for (int64_t j = 0; j < count; j += kProbesAtOnce) {
    ForEachBucket(view, probes + j, std::min(kProbesAtOnce, count - j), add);
  }
}

template <typename Count>
void Votes<Count>::Take(Votes& other) {
  Reserve(other.lines_.size());
  most_ = std::min<int64_t>(most_ + other.most_, std::numeric_limits<Count>::max());
  other.ListTouched();
  for (const int32_t l : other.touched_) {
    is_touched_[l] = 1;
    for (int32_t i = 0; i < kLineRows; ++i) {
      lines_[l].votes[i] += other.lines_[l].votes[i];
    }
  }
  other.Clear();
}

template <typename Count>
void Votes<Count>::Forget(const uint16_t* codes, int64_t num_rows) {
  ListTouched();
  for (const int64_t l : touched_) {
    const int64_t first = l * kLineRows;
    const int64_t size = std::min<int64_t>(kLineRows, num_rows - first);
    for (int64_t i = 0; i < size; ++i) {
      if (codes[first + i] == kNowhere) lines_[l].votes[i] = 0;
    }
  }
}

// Those above the least number of votes are sorted; of those that have it there may be
// many more than there is room for.
template <typename Count>
int64_t Votes<Count>::Rank(int64_t num_rows, int64_t start, int64_t k, int32_t* ids,
                           int32_t* votes) {
  ListTouched();
  const int64_t found = CountAtLeast(1);
  const int64_t least = found > k ? LeastChosen(k) : 0;
  int64_t at = WriteAbove(least, start, ids, votes);
  if (least > 0) {
    const Count most = least < most_ ? least : std::numeric_limits<Count>::max();
    PickFrom(start, least, most, k - at);
    const int64_t count = std::min<int64_t>(k - at, picked_.size());
    std::copy_n(picked_.begin(), count, ids + at);
    std::fill_n(votes + at, count, static_cast<int32_t>(least));
    at += count;
  }
  std::fill(ids + at, ids + k, static_cast<int32_t>(num_rows));
  std::fill(votes + at, votes + k, 0);
  Clear();
  return found;
}

// Without branches: nearly all lines are touched, or nearly none.
template <typename Count>
void Votes<Count>::ListTouched() {
  const int64_t num_lines = is_touched_.size();
  touched_.resize(num_lines);
  int64_t count = 0;
  for (int64_t l = 0; l < num_lines; ++l) {
    touched_[count] = static_cast<int32_t>(l);
    count += is_touched_[l];
  }
  touched_.resize(count);
  first_counted_ = 0;
}

// Some levels are counted together, and remembered.
template <typename Count>
int64_t Votes<Count>::CountAtLeast(int64_t least) {
  const int64_t first = (least - 1) / kCountedLevels * kCountedLevels + 1;
  if (first != first_counted_) {
    KernelsOf<Count>().count_levels(Counters(), touched_.data(), touched_.size(),
                                    static_cast<Count>(first), num_at_least_);
    first_counted_ = first;
  }
  return num_at_least_[least - first];
}

// The most votes that k rows have, where more than k rows have any. It is far from the
// most that there may be.
template <typename Count>
int64_t Votes<Count>::LeastChosen(int64_t k) {
  int64_t enough = 1, too_many = most_ + 1;
  while (enough + 1 < too_many) {
    const int64_t guess =
        too_many > most_ ? std::min(2 * enough, most_) : (enough + too_many) / 2;
    (CountAtLeast(guess) >= k ? enough : too_many) = guess;
  }
  return enough;
}

// At least `limit` of the rows with votes in [least, most], if there are so many, in
// the order start, start + 1, ...
template <typename Count>
void Votes<Count>::PickFrom(int64_t start, Count least, Count most, int64_t limit) {
  picked_.resize(2 * (limit + 2 * kLineRows));
  auto pick = [&](int64_t begin, int64_t end, int64_t wanted, int32_t* rows) {
    return rows + KernelsOf<Count>().pick_between(Counters(), touched_.data() + begin,
                                                  end - begin, least, most, wanted,
                                                  rows);
  };
  const int64_t num_lines = touched_.size();
  const int64_t line =
      std::lower_bound(touched_.begin(), touched_.end(), start / kLineRows) -
      touched_.begin();
  int32_t* rows = picked_.data();
  int32_t* end = pick(line, num_lines, limit + kLineRows, rows);
  int32_t* first = std::lower_bound(rows, end, start);
  end = std::copy(first, end, rows);
  const int64_t missing = limit - (end - rows);
  if (missing > 0) {
    int32_t* more = pick(0, std::min(line + 1, num_lines), missing, end);
    end = std::lower_bound(end, more, start);
  }
  picked_.resize(end - rows);
}

// Writes the rows with more votes than `least`, and returns how many there are.
template <typename Count>
int64_t Votes<Count>::WriteAbove(int64_t least, int64_t start, int32_t* ids,
                                 int32_t* votes) {
  if (least == most_) return 0;
  PickFrom(start, least + 1, std::numeric_limits<Count>::max(),
           CountAtLeast(least + 1));
  auto above = [&](int32_t id) {
    return std::min<int64_t>(Counters()[id], most_) - least;
  };
  std::vector<int64_t> next(most_ + 2 - least, 0);  // where a number of votes begins
  for (const int32_t id : picked_) ++next[above(id)];
  for (int64_t v = most_ - least; v >= 0; --v) next[v] += next[v + 1];
  for (const int32_t id : picked_) {
    const int64_t at = next[above(id) + 1]++;
    ids[at] = id;
    votes[at] = static_cast<int32_t>(above(id) + least);
  }
  return picked_.size();
}

// All at once where most lines are touched: that is a fill of memory in order.
template <typename Count>
void Votes<Count>::Clear() {
  if (2 * touched_.size() > lines_.size()) {
    std::fill(lines_.begin(), lines_.end(), Line{});
    std::fill(is_touched_.begin(), is_touched_.end(), 0);
    touched_.clear();
  }
  for (const int32_t l : touched_) {
    lines_[l] = {};
    is_touched_[l] = 0;
  }
  most_ = 0;
}

template class Votes<uint8_t>;
template class Votes<uint16_t>;
template class Votes<uint32_t>;

}  // namespace fsparse
