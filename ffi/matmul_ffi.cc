// Handlers of the matmul family. In each, g counts independent products: the batch when
// active sets are per example (then b = 1), 1 when one set is shared by b examples.
#include "blocks.h"
#include "group.h"
#include "handlers.h"
#include "parallel_for.h"
#include "sweep.h"
#include "table.h"

namespace fsparse {
namespace {

constexpr int64_t kIdsPerTask = 256;
constexpr int64_t kPartsPerThread = 8;  // of a table; none is much more work

// Products of examples that have a set of ids each.
struct PerExample {
  IdSets sets;
  Rows table;  // without ids
  int64_t d;

  Rows Of(int64_t g) const {
    Rows rows = table;
    rows.ids = sets.begin(g);
    rows.num_ids = sets.m;
    return rows;
  }
  int64_t RangeRows() const { return RowsPerRange(sets, RowBytes(table)); }
};

// y[g, j] = x[g] . w[ids[g, j]], a block of an example's ids at a time.
void DotEach(ffi::ThreadPool& pool, const PerExample& of, const float* x, float* y) {
  const auto [ids, groups, m, n] = of.sets;
  const int64_t parts = (m + kIdsPerTask - 1) / kIdsPerTask;
  auto run = [&, m = m](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t g = t / parts, j = t % parts * kIdsPerTask;
      Dispatch()->dot_rows(x + g * of.d, of.Of(g), j, std::min(kIdsPerTask, m - j),
                           of.d, y + g * m + j);
    }
  };
  ParallelFor(pool, groups * parts, GrainFor(2 * std::min(m, kIdsPerTask) * of.d), run);
}

// The same, a part of the table at a time.
void DotSorted(ffi::ThreadPool& pool, const PerExample& of, const float* x, float* y) {
  const auto [ids, groups, m, n] = of.sets;
  const int64_t parts = kPartsPerThread * std::max<int64_t>(1, pool.num_threads());
  const std::vector<int64_t> first = SplitRows(of.sets, parts);
  auto visit = [&, m = m](int64_t g, int64_t j, int64_t count) {
    Dispatch()->dot_rows(x + g * of.d, of.Of(g), j, count, of.d, y + g * m + j);
  };
  auto run = [&, groups = groups](int64_t begin, int64_t end) {
    Sweep(of.sets, 0, groups, first[begin], first[end], of.RangeRows(), visit);
  };
  ParallelFor(pool, parts, GrainFor(2 * groups * m / parts * of.d), run);
}

// z[g] = sum_j v[g, j] * w[ids[g, j]], an example at a time.
void SumEach(ffi::ThreadPool& pool, const PerExample& of, const float* v, float* z) {
  const int64_t m = of.sets.m;
  auto run = [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      Dispatch()->sum_rows(v + g * m, of.Of(g), m, of.d, z + g * of.d);
    }
  };
  ParallelFor(pool, of.sets.groups, GrainFor(2 * m * of.d), run);
}

// The same for a thread's share of the examples together.
void SumSorted(ffi::ThreadPool& pool, const PerExample& of, const float* v, float* z) {
  const auto [ids, groups, m, n] = of.sets;
  const int64_t threads = std::max<int64_t>(1, pool.num_threads());
  auto visit = [&, m = m](int64_t g, int64_t j, int64_t count) {
    Dispatch()->add_rows(v + g * m, of.Of(g), j, count, of.d, z + g * of.d);
  };
  auto run = [&, n = n](int64_t begin, int64_t end) {
    std::fill(z + begin * of.d, z + end * of.d, 0.0f);
    Sweep(of.sets, begin, end, 0, n, of.RangeRows(), visit);
  };
  const int64_t share = (groups + threads - 1) / threads;
  ParallelFor(pool, groups, std::max(share, GrainFor(2 * m * of.d)), run);
}

bool IsSwept(const IdSets& sets) {
  return sets.groups > 1 && sets.num_rows > 0 && sets.m > 0 && sets.IsSorted();
}

