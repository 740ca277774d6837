// Handlers of the sampled softmax loss: values, and products with its Jacobian, which
// is never formed twice: exp is taken anew from the logits.
#include <cmath>

#include "handlers.h"
#include "parallel_for.h"

namespace fsparse {
namespace {

using Mask = ffi::BufferR2<ffi::PRED>;
constexpr int64_t kFlopsPerExp = 30;

// One example of `m` logits and its labels.
struct Example {
  const float* logits;
  const uint8_t* is_active;
  const int32_t* targets;
  int64_t m, num_targets;

  template <typename Fn>
  void ForLabels(const Fn& fn) const {
    for (int64_t l = 0; l < num_targets; ++l) {
      if (targets[l] >= 0 && targets[l] < m) fn(targets[l]);
    }
  }

  int64_t NumLabels() const {
    int64_t count = 0;
    ForLabels([&](int32_t) { ++count; });
    return count;
  }
};

// All examples, whose active columns are their own, or shared.
struct Examples {
  F32R2 logits;
  S32R2 targets;
  Mask is_active;

  int64_t b() const { return logits.dimensions()[0]; }
  int64_t m() const { return logits.dimensions()[1]; }

  Example operator[](int64_t i) const {
    const int64_t num_targets = targets.dimensions()[1];
    const int64_t own = is_active.dimensions()[0] == 1 ? 0 : i;
    return {logits.typed_data() + i * m(),
            reinterpret_cast<const uint8_t*>(is_active.typed_data()) + own * m(),
            targets.typed_data() + i * num_targets, m(), num_targets};
  }

