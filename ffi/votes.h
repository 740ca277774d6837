// Counts how many buckets name each row, and ranks the rows by it.
#ifndef FSPARSE_VOTES_H_
#define FSPARSE_VOTES_H_

#include <cstdint>
#include <utility>
#include <vector>

namespace fsparse {

// The buckets of all tables, read only. Bucket p is number p % num_buckets of table
// p / num_buckets.
struct BucketsView {
  int64_t num_tables, num_buckets, capacity, num_rows;
  const int32_t* starts;   // [num_tables, num_buckets + 1]
  const int32_t* sizes;    // [num_tables, num_buckets]
  const int32_t* entries;  // [num_tables, capacity]

  // The entries of a bucket; none if there is no such bucket, or it is not sound.
  std::pair<const int32_t*, int32_t> Bucket(int64_t probe) const {
    if (probe < 0 || probe >= num_tables * num_buckets) return {nullptr, 0};
    const int64_t t = probe / num_buckets, c = probe % num_buckets;
    const int64_t start = starts[t * (num_buckets + 1) + c];
    const int32_t size = sizes[probe];
    if (start < 0 || size < 0 || start + size > capacity) return {nullptr, 0};
    return {entries + t * capacity + start, size};
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
  void Forget(const uint16_t* codes);
  // Writes the k rows with the most votes, most first. Equal ones come in the order
  // start, start + 1, ..., around the end of the table. Fills up with num_rows, and 0.
  // Clears the votes, and returns how many rows had any.
  int64_t Rank(int64_t num_rows, int64_t start, int64_t k, int32_t* ids,
               int32_t* votes);

 private:
  void Reserve(int64_t num_rows, int64_t most_votes);

  std::vector<Count> votes_;       // [num_rows]
  std::vector<int32_t> touched_;   // rows with votes, in any order
  std::vector<int32_t> at_least_;  // at_least_[v] rows have v votes or more
  std::vector<uint64_t> chosen_;   // a bit for each row, for `Rank`
};

}  // namespace fsparse

#endif  // FSPARSE_VOTES_H_