// y[g, i, j] = x[g, i] . w[ids[g, j]].
ffi::Error SampledMatmul(ffi::ThreadPool pool, int32_t parts, F32R3 x, ffi::AnyBuffer w,
                         S32R2 ids, ffi::ResultBufferR3<ffi::F32> y) {
  FSPARSE_RETURN_IF_ERROR(CheckParts("fsparse_sampled_matmul", parts));
  FSPARSE_RETURN_IF_ERROR(CheckTable("fsparse_sampled_matmul", w));
  const int64_t groups = x.dimensions()[0], b = x.dimensions()[1];
  const int64_t d = x.dimensions()[2], m = ids.dimensions()[1];
  FSPARSE_RETURN_IF_ERROR(CheckSizes("fsparse_sampled_matmul",
                                     {{"w.shape[1]", w.dimensions()[1], d},
                                      {"ids.shape[0]", ids.dimensions()[0], groups},
                                      {"y.shape[0]", y->dimensions()[0], groups},
                                      {"y.shape[1]", y->dimensions()[1], b},
                                      {"y.shape[2]", y->dimensions()[2], m}}));
  const Kernels& kernels = *Dispatch();
  const float* xp = x.typed_data();
  const int32_t* id = ids.typed_data();
  float* out = y->typed_data();
  auto rows_of = [&](int64_t g) { return TableRows(w, id + g * m); };
  if (b == 1) {
    const PerExample of{{id, groups, m, w.dimensions()[0]}, TableRows(w), d};
    (IsSwept(of.sets) ? DotSorted : DotEach)(pool, of, xp, out);
    return ffi::Error::Success();
  }
  ParallelGemm(
      pool, kernels.product, {groups, b, m, d},
      [&](int64_t g) { return Operand{{xp + g * b * d, d}, RowsAre::kOuter, parts}; },
      [&](int64_t g) { return Operand{rows_of(g), RowsAre::kOuter, parts}; }, out);
  return ffi::Error::Success();
}

// z[g, i, :] = sum_j v[g, i, j] * w[ids[g, j]].
ffi::Error GatherMatmul(ffi::ThreadPool pool, int32_t parts, F32R3 v, ffi::AnyBuffer w,
                        S32R2 ids, ffi::ResultBufferR3<ffi::F32> z) {
  FSPARSE_RETURN_IF_ERROR(CheckParts("fsparse_gather_matmul", parts));
  FSPARSE_RETURN_IF_ERROR(CheckTable("fsparse_gather_matmul", w));
  const int64_t groups = v.dimensions()[0], b = v.dimensions()[1];
  const int64_t m = v.dimensions()[2], d = w.dimensions()[1];
  FSPARSE_RETURN_IF_ERROR(CheckSizes("fsparse_gather_matmul",
                                     {{"ids.shape[0]", ids.dimensions()[0], groups},
                                      {"ids.shape[1]", ids.dimensions()[1], m},
                                      {"z.shape[0]", z->dimensions()[0], groups},
                                      {"z.shape[1]", z->dimensions()[1], b},
                                      {"z.shape[2]", z->dimensions()[2], d}}));
  const Kernels& kernels = *Dispatch();
  const float* vp = v.typed_data();
  float* out = z->typed_data();
  auto rows_of = [&](int64_t g) { return TableRows(w, ids.typed_data() + g * m); };
  if (b == 1) {
    const PerExample of{
        {ids.typed_data(), groups, m, w.dimensions()[0]}, TableRows(w), d};
    (IsSwept(of.sets) ? SumSorted : SumEach)(pool, of, vp, out);
    return ffi::Error::Success();
  }
  ParallelGemm(
      pool, kernels.product, {groups, b, d, m},
      [&](int64_t g) { return Operand{{vp + g * b * m, m}, RowsAre::kOuter, parts}; },
      [&](int64_t g) { return Operand{rows_of(g), RowsAre::kDepth, parts}; }, out);
  return ffi::Error::Success();
}

// out[g, j, :] = sum_i v[g, i, j] * x[g, i, :].
void SumOverExamples(ffi::ThreadPool& pool, const float* v, const float* x,
                     Products products, int parts, float* out) {
  const auto [groups, m, d, b] = products;
  ParallelGemm(
      pool, Dispatch()->product, products,
      [=, m = m, b = b](int64_t g) {
        return Operand{{v + g * b * m, m}, RowsAre::kDepth, parts};
      },
      [=, d = d, b = b](int64_t g) {
        return Operand{{x + g * b * d, d}, RowsAre::kDepth, parts};
      },
      out);
}

ffi::Error SumExamples(ffi::ThreadPool pool, int32_t parts, F32R3 v, F32R3 x,
                       ffi::ResultBufferR3<ffi::F32> out) {
  FSPARSE_RETURN_IF_ERROR(CheckParts("fsparse_sum_examples", parts));
  const int64_t groups = v.dimensions()[0], b = v.dimensions()[1];
  const int64_t m = v.dimensions()[2], d = x.dimensions()[2];
  FSPARSE_RETURN_IF_ERROR(CheckSizes("fsparse_sum_examples",
                                     {{"x.shape[0]", x.dimensions()[0], groups},
                                      {"x.shape[1]", x.dimensions()[1], b},
                                      {"out.shape[0]", out->dimensions()[0], groups},
                                      {"out.shape[1]", out->dimensions()[1], m},
                                      {"out.shape[2]", out->dimensions()[2], d}}));
  SumOverExamples(pool, v.typed_data(), x.typed_data(), {groups, m, d, b}, parts,
                  out->typed_data());
  return ffi::Error::Success();
}

