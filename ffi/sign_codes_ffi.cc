// SimHash: projections, and the codes that their signs spell, without an array of all
// projections. Each sum runs over the coordinates in order, one fused multiply-add at a
// time, alone or in a block (rows.h, gemm.h): a row has the same codes in any batch.
#include <cmath>
#include <numeric>

#include "blocks.h"
#include "codes.h"
#include "flips.h"
#include "handlers.h"
#include "parallel_for.h"
#include "table.h"

namespace fsparse {
namespace {

constexpr int64_t kFewRows =
    4;  // below this, packing w costs more than sums of its rows
// Sums of rows are short and wait for memory: to wake a thread for less does not pay.
constexpr int64_t kMinFlopsOfSums = 1'000'000;

// Codes of k bits, of `tables` tables, in p variants each.
struct Shape {
  int64_t groups, b, depth, tables, k, p;
  int64_t columns() const { return tables * k; }
};

struct Hashing {
  const Kernels& kernels;
  Shape shape;
  const float* v;  // [groups, b, depth]
  Rows w;          // all rows
  int64_t column_bytes;
  const int32_t* ids;  // [groups, depth]
  CodeWriter writer;
  int32_t* probes;  // [groups, b, tables, p]

  // The rows that group g sums, from a column on.
  Rows RowsOf(int64_t g, int64_t column) const {
    Rows rows = w;
    rows.data = static_cast<const char*>(w.data) + column * column_bytes;
    rows.ids = ids + g * shape.depth;
    return rows;
  }

  // Whether row i of all can be hashed. What stands beside padding does not count.
  bool IsFinite(int64_t i) const {
    const float* row = v + i * shape.depth;
    if (kernels.all_finite(row, shape.depth)) return true;
    const int32_t* id = ids + i / shape.b * shape.depth;
    for (int64_t j = 0; j < shape.depth; ++j) {
      if (id[j] >= 0 && id[j] < w.num_rows && !std::isfinite(row[j])) return false;
    }
    return true;
  }

