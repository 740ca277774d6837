// The handler of both gradients of logits that examples share: see GradSlice.
#include <memory>

#include "blocks.h"
#include "handlers.h"
#include "parallel_for.h"
#include "table.h"

namespace fsparse {
namespace {

constexpr int64_t kMostIds = 640;  // of a slice: each has a z of its own
constexpr int64_t kWholeIds = 32;

struct Grads {
  int64_t groups, b, m, d;
  const float* v;
  const float* x;
  Rows w;  // with all ids
  float* z;
  float* rows;
  int parts;  // of operands

  int64_t slice() const { return EvenPart(m, kMostIds, kWholeIds); }
  int64_t slices() const { return (m + slice() - 1) / slice(); }
  const float* V(int64_t g) const { return v + g * b * m; }
  const float* X(int64_t g) const { return x + g * b * d; }
  Rows Of(int64_t g, int64_t first = 0) const {
    Rows own = w;
    own.ids += g * m + first;
    return own;
  }
};

void TwoProducts(ffi::ThreadPool& pool, const Grads& s) {
  const Product& product = Dispatch()->product;
  ParallelGemm(
      pool, product, {s.groups, s.b, s.d, s.m},
      [&](int64_t g) { return Operand{{s.V(g), s.m}, RowsAre::kOuter, s.parts}; },
      [&](int64_t g) { return Operand{s.Of(g), RowsAre::kDepth, s.parts}; }, s.z);
  ParallelGemm(
      pool, product, {s.groups, s.m, s.d, s.b},
      [&](int64_t g) { return Operand{{s.V(g), s.m}, RowsAre::kDepth, s.parts}; },
      [&](int64_t g) { return Operand{{s.X(g), s.d}, RowsAre::kDepth, s.parts}; },
      s.rows);
  for (int64_t j = 0; j < s.groups * s.m; ++j) {
    const int32_t id = s.w.ids[j];
    if (id < 0 || id >= s.w.num_rows) std::fill_n(s.rows + j * s.d, s.d, 0.0f);
  }
}

void InOneVisit(ffi::ThreadPool& pool, const Grads& s) {
  const ProductGrads& kernel = Dispatch()->product_grads;
  const int64_t packed_floats = kernel.packed_floats(s.b, s.d);
  const int64_t columns = kernel.max_width / 32;
  const std::unique_ptr<float[]> packed(new float[s.groups * packed_floats]);
  const std::unique_ptr<float[]> slice_z(new float[s.groups * s.slices() * s.b * s.d]);
  std::vector<uint32_t> bad(s.groups * columns);
  for (int64_t g = 0; g < s.groups; ++g) {
    kernel.pack(s.X(g), s.b, s.d, s.parts, &packed[g * packed_floats],
                &bad[g * columns]);
  }
  auto run = [&](int64_t begin, int64_t end) {
    std::vector<uint32_t> bad_examples((s.b + 31) / 32);
    for (int64_t t = begin; t < end; ++t) {
      const int64_t g = t / s.slices(), first = t % s.slices() * s.slice();
      kernel.run({s.V(g) + first, s.m, s.X(g), &packed[g * packed_floats],
                  &bad[g * columns], s.Of(g, first), s.b,
                  std::min(s.slice(), s.m - first), s.d, &slice_z[t * s.b * s.d],
                  s.rows + (g * s.m + first) * s.d, bad_examples.data(), s.parts},
                 Scratch(kernel.scratch_floats));
    }
  };
  ParallelFor(pool, s.groups * s.slices(), GrainFor(4 * s.slice() * s.b * s.d), run);
  SumSlices(pool, slice_z.get(), s.groups, s.slices(), s.b, s.d, s.z);
}

// z[g, i] = sum_j v[g, i, j] w[ids[g, j]];  rows[g, j] = sum_i v[g, i, j] x[g, i], 0
// for padding.
ffi::Error SampledGrads(ffi::ThreadPool pool, int32_t num_parts, F32R3 v, F32R3 x,
                        ffi::AnyBuffer w, S32R2 ids, ffi::ResultBufferR3<ffi::F32> z,
                        ffi::ResultBufferR3<ffi::F32> rows) {
  const char* op = "fsparse_sampled_grads";
  FSPARSE_RETURN_IF_ERROR(CheckParts(op, num_parts));
  FSPARSE_RETURN_IF_ERROR(CheckTable(op, w));
  const Grads s{v.dimensions()[0],
                v.dimensions()[1],
                v.dimensions()[2],
                x.dimensions()[2],
                v.typed_data(),
                x.typed_data(),
                TableRows(w, ids.typed_data()),
                z->typed_data(),
                rows->typed_data(),
                num_parts};
  FSPARSE_RETURN_IF_ERROR(
      CheckSizes(op, {{"x.shape[0]", x.dimensions()[0], s.groups},
                      {"x.shape[1]", x.dimensions()[1], s.b},
                      {"w.shape[1]", w.dimensions()[1], s.d},
                      {"ids.shape[0]", ids.dimensions()[0], s.groups},
                      {"ids.shape[1]", ids.dimensions()[1], s.m},
                      {"z.shape[0]", z->dimensions()[0], s.groups},
                      {"z.shape[1]", z->dimensions()[1], s.b},
                      {"z.shape[2]", z->dimensions()[2], s.d},
                      {"rows.shape[0]", rows->dimensions()[0], s.groups},
                      {"rows.shape[1]", rows->dimensions()[1], s.m},
                      {"rows.shape[2]", rows->dimensions()[2], s.d}}));
  const ProductGrads& kernel = Dispatch()->product_grads;
  const bool is_fused = kernel.run && s.d <= kernel.max_width && s.m > 0 && s.b > 0;
  (is_fused ? InOneVisit : TwoProducts)(pool, s);
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseSampledGrads, SampledGrads,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int32_t>("num_parts")
                                  .Arg<F32R3>(/*v: f32[g, b, m]*/)
                                  .Arg<F32R3>(/*x: f32[g, b, d]*/)
                                  .Arg<ffi::AnyBuffer>(/*w: f32 or bf16[n, d]*/)
                                  .Arg<S32R2>(/*ids: i32[g, m]*/)
                                  .Ret<F32R3>(/*z: f32[g, b, d]*/)
                                  .Ret<F32R3>(/*rows: f32[g, m, d]*/));

}  // namespace fsparse
