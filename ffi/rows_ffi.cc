// Handlers of the row optimizers: sum the gradient of each row that is named, apply the
// update to that row at once, and touch no other row.
#include "row_tables.h"

namespace fsparse {
namespace {

using AnyResult = ffi::Result<ffi::AnyBuffer>;

constexpr int64_t kFlopsPerElement = 16;
constexpr int64_t kRowsPerBlock = 64;  // of partial sums

struct Optimizer {
  const char* op;
  int64_t num_hyper;
  RowUpdate* Kernels::* update_row;
};

ffi::Error Update(const Optimizer& optimizer, ffi::ThreadPool& pool,
                  const RowGrad& grad, F32R1 hyper, U32R1 seed, Tables tables) {
  const char* op = optimizer.op;
  FSPARSE_RETURN_IF_ERROR(CheckRowGrad(op, grad));
  FSPARSE_RETURN_IF_ERROR(CheckTables(op, tables, seed));
  const auto shape = tables.begin()->now.dimensions();
  const int64_t n = shape[0], d = shape[1];
  FSPARSE_RETURN_IF_ERROR(
      CheckSizes(op, {{"x.shape[1]", grad.x.dimensions()[1], d},
                      {"hyper.shape[0]", hyper.dimensions()[0], optimizer.num_hyper}}));
  RowUpdate* update_row = Dispatch()->*optimizer.update_row;
  const float* h = hyper.typed_data();
  UpdateRows(
      pool, grad, n, InPlace(tables), seed, kFlopsPerElement,
      [=](int64_t, float* const* rows, const float* g) { update_row(rows, g, d, h); });
  return ffi::Error::Success();
}

ffi::Error SgdRows(ffi::ThreadPool pool, S32R1 ids, F32R1 scale, S32R1 source, F32R2 x,
                   F32R1 hyper, U32R1 seed, ffi::AnyBuffer table, AnyResult new_table) {
  return Update({"fsparse_sgd_rows", 2, &Kernels::sgd_row}, pool,
                {ids, scale, source, x}, hyper, seed, {{"table", table, *new_table}});
}

ffi::Error MomentumRows(ffi::ThreadPool pool, S32R1 ids, F32R1 scale, S32R1 source,
                        F32R2 x, F32R1 hyper, U32R1 seed, ffi::AnyBuffer table,
                        ffi::AnyBuffer trace, AnyResult new_table,
                        AnyResult new_trace) {
  return Update({"fsparse_momentum_rows", 4, &Kernels::momentum_row}, pool,
                {ids, scale, source, x}, hyper, seed,
                {{"table", table, *new_table}, {"trace", trace, *new_trace}});
}

ffi::Error AdagradRows(ffi::ThreadPool pool, S32R1 ids, F32R1 scale, S32R1 source,
                       F32R2 x, F32R1 hyper, U32R1 seed, ffi::AnyBuffer table,
                       ffi::AnyBuffer acc, AnyResult new_table, AnyResult new_acc) {
  return Update({"fsparse_adagrad_rows", 3, &Kernels::adagrad_row}, pool,
                {ids, scale, source, x}, hyper, seed,
                {{"table", table, *new_table}, {"acc", acc, *new_acc}});
}

ffi::Error RowwiseAdagradRows(ffi::ThreadPool pool, S32R1 ids, F32R1 scale,
                              S32R1 source, F32R2 x, F32R1 hyper, U32R1 seed,
                              ffi::AnyBuffer table, ffi::AnyBuffer acc,
                              AnyResult new_table, AnyResult new_acc) {
  return Update({"fsparse_rowwise_adagrad_rows", 3, &Kernels::rowwise_adagrad_row},
                pool, {ids, scale, source, x}, hyper, seed,
                {{"table", table, *new_table}, {"acc", acc, *new_acc, /*rank=*/1}});
}

ffi::Error AdamRows(ffi::ThreadPool pool, S32R1 ids, F32R1 scale, S32R1 source, F32R2 x,
                    F32R1 hyper, U32R1 seed, ffi::AnyBuffer table, ffi::AnyBuffer mu,
                    ffi::AnyBuffer nu, AnyResult new_table, AnyResult new_mu,
                    AnyResult new_nu) {
  return Update(
      {"fsparse_adam_rows", 7, &Kernels::adam_row}, pool, {ids, scale, source, x},
      hyper, seed,
      {{"table", table, *new_table}, {"mu", mu, *new_mu}, {"nu", nu, *new_nu}});
}

// Sums within blocks of rows that do not depend on the number of threads, added in
// order. In double: a block may be a millionth of the whole.
ffi::Error SumSquares(ffi::ThreadPool pool, S32R1 ids, F32R1 scale, S32R1 source,
                      F32R2 x, S32R1 num_rows, ffi::ResultBufferR1<ffi::F32> sum) {
  const char* op = "fsparse_sum_squares";
  const RowGrad grad{ids, scale, source, x};
  FSPARSE_RETURN_IF_ERROR(CheckRowGrad(op, grad));
  FSPARSE_RETURN_IF_ERROR(
      CheckSizes(op, {{"num_rows.shape[0]", num_rows.dimensions()[0], 1},
                      {"sum.shape[0]", sum->dimensions()[0], 1}}));
  const Kernels& kernels = *Dispatch();
  const int64_t d = x.dimensions()[1];
  const RowGroups groups = GroupByRow(pool, grad, num_rows.typed_data()[0]);
  const int64_t count = groups.rows.size();
  std::vector<double> partial((count + kRowsPerBlock - 1) / kRowsPerBlock);
  auto run = [&](int64_t begin, int64_t end) {
    float* g = Scratch(d);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t last = std::min(count, (block + 1) * kRowsPerBlock);
      for (int64_t i = block * kRowsPerBlock; i < last; ++i) {
        SumGroup(kernels, grad, groups, i, g);
        partial[block] += kernels.squared_norm(g, d);
      }
    }
  };
  ParallelFor(pool, partial.size(), GrainFor(4 * kRowsPerBlock * d), run);
  double total = 0.0;
  for (double part : partial) total += part;
  sum->typed_data()[0] = static_cast<float>(total);
  return ffi::Error::Success();
}

#define FSPARSE_ROW_GRAD_ARGS         \
  Ctx<ffi::ThreadPool>()              \
      .Arg<S32R1>(/*ids: i32[t]*/)    \
      .Arg<F32R1>(/*scale: f32[t]*/)  \
      .Arg<S32R1>(/*source: i32[t]*/) \
      .Arg<F32R2>(/*x: f32[s, d]*/)

}  // namespace

