// The k best scores of each example, by workers that take task after task.
//
// A worker keeps one list for each example, so that what beat nothing in one part of a
// table beats nothing in the next. It meets the candidates of an example in rising
// order, whichever parts it gets: lists are ordered by score, then by position, and how
// the work was shared never shows.
#ifndef FSPARSE_SEARCH_H_
#define FSPARSE_SEARCH_H_

#include <algorithm>
#include <atomic>
#include <limits>
#include <vector>

#include "blocks.h"
#include "handlers.h"
#include "parallel_for.h"

namespace fsparse {

constexpr float kNoScore = -std::numeric_limits<float>::infinity();

// Lists [workers, b, k], best first.
struct BestLists {
  int64_t workers, b, k;
  std::vector<float> scores;
  std::vector<int32_t> positions;

  BestLists(int64_t workers, int64_t b, int64_t k, int32_t none)
      : workers(workers),
        b(b),
        k(k),
        scores(workers * b * k, kNoScore),
        positions(workers * b * k, none) {}

  int64_t At(int64_t worker, int64_t i) const { return (worker * b + i) * k; }

  // Writes the k best of example i.
  void Merge(int64_t i, float* out_scores, int32_t* out_positions) const {
    std::vector<int64_t> head(workers);
    for (int64_t w = 0; w < workers; ++w) head[w] = At(w, i);
    auto is_better = [&](int64_t p, int64_t q) {
      return scores[p] > scores[q] ||
             (scores[p] == scores[q] && positions[p] < positions[q]);
    };
    for (int64_t r = 0; r < k; ++r) {
      int64_t best = 0;
      for (int64_t w = 1; w < workers; ++w) {
        if (is_better(head[w], head[best])) best = w;
      }
      out_scores[r] = scores[head[best]];
      out_positions[r] = positions[head[best]++];
    }
  }
};

struct Search {
  int64_t b, n, d, k;  // examples, candidates of each, depth, how many are wanted

  // No more than the work repays, nor than there are tasks.
  int64_t Workers(const ffi::ThreadPool& pool, int64_t tasks) const {
    const int64_t repaid = 2 * b * n * d / kMinFlopsPerTask;
    const int64_t most = std::min<int64_t>(pool.num_threads(), tasks);
    return std::max<int64_t>(1, std::min(repaid, most));
  }
};

// Calls fn(task, worker) for all tasks; each worker takes them in rising order.
template <typename Fn>
void ShareTasks(ffi::ThreadPool& pool, int64_t tasks, int64_t workers, const Fn& fn) {
  std::atomic<int64_t> next{0};
  ParallelFor(pool, workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t w = begin; w < end; ++w) {
      for (int64_t t; (t = next.fetch_add(1)) < tasks;) fn(t, w);
    }
  });
}

constexpr int64_t kTasksPerWorker = 16;

// Searches all candidates [0, n), the same for every example. score(i0, m, j0, count,
// out, stride) writes the scores of examples [i0, i0 + m) with candidates
// [j0, j0 + count), of which there are at most max_block_n.
template <typename Fn>
void SearchAll(ffi::ThreadPool& pool, const Kernels& kernels, Search s, const Fn& score,
               float* scores, int32_t* ids) {
  const int64_t width = kernels.max_block_n;
  const int64_t block = EvenPart(s.b, kernels.max_block_m, 1);
  const int64_t blocks = (s.b + block - 1) / block;
  const int64_t wanted = kTasksPerWorker * std::max<int64_t>(1, pool.num_threads());
  const int64_t part = EvenPart(s.n, std::max(width, s.n * blocks / wanted), width);
  const int64_t tasks = blocks * ((s.n + part - 1) / part);
  const int64_t workers = s.Workers(pool, tasks);
  BestLists lists(workers, s.b, s.k, static_cast<int32_t>(s.n));
  ShareTasks(pool, tasks, workers, [&](int64_t t, int64_t worker) {
    thread_local std::vector<float> found;
    found.resize(block * width);
    const int64_t i0 = t % blocks * block, m = std::min(block, s.b - i0);
    const int64_t first = t / blocks * part, last = std::min(s.n, first + part);
    for (int64_t j0 = first; j0 < last; j0 += width) {
      const int64_t count = std::min(width, last - j0);
      score(i0, m, j0, count, found.data(), width);
      for (int64_t i = 0; i < m; ++i) {
        const int64_t at = lists.At(worker, i0 + i);
        kernels.merge_top_k(found.data() + i * width, count, static_cast<int32_t>(j0),
                            s.k, &lists.scores[at], &lists.positions[at]);
      }
    }
  });
  for (int64_t i = 0; i < s.b; ++i) lists.Merge(i, scores + i * s.k, ids + i * s.k);
}

constexpr int64_t kIdsPerTask = 256;

// Searches n candidates of each example: rows[i, :] of [b, n], ids into num_rows rows;
// those out of range are none. score(i, j0, count, out) writes the scores of example i
// with candidates [j0, j0 + count) of its own.
template <typename Fn>
void SearchSome(ffi::ThreadPool& pool, const Kernels& kernels, Search s,
                const int32_t* rows, int64_t num_rows, const Fn& score, float* scores,
                int32_t* ids) {
  const int64_t parts = num_rows ? (s.n + kIdsPerTask - 1) / kIdsPerTask : 0;
  const int64_t workers = s.Workers(pool, s.b * parts);
  BestLists lists(workers, s.b, s.k, static_cast<int32_t>(s.n));
  ShareTasks(pool, s.b * parts, workers, [&](int64_t t, int64_t worker) {
    float found[kIdsPerTask];
    const int64_t i = t / parts, j0 = t % parts * kIdsPerTask;
    const int64_t count = std::min(kIdsPerTask, s.n - j0), at = lists.At(worker, i);
    score(i, j0, count, found);
    for (int64_t j = 0; j < count; ++j) {
      const int32_t id = rows[i * s.n + j0 + j];
      if (id < 0 || id >= num_rows) found[j] = kNoScore;
    }
    kernels.merge_top_k(found, count, static_cast<int32_t>(j0), s.k, &lists.scores[at],
                        &lists.positions[at]);
  });
  for (int64_t i = 0; i < s.b; ++i) {
    lists.Merge(i, scores + i * s.k, ids + i * s.k);
    for (int64_t r = i * s.k; r < (i + 1) * s.k; ++r) {
      ids[r] = ids[r] < s.n ? rows[i * s.n + ids[r]] : static_cast<int32_t>(num_rows);
    }
  }
}

}  // namespace fsparse

#endif  // FSPARSE_SEARCH_H_
