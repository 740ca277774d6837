// The k largest of x @ w.T in each row, without forming the product.
#include <limits>

#include "blocks.h"
#include "handlers.h"
#include "parallel_for.h"
#include "table.h"

namespace fsparse {
namespace {

constexpr int64_t kTasksPerThread = 4;
constexpr int64_t kIdsPerBlock = 256;
constexpr float kNone = -std::numeric_limits<float>::infinity();
constexpr int64_t kFewRows = 4;  // below this, packing w costs more than dot products

// Scores one block of examples against rows [n0, n1) of w, feeding the running lists.
void ScoreBlock(const Kernels& kernels, const float* x, int64_t rows, Rows w,
                int64_t n0, int64_t n1, int64_t d, int64_t k, float* best_scores,
                int32_t* best_ids) {
  const int64_t width = kernels.max_block_n;
  float* scratch = Scratch(kernels.scratch_floats + kernels.max_block_m * width);
  float* scores = scratch + kernels.scratch_floats;
  for (int64_t j0 = n0; j0 < n1; j0 += width) {
    const int64_t columns = std::min(width, n1 - j0);
    if (rows < kFewRows) {
      for (int64_t i = 0; i < rows; ++i) {
        kernels.dot_rows(x + i * d, w, j0, columns, d, scores + i * width);
      }
    } else {
      kernels.gemm({{x, d}, RowsAre::kOuter}, {w, RowsAre::kOuter},
                   {0, rows, j0, columns, d}, scores, width, scratch);
    }
    for (int64_t i = 0; i < rows; ++i) {
      kernels.merge_top_k(scores + i * width, columns, static_cast<int32_t>(j0), k,
                          best_scores + i * k, best_ids + i * k);
    }
  }
}

// Lists of k, each `stride` after the one before.
struct Parts {
  int64_t count, stride, k;
};

// The k best of all parts, which are sorted. Of equal scores, the earlier part's wins.
void MergeParts(Parts parts, const float* part_scores, const int32_t* part_ids,
                float* scores, int32_t* ids) {
  std::vector<int64_t> next(parts.count, 0);
  auto head = [&](int64_t p) { return p * parts.stride + next[p]; };
  for (int64_t r = 0; r < parts.k; ++r) {
    int64_t best = 0;
    for (int64_t p = 1; p < parts.count; ++p) {
      if (next[p] < parts.k &&
          (next[best] == parts.k || part_scores[head(p)] > part_scores[head(best)])) {
        best = p;
      }
    }
    scores[r] = part_scores[head(best)];
    ids[r] = part_ids[head(best)];
    ++next[best];
  }
}

// Rows of w are split into parts so that even one example keeps every thread busy.
// Parts are merged in order, and ties go to the smaller id, so the parts never show.
ffi::Error DenseTopK(ffi::ThreadPool pool, F32R2 x, ffi::AnyBuffer w,
                     ffi::ResultBufferR2<ffi::F32> scores,
                     ffi::ResultBufferR2<ffi::S32> ids) {
  FSPARSE_RETURN_IF_ERROR(CheckTable("fsparse_dense_top_k", w));
  const int64_t b = x.dimensions()[0], d = x.dimensions()[1], n = w.dimensions()[0];
  const int64_t k = scores->dimensions()[1];
  FSPARSE_RETURN_IF_ERROR(CheckSizes("fsparse_dense_top_k",
                                     {{"w.shape[1]", w.dimensions()[1], d},
                                      {"scores.shape[0]", scores->dimensions()[0], b},
                                      {"ids.shape[0]", ids->dimensions()[0], b},
                                      {"ids.shape[1]", ids->dimensions()[1], k}}));
  if (b == 0 || k == 0) return ffi::Error::Success();
  const Kernels& kernels = *Dispatch();
  const int64_t block = EvenPart(b, kernels.max_block_m, 1);
  const int64_t blocks = (b + block - 1) / block;
  const int64_t wanted = kTasksPerThread * std::max<int64_t>(1, pool.num_threads());
  const int64_t part = EvenPart(n, std::max(kernels.max_block_n, n * blocks / wanted),
                                kernels.max_block_n);
  const int64_t parts = std::max<int64_t>(1, (n + part - 1) / part);
  std::vector<float> part_scores(parts * b * k, kNone);
  std::vector<int32_t> part_ids(parts * b * k, static_cast<int32_t>(n));
  ParallelFor(pool, blocks * parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t i0 = t % blocks * block, p = t / blocks, at = (p * b + i0) * k;
      ScoreBlock(kernels, x.typed_data() + i0 * d, std::min(block, b - i0),
                 TableRows(w), p * part, std::min(n, (p + 1) * part), d, k,
                 part_scores.data() + at, part_ids.data() + at);
    }
  });
  for (int64_t i = 0; i < b; ++i) {
    MergeParts({parts, b * k, k}, part_scores.data() + i * k, part_ids.data() + i * k,
               scores->typed_data() + i * k, ids->typed_data() + i * k);
  }
  return ffi::Error::Success();
}

