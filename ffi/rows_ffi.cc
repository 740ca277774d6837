// Handlers of the row optimizers: sum the gradient of each row that is named, apply the
// update to that row at once, and touch no other row.
#include <cstring>

#include "group.h"
#include "handlers.h"
#include "parallel_for.h"

namespace fsparse {
namespace {

using F32R2Result = ffi::ResultBufferR2<ffi::F32>;

// XLA aliases each table with its result; a caller that did not alias pays a copy.
void CopyIfDifferent(const F32R2& from, F32R2Result& to) {
  if (from.typed_data() != to->typed_data()) {
    std::memcpy(to->typed_data(), from.typed_data(), from.size_bytes());
  }
}

// The row gradient fits the table, and each table and moment has its shape.
ffi::Error CheckRows(const char* op, int64_t hyper, int64_t expected_hyper,
                     const S32R2& ids, const F32R2& scale, const F32R2& x,
                     const F32R2& table, std::initializer_list<F32R2> alike) {
  const int64_t b = ids.dimensions()[0], k = ids.dimensions()[1];
  const int64_t n = table.dimensions()[0], d = table.dimensions()[1];
  FSPARSE_RETURN_IF_ERROR(CheckSizes(op, {{"hyper.shape[0]", hyper, expected_hyper},
                                          {"scale.shape[0]", scale.dimensions()[0], b},
                                          {"scale.shape[1]", scale.dimensions()[1], k},
                                          {"x.shape[0]", x.dimensions()[0], b},
                                          {"x.shape[1]", x.dimensions()[1], d}}));
  for (const F32R2& other : alike) {
    FSPARSE_RETURN_IF_ERROR(
        CheckSizes(op, {{"moment or result shape[0]", other.dimensions()[0], n},
                        {"moment or result shape[1]", other.dimensions()[1], d}}));
  }
  return ffi::Error::Success();
}

// Calls apply(offset of row r, g) with g[:] = sum of scale[i, j] * x[i] over the (i, j)
// for which ids[i, j] == r, once for each row r that occurs.
template <typename Apply>
void UpdateRows(ffi::ThreadPool& pool, const S32R2& ids, const F32R2& scale,
                const F32R2& x, const F32R2& table, const Apply& apply) {
  const int64_t b = ids.dimensions()[0], k = ids.dimensions()[1];
  const int64_t n = table.dimensions()[0], d = table.dimensions()[1];
  const Kernels& kernels = *Dispatch();
  const RowGroups groups = GroupByRow(ids.typed_data(), b * k, n);
  auto run = [&](int64_t begin, int64_t end) {
    float* g = Scratch(d);
    for (int64_t r = begin; r < end; ++r) {
      const int64_t first = groups.starts[r];
      kernels.sum_outer(groups.order.data() + first, groups.starts[r + 1] - first,
                        scale.typed_data(), x.typed_data(), k, d, g);
      apply(groups.rows[r] * d, g);
    }
  };
  ParallelFor(pool, groups.rows.size(), GrainFor(16 * d), run);
}

ffi::Error SgdRows(ffi::ThreadPool pool, S32R2 ids, F32R2 scale, F32R2 x, F32R1 hyper,
                   F32R2 table, F32R2Result new_table) {
  FSPARSE_RETURN_IF_ERROR(CheckRows("fsparse_sgd_rows", hyper.dimensions()[0], 1, ids,
                                    scale, x, table, {*new_table}));
  CopyIfDifferent(table, new_table);
  const Kernels& kernels = *Dispatch();
  const int64_t d = table.dimensions()[1];
  const float learning_rate = hyper.typed_data()[0];
  float* w = new_table->typed_data();
  UpdateRows(pool, ids, scale, x, table, [=, &kernels](int64_t at, float* g) {
    kernels.sgd_row(w + at, g, d, learning_rate);
  });
  return ffi::Error::Success();
}

ffi::Error AdagradRows(ffi::ThreadPool pool, S32R2 ids, F32R2 scale, F32R2 x,
                       F32R1 hyper, F32R2 table, F32R2 acc, F32R2Result new_table,
                       F32R2Result new_acc) {
  FSPARSE_RETURN_IF_ERROR(CheckRows("fsparse_adagrad_rows", hyper.dimensions()[0], 2,
                                    ids, scale, x, table, {acc, *new_table, *new_acc}));
  CopyIfDifferent(table, new_table);
  CopyIfDifferent(acc, new_acc);
  const Kernels& kernels = *Dispatch();
  const int64_t d = table.dimensions()[1];
  const float learning_rate = hyper.typed_data()[0], eps = hyper.typed_data()[1];
  float* w = new_table->typed_data();
  float* a = new_acc->typed_data();
  UpdateRows(pool, ids, scale, x, table, [=, &kernels](int64_t at, float* g) {
    kernels.adagrad_row(w + at, a + at, g, d, learning_rate, eps);
  });
  return ffi::Error::Success();
}

ffi::Error AdamRows(ffi::ThreadPool pool, S32R2 ids, F32R2 scale, F32R2 x, F32R1 hyper,
                    F32R2 table, F32R2 mu, F32R2 nu, F32R2Result new_table,
                    F32R2Result new_mu, F32R2Result new_nu) {
  FSPARSE_RETURN_IF_ERROR(CheckRows("fsparse_adam_rows", hyper.dimensions()[0], 6, ids,
                                    scale, x, table,
                                    {mu, nu, *new_table, *new_mu, *new_nu}));
  CopyIfDifferent(table, new_table);
  CopyIfDifferent(mu, new_mu);
  CopyIfDifferent(nu, new_nu);
  const Kernels& kernels = *Dispatch();
  const int64_t d = table.dimensions()[1];
  const float* h = hyper.typed_data();
  const AdamConstants constants{h[0], h[1], h[2], h[3], h[4], h[5]};
  float* w = new_table->typed_data();
  float* m = new_mu->typed_data();
  float* v = new_nu->typed_data();
  UpdateRows(pool, ids, scale, x, table, [=, &kernels](int64_t at, float* g) {
    kernels.adam_row(w + at, m + at, v + at, g, d, constants);
  });
  return ffi::Error::Success();
}

#define FSPARSE_ROW_GRADIENT_ARGS       \
  Ctx<ffi::ThreadPool>()                \
      .Arg<S32R2>(/*ids: i32[b, k]*/)   \
      .Arg<F32R2>(/*scale: f32[b, k]*/) \
      .Arg<F32R2>(/*x: f32[b, d]*/)

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseSgdRows, SgdRows,
                              ffi::Ffi::Bind()
                                  .FSPARSE_ROW_GRADIENT_ARGS
                                  .Arg<F32R1>(/*learning_rate*/)
                                  .Arg<F32R2>(/*table: f32[n, d]*/)
                                  .Ret<F32R2>(/*table, aliased*/));

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseAdagradRows, AdagradRows,
                              ffi::Ffi::Bind()
                                  .FSPARSE_ROW_GRADIENT_ARGS
                                  .Arg<F32R1>(/*learning_rate, eps*/)
                                  .Arg<F32R2>(/*table: f32[n, d]*/)
                                  .Arg<F32R2>(/*acc: f32[n, d]*/)
                                  .Ret<F32R2>(/*table, aliased*/)
                                  .Ret<F32R2>(/*acc, aliased*/));

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    FsparseAdamRows, AdamRows,
    ffi::Ffi::Bind()
        .FSPARSE_ROW_GRADIENT_ARGS
        .Arg<F32R1>(/*learning_rate, b1, b2, eps, 1 - b1^t, 1 - b2^t*/)
        .Arg<F32R2>(/*table: f32[n, d]*/)
        .Arg<F32R2>(/*mu: f32[n, d]*/)
        .Arg<F32R2>(/*nu: f32[n, d]*/)
        .Ret<F32R2>(/*table, aliased*/)
        .Ret<F32R2>(/*mu, aliased*/)
        .Ret<F32R2>(/*nu, aliased*/));

}  // namespace fsparse
