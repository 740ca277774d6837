// SimHash by fast rotations: a row at a time from its coordinates to its codes.
#include <algorithm>
#include <cmath>

#include "codes.h"
#include "flips.h"
#include "handlers.h"
#include "parallel_for.h"
#include "table.h"

namespace fsparse {
namespace {

constexpr char kOp[] = "fsparse_hadamard_codes";
constexpr int64_t kAlignment = 64;  // of vectors: a line of cache

// r rotations of n outputs each, of which the first tables * k are projections.
struct Shape {
  int64_t groups, b, d, r, n, tables;
  int64_t FlopsARow() const { return 3 * r * n * (1 + __builtin_ctzll(n)); }
};

float* Aligned(float* scratch) {
  const auto at = reinterpret_cast<uintptr_t>(scratch);
  return scratch + (kAlignment - at % kAlignment) % kAlignment / sizeof(float);
}

struct Rotating {
  CodeWriter writer;
  Shape shape;
  const ffi::AnyBuffer& x;  // [groups, b, d]
  const float* signs;       // [groups, r, 3, n]
  int32_t* probes;          // [groups, b, tables, p]

  int64_t columns() const { return shape.tables * writer.k; }

  // Row i of all as f32[n], with zeros beyond its end.
  void LoadRow(int64_t i, float* row) const {
    const int64_t first = i * shape.d, d = shape.d;
    if (x.element_type() == ffi::BF16) {
      writer.kernels.widen_row(static_cast<const uint16_t*>(x.untyped_data()) + first,
                               d, row);
    } else {
      std::copy_n(static_cast<const float*>(x.untyped_data()) + first, d, row);
    }
    std::fill(row + d, row + shape.n, 0.0f);
  }

  // All rotations of a row, of which a group i has its own.
  void Rotate(int64_t i, const float* row, float* margins) const {
    const int64_t n = shape.n;
    const float* of_group = signs + i * shape.r * 3 * n;
    for (int64_t first = 0; first < columns(); first += n) {
      writer.kernels.rotate(row, of_group + 3 * first, n,
                            std::min(n, columns() - first), margins + first);
    }
  }

  void Hash(int64_t i, float* scratch) const {
    const int64_t n = shape.n, group = i / shape.b;
    float *row = scratch, *margins = row + n, *bits = margins + shape.r * n;
    LoadRow(i, row);
    Rotate(group, row, margins);
    // What is not finite is in all of the sums, so one of them tells of it.
    if (!std::isfinite(margins[0]) && !writer.kernels.all_finite(row, shape.d)) {
      std::fill_n(row, n, 0.0f);
      Rotate(group, row, margins);
    }
    writer.Write(margins, shape.tables, bits, probes + i * shape.tables * writer.p);
  }

  int64_t scratch_floats() const {
    return (1 + shape.r) * shape.n + FloatsForSigns(columns()) +
           kAlignment / sizeof(float);
  }
};

int64_t PowerOfTwoFrom(int64_t d) {
  int64_t n = 1;
  while (n < d) n *= 2;
  return n;
}

using Signs = ffi::BufferR4<ffi::F32>;
using Sets = ffi::BufferR2<ffi::PRED>;
using Probes = ffi::ResultBufferR4<ffi::S32>;

ffi::Error CheckShapes(const Shape& shape, Signs signs, Probes probes) {
  return CheckSizes(kOp, {{"signs.shape[0]", signs.dimensions()[0], shape.groups},
                          {"signs.shape[2]", signs.dimensions()[2], 3},
                          {"signs.shape[3]", shape.n, PowerOfTwoFrom(shape.d)},
                          {"probes.shape[0]", probes->dimensions()[0], shape.groups},
                          {"probes.shape[1]", probes->dimensions()[1], shape.b}});
}

// The codes of the first rows of H D3 H D2 H D1 x[g, i], and p - 1 beside each.
ffi::Error HadamardCodes(ffi::ThreadPool pool, ffi::AnyBuffer x, Signs signs,
                         Sets flips, Probes probes) {
  FSPARSE_RETURN_IF_ERROR(CheckTable(kOp, x, "x", 3));
  const auto from = x.dimensions(), by = signs.dimensions(), to = probes->dimensions();
  const Shape shape{from[0], from[1], from[2], by[1], by[3], to[2]};
  FSPARSE_RETURN_IF_ERROR(CheckShapes(shape, signs, probes));
  const int64_t k = flips.dimensions()[1], p = to[3];
  FSPARSE_RETURN_IF_ERROR(CheckCodes(kOp, "flips.shape[1]", k, p, flips));
  FSPARSE_RETURN_IF_ERROR(CheckAtMost(kOp, "probes.shape[2] * flips.shape[1]",
                                      shape.tables * k, shape.r * shape.n));
  if (probes->element_count() == 0) return ffi::Error::Success();
  const Flips sets(flips.typed_data(), flips.dimensions()[0], flips.dimensions()[1]);
  const Rotating op{
      {*Dispatch(), sets, k, p}, shape, x, signs.typed_data(), probes->typed_data()};
  ParallelFor(pool, shape.groups * shape.b, GrainFor(shape.FlopsARow()),
              [&](int64_t begin, int64_t end) {
                float* scratch = Aligned(Scratch(op.scratch_floats()));
                for (int64_t i = begin; i < end; ++i) op.Hash(i, scratch);
              });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseHadamardCodes, HadamardCodes,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>(/*x: f32 or bf16[g, b, d]*/)
                                  .Arg<Signs>(/*signs: f32[g, r, 3, n]*/)
                                  .Arg<Sets>(/*flips: bool[c, k]*/)
                                  .Ret<ffi::BufferR4<ffi::S32>>(
                                      /*probes: i32[g, b, l, p]*/));

}  // namespace fsparse
