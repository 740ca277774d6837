// Handlers of Adam whose rows catch up with the steps they missed.
//
// Dense Adam moves a row at every step, with g = 0 at most of them. Here last[r] counts
// the steps that row r reflects, and the others are made up for when the row is named:
// what they do depends only on the row's moments and on the history of learning rates.
#include <cmath>

#include "row_tables.h"

namespace fsparse {
namespace {

using AnyResult = ffi::Result<ffi::AnyBuffer>;
using S32R1Result = ffi::ResultBufferR1<ffi::S32>;

// Some rows miss nothing, others hundreds of steps: small tasks even that out.
constexpr int64_t kFlopsPerElement = 256;

// (alpha, corr) of update tau, history[tau % H], is lr / (1 - b1^tau) and
// 1 / sqrt(1 - b2^tau). `step` updates are complete.
struct Schedule {
  F32R2 history;  // [H, 2]
  S32R1 step;     // [1]
};

ffi::Error CheckSchedule(const char* op, const Schedule& schedule, int64_t num_rows,
                         S32R1 last, S32R1Result new_last) {
  return CheckSizes(op,
                    {{"history.shape[1]", schedule.history.dimensions()[1], 2},
                     {"step.shape[0]", schedule.step.dimensions()[0], 1},
                     {"last.shape[0]", last.dimensions()[0], num_rows},
                     {"result last.shape[0]", new_last->dimensions()[0], num_rows}});
}

int32_t* InPlace(S32R1 last, S32R1Result new_last) {
  if (last.typed_data() != new_last->typed_data()) {
    std::memcpy(new_last->typed_data(), last.typed_data(), last.size_bytes());
  }
  return new_last->typed_data();
}

struct Decay {
  float b1, b2, eps, max_terms;
};

// The steps between last and schedule.step: those that the ring still holds, and of
// them at most max_terms are applied one by one, the first, which are the largest.
MissedSteps Missed(const Schedule& schedule, int64_t last, const Decay& decay) {
  const int64_t step = schedule.step.typed_data()[0];
  const int64_t slots = schedule.history.dimensions()[0];
  const int64_t missed = 0 <= last && last <= step ? step - last : 0;
  const int64_t kept = std::min(missed, slots);
  const int64_t terms = kept < decay.max_terms ? kept : std::max(0.0f, decay.max_terms);
  auto power = [](float b, int64_t steps) {
    return static_cast<float>(std::pow(static_cast<double>(b), steps));
  };
  MissedSteps out;
  out.history = schedule.history.typed_data();
  out.num_slots = slots;
  out.first_slot = kept > 0 ? (step - kept + 1) % slots : 0;
  out.num_steps = terms;
  out.b1 = decay.b1;
  out.sqrt_b2 = std::sqrt(decay.b2);
  out.eps = decay.eps;
  out.mu_before = power(decay.b1, missed - kept);
  out.nu_before = power(decay.b2, missed - kept);
  out.mu_after = power(decay.b1, kept - terms);
  out.nu_all = power(decay.b2, missed);
  return out;
}

// Brings row r, opened, up to schedule.step.
void CatchUp(const Schedule& schedule, const Decay& decay, int64_t d,
             float* const* rows, int32_t& last) {
  const int32_t step = schedule.step.typed_data()[0];
  if (last == step) return;
  Dispatch()->adam_catch_up_row(rows, d, Missed(schedule, last, decay));
  last = step;
}

ffi::Error ExactAdamRows(ffi::ThreadPool pool, S32R1 ids, F32R1 scale, S32R1 source,
                         F32R2 x, F32R1 hyper, F32R2 history, S32R1 step, U32R1 seed,
                         ffi::AnyBuffer table, ffi::AnyBuffer mu, ffi::AnyBuffer nu,
                         S32R1 last, AnyResult new_table, AnyResult new_mu,
                         AnyResult new_nu, S32R1Result new_last) {
  const char* op = "fsparse_exact_adam_rows";
  const RowGrad grad{ids, scale, source, x};
  const Schedule schedule{history, step};
  const Tables tables = {
      {"table", table, *new_table}, {"mu", mu, *new_mu}, {"nu", nu, *new_nu}};
  FSPARSE_RETURN_IF_ERROR(CheckRowGrad(op, grad));
  FSPARSE_RETURN_IF_ERROR(CheckTables(op, tables, seed));
  const int64_t n = table.dimensions()[0], d = table.dimensions()[1];
  FSPARSE_RETURN_IF_ERROR(CheckSchedule(op, schedule, n, last, new_last));
  FSPARSE_RETURN_IF_ERROR(
      CheckSizes(op, {{"x.shape[1]", x.dimensions()[1], d},
                      {"hyper.shape[0]", hyper.dimensions()[0], 7}}));
  const Kernels& kernels = *Dispatch();
  const float* h = hyper.typed_data();
  const Decay decay{h[1], h[2], h[3], /*max_terms=*/h[6]};
  const float adam[] = {h[0], h[1], h[2], h[3], h[4], h[5], /*weight_decay=*/0.0f};
  int32_t* reflects = InPlace(last, new_last);
  UpdateRows(pool, grad, n, InPlace(tables), seed, kFlopsPerElement,
             [&](int64_t r, float* const* rows, const float* g) {
               CatchUp(schedule, decay, d, rows, reflects[r]);
               kernels.adam_row(rows, g, d, adam);
               ++reflects[r];
             });
  return ffi::Error::Success();
}

// The rows named that have missed steps, each once, in rising order.
std::vector<int32_t> StaleRows(ffi::ThreadPool& pool, S32R1 ids, int64_t num_rows,
                               const int32_t* last, int32_t step) {
  RowGroups groups =
      GroupByRow({ids.typed_data(), ids.dimensions()[0], num_rows}, ForEachOn(pool));
  auto fresh = [=](int32_t r) { return last[r] == step; };
  groups.rows.erase(std::remove_if(groups.rows.begin(), groups.rows.end(), fresh),
                    groups.rows.end());
  return groups.rows;
}

ffi::Error AdamCatchUp(ffi::ThreadPool pool, S32R1 ids, F32R1 hyper, F32R2 history,
                       S32R1 step, U32R1 seed, ffi::AnyBuffer table, ffi::AnyBuffer mu,
                       ffi::AnyBuffer nu, S32R1 last, AnyResult new_table,
                       AnyResult new_mu, AnyResult new_nu, S32R1Result new_last) {
  const char* op = "fsparse_adam_catch_up";
  const Schedule schedule{history, step};
  const Tables tables = {
      {"table", table, *new_table}, {"mu", mu, *new_mu}, {"nu", nu, *new_nu}};
  FSPARSE_RETURN_IF_ERROR(CheckTables(op, tables, seed));
  const int64_t n = table.dimensions()[0], d = table.dimensions()[1];
  FSPARSE_RETURN_IF_ERROR(CheckSchedule(op, schedule, n, last, new_last));
  FSPARSE_RETURN_IF_ERROR(
      CheckSizes(op, {{"hyper.shape[0]", hyper.dimensions()[0], 4}}));
  const float* h = hyper.typed_data();
  const Decay decay{h[0], h[1], h[2], /*max_terms=*/h[3]};
  int32_t* reflects = InPlace(last, new_last);
  const std::vector<int32_t> stale =
      StaleRows(pool, ids, n, reflects, step.typed_data()[0]);
  VisitRows(pool, stale, InPlace(tables), seed, kFlopsPerElement,
            [&](int64_t i, float* const* rows, float*) {
              CatchUp(schedule, decay, d, rows, reflects[stale[i]]);
            });
  return ffi::Error::Success();
}

#define FSPARSE_CATCH_UP_ARGS                            \
  Arg<F32R2>(/*history: f32[H, 2]*/)                     \
      .Arg<S32R1>(/*step: i32[1]*/)                      \
      .Arg<U32R1>(/*seed: u32[2]*/)                      \
      .Arg<ffi::AnyBuffer>(/*table: [n, d], f32, bf16*/) \
      .Arg<ffi::AnyBuffer>(/*mu: [n, d], f32, bf16*/)    \
      .Arg<ffi::AnyBuffer>(/*nu: [n, d], f32, bf16*/)    \
      .Arg<S32R1>(/*last: i32[n]*/)                      \
      .Ret<ffi::AnyBuffer>(/*table, aliased*/)           \
      .Ret<ffi::AnyBuffer>(/*mu, aliased*/)              \
      .Ret<ffi::AnyBuffer>(/*nu, aliased*/)              \
      .Ret<S32R1>(/*last, aliased*/)

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    FsparseExactAdamRows, ExactAdamRows,
    ffi::Ffi::Bind()
        .Ctx<ffi::ThreadPool>()
        .Arg<S32R1>(/*ids: i32[t]*/)
        .Arg<F32R1>(/*scale: f32[t]*/)
        .Arg<S32R1>(/*source: i32[t]*/)
        .Arg<F32R2>(/*x: f32[s, d]*/)
        .Arg<F32R1>(/*learning_rate, b1, b2, eps, 1 - b1^t, 1 - b2^t, max_terms*/)
        .FSPARSE_CATCH_UP_ARGS);

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseAdamCatchUp, AdamCatchUp,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<S32R1>(/*ids: i32[t]*/)
                                  .Arg<F32R1>(/*b1, b2, eps, max_terms*/)
                                  .FSPARSE_CATCH_UP_ARGS);

}  // namespace fsparse
