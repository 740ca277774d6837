#include "votes.h"

#include <algorithm>

#include "buckets.h"

namespace fsparse {
namespace {

constexpr int64_t kBits = 64;

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

}  // namespace

void Votes::Add(const BucketsView& view, const int32_t* probes, int64_t count) {
  if (static_cast<int64_t>(votes_.size()) < view.num_rows) votes_.resize(view.num_rows);
  const uint32_t num_rows = view.num_rows;
  for (int64_t j = 0; j < count; ++j) {
    const auto [entries, size] = view.Bucket(probes[j]);
    const uint64_t used = touched_.size();
    touched_.resize(used + size);
    int32_t* end = touched_.data() + used;
    for (int32_t i = 0; i < size; ++i) {
      const int32_t id = entries[i];
      if (static_cast<uint32_t>(id) >= num_rows) continue;
      *end = id;
      end += votes_[id]++ == 0;
    }
    touched_.resize(end - touched_.data());
  }
}

void Votes::Take(Votes& other) {
  if (votes_.size() < other.votes_.size()) votes_.resize(other.votes_.size());
  for (const int32_t id : other.touched_) {
    if (votes_[id] == 0) touched_.push_back(id);
    votes_[id] += other.votes_[id];
    other.votes_[id] = 0;
  }
  other.touched_.clear();
}

// Rows that are stored nowhere may have entries left, and those do not count.
void Votes::Forget(const uint16_t* codes) {
  auto is_gone = [&](int32_t id) {
    const bool gone = codes[id] == kNowhere;
    if (gone) votes_[id] = 0;
    return gone;
  };
  touched_.erase(std::remove_if(touched_.begin(), touched_.end(), is_gone),
                 touched_.end());
}

int64_t Votes::Rank(const BucketsView& view, int64_t start, int64_t k, int32_t* ids,
                    int32_t* votes) {
  Forget(view.codes);
  const int64_t num_rows = view.num_rows;
  const int64_t found = touched_.size();
  int32_t most = 0;
  for (const int32_t id : touched_) most = std::max(most, votes_[id]);
  std::vector<int64_t> count(most + 1);
  for (const int32_t id : touched_) ++count[votes_[id]];

  // Where the rows with each number of votes are written, and how many fit.
  std::vector<int64_t> next(most + 1, k);
  int32_t least = most;
  for (int64_t at = 0; least > 0 && at < k; --least) {
    next[least] = at;
    at += count[least];
  }
  chosen_.assign((num_rows + kBits - 1) / kBits, 0);
  for (const int32_t id : touched_) {
    if (votes_[id] > least) chosen_[id / kBits] |= uint64_t{1} << id % kBits;
  }
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
  return found;
}

}  // namespace fsparse