  // Probes of some tables of row i from their margins, which are 0 if it is not finite.
  void Write(int64_t i, int64_t first, int64_t tables, float* margins,
             float* scratch) const {
    if (!IsFinite(i)) std::fill_n(margins, tables * shape.k, 0.0f);
    writer.Write(margins, tables, scratch,
                 probes + (i * shape.tables + first) * shape.p);
  }
};

// The tables whose columns make a block: whole tiles of them, if that can be.
int64_t TablesPerBlock(const Kernels& kernels, int64_t tables, int64_t k) {
  const int64_t most = kernels.max_block_n / k;
  const int64_t whole = kernels.tile_n / std::gcd(kernels.tile_n, k);
  const int64_t unit = whole <= most ? whole : 1;
  return EvenPart(tables, most / unit * unit, unit);
}

void HashBlocks(ffi::ThreadPool& pool, const Hashing& op) {
  const Kernels& kernels = op.kernels;
  const int64_t b = op.shape.b, depth = op.shape.depth, k = op.shape.k;
  const int64_t width = TablesPerBlock(kernels, op.shape.tables, k) * k;
  auto run = [&](int64_t g, const Block& block) {
    float* scratch =
        Scratch(kernels.scratch_floats + block.m * width + FloatsForSigns(width));
    float* margins = scratch + kernels.scratch_floats;
    float* bits = margins + block.m * width;
    kernels.gemm({{op.v + g * b * depth, depth}, RowsAre::kOuter},
                 {op.RowsOf(g, 0), RowsAre::kDepth}, block, margins, width, scratch);
    for (int64_t i = 0; i < block.m; ++i) {
      op.Write(g * b + block.i0 + i, block.j0 / k, block.n / k, margins + i * width,
               bits);
    }
  };
  ParallelBlocks(pool, kernels, {op.shape.groups, b, op.shape.columns(), depth}, width,
                 run);
}

// A row at a time, in parts if there are fewer rows than threads.
void HashRows(ffi::ThreadPool& pool, const Hashing& op) {
  const int64_t rows = op.shape.groups * op.shape.b, all = op.shape.tables;
  const int64_t k = op.shape.k, depth = op.shape.depth;
  const int64_t flops = 2 * depth * op.shape.columns();
  const int64_t idle = std::max<int64_t>(1, pool.num_threads() / rows);
  const int64_t wanted = std::clamp<int64_t>(flops / kMinFlopsOfSums, 1, idle);
  const int64_t part = (all + wanted - 1) / wanted, parts = (all + part - 1) / part;
  const int64_t grain =
      std::max<int64_t>(1, kMinFlopsOfSums / std::max<int64_t>(1, flops));
  ParallelFor(pool, rows * parts, grain, [&](int64_t begin, int64_t end) {
    float* margins = Scratch(part * k + FloatsForSigns(part * k));
    float* bits = margins + part * k;
    for (int64_t t = begin; t < end; ++t) {
      const int64_t i = t / parts, first = t % parts * part;
      const int64_t tables = std::min(part, all - first);
      op.kernels.sum_rows(op.v + i * depth, op.RowsOf(i / op.shape.b, first * k), depth,
                          tables * k, margins);
      op.Write(i, first, tables, margins, bits);
    }
  });
}

using Sets = ffi::BufferR2<ffi::PRED>;
using Probes = ffi::ResultBufferR4<ffi::S32>;

ffi::Error CheckShapes(const Shape& shape, const ffi::AnyBuffer& w, S32R2 ids,
                       Sets flips, Probes probes) {
  FSPARSE_RETURN_IF_ERROR(CheckSizes(
      "fsparse_sign_codes", {{"ids.shape[0]", ids.dimensions()[0], shape.groups},
                             {"ids.shape[1]", ids.dimensions()[1], shape.depth},
                             {"w.shape[1]", w.dimensions()[1], shape.columns()},
                             {"probes.shape[0]", probes->dimensions()[0], shape.groups},
                             {"probes.shape[1]", probes->dimensions()[1], shape.b}}));
  return CheckCodes("fsparse_sign_codes", "w.shape[1] / probes.shape[2]", shape.k,
                    shape.p, flips);
}

// The codes of v[g, i] @ w[ids[g]], and p - 1 beside each.
ffi::Error SignCodes(ffi::ThreadPool pool, F32R3 v, ffi::AnyBuffer w, S32R2 ids,
                     Sets flips, Probes probes) {
  FSPARSE_RETURN_IF_ERROR(CheckTable("fsparse_sign_codes", w));
  const auto from = v.dimensions(), to = probes->dimensions();
  const int64_t k = w.dimensions()[1] / std::max<int64_t>(1, to[2]);
  const Shape shape{from[0], from[1], from[2], to[2], k, to[3]};
  FSPARSE_RETURN_IF_ERROR(CheckShapes(shape, w, ids, flips, probes));
  if (probes->element_count() == 0) return ffi::Error::Success();
  if (k == 0) {
    std::fill_n(probes->typed_data(), probes->element_count(), 0);
    return ffi::Error::Success();
  }
  const Flips sets(flips.typed_data(), flips.dimensions()[0], flips.dimensions()[1]);
  const Kernels& kernels = *Dispatch();
  const int64_t column_bytes = ffi::ByteWidth(w.element_type());
  const Hashing op{kernels,
                   shape,
                   v.typed_data(),
                   TableRows(w),
                   column_bytes,
                   ids.typed_data(),
                   {kernels, sets, shape.k, shape.p},
                   probes->typed_data()};
  shape.b < kFewRows ? HashRows(pool, op) : HashBlocks(pool, op);
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseSignCodes, SignCodes,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<F32R3>(/*v: f32[g, b, m]*/)
                                  .Arg<ffi::AnyBuffer>(/*w: f32 or bf16[n, l * k]*/)
                                  .Arg<S32R2>(/*ids: i32[g, m]*/)
                                  .Arg<Sets>(/*flips: bool[c, r]*/)
                                  .Ret<ffi::BufferR4<ffi::S32>>(
                                      /*probes: i32[g, b, l, p]*/));

}  // namespace fsparse
