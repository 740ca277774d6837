// The optimizers' updates of one row, all in f32. kernels.h says what each computes.
#ifndef FSPARSE_OPTIMIZERS_H_
#define FSPARSE_OPTIMIZERS_H_

#include "kernels.h"
#include "rows.h"
#include "simd.h"

namespace fsparse::FSPARSE_LEVEL {

// scale[o] * x[source[o]] of the occurrences o.
struct SourceTerms {
  const int32_t* occurrences;
  const float* scale;
  const int32_t* source;
  const float* x;
  int64_t d;

  Term<float> operator[](int64_t i) const {
    const int64_t at = occurrences[i];
    return {scale[at], x + source[at] * d};
  }
  void Prefetch(int64_t) const {}
};

inline void SumOccurrences(const int32_t* occurrences, int64_t count,
                           const float* scale, const int32_t* source, const float* x,
                           int64_t d, float* g) {
  Clear(g, d);
  AddTerms(0, count, SourceTerms{occurrences, scale, source, x, d}, d, g);
}

inline float SquaredNorm(const float* g, int64_t d) { return Dot(g, g, d); }

inline void SgdRow(float* const* rows, const float* g, int64_t d, const float* hyper) {
  float* __restrict w = rows[0];
  const float learning_rate = hyper[0], keep = 1.0f - hyper[0] * hyper[1];
  for (int64_t c = 0; c < d; ++c) w[c] = keep * w[c] - learning_rate * g[c];
}

inline void MomentumRow(float* const* rows, const float* g, int64_t d,
                        const float* hyper) {
  float* __restrict w = rows[0];
  float* __restrict trace = rows[1];
  const float learning_rate = hyper[0], decay = hyper[1];
  const bool nesterov = hyper[2] != 0.0f;
  const float keep = 1.0f - hyper[0] * hyper[3];
  for (int64_t c = 0; c < d; ++c) {
    trace[c] = decay * trace[c] + g[c];
    const float u = nesterov ? g[c] + decay * trace[c] : trace[c];
    w[c] = keep * w[c] - learning_rate * u;
  }
}

inline void AdagradRow(float* const* rows, const float* g, int64_t d,
                       const float* hyper) {
  float* __restrict w = rows[0];
  float* __restrict acc = rows[1];
  const float learning_rate = hyper[0], eps = hyper[1];
  const float keep = 1.0f - hyper[0] * hyper[2];
  for (int64_t c = 0; c < d; ++c) {
    acc[c] += g[c] * g[c];
    w[c] = keep * w[c] - learning_rate * g[c] / (__builtin_sqrtf(acc[c]) + eps);
  }
}

inline void RowwiseAdagradRow(float* const* rows, const float* g, int64_t d,
                              const float* hyper) {
  float* __restrict w = rows[0];
  float* acc = rows[1];
  if (d > 0) *acc += SquaredNorm(g, d) / static_cast<float>(d);
  const float step = hyper[0] / (__builtin_sqrtf(*acc) + hyper[1]);
  const float keep = 1.0f - hyper[0] * hyper[2];
  for (int64_t c = 0; c < d; ++c) w[c] = keep * w[c] - step * g[c];
}

inline void AdamRow(float* const* rows, const float* g, int64_t d, const float* hyper) {
  float* __restrict w = rows[0];
  float* __restrict mu = rows[1];
  float* __restrict nu = rows[2];
  const float b1 = hyper[1], b2 = hyper[2], eps = hyper[3];
  const float keep = 1.0f - hyper[0] * hyper[6];
  // Of the scale of mu and of nu; one division is left for each element.
  const float alpha = hyper[0] / hyper[4], corr = 1.0f / __builtin_sqrtf(hyper[5]);
  for (int64_t c = 0; c < d; ++c) {
    mu[c] = b1 * mu[c] + (1.0f - b1) * g[c];
    nu[c] = b2 * nu[c] + (1.0f - b2) * (g[c] * g[c]);
    w[c] = keep * w[c] - alpha * mu[c] / (__builtin_sqrtf(nu[c]) * corr + eps);
  }
}

// Columns whose three values stay in registers, or at worst in L1, over all steps; four
// vectors of AVX-512, since a division starts every 16 cycles and takes more than that.
constexpr int64_t kCatchUpColumns = 64;

inline void AdamCatchUpRow(float* const* rows, int64_t d, MissedSteps missed) {
  for (int64_t c0 = 0; c0 < d; c0 += kCatchUpColumns) {
    const int64_t n = Min(kCatchUpColumns, d - c0);
    float *w = rows[0] + c0, *mu = rows[1] + c0, *nu = rows[2] + c0;
    float x[kCatchUpColumns], m[kCatchUpColumns], s[kCatchUpColumns];
    int moves = 0;  // rows never trained, or long ago, have mu = 0
    for (int64_t c = 0; c < n; ++c) {
      x[c] = w[c];
      m[c] = mu[c] * missed.mu_before;
      s[c] = __builtin_sqrtf(nu[c] * missed.nu_before);
      moves |= m[c] != 0.0f;
    }
    int64_t slot = missed.first_slot;
    for (int64_t j = 0; moves && j < missed.num_steps; ++j) {
      const float alpha = missed.history[2 * slot], corr = missed.history[2 * slot + 1];
      slot = slot + 1 < missed.num_slots ? slot + 1 : 0;
      for (int64_t c = 0; c < n; ++c) {
        m[c] *= missed.b1;
        s[c] *= missed.sqrt_b2;
        x[c] -= alpha * m[c] / (s[c] * corr + missed.eps);
      }
    }
    for (int64_t c = 0; c < n; ++c) {
      w[c] = x[c];
      mu[c] = m[c] * missed.mu_after;
      nu[c] *= missed.nu_all;
    }
  }
}

}  // namespace fsparse::FSPARSE_LEVEL

#endif  // FSPARSE_OPTIMIZERS_H_
