// The k largest of x @ w.T in each row, without forming the product.
#include "handlers.h"
#include "search.h"
#include "table.h"

namespace fsparse {
namespace {

constexpr int64_t kFewRows = 16;  // up to these, packing w costs more than it saves

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
  const Rows rows = TableRows(w);
  const float* examples = x.typed_data();
  auto score = [&](int64_t i0, int64_t m, int64_t j0, int64_t count, float* out,
                   int64_t stride) {
    if (m <= kFewRows) {
      kernels.scan_rows(examples + i0 * d, m, rows, j0, count, d, out, stride);
    } else {
      kernels.gemm({{examples, d}, RowsAre::kOuter}, {rows, RowsAre::kOuter},
                   {i0, m, j0, count, d}, out, stride, Scratch(kernels.scratch_floats));
    }
  };
  SearchAll(pool, kernels, {b, n, d, k}, score, scores->typed_data(),
            ids->typed_data());
  return ffi::Error::Success();
}

ffi::Error SampledTopK(ffi::ThreadPool pool, F32R2 x, ffi::AnyBuffer w, S32R2 ids,
                       ffi::ResultBufferR2<ffi::F32> scores,
                       ffi::ResultBufferR2<ffi::S32> best) {
  const char* op = "fsparse_sampled_top_k";
  FSPARSE_RETURN_IF_ERROR(CheckTable(op, w));
  const int64_t b = x.dimensions()[0], d = x.dimensions()[1], m = ids.dimensions()[1];
  const int64_t k = scores->dimensions()[1], n = w.dimensions()[0];
  FSPARSE_RETURN_IF_ERROR(
      CheckSizes(op, {{"w.shape[1]", w.dimensions()[1], d},
                      {"ids.shape[0]", ids.dimensions()[0], b},
                      {"scores.shape[0]", scores->dimensions()[0], b},
                      {"best.shape[0]", best->dimensions()[0], b},
                      {"best.shape[1]", best->dimensions()[1], k}}));
  if (b == 0 || k == 0) return ffi::Error::Success();
  const Kernels& kernels = *Dispatch();
  auto score = [&](int64_t i, int64_t j0, int64_t count, float* out) {
    const Rows rows = TableRows(w, ids.typed_data() + i * m);
    kernels.scan_rows(x.typed_data() + i * d, 1, rows, j0, count, d, out, count);
  };
  SearchSome(pool, kernels, {b, m, d, k}, ids.typed_data(), n, score,
             scores->typed_data(), best->typed_data());
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