  ffi::Error Check(const char* op) const {
    const int64_t masks = is_active.dimensions()[0];
    return CheckSizes(op, {{"targets.shape[0]", targets.dimensions()[0], b()},
                           {"is_active.shape[0]", masks, masks == 1 ? 1 : b()},
                           {"is_active.shape[1]", is_active.dimensions()[1], m()}});
  }
};

// Calls fn(i) for all examples.
template <typename Fn>
void ForExamples(ffi::ThreadPool& pool, const Examples& examples, const Fn& fn) {
  ParallelFor(pool, examples.b(), GrainFor(kFlopsPerExp * examples.m()),
              [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) fn(i);
              });
}

ffi::Error SoftmaxLoss(ffi::ThreadPool pool, F32R2 logits, S32R2 targets,
                       Mask is_active, ffi::ResultBufferR1<ffi::F32> loss,
                       ffi::ResultBufferR2<ffi::F32> sums) {
  const Examples examples{logits, targets, is_active};
  FSPARSE_RETURN_IF_ERROR(examples.Check("fsparse_softmax_loss"));
  FSPARSE_RETURN_IF_ERROR(CheckSizes(
      "fsparse_softmax_loss", {{"loss.shape[0]", loss->dimensions()[0], examples.b()},
                               {"sums.shape[0]", sums->dimensions()[0], examples.b()},
                               {"sums.shape[1]", sums->dimensions()[1], 2}}));
  const Kernels& kernels = *Dispatch();
  float* out = loss->typed_data();
  float* sum = sums->typed_data();
  ForExamples(pool, examples, [&](int64_t i) {
    const Example example = examples[i];
    const ExpSum z = kernels.sum_exp(example.logits, example.is_active, example.m);
    const float log_z = std::log(z.sum) + z.shift;
    float total = 0.0f;
    example.ForLabels([&](int32_t t) { total += log_z - example.logits[t]; });
    out[i] = total / std::max<int64_t>(1, example.NumLabels());
    sum[2 * i] = z.shift;
    sum[2 * i + 1] = z.sum;
  });
  return ffi::Error::Success();
}

ffi::Error CheckJacobian(const char* op, const Examples& examples, F32R2 sums) {
  FSPARSE_RETURN_IF_ERROR(examples.Check(op));
  return CheckSizes(op, {{"sums.shape[0]", sums.dimensions()[0], examples.b()},
                         {"sums.shape[1]", sums.dimensions()[1], 2}});
}

float OrZero(float numerator, float denominator) {
  return denominator == 0.0f ? 0.0f : numerator / denominator;
}

// delta[i, :] = ct[i] * d loss[i] / d logits[i, :].
ffi::Error SoftmaxDelta(ffi::ThreadPool pool, F32R1 ct, F32R2 logits, S32R2 targets,
                        Mask is_active, F32R2 sums,
                        ffi::ResultBufferR2<ffi::F32> delta) {
  const char* op = "fsparse_softmax_delta";
  const Examples examples{logits, targets, is_active};
  const int64_t b = examples.b(), m = examples.m();
  FSPARSE_RETURN_IF_ERROR(CheckJacobian(op, examples, sums));
  FSPARSE_RETURN_IF_ERROR(
      CheckSizes(op, {{"ct.shape[0]", ct.dimensions()[0], b},
                      {"delta.shape[0]", delta->dimensions()[0], b},
                      {"delta.shape[1]", delta->dimensions()[1], m}}));
  const Kernels& kernels = *Dispatch();
  const float* scales = ct.typed_data();
  const float* sum = sums.typed_data();
  float* out = delta->typed_data();
  ForExamples(pool, examples, [&](int64_t i) {
    const Example example = examples[i];
    const int64_t count = example.NumLabels();
    float* row = out + i * m;
    if (count == 0) return std::fill_n(row, m, 0.0f), void();
    kernels.scaled_exp(example.logits, example.is_active, m, sum[2 * i],
                       OrZero(scales[i], sum[2 * i + 1]), row);
    example.ForLabels([&](int32_t t) { row[t] -= scales[i] / count; });
  });
  return ffi::Error::Success();
}

// slope[i] = d loss[i] / d logits[i, :] . direction[i, :].
ffi::Error SoftmaxSlope(ffi::ThreadPool pool, F32R2 direction, F32R2 logits,
                        S32R2 targets, Mask is_active, F32R2 sums,
                        ffi::ResultBufferR1<ffi::F32> slope) {
  const char* op = "fsparse_softmax_slope";
  const Examples examples{logits, targets, is_active};
  const int64_t b = examples.b(), m = examples.m();
  FSPARSE_RETURN_IF_ERROR(CheckJacobian(op, examples, sums));
  FSPARSE_RETURN_IF_ERROR(
      CheckSizes(op, {{"direction.shape[0]", direction.dimensions()[0], b},
                      {"direction.shape[1]", direction.dimensions()[1], m},
                      {"slope.shape[0]", slope->dimensions()[0], b}}));
  const Kernels& kernels = *Dispatch();
  const float* directions = direction.typed_data();
  const float* sum = sums.typed_data();
  float* out = slope->typed_data();
  ForExamples(pool, examples, [&](int64_t i) {
    const Example example = examples[i];
    const int64_t count = example.NumLabels();
    const float* own = directions + i * m;
    if (count == 0) return void(out[i] = 0.0f);
    const float dot =
        kernels.dot_exp(example.logits, own, example.is_active, m, sum[2 * i]);
    float labels = 0.0f;
    example.ForLabels([&](int32_t t) { labels += own[t]; });
    out[i] = OrZero(dot, sum[2 * i + 1]) - labels / count;
  });
  return ffi::Error::Success();
}

#define FSPARSE_EXAMPLES_ARGS             \
  Arg<F32R2>(/*logits: f32[b, m]*/)       \
      .Arg<S32R2>(/*targets: i32[b, l]*/) \
      .Arg<Mask>(/*is_active: pred[b or 1, m]*/)

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseSoftmaxLoss, SoftmaxLoss,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .FSPARSE_EXAMPLES_ARGS.Ret<F32R1>(/*loss: f32[b]*/)
                                  .Ret<F32R2>(/*sums: f32[b, 2]*/));

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseSoftmaxDelta, SoftmaxDelta,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<F32R1>(/*ct: f32[b]*/)
                                  .FSPARSE_EXAMPLES_ARGS.Arg<F32R2>(/*sums: f32[b, 2]*/)
                                  .Ret<F32R2>(/*delta: f32[b, m]*/));

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseSoftmaxSlope, SoftmaxSlope,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<F32R2>(/*direction: f32[b, m]*/)
                                  .FSPARSE_EXAMPLES_ARGS.Arg<F32R2>(/*sums: f32[b, 2]*/)
                                  .Ret<F32R1>(/*slope: f32[b]*/));

}  // namespace fsparse