// Best positions among ids[first], ..., ids[last - 1]. Padding is no candidate.
void ScoreIds(const Kernels& kernels, const float* x, Rows w, int64_t first,
              int64_t last, int64_t d, int64_t k, float* best_scores,
              int32_t* best_positions) {
  float* scores = Scratch(kIdsPerBlock);
  for (int64_t j0 = first; j0 < last; j0 += kIdsPerBlock) {
    const int64_t count = std::min(kIdsPerBlock, last - j0);
    kernels.dot_rows(x, w, j0, count, d, scores);
    for (int64_t j = 0; j < count; ++j) {
      const int32_t id = w.ids[j0 + j];
      if (id < 0 || id >= w.num_rows) scores[j] = kNone;
    }
    kernels.merge_top_k(scores, count, static_cast<int32_t>(j0), k, best_scores,
                        best_positions);
  }
}

// Each example's ids are split into parts, so that one example keeps all threads busy.
ffi::Error SampledTopK(ffi::ThreadPool pool, F32R2 x, ffi::AnyBuffer w, S32R2 ids,
                       ffi::ResultBufferR2<ffi::F32> scores,
                       ffi::ResultBufferR2<ffi::S32> best) {
  const char* op = "fsparse_sampled_top_k";
  FSPARSE_RETURN_IF_ERROR(CheckTable(op, w));
  const int64_t b = x.dimensions()[0], d = x.dimensions()[1], m = ids.dimensions()[1];
  const int64_t k = scores->dimensions()[1];
  FSPARSE_RETURN_IF_ERROR(
      CheckSizes(op, {{"w.shape[1]", w.dimensions()[1], d},
                      {"ids.shape[0]", ids.dimensions()[0], b},
                      {"scores.shape[0]", scores->dimensions()[0], b},
                      {"best.shape[0]", best->dimensions()[0], b},
                      {"best.shape[1]", best->dimensions()[1], k}}));
  if (b == 0 || k == 0) return ffi::Error::Success();
  const Kernels& kernels = *Dispatch();
  const int64_t wanted = kTasksPerThread * std::max<int64_t>(1, pool.num_threads());
  const int64_t part = std::max(kIdsPerBlock, m * b / wanted);
  const int64_t parts = std::max<int64_t>(1, (m + part - 1) / part);
  std::vector<float> part_scores(b * parts * k, kNone);
  std::vector<int32_t> positions(b * parts * k, -1);
  ParallelFor(pool, b * parts, GrainFor(2 * std::min(m, part) * d),
              [&](int64_t begin, int64_t end) {
                for (int64_t t = begin; t < end; ++t) {
                  const int64_t i = t / parts, p = t % parts;
                  const Rows rows = TableRows(w, ids.typed_data() + i * m);
                  ScoreIds(kernels, x.typed_data() + i * d, rows, p * part,
                           std::min(m, (p + 1) * part), d, k,
                           part_scores.data() + t * k, positions.data() + t * k);
                }
              });
  for (int64_t i = 0; i < b; ++i) {
    MergeParts({parts, k, k}, part_scores.data() + i * parts * k,
               positions.data() + i * parts * k, scores->typed_data() + i * k,
               best->typed_data() + i * k);
    for (int64_t r = 0; r < k; ++r) {
      int32_t& at = best->typed_data()[i * k + r];
      at = at < 0 ? static_cast<int32_t>(w.dimensions()[0])
                  : ids.typed_data()[i * m + at];
    }
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseSampledTopK, SampledTopK,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<F32R2>(/*x: f32[b, d]*/)
                                  .Arg<ffi::AnyBuffer>(/*w: f32 or bf16[n, d]*/)
                                  .Arg<S32R2>(/*ids: i32[b, m]*/)
                                  .Ret<F32R2>(/*scores: f32[b, k]*/)
                                  .Ret<ffi::BufferR2<ffi::S32>>(/*best: i32[b, k]*/));

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseDenseTopK, DenseTopK,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<F32R2>(/*x: f32[b, d]*/)
                                  .Arg<ffi::AnyBuffer>(/*w: f32 or bf16[n, d]*/)
                                  .Ret<F32R2>(/*scores: f32[b, k]*/)
                                  .Ret<ffi::BufferR2<ffi::S32>>(/*ids: i32[b, k]*/));

}  // namespace fsparse
