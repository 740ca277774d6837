// Rows of an index ranked by the number of probed buckets that they are in.
#include "buckets.h"
#include "handlers.h"
#include "parallel_for.h"
#include "votes.h"

namespace fsparse {
namespace {

constexpr int64_t kFlopsPerEntry = 40;  // for as long as a random access takes
constexpr int64_t kProbesPerPart = 1024;

// Votes for one group of examples. Large groups are counted in parts, which are added:
// sums of integers, so that it does not show how many there were.
template <typename Count>
void CountGroup(ffi::ThreadPool& pool, const BucketsView& view, const int32_t* probes,
                int64_t count, Votes<Count>& votes) {
  const int64_t most = std::max<int64_t>(1, pool.num_threads());
  const int64_t parts = std::clamp<int64_t>(count / kProbesPerPart, 1, most);
  if (parts == 1) return votes.Add(view, probes, count);
  std::vector<Votes<Count>> part(parts - 1);
  ParallelFor(pool, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t first = p * count / parts, last = (p + 1) * count / parts;
      (p ? part[p - 1] : votes).Add(view, probes + first, last - first);
    }
  });
  for (Votes<Count>& other : part) votes.Take(other);
}

struct Question {
  int64_t groups, count;  // probes[groups, count]
  const int32_t* probes;
  int64_t start, k;
};

struct Answer {
  int32_t *ids, *votes, *num_found;
};

template <typename Count>
void CountAndRank(ffi::ThreadPool& pool, const BucketsView& view, const uint16_t* codes,
                  Question q, Answer out) {
  const bool in_parts = q.groups < static_cast<int64_t>(pool.num_threads());
  auto run = [&](int64_t begin, int64_t end) {
    thread_local Votes<Count> votes;
    for (int64_t g = begin; g < end; ++g) {
      const int32_t* probes = q.probes + g * q.count;
      if (in_parts) {
        CountGroup(pool, view, probes, q.count, votes);
      } else {
        votes.Add(view, probes, q.count);
      }
      if (codes) votes.Forget(codes, view.num_rows);
      out.num_found[g] = static_cast<int32_t>(votes.Rank(
          view.num_rows, q.start, q.k, out.ids + g * q.k, out.votes + g * q.k));
    }
  };
  if (in_parts) return run(0, q.groups);
  const int64_t buckets = std::max<int64_t>(1, view.num_tables * view.num_buckets);
  const int64_t load = view.num_tables * view.num_rows / buckets;
  ParallelFor(pool, q.groups, GrainFor(kFlopsPerEntry * q.count * (load + 8)), run);
}

ffi::Error Vote(ffi::ThreadPool pool, S32R2 probes, S32R1 start, S32R2 starts,
                S32R2 sizes, S32R2 entries, U16R2 codes, S32R1 num_inserted,
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
                       {"num_inserted.shape[0]", num_inserted.dimensions()[0], tables},
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
                         entries.typed_data()};
  const int32_t* inserted = num_inserted.typed_data();
  const bool any =
      std::any_of(inserted, inserted + tables, [](int32_t m) { return m; });
  const uint16_t* gone = any ? codes.typed_data() : nullptr;
  const int64_t first = std::clamp<int64_t>(start.typed_data()[0], 0, n);
  const Question question{groups, count, probes.typed_data(), first, k};
  const Answer answer{ids->typed_data(), votes->typed_data(), num_found->typed_data()};
  if (count <= UINT8_MAX) {
    CountAndRank<uint8_t>(pool, view, gone, question, answer);
  } else if (count <= UINT16_MAX) {
    CountAndRank<uint16_t>(pool, view, gone, question, answer);
  } else {
    CountAndRank<uint32_t>(pool, view, gone, question, answer);
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
                                  .Arg<S32R1>(/*num_inserted: i32[l]*/)
                                  .Ret<ffi::BufferR2<ffi::S32>>(/*ids: i32[g, k]*/)
                                  .Ret<ffi::BufferR2<ffi::S32>>(/*votes: i32[g, k]*/)
                                  .Ret<ffi::BufferR1<ffi::S32>>(/*num_found: i32[g]*/));

}  // namespace fsparse
