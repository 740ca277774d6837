// The k largest of x @ w.T in each row, without forming the product.
#include <limits>

#include "blocks.h"
#include "handlers.h"
#include "parallel_for.h"
#include "table.h"

namespace fsparse {
namespace {

constexpr int64_t kTasksPerThread = 4;
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
  std::vector<float> part_scores(parts * b * k,
                                 -std::numeric_limits<float>::infinity());
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
    std::vector<int64_t> next(parts, 0);
    for (int64_t r = 0; r < k; ++r) {
      int64_t best = 0;
      auto head = [&](int64_t p) { return (p * b + i) * k + next[p]; };
      for (int64_t p = 1; p < parts; ++p) {
        if (next[p] < k &&
            (next[best] == k || part_scores[head(p)] > part_scores[head(best)])) {
          best = p;
        }
      }
      scores->typed_data()[i * k + r] = part_scores[head(best)];
      ids->typed_data()[i * k + r] = part_ids[head(best)];
      ++next[best];
    }
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseDenseTopK, DenseTopK,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<F32R2>(/*x: f32[b, d]*/)
                                  .Arg<ffi::AnyBuffer>(/*w: f32 or bf16[n, d]*/)
                                  .Ret<F32R2>(/*scores: f32[b, k]*/)
                                  .Ret<ffi::BufferR2<ffi::S32>>(/*ids: i32[b, k]*/));

}  // namespace fsparse
