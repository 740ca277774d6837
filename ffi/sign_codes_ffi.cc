// SimHash: projections, and the codes that their signs spell, without an array of all
// projections. Each bit of a code is the sign of a sum over directions that is formed
// in their order, one fused multiply-add at a time, alone or in a block: see gemm.h,
// rows.h.
#include <numeric>

#include "blocks.h"
#include "flips.h"
#include "handlers.h"
#include "parallel_for.h"
#include "table.h"

namespace fsparse {
namespace {

constexpr int64_t kFewRows =
    4;  // below this, packing w costs more than sums of its rows

// Codes of k bits, of `tables` tables, in p variants each.
struct Shape {
  int64_t groups, b, depth, tables, k, p;
  int64_t columns() const { return tables * k; }
};

// The k bits from `first` on of a string of bits that has a byte to spare.
int32_t BitsAt(const uint8_t* bits, int64_t first, int64_t k) {
  const uint8_t* at = bits + first / 8;
  const uint32_t word = at[0] | uint32_t{at[1]} << 8 | uint32_t{at[2]} << 16;
  return static_cast<int32_t>(word >> first % 8 & ((1u << k) - 1));
}

// What PackSigns writes for n signs, and what BitsAt may read beyond: in floats.
int64_t FloatsForSigns(int64_t n) { return n / 32 + 2; }

// probes[tables, p] of a row from its margins [tables, k].
void WriteProbes(const Kernels& kernels, const float* margins, int64_t tables,
                 const Shape& shape, const Flips& flips, uint8_t* bits,
                 int32_t* probes) {
  const int64_t k = shape.k, p = shape.p;
  kernels.pack_signs(margins, tables * k, bits);
  for (int64_t t = 0; t < tables; ++t) {
    const int32_t code = BitsAt(bits, t * k, k);
    if (p == 1) {
      probes[t] = code;
    } else {
      flips.Probe(margins + t * k, k, code, p, probes + t * p);
    }
  }
}

// The most tables whose columns a block takes; whole tiles of them, if that can be.
int64_t TablesPerBlock(const Kernels& kernels, int64_t tables, int64_t k) {
  const int64_t most =
      std::max<int64_t>(1, kernels.max_block_n / std::max<int64_t>(1, k));
  const int64_t whole = kernels.tile_n / std::gcd(kernels.tile_n, k);
  const int64_t unit = whole <= most ? whole : 1;
  return EvenPart(tables, most / unit * unit, unit);
}

// rows_of(g): the rows of w, from column `first` on, that the depth of group g names.
template <typename RowsOf>
void CodesOfBlocks(ffi::ThreadPool& pool, const Shape& shape, const float* v,
                   const RowsOf& rows_of, const Flips& flips, int32_t* probes) {
  const Kernels& kernels = *Dispatch();
  const auto [groups, b, depth, tables, k, p] = shape;
  const int64_t width = TablesPerBlock(kernels, tables, k) * k;
  ParallelBlocks(
      pool, kernels, {groups, b, shape.columns(), depth}, width,
      [&, b = b, depth = depth, k = k, p = p, tables = tables](int64_t g, Block block) {
        float* scratch =
            Scratch(kernels.scratch_floats + block.m * width + FloatsForSigns(width));
        float* margins = scratch + kernels.scratch_floats;
        auto* bits = reinterpret_cast<uint8_t*>(margins + block.m * width);
        kernels.gemm({{v + g * b * depth, depth}, RowsAre::kOuter},
                     {rows_of(g, 0), RowsAre::kDepth}, block, margins, width, scratch);
        for (int64_t i = 0; i < block.m; ++i) {
          const int64_t row = g * b + block.i0 + i;
          WriteProbes(kernels, margins + i * width, block.n / k, shape, flips, bits,
                      probes + (row * tables + block.j0 / k) * p);
        }
      });
}

// A row at a time, in parts if there are fewer rows than threads.
template <typename RowsOf>
void CodesOfRows(ffi::ThreadPool& pool, const Shape& shape, const float* v,
                 const RowsOf& rows_of, const Flips& flips, int32_t* probes) {
  const Kernels& kernels = *Dispatch();
  const int64_t rows = shape.groups * shape.b, k = shape.k, depth = shape.depth;
  const int64_t flops = 2 * depth * shape.columns();
  const int64_t idle = std::max<int64_t>(1, pool.num_threads() / rows);
  const int64_t wanted = std::clamp<int64_t>(flops / kMinFlopsPerTask, 1, idle);
  const int64_t part = (shape.tables + wanted - 1) / wanted;
  const int64_t parts = (shape.tables + part - 1) / part;
  ParallelFor(pool, rows * parts, GrainFor(flops / parts),
              [&](int64_t begin, int64_t end) {
                float* margins = Scratch(part * k + FloatsForSigns(part * k));
                auto* bits = reinterpret_cast<uint8_t*>(margins + part * k);
                for (int64_t t = begin; t < end; ++t) {
                  const int64_t row = t / parts, first = t % parts * part;
                  const int64_t tables = std::min(part, shape.tables - first);
                  kernels.sum_rows(v + row * depth, rows_of(row / shape.b, first * k),
                                   depth, tables * k, margins);
                  WriteProbes(kernels, margins, tables, shape, flips, bits,
                              probes + (row * shape.tables + first) * shape.p);
                }
              });
}

ffi::Error CheckAtMost(const char* what, int64_t got, int64_t most) {
  if (got <= most) return ffi::Error::Success();
  return ffi::Error::InvalidArgument(std::string("fsparse_sign_codes: ") + what +
                                     " must be " + std::to_string(most) +
                                     " or less; got " + std::to_string(got) + ".");
}

ffi::Error CheckShapes(const Shape& shape, F32R3 v, const ffi::AnyBuffer& w, S32R2 ids,
                       ffi::BufferR2<ffi::PRED> flips,
                       ffi::ResultBufferR4<ffi::S32> probes) {
  FSPARSE_RETURN_IF_ERROR(CheckSizes(
      "fsparse_sign_codes", {{"ids.shape[0]", ids.dimensions()[0], shape.groups},
                             {"ids.shape[1]", ids.dimensions()[1], shape.depth},
                             {"w.shape[1]", w.dimensions()[1], shape.columns()},
                             {"probes.shape[0]", probes->dimensions()[0], shape.groups},
                             {"probes.shape[1]", probes->dimensions()[1], shape.b}}));
  FSPARSE_RETURN_IF_ERROR(CheckAtMost("bits of a table", shape.k, kMaxBits));
  FSPARSE_RETURN_IF_ERROR(
      CheckAtMost("flips.shape[1]", flips.dimensions()[1], shape.k));
  return CheckAtMost("probes.shape[3]", shape.p, flips.dimensions()[0]);
}

// The codes of v[g, i] @ w[ids[g]], and p - 1 beside each.
ffi::Error SignCodes(ffi::ThreadPool pool, F32R3 v, ffi::AnyBuffer w, S32R2 ids,
                     ffi::BufferR2<ffi::PRED> flips,
                     ffi::ResultBufferR4<ffi::S32> probes) {
  FSPARSE_RETURN_IF_ERROR(CheckTable("fsparse_sign_codes", w));
  const auto from = v.dimensions(), to = probes->dimensions();
  const int64_t k = w.dimensions()[1] / std::max<int64_t>(1, to[2]);
  const Shape shape{from[0], from[1], from[2], to[2], k, to[3]};
  FSPARSE_RETURN_IF_ERROR(CheckShapes(shape, v, w, ids, flips, probes));
  if (probes->element_count() == 0) return ffi::Error::Success();
  const Flips sets(flips.typed_data(), flips.dimensions()[0], flips.dimensions()[1]);
  const int64_t bytes = ffi::ByteWidth(w.element_type());
  auto rows_of = [&](int64_t g, int64_t first) {
    Rows rows = TableRows(w, ids.typed_data() + g * shape.depth);
    rows.data = static_cast<const char*>(rows.data) + first * bytes;
    return rows;
  };
  const auto run = shape.b < kFewRows ? CodesOfRows<decltype(rows_of)>
                                      : CodesOfBlocks<decltype(rows_of)>;
  run(pool, shape, v.typed_data(), rows_of, sets, probes->typed_data());
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseSignCodes, SignCodes,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<F32R3>(/*v: f32[g, b, m]*/)
                                  .Arg<ffi::AnyBuffer>(/*w: f32 or bf16[n, l * k]*/)
                                  .Arg<S32R2>(/*ids: i32[g, m]*/)
                                  .Arg<ffi::BufferR2<ffi::PRED>>(/*flips: bool[c, r]*/)
                                  .Ret<ffi::BufferR4<ffi::S32>>(
                                      /*probes: i32[g, b, l, p]*/));

}  // namespace fsparse
