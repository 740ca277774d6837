// The one threading primitive: a loop whose chunks are claimed by the calling thread
// and by helpers on XLA's intra-op pool.
#ifndef FSPARSE_PARALLEL_FOR_H_
#define FSPARSE_PARALLEL_FOR_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "xla/ffi/api/ffi.h"

namespace fsparse {

// A task shorter than this does not repay the hop to another thread (about 10 us).
constexpr int64_t kMinFlopsPerTask = 200'000;

// Items per chunk, so that a chunk of items of `flops` each repays its scheduling.
inline int64_t GrainFor(int64_t flops) {
  return std::max<int64_t>(1, kMinFlopsPerTask / std::max<int64_t>(1, flops));
}

// Calls fn(begin, end) for consecutive ranges of at most `grain` items covering [0, n).
//
// The caller runs chunks too, and waits only for chunks that somebody is running: a
// helper which never starts has claimed nothing. So a handler that itself runs on a
// pool worker cannot deadlock, however many handlers do the same.
template <typename Fn>
void ParallelFor(xla::ffi::ThreadPool& pool, int64_t n, int64_t grain, const Fn& fn) {
  const int64_t num_chunks = (n + grain - 1) / grain;
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), num_chunks) - 1;
  if (helpers <= 0) {
    if (n > 0) fn(int64_t{0}, n);
    return;
  }
  struct State {
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mu;
    std::condition_variable cv;
  };
  auto state = std::make_shared<State>();  // outlives a helper that starts late
  const Fn* body = &fn;                    // used only while a chunk is unfinished
  auto work = [=] {
    for (int64_t c; (c = state->next.fetch_add(1)) < num_chunks;) {
      const int64_t begin = c * grain;
      (*body)(begin, std::min(n, begin + grain));
      if (state->done.fetch_add(1) + 1 == num_chunks) {
        std::lock_guard<std::mutex> lock(state->mu);
        state->cv.notify_all();
      }
    }
  };
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule([work] { work(); });
  work();
  std::unique_lock<std::mutex> lock(state->mu);
  state->cv.wait(lock, [&] { return state->done.load() == num_chunks; });
}

// The same for kernels that know no pool: a call for each item.
inline auto ForEachOn(xla::ffi::ThreadPool& pool) {
  return [&pool](int64_t n, const std::function<void(int64_t)>& fn) {
    ParallelFor(pool, n, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) fn(i);
    });
  };
}

}  // namespace fsparse

#endif  // FSPARSE_PARALLEL_FOR_H_