// Tables and moments are f32 or bf16, each aliased with the result of its name.

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseSgdRows, SgdRows,
                              ffi::Ffi::Bind()
                                  .FSPARSE_ROW_GRAD_ARGS
                                  .Arg<F32R1>(/*learning_rate, weight_decay*/)
                                  .Arg<U32R1>(/*seed: u32[2]*/)
                                  .Arg<ffi::AnyBuffer>(/*table: [n, d]*/)
                                  .Ret<ffi::AnyBuffer>(/*table*/));

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    FsparseMomentumRows, MomentumRows,
    ffi::Ffi::Bind()
        .FSPARSE_ROW_GRAD_ARGS
        .Arg<F32R1>(/*learning_rate, decay, nesterov (0 or 1), weight_decay*/)
        .Arg<U32R1>(/*seed: u32[2]*/)
        .Arg<ffi::AnyBuffer>(/*table: [n, d]*/)
        .Arg<ffi::AnyBuffer>(/*trace: [n, d]*/)
        .Ret<ffi::AnyBuffer>(/*table*/)
        .Ret<ffi::AnyBuffer>(/*trace*/));

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseAdagradRows, AdagradRows,
                              ffi::Ffi::Bind()
                                  .FSPARSE_ROW_GRAD_ARGS
                                  .Arg<F32R1>(/*learning_rate, eps, weight_decay*/)
                                  .Arg<U32R1>(/*seed: u32[2]*/)
                                  .Arg<ffi::AnyBuffer>(/*table: [n, d]*/)
                                  .Arg<ffi::AnyBuffer>(/*acc: [n, d]*/)
                                  .Ret<ffi::AnyBuffer>(/*table*/)
                                  .Ret<ffi::AnyBuffer>(/*acc*/));

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseRowwiseAdagradRows, RowwiseAdagradRows,
                              ffi::Ffi::Bind()
                                  .FSPARSE_ROW_GRAD_ARGS
                                  .Arg<F32R1>(/*learning_rate, eps, weight_decay*/)
                                  .Arg<U32R1>(/*seed: u32[2]*/)
                                  .Arg<ffi::AnyBuffer>(/*table: [n, d]*/)
                                  .Arg<ffi::AnyBuffer>(/*acc: f32[n]*/)
                                  .Ret<ffi::AnyBuffer>(/*table*/)
                                  .Ret<ffi::AnyBuffer>(/*acc*/));

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    FsparseAdamRows, AdamRows,
    ffi::Ffi::Bind()
        .FSPARSE_ROW_GRAD_ARGS
        .Arg<F32R1>(/*learning_rate, b1, b2, eps, 1 - b1^t, 1 - b2^t, weight_decay*/)
        .Arg<U32R1>(/*seed: u32[2]*/)
        .Arg<ffi::AnyBuffer>(/*table: [n, d]*/)
        .Arg<ffi::AnyBuffer>(/*mu: [n, d]*/)
        .Arg<ffi::AnyBuffer>(/*nu: [n, d]*/)
        .Ret<ffi::AnyBuffer>(/*table*/)
        .Ret<ffi::AnyBuffer>(/*mu*/)
        .Ret<ffi::AnyBuffer>(/*nu*/));

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseSumSquares, SumSquares,
                              ffi::Ffi::Bind()
                                  .FSPARSE_ROW_GRAD_ARGS
                                  .Arg<S32R1>(/*num_rows: i32[1]*/)
                                  .Ret<F32R1>(/*sum: f32[1]*/));

}  // namespace fsparse
