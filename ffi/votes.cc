#include "votes.h"

#include <algorithm>

#include "buckets.h"

namespace fsparse {
namespace {

constexpr int64_t kBits = 64;
constexpr int64_t kBytesPerLine = 64;

// Calls fn for the set bits from `begin` to `end`, rising.
template <typename Fn>
void ForEachBit(const std::vector<uint64_t>& bits, int64_t begin, int64_t end,
                const Fn& fn) {
  for (int64_t word = begin / kBits; word * kBits < end; ++word) {
    uint64_t rest = bits[word];
    if (word * kBits < begin) rest &= ~uint64_t{0} << (begin - word * kBits);
    for (; rest; rest &= rest - 1) {
      const int64_t at = word * kBits + __builtin_ctzll(rest);
      if (at >= end) return;
      fn(at);
    }
  }
}

// Buckets lie far apart: the next one is asked for while this one is counted.
__attribute__((always_inline)) inline void PrefetchBucket(const BucketsView& view,
                                                          int32_t probe) {
  const auto [entries, size] = view.Bucket(probe);
  const char* line = reinterpret_cast<const char*>(entries);
  const char* end = line + size * sizeof(int32_t);
  for (; line < end; line += kBytesPerLine) __builtin_prefetch(line);
}

}  // namespace

// There is a level for no votes, and one for each vote that may come.
template <typename Count>
void Votes<Count>::Reserve(int64_t num_rows, int64_t more_votes) {
  if (static_cast<int64_t>(votes_.size()) < num_rows) votes_.resize(num_rows);
  at_least_.resize(std::max<uint64_t>(at_least_.size(), 1) + more_votes);
}

template <typename Count>
void Votes<Count>::Add(const BucketsView& view, const int32_t* probes, int64_t count) {
  Reserve(view.num_rows, count);
  const uint32_t num_rows = view.num_rows;
  Count* votes = votes_.data();
  int32_t* at_least = at_least_.data();
  const Count most = at_least_.size() - 1;  // but in arrays that nobody built here
  for (int64_t j = 0; j < count; ++j) {
    if (j + 1 < count) PrefetchBucket(view, probes[j + 1]);
    const auto [entries, size] = view.Bucket(probes[j]);
    const uint64_t used = touched_.size();
    touched_.resize(used + size);
    int32_t* end = touched_.data() + used;
    for (int32_t i = 0; i < size; ++i) {
      const int32_t id = entries[i];
      if (static_cast<uint32_t>(id) >= num_rows || votes[id] == most) continue;
      const Count now = ++votes[id];
      ++at_least[now];
      *end = id;
      end += now == 1;
    }
    touched_.resize(end - touched_.data());
  }
}

template <typename Count>
void Votes<Count>::Take(Votes& other) {
  Reserve(other.votes_.size(), other.at_least_.size());
  for (const int32_t id : other.touched_) {
    const Count more = other.votes_[id];
    if (votes_[id] == 0) touched_.push_back(id);
    for (Count v = 0; v < more; ++v) ++at_least_[++votes_[id]];
    other.votes_[id] = 0;
  }
  other.touched_.clear();
  other.at_least_.clear();
}

template <typename Count>
void Votes<Count>::Forget(const uint16_t* codes) {
  for (const int32_t id : touched_) {
    if (codes[id] != kNowhere) continue;
    for (; votes_[id] > 0; --votes_[id]) --at_least_[votes_[id]];
  }
}

template <typename Count>
int64_t Votes<Count>::Rank(int64_t num_rows, int64_t start, int64_t k, int32_t* ids,
                           int32_t* votes) {
  Reserve(num_rows, 1);
  const int64_t found = at_least_[1];
  int64_t most = at_least_.size() - 1;
  while (most > 0 && at_least_[most] == 0) --most;

  // Where the next row with each number of votes is written. Those beyond k do not fit.
  std::vector<int64_t> next(most + 1, k);
  int64_t least = most + 1;
  while (least > 1 && (least > most || at_least_[least] < k)) {
    --least;
    next[least] = least == most ? 0 : at_least_[least + 1];
  }
  chosen_.assign((num_rows + kBits - 1) / kBits, 0);
  auto kept = touched_.begin();
  for (const int32_t id : touched_) {
    if (votes_[id] < least) {
      votes_[id] = 0;
    } else {
      chosen_[id / kBits] |= uint64_t{1} << id % kBits;
      *kept++ = id;
    }
  }
  touched_.erase(kept, touched_.end());
  std::fill(ids, ids + k, static_cast<int32_t>(num_rows));
  std::fill(votes, votes + k, 0);
  auto write = [&](int64_t id) {
    const int64_t at = next[votes_[id]]++;
    if (at >= k) return;
    ids[at] = static_cast<int32_t>(id);
    votes[at] = votes_[id];
  };
  ForEachBit(chosen_, start, num_rows, write);
  ForEachBit(chosen_, 0, start, write);
  for (const int32_t id : touched_) votes_[id] = 0;
  touched_.clear();
  at_least_.clear();
  return found;
}

template class Votes<uint16_t>;
template class Votes<uint32_t>;

}  // namespace fsparse
