// Handlers of Nadaraya-Watson sketches: add examples in place, and read them out. Each
// row of a table and each query has one owner, so that nothing depends on the number of
// threads.
#include "handlers.h"
#include "parallel_for.h"
#include "sketch.h"

namespace fsparse {
namespace {

constexpr int64_t kFlopsPerCell = 16;  // for as long as a random access takes

using F32R4 = ffi::BufferR4<ffi::F32>;
using F32R5 = ffi::Buffer<ffi::F32, 5>;
using S32R3 = ffi::BufferR3<ffi::S32>;

ffi::Error SketchUpdate(ffi::ThreadPool pool, S32R3 cells, F32R3 values, F32R1 factor,
                        F32R3 table, ffi::Result<F32R3> now) {
  const auto dims = table.dimensions(), out = now->dimensions();
  const int64_t sketches = cells.dimensions()[0], b = cells.dimensions()[1];
  const SketchShape shape{cells.dimensions()[2], dims[1], 1, dims[2]};
  FSPARSE_RETURN_IF_ERROR(CheckSizes(
      "fsparse_sketch_update", {{"table.shape[0]", dims[0], sketches * shape.num_rows},
                                {"values.shape[0]", values.dimensions()[0], sketches},
                                {"values.shape[1]", values.dimensions()[1], b},
                                {"values.shape[2]", values.dimensions()[2], dims[2]},
                                {"factor.shape[0]", factor.dimensions()[0], sketches},
                                {"result table.shape[0]", out[0], dims[0]},
                                {"result table.shape[1]", out[1], dims[1]},
                                {"result table.shape[2]", out[2], dims[2]}}));
  float* data = now->typed_data();
  // XLA aliases the two; a caller that did not alias pays a copy.
  if (table.typed_data() != data) {
    std::copy_n(table.typed_data(), table.element_count(), data);
  }
  const int64_t of_one = shape.num_rows * shape.num_cells * shape.width;
  const int64_t grain = GrainFor(b * kFlopsPerCell * shape.width);
  for (int64_t s = 0; s < sketches; ++s) {
    ParallelFor(pool, shape.num_rows, grain, [&](int64_t begin, int64_t end) {
      AddToSketch(shape, b, cells.typed_data() + s * b * shape.num_rows,
                  values.typed_data() + s * b * shape.width, factor.typed_data()[s],
                  begin, end, data + s * of_one);
    });
  }
  return ffi::Error::Success();
}

ffi::Error SketchQuery(ffi::ThreadPool pool, S32R3 cells, F32R3 centre, F32R5 table,
                       ffi::Result<F32R4> sums, ffi::Result<F32R3> moments) {
  const char* op = "fsparse_sketch_query";
  const auto dims = table.dimensions();
  const int64_t sketches = dims[0], b = cells.dimensions()[1], m = dims[4] - 1;
  const int64_t groups = sums->dimensions()[2];
  const SketchShape shape{dims[1], dims[2], dims[3], dims[4]};
  FSPARSE_RETURN_IF_ERROR(
      CheckSizes(op, {{"cells.shape[0]", cells.dimensions()[0], sketches},
                      {"cells.shape[2]", cells.dimensions()[2], dims[1]},
                      {"centre.shape[0]", centre.dimensions()[0], sketches},
                      {"centre.shape[1]", centre.dimensions()[1], b},
                      {"centre.shape[2]", centre.dimensions()[2], m},
                      {"sums.shape[0]", sums->dimensions()[0], sketches},
                      {"sums.shape[1]", sums->dimensions()[1], b},
                      {"sums.shape[3]", sums->dimensions()[3], dims[4]},
                      {"moments.shape[0]", moments->dimensions()[0], sketches},
                      {"moments.shape[1]", moments->dimensions()[1], b},
                      {"moments.shape[2]", moments->dimensions()[2], 1 + 2 * m}}));
  if (dims[3] < 1 || dims[4] < 1) {
    return ffi::Error::InvalidArgument(
        std::string(op) + ": table must have blocks and columns; got none.");
  }
  if (groups < 1 || dims[1] % groups != 0) {
    return ffi::Error::InvalidArgument(
        std::string(op) + ": sums.shape[2] must be a divisor of the " +
        std::to_string(dims[1]) + " rows; got " + std::to_string(groups) + ".");
  }
  const int64_t of_one = dims[1] * dims[2] * dims[3] * dims[4];
  const int64_t flops = kFlopsPerCell * shape.num_rows * shape.num_blocks * dims[4];
  for (int64_t s = 0; s < sketches; ++s) {
    ParallelFor(pool, b, GrainFor(flops), [&](int64_t begin, int64_t end) {
      QuerySketch(shape, table.typed_data() + s * of_one,
                  cells.typed_data() + s * b * shape.num_rows,
                  centre.typed_data() + s * b * m, groups, begin, end,
                  Scratch((shape.num_rows + 1) * shape.width),
                  sums->typed_data() + s * b * groups * shape.width,
                  moments->typed_data() + s * b * (1 + 2 * m));
    });
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseSketchUpdate, SketchUpdate,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<S32R3>(/*cells: i32[g, b, r]*/)
                                  .Arg<F32R3>(/*values: f32[g, b, 1 + m]*/)
                                  .Arg<F32R1>(/*factor: f32[g]*/)
                                  .Arg<F32R3>(/*table: f32[g r, n, 1 + m]*/)
                                  .Ret<F32R3>(/*table: f32[g r, n, 1 + m]*/));

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseSketchQuery, SketchQuery,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<S32R3>(/*cells: i32[g, b, r]*/)
                                  .Arg<F32R3>(/*centre: f32[g, b, m]*/)
                                  .Arg<F32R5>(/*table: f32[g, r, n, blocks, 1 + m]*/)
                                  .Ret<F32R4>(/*sums: f32[g, b, groups, 1 + m]*/)
                                  .Ret<F32R3>(/*moments: f32[g, b, 1 + 2 m]*/));

}  // namespace fsparse
