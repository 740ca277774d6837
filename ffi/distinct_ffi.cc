// The first k distinct ids of each row.
#include <algorithm>
#include <vector>

#include "handlers.h"
#include "parallel_for.h"

namespace fsparse {
namespace {

constexpr int64_t kFlopsPerId = 10;
// A word that is looked at costs about 1/32 of an id that std::sort puts in its place.
constexpr int64_t kWordsPerSortedId = 32;

// A set of integers in [0, size). Whoever fills it takes everything out again, in time
// that does not depend on `size`.
class Bits {
 public:
  void Grow(int64_t size) {
    const size_t words = (size + 63) / 64;
    if (words_.size() < words) words_.resize(words, 0);
  }
  // Whether `i` was not yet there.
  bool Insert(int32_t i) {
    uint64_t& word = words_[i / 64];
    const uint64_t bit = uint64_t{1} << (i % 64);
    const bool is_new = !(word & bit);
    word |= bit;
    return is_new;
  }
  void Erase(int32_t i) { words_[i / 64] &= ~(uint64_t{1} << (i % 64)); }
  // Takes out `i` and perhaps others.
  void EraseWordOf(int32_t i) { words_[i / 64] = 0; }
  // Takes everything out, in rising order.
  void Drain(int64_t size, int32_t* out) {
    for (int64_t w = 0; w < (size + 63) / 64; ++w) {
      for (uint64_t word = words_[w]; word; word &= word - 1) {
        *out++ = static_cast<int32_t>(64 * w + __builtin_ctzll(word));
      }
      words_[w] = 0;
    }
  }

 private:
  std::vector<uint64_t> words_;
};

// Takes out the distinct ids below n that are in the set, in rising order.
void TakeSorted(Bits& set, int64_t n, int32_t* ids, int64_t count) {
  if (n / 64 <= kWordsPerSortedId * count) return set.Drain(n, ids);
  for (int64_t j = 0; j < count; ++j) set.EraseWordOf(ids[j]);
  std::sort(ids, ids + count);
}

// Writes the first k distinct ids in [0, n), rising, then n. Returns how many there
// were without the limit of k.
int64_t FirstDistinctOfRow(const int32_t* ids, int64_t c, int64_t n, int64_t k,
                           int32_t* out) {
  thread_local Bits seen;
  thread_local std::vector<int32_t> rest;
  seen.Grow(n);
  rest.clear();
  int64_t count = 0;
  for (int64_t j = 0; j < c; ++j) {
    if (ids[j] < 0 || ids[j] >= n || !seen.Insert(ids[j])) continue;
    if (count < k) {
      out[count++] = ids[j];
    } else {
      rest.push_back(ids[j]);
    }
  }
  for (int32_t id : rest) seen.Erase(id);
  TakeSorted(seen, n, out, count);
  std::fill(out + count, out + k, static_cast<int32_t>(n));
  return count + rest.size();
}

ffi::Error FirstDistinct(ffi::ThreadPool pool, S32R2 ids, S32R1 num_rows,
                         ffi::ResultBufferR2<ffi::S32> first,
                         ffi::ResultBufferR1<ffi::S32> num_distinct) {
  const int64_t g = ids.dimensions()[0], c = ids.dimensions()[1];
  const int64_t k = first->dimensions()[1];
  FSPARSE_RETURN_IF_ERROR(
      CheckSizes("fsparse_first_distinct",
                 {{"num_rows.shape[0]", num_rows.dimensions()[0], 1},
                  {"first.shape[0]", first->dimensions()[0], g},
                  {"num_distinct.shape[0]", num_distinct->dimensions()[0], g}}));
  const int64_t n = std::max(0, num_rows.typed_data()[0]);
  ParallelFor(
      pool, g, GrainFor(kFlopsPerId * (c + k)), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          num_distinct->typed_data()[i] = static_cast<int32_t>(FirstDistinctOfRow(
              ids.typed_data() + i * c, c, n, k, first->typed_data() + i * k));
        }
      });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseFirstDistinct, FirstDistinct,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<S32R2>(/*ids: i32[g, c]*/)
                                  .Arg<S32R1>(/*num_rows: i32[1]*/)
                                  .Ret<S32R2>(/*first: i32[g, k]*/)
                                  .Ret<S32R1>(/*num_distinct: i32[g]*/));

}  // namespace fsparse
