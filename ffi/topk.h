// A running list of the k best scores, fed block by block.
#ifndef FSPARSE_TOPK_H_
#define FSPARSE_TOPK_H_

#include "kernels.h"
#include "simd.h"

namespace fsparse::FSPARSE_LEVEL {

// Where a score that beats the last goes: behind all that are as good.
inline int64_t PlaceOf(float score, int64_t k, const float* scores) {
  int64_t begin = 0, end = k - 1;
  while (begin < end) {
    const int64_t middle = (begin + end) / 2;
    if (scores[middle] < score) {
      end = middle;
    } else {
      begin = middle + 1;
    }
  }
  return begin;
}

// Moves the worse entries one place down.
inline void Insert(float score, int32_t id, int64_t k, float* scores, int32_t* ids) {
  const int64_t at = PlaceOf(score, k, scores), moved = k - 1 - at;
  std::memmove(scores + at + 1, scores + at, moved * sizeof(float));
  std::memmove(ids + at + 1, ids + at, moved * sizeof(int32_t));
  scores[at] = score;
  ids[at] = id;
}

// Nearly every score loses to the k-th best, so 32 are compared at a time before any is
// looked at alone. NaN loses every comparison.
inline void MergeTopK(const float* scores, int64_t n, int32_t first_id, int64_t k,
                      float* best_scores, int32_t* best_ids) {
  constexpr int64_t kGroup = 32;
  for (int64_t begin = 0; begin < n; begin += kGroup) {
    const int64_t end = Min(begin + kGroup, n);
    const float worst = best_scores[k - 1];
    int any = 0;
    for (int64_t j = begin; j < end; ++j) any |= scores[j] > worst;
    for (int64_t j = begin; any && j < end; ++j) {
      if (scores[j] > best_scores[k - 1]) {
        Insert(scores[j], first_id + static_cast<int32_t>(j), k, best_scores, best_ids);
      }
    }
  }
}

}  // namespace fsparse::FSPARSE_LEVEL

#endif  // FSPARSE_TOPK_H_
