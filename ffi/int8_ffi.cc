// The k largest products with rows of int8, each times a scale of its own. Examples are
// rounded to 16 bits, and products are summed as integers: exactly.
#include "handlers.h"
#include "search.h"

namespace fsparse {
namespace {

using S8R2 = ffi::BufferR2<ffi::S8>;
using Scores = ffi::ResultBufferR2<ffi::F32>;
using Ids = ffi::ResultBufferR2<ffi::S32>;

// Examples as whole numbers and scales.
struct Rounded {
  int64_t d;
  std::vector<int16_t> values;
  std::vector<float> scale;

  Rounded(const Kernels& kernels, F32R2 x)
      : d(x.dimensions()[1]), values(x.dimensions()[0] * d), scale(x.dimensions()[0]) {
    for (size_t i = 0; i < scale.size(); ++i) {
      scale[i] = kernels.quantize_row(x.typed_data() + i * d, d, values.data() + i * d);
    }
  }

  Int8Examples From(int64_t i) const {
    return {values.data() + i * d, scale.data() + i};
  }
};

ffi::Error CheckShapes(const char* op, F32R2 x, S8R2 values, F32R1 scale, Scores scores,
                       Ids ids) {
  const int64_t b = x.dimensions()[0], k = scores->dimensions()[1];
  return CheckSizes(op,
                    {{"values.shape[1]", values.dimensions()[1], x.dimensions()[1]},
                     {"scale.shape[0]", scale.dimensions()[0], values.dimensions()[0]},
                     {"scores.shape[0]", scores->dimensions()[0], b},
                     {"ids.shape[0]", ids->dimensions()[0], b},
                     {"ids.shape[1]", ids->dimensions()[1], k}});
}

ffi::Error Int8TopK(ffi::ThreadPool pool, F32R2 x, S8R2 values, F32R1 scale,
                    Scores scores, Ids ids) {
  FSPARSE_RETURN_IF_ERROR(
      CheckShapes("fsparse_int8_top_k", x, values, scale, scores, ids));
  const int64_t b = x.dimensions()[0], d = x.dimensions()[1];
  const int64_t n = values.dimensions()[0], k = scores->dimensions()[1];
  if (b == 0 || k == 0) return ffi::Error::Success();
  const Kernels& kernels = *Dispatch();
  const Rounded rounded(kernels, x);
  auto score = [&](int64_t i0, int64_t m, int64_t j0, int64_t count, float* out,
                   int64_t stride) {
    kernels.scan_int8(rounded.From(i0), m, {values.typed_data(), d}, scale.typed_data(),
                      j0, count, d, out, stride);
  };
  SearchAll(pool, kernels, {b, n, d, k}, score, scores->typed_data(),
            ids->typed_data());
  return ffi::Error::Success();
}

ffi::Error SampledInt8TopK(ffi::ThreadPool pool, F32R2 x, S8R2 values, F32R1 scale,
                           S32R2 candidates, Scores scores, Ids ids) {
  const char* op = "fsparse_sampled_int8_top_k";
  FSPARSE_RETURN_IF_ERROR(CheckShapes(op, x, values, scale, scores, ids));
  const int64_t b = x.dimensions()[0], d = x.dimensions()[1];
  const int64_t n = values.dimensions()[0], m = candidates.dimensions()[1];
  const int64_t k = scores->dimensions()[1];
  FSPARSE_RETURN_IF_ERROR(
      CheckSizes(op, {{"candidates.shape[0]", candidates.dimensions()[0], b}}));
  if (b == 0 || k == 0) return ffi::Error::Success();
  const Kernels& kernels = *Dispatch();
  const Rounded rounded(kernels, x);
  auto score = [&](int64_t i, int64_t j0, int64_t count, float* out) {
    const Rows rows{values.typed_data(), d, candidates.typed_data() + i * m, n};
    kernels.scan_int8(rounded.From(i), 1, rows, scale.typed_data(), j0, count, d, out,
                      count);
  };
  SearchSome(pool, kernels, {b, m, d, k}, candidates.typed_data(), n, score,
             scores->typed_data(), ids->typed_data());
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseInt8TopK, Int8TopK,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<F32R2>(/*x: f32[b, d]*/)
                                  .Arg<S8R2>(/*values: i8[n, d]*/)
                                  .Arg<F32R1>(/*scale: f32[n]*/)
                                  .Ret<F32R2>(/*scores: f32[b, k]*/)
                                  .Ret<ffi::BufferR2<ffi::S32>>(/*ids: i32[b, k]*/));

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseSampledInt8TopK, SampledInt8TopK,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<F32R2>(/*x: f32[b, d]*/)
                                  .Arg<S8R2>(/*values: i8[n, d]*/)
                                  .Arg<F32R1>(/*scale: f32[n]*/)
                                  .Arg<S32R2>(/*candidates: i32[b, m]*/)
                                  .Ret<F32R2>(/*scores: f32[b, k]*/)
                                  .Ret<ffi::BufferR2<ffi::S32>>(/*ids: i32[b, k]*/));

}  // namespace fsparse
