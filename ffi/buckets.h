// One hash table of an index: an array cut into buckets, with gaps between them.
//
// Bucket c holds entries[starts[c]], ..., in no order that anybody may rely on, and may
// grow as far as starts[c + 1]. When it is full, the nearest gap is brought to it: each
// bucket on the way gives its slot at one end for one at the other, so that this costs
// one move a bucket, however many entries they hold.
#ifndef FSPARSE_BUCKETS_H_
#define FSPARSE_BUCKETS_H_

#include <cstdint>

namespace fsparse {

constexpr uint16_t kNowhere = 0xFFFF;  // the code of a row that is not stored

struct Buckets {
  int64_t num_buckets, capacity;
  int32_t padding;   // what free slots hold
  int32_t* starts;   // [num_buckets + 1], from 0 to capacity
  int32_t* sizes;    // [num_buckets]
  int32_t* entries;  // [capacity]

  // Row i goes to bucket codes[i]; the gaps are shared out evenly.
  void Build(const uint16_t* codes, int64_t num_rows);
  // Where id is in bucket c, or -1.
  int64_t Find(int64_t c, int32_t id) const;
  // Whether id was in bucket c, where it no longer is.
  bool Remove(int64_t c, int32_t id);
  // Whether there was room in the table.
  bool Insert(int64_t c, int32_t id);

 private:
  // Whether the bucket lies within the table; false for arrays that nobody built here.
  bool IsSound(int64_t c) const {
    return starts[c] >= 0 && sizes[c] >= 0 && starts[c + 1] <= capacity &&
           int64_t{starts[c]} + sizes[c] <= starts[c + 1];
  }
  bool HasRoom(int64_t c) const {
    return IsSound(c) && starts[c] + sizes[c] < starts[c + 1];
  }
  bool MakeRoom(int64_t c);
};

// Bookkeeping of one table, beside its buckets.
struct TableState {
  Buckets buckets;
  uint16_t* codes;        // [num_rows], the bucket that each row is in, or kNowhere
  int32_t* num_inserted;  // entries besides those of `codes`
  int32_t* num_lost;      // insertions for which there was no room

  // Moves row `id` from its bucket to another, or out of the table.
  void Move(int32_t id, uint16_t code);
  // Adds an entry for row `id`, as long as there are fewer than `most` of its kind.
  void InsertEntry(int32_t id, uint16_t code, int32_t most);
};

}  // namespace fsparse

#endif  // FSPARSE_BUCKETS_H_
