// Counts how many buckets name each row, and ranks the rows by it.
#ifndef FSPARSE_VOTES_H_
#define FSPARSE_VOTES_H_

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace fsparse {

struct Bucket {
  const int32_t* entries;
  int32_t size;
};

// The buckets of all tables, read only. Bucket p is number p % num_buckets of table
// p / num_buckets.
struct BucketsView {
  int64_t num_tables, num_buckets, capacity, num_rows;
  const int32_t* starts;   // [num_tables, num_buckets + 1]
  const int32_t* sizes;    // [num_tables, num_buckets]
  const int32_t* entries;  // [num_tables, capacity]

  bool Has(int64_t probe) const {
    return probe >= 0 && probe < num_tables * num_buckets;
  }
  const int32_t* StartOf(int64_t probe) const {
    return starts + probe + probe / num_buckets;
  }
  // Asks for what `At` reads.
  __attribute__((always_inline)) void PrefetchPlace(int64_t probe) const {
    if (!Has(probe)) return;
    __builtin_prefetch(StartOf(probe));
    __builtin_prefetch(sizes + probe);
  }
  // A bucket, without entries if there is none, or it is not sound.
  Bucket At(int64_t probe) const {
    if (!Has(probe)) return {nullptr, 0};
    const int64_t start = *StartOf(probe);
    const int32_t size = sizes[probe];
    if (start < 0 || size < 0 || start + size > capacity) return {nullptr, 0};
    return {entries + probe / num_buckets * capacity + start, size};
  }
};

// Votes for the rows. Kept between uses, all zero, so that a use costs what it counts.
// A Count must hold as many votes as there are probes; a row has no more.
template <typename Count>
class Votes {
 public:
  // Adds the entries of probes[0], ..., probes[count - 1]; those out of range are none.
  void Add(const BucketsView& view, const int32_t* probes, int64_t count);
  // Adds other votes, and clears them.
  void Take(Votes& other);
  // Takes all votes from the rows whose codes say that they are stored nowhere.
  void Forget(const uint16_t* codes, int64_t num_rows);
  // Writes the k rows with the most votes, most first. Equal ones come in the order
  // start, start + 1, ..., around the end of the table. Fills up with num_rows, and 0.
  // Clears the votes, and returns how many rows had any.
  int64_t Rank(int64_t num_rows, int64_t start, int64_t k, int32_t* ids,
               int32_t* votes);

 private:
  struct alignas(kLineRows) Line {
    Count votes[kLineRows];
  };

  void Reserve(int64_t num_lines);
  Count* Counters() { return lines_.data()->votes; }
  void ListTouched();
  int64_t CountAtLeast(int64_t least);
  int64_t LeastChosen(int64_t k);
  void PickFrom(int64_t start, Count least, Count most, int64_t limit);
  int64_t WriteAbove(int64_t least, int64_t start, int32_t* ids, int32_t* votes);
  void Clear();

  int64_t most_ = 0;  // votes that a row may have
  std::vector<Line> lines_;
  std::vector<uint8_t> is_touched_;  // whether a line may have votes
  std::vector<int32_t> touched_;     // the lines that may, rising
  std::vector<int32_t> picked_;      // rows
  int64_t first_counted_ = 0;        // num_at_least_[i] have first_counted_ + i votes
  int64_t num_at_least_[kCountedLevels];
};

}  // namespace fsparse

#endif  // FSPARSE_VOTES_H_