// out[r, :] = sum over (g, j) with ids[g, j] == r of sum_i v[g, i, j] * x[g, i, :].
//
// With b > 1 the inner sums are formed first, as products of f32[g * m, d]; they are an
// output so that XLA plans their memory. Each row of out then has one owner.
ffi::Error ScatterOuter(ffi::ThreadPool pool, int32_t parts, F32R3 v, F32R3 x,
                        S32R2 ids, ffi::ResultBufferR2<ffi::F32> out,
                        ffi::ResultBufferR2<ffi::F32> products) {
  FSPARSE_RETURN_IF_ERROR(CheckParts("fsparse_scatter_outer", parts));
  const int64_t groups = v.dimensions()[0], b = v.dimensions()[1];
  const int64_t m = v.dimensions()[2], d = x.dimensions()[2];
  const int64_t n = out->dimensions()[0];
  FSPARSE_RETURN_IF_ERROR(CheckSizes(
      "fsparse_scatter_outer",
      {{"x.shape[0]", x.dimensions()[0], groups},
       {"x.shape[1]", x.dimensions()[1], b},
       {"ids.shape[0]", ids.dimensions()[0], groups},
       {"ids.shape[1]", ids.dimensions()[1], m},
       {"out.shape[1]", out->dimensions()[1], d},
       {"products.shape[0]", products->dimensions()[0], b == 1 ? 0 : groups * m},
       {"products.shape[1]", products->dimensions()[1], d}}));
  const Kernels& kernels = *Dispatch();
  const float* vp = v.typed_data();
  const float* xp = x.typed_data();
  if (b != 1)
    SumOverExamples(pool, vp, xp, {groups, m, d, b}, parts, products->typed_data());
  float* table = out->typed_data();
  ParallelFor(pool, n, GrainFor(d), [&](int64_t begin, int64_t end) {
    std::fill(table + begin * d, table + end * d, 0.0f);
  });
  const RowGroups by_row =
      GroupByRow({ids.typed_data(), groups * m, n}, ForEachOn(pool));
  const float* scale = b == 1 ? vp : nullptr;
  const float* rows = b == 1 ? xp : products->typed_data();
  const int64_t k = b == 1 ? m : 1;
  ParallelFor(
      pool, by_row.rows.size(), GrainFor(2 * d), [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          const int64_t first = by_row.starts[r];
          kernels.sum_outer(by_row.order.data() + first, by_row.starts[r + 1] - first,
                            scale, rows, k, d, table + by_row.rows[r] * d);
        }
      });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseSampledMatmul, SampledMatmul,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int32_t>("num_parts")
                                  .Arg<F32R3>(/*x: f32[g, b, d]*/)
                                  .Arg<ffi::AnyBuffer>(/*w: f32 or bf16[n, d]*/)
                                  .Arg<S32R2>(/*ids: i32[g, m]*/)
                                  .Ret<F32R3>(/*y: f32[g, b, m]*/));

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseGatherMatmul, GatherMatmul,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int32_t>("num_parts")
                                  .Arg<F32R3>(/*v: f32[g, b, m]*/)
                                  .Arg<ffi::AnyBuffer>(/*w: f32 or bf16[n, d]*/)
                                  .Arg<S32R2>(/*ids: i32[g, m]*/)
                                  .Ret<F32R3>(/*z: f32[g, b, d]*/));

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseScatterOuter, ScatterOuter,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int32_t>("num_parts")
                                  .Arg<F32R3>(/*v: f32[g, b, m]*/)
                                  .Arg<F32R3>(/*x: f32[g, b, d]*/)
                                  .Arg<S32R2>(/*ids: i32[g, m]*/)
                                  .Ret<F32R2>(/*out: f32[n, d]*/)
                                  .Ret<F32R2>(/*products: f32[g * m or 0, d]*/));

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseSumExamples, SumExamples,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int32_t>("num_parts")
                                  .Arg<F32R3>(/*v: f32[g, b, m]*/)
                                  .Arg<F32R3>(/*x: f32[g, b, d]*/)
                                  .Ret<F32R3>(/*out: f32[g, m, d]*/));

}  // namespace fsparse
