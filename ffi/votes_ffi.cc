// Rows of an index ranked by the number of probed buckets that they are in.
#include "handlers.h"
#include "parallel_for.h"
#include "votes.h"

namespace fsparse {
namespace {

constexpr int64_t kNanosecondsPerEntry = 2;
constexpr int64_t kProbesPerPart = 1024;

// Votes for one group of examples. Large groups are counted in parts, which are added:
// sums of integers, so that it does not show how many there were.
void CountGroup(ffi::ThreadPool& pool, const BucketsView& view, const int32_t* probes,
                int64_t count, Votes& votes) {
  const int64_t most = std::max<int64_t>(1, pool.num_threads());
  const int64_t parts = std::clamp<int64_t>(count / kProbesPerPart, 1, most);
  if (parts == 1) return votes.Add(view, probes, count);
  std::vector<Votes> part(parts - 1);
  ParallelFor(pool, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t first = p * count / parts, last = (p + 1) * count / parts;
      (p ? part[p - 1] : votes).Add(view, probes + first, last - first);
    }
  });
  for (Votes& other : part) votes.Take(other);
}

ffi::Error Vote(ffi::ThreadPool pool, S32R2 probes, S32R1 start, S32R2 starts,
                S32R2 sizes, S32R2 entries, U16R2 codes,
                ffi::ResultBufferR2<ffi::S32> ids, ffi::ResultBufferR2<ffi::S32> votes,
                ffi::ResultBufferR1<ffi::S32> num_found) {
  const int64_t groups = probes.dimensions()[0], count = probes.dimensions()[1];
  const int64_t tables = sizes.dimensions()[0], buckets = sizes.dimensions()[1];
  const int64_t n = codes.dimensions()[1], k = ids->dimensions()[1];
  FSPARSE_RETURN_IF_ERROR(CheckSizes(
      "fsparse_vote", {{"start.shape[0]", start.dimensions()[0], 1},
                       {"starts.shape[0]", starts.dimensions()[0], tables},
                       {"starts.shape[1]", starts.dimensions()[1], buckets + 1},
                       {"entries.shape[0]", entries.dimensions()[0], tables},
                       {"codes.shape[0]", codes.dimensions()[0], tables},
                       {"ids.shape[0]", ids->dimensions()[0], groups},
                       {"votes.shape[0]", votes->dimensions()[0], groups},
                       {"votes.shape[1]", votes->dimensions()[1], k},
                       {"num_found.shape[0]", num_found->dimensions()[0], groups}}));
  const BucketsView view{tables,
                         buckets,
                         entries.dimensions()[1],
                         n,
                         starts.typed_data(),
                         sizes.typed_data(),
                         entries.typed_data(),
                         codes.typed_data()};
  const int64_t first = std::clamp<int64_t>(start.typed_data()[0], 0, n);
  const int64_t load = entries.element_count() / std::max<int64_t>(1, tables * buckets);
  const bool in_parts = groups < pool.num_threads();
  auto run = [&](int64_t begin, int64_t end) {
    thread_local Votes counted;
    for (int64_t g = begin; g < end; ++g) {
      const int32_t* of_group = probes.typed_data() + g * count;
      if (in_parts) {
        CountGroup(pool, view, of_group, count, counted);
      } else {
        counted.Add(view, of_group, count);
      }
      num_found->typed_data()[g] = static_cast<int32_t>(counted.Rank(
          view, first, k, ids->typed_data() + g * k, votes->typed_data() + g * k));
    }
  };
  if (in_parts) {
    run(0, groups);
  } else {
    ParallelFor(pool, groups, GrainFor(kNanosecondsPerEntry * 20 * count * (load + 8)),
                run);
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseVote, Vote,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<S32R2>(/*probes: i32[g, p]*/)
                                  .Arg<S32R1>(/*start: i32[1]*/)
                                  .Arg<S32R2>(/*starts: i32[l, r + 1]*/)
                                  .Arg<S32R2>(/*sizes: i32[l, r]*/)
                                  .Arg<S32R2>(/*entries: i32[l, c]*/)
                                  .Arg<U16R2>(/*codes: u16[l, n]*/)
                                  .Ret<ffi::BufferR2<ffi::S32>>(/*ids: i32[g, k]*/)
                                  .Ret<ffi::BufferR2<ffi::S32>>(/*votes: i32[g, k]*/)
                                  .Ret<ffi::BufferR1<ffi::S32>>(/*num_found: i32[g]*/));

}  // namespace fsparse
