// Every kernel of the level that FSPARSE_CPU_LEVEL asks for, against loops over
// doubles. Prints the level and how many numbers were compared; 1 if one differs, 3 if
// the CPU lacks the level.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "kernels.h"

namespace {

using fsparse::Element;
using fsparse::Kernels;
using fsparse::RowsAre;
using Floats = std::vector<float>;
using Ids = std::vector<int32_t>;

const Kernels* kernels;
int64_t num_compared = 0, num_wrong = 0;

void Expect(const char* what, double got, double want, double tolerance) {
  ++num_compared;
  if (std::fabs(got - want) <= tolerance * (1 + std::fabs(want))) return;
  if (++num_wrong < 20) std::printf("%s: got %.9g, want %.9g\n", what, got, want);
}

void ExpectAll(const char* what, const Floats& got, const Floats& want) {
  for (size_t i = 0; i < want.size(); ++i) Expect(what, got[i], want[i], 1e-4);
}

uint32_t NextRandom() {
  static uint32_t state = 1;
  return state = state * 1664525u + 1013904223u;
}

Floats Random(int64_t count) {
  Floats x(count);
  for (float& v : x) v = static_cast<float>(NextRandom() >> 8) / (1 << 23) - 1;
  return x;
}

std::vector<uint16_t> Narrow(const Floats& x) {
  std::vector<uint16_t> bits(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    uint32_t wide;
    std::memcpy(&wide, &x[i], sizeof(wide));
    bits[i] = static_cast<uint16_t>(wide >> 16);
  }
  return bits;
}

float Widen(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float x;
  std::memcpy(&x, &wide, sizeof(x));
  return x;
}

// A table and what its elements are as floats, with ids of which some are padding.
struct Table {
  int64_t n, d;
  Element element;
  Floats wide;
  std::vector<uint16_t> half;
  Ids ids;

  Table(int64_t n, int64_t d, Element element)
      : n(n), d(d), element(element), wide(Random(n * d)), half(Narrow(wide)) {
    for (int64_t i = 0; i < n; ++i) {
      ids.push_back(static_cast<int32_t>(NextRandom() % (n + 2)) - 1);
    }
    for (size_t i = 0; element == Element::kBf16 && i < wide.size(); ++i) {
      wide[i] = Widen(half[i]);
    }
  }

  fsparse::Rows rows(bool by_id) const {
    const void* data = element == Element::kBf16
                           ? static_cast<const void*>(half.data())
                           : static_cast<const void*>(wide.data());
    return {data, d, by_id ? ids.data() : nullptr, n, element};
  }
  bool IsRow(int64_t r, bool by_id) const {
    return !by_id || (ids[r] >= 0 && ids[r] < n);
  }
  double At(int64_t r, int64_t c, bool by_id) const {
    return IsRow(r, by_id) ? wide[(by_id ? ids[r] : r) * d + c] : 0;
  }
};

double Dot(const float* x, const Table& w, int64_t r, bool by_id) {
  double sum = 0;
  for (int64_t c = 0; c < w.d; ++c) sum += x[c] * w.At(r, c, by_id);
  return sum;
}

void CheckRows(const Table& w, bool by_id) {
  const Floats x = Random(7 * w.d), v = Random(w.n);
  Floats y(w.n), z(w.d);
  kernels->dot_rows(x.data(), w.rows(by_id), 1, w.n - 1, w.d, y.data());
  for (int64_t j = 0; j + 1 < w.n; ++j) {
    Expect("dot_rows", y[j], Dot(x.data(), w, j + 1, by_id), 1e-4);
  }
  kernels->sum_rows(v.data(), w.rows(by_id), w.n, w.d, z.data());
  for (int64_t c = 0; c < w.d; ++c) {
    double want = 0;
    for (int64_t j = 0; j < w.n; ++j) want += v[j] * w.At(j, c, by_id);
    Expect("sum_rows", z[c], want, 1e-4);
  }
  Floats scores(7 * w.n);
  kernels->scan_rows(x.data(), 7, w.rows(by_id), 1, w.n - 1, w.d, scores.data(), w.n);
  for (int64_t i = 0; i < 7; ++i) {
    for (int64_t j = 0; j + 1 < w.n; ++j) {
      if (!w.IsRow(j + 1, by_id)) continue;
      const double want = Dot(x.data() + i * w.d, w, j + 1, by_id);
      Expect("scan_rows", scores[i * w.n + j], want, 1e-4);
    }
  }
}

fsparse::Product Gemm() {
  return {kernels->tile_m,      kernels->tile_n,         kernels->max_block_m,
          kernels->max_block_n, kernels->scratch_floats, kernels->gemm};
}

void CheckProduct(const fsparse::Product& product, const Table& w, bool by_id) {
  constexpr int64_t kM = 17;
  const Floats x = Random(kM * w.d), v = Random(kM * w.n);
  const int64_t n = std::min(w.n, product.max_block_n);
  const int64_t d = std::min(w.d, product.max_block_n);
  Floats scratch(product.scratch_floats), out(kM * n), sums(kM * d);
  product.run({{x.data(), w.d}, RowsAre::kOuter}, {w.rows(by_id), RowsAre::kOuter},
              {0, kM, 0, n, w.d}, out.data(), n, scratch.data());
  product.run({{v.data(), w.n}, RowsAre::kOuter}, {w.rows(by_id), RowsAre::kDepth},
              {0, kM, 0, d, w.n}, sums.data(), d, scratch.data());
  for (int64_t i = 0; i < kM; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      const double want = Dot(x.data() + i * w.d, w, j, by_id);
      Expect("product by rows", out[i * n + j], want, 1e-4);
    }
    for (int64_t c = 0; c < d; ++c) {
      double want = 0;
      for (int64_t j = 0; j < w.n; ++j) want += v[i * w.n + j] * w.At(j, c, by_id);
      Expect("product by depth", sums[i * d + c], want, 1e-4);
    }
  }
}

void CheckInt8(int64_t n, int64_t d) {
  const Floats x = Random(3 * d), scale = Random(n);
  std::vector<int16_t> values(3 * d);
  Floats of_x(3);
  for (int64_t i = 0; i < 3; ++i) {
    const float* row = x.data() + i * d;
    of_x[i] = kernels->quantize_row(row, d, values.data() + i * d);
    float most = 0;
    for (int64_t c = 0; c < d; ++c) most = std::fmax(most, std::fabs(row[c]));
    for (int64_t c = 0; c < d; ++c) {
      const float want = row[c] * (32767 / most);
      Expect("quantize_row", values[i * d + c], std::nearbyint(want), 0);
    }
    Expect("quantize_row", of_x[i], most * (1.0f / 32767), 0);
  }
  std::vector<int8_t> w(n * d);
  for (int8_t& v : w) v = static_cast<int8_t>(NextRandom() % 255 - 127);
  Floats y(3 * n);
  kernels->scan_int8({values.data(), of_x.data()}, 3, {w.data(), d}, scale.data(), 0, n,
                     d, y.data(), n);
  for (int64_t i = 0; i < 3; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      float total = 0;
      for (int64_t c = 0; c < d;) {
        int64_t sum = 0;
        for (const int64_t end = std::min(d, c + 512); c < end; ++c) {
          sum += int64_t{values[i * d + c]} * w[j * d + c];
        }
        total += static_cast<float>(sum);
      }
      Expect("scan_int8", y[i * n + j], total * of_x[i] * scale[j], 0);
    }
  }
}

void CheckSums(int64_t d) {
  const Floats x = Random(4 * d), scale = Random(12);
  const Ids occurrences{1, 4, 5, 11}, source{0, 3, 1, 2, 2, 0, 1, 3, 0, 0, 1, 2};
  Floats outer(d), sums(d), want_outer(d), want_sums(d);
  kernels->sum_outer(occurrences.data(), 4, scale.data(), x.data(), 3, d, outer.data());
  kernels->sum_occurrences(occurrences.data(), 4, scale.data(), source.data(), x.data(),
                           d, sums.data());
  double norm = 0;
  for (int64_t c = 0; c < d; ++c) {
    for (const int32_t o : occurrences) {
      want_outer[c] += scale[o] * x[o / 3 * d + c];
      want_sums[c] += scale[o] * x[source[o] * d + c];
    }
    norm += double{x[c]} * x[c];
  }
  ExpectAll("sum_outer", outer, want_outer);
  ExpectAll("sum_occurrences", sums, want_sums);
  Expect("squared_norm", kernels->squared_norm(x.data(), d), norm, 1e-4);
}

// Runs an optimizer on a row and its moments, and want(w, moment 1, moment 2, g) on
// each element.
template <typename Want>
void CheckUpdate(const char* what, fsparse::RowUpdate* update, int64_t d, int moments,
                 const Floats& hyper, const Want& want) {
  std::vector<Floats> rows{Random(d), Random(d), Random(d)};
  for (float& v : rows[2]) v = std::fabs(v);
  if (moments == 1) rows[1] = rows[2];
  const Floats g = Random(d);
  std::vector<Floats> expected = rows;
  for (int64_t c = 0; c < d; ++c) {
    want(expected[0][c], expected[1][c], expected[2][c], g[c]);
  }
  float* pointers[] = {rows[0].data(), rows[1].data(), rows[2].data()};
  update(pointers, g.data(), d, hyper.data());
  for (int i = 0; i <= moments; ++i) ExpectAll(what, rows[i], expected[i]);
}

void CheckOptimizers(int64_t d) {
  const float lr = 0.1f, wd = 0.01f, eps = 1e-3f;
  CheckUpdate(
      "sgd_row", kernels->sgd_row, d, 0, {lr, wd},
      [&](float& w, float&, float&, float g) { w = (1 - lr * wd) * w - lr * g; });
  CheckUpdate("momentum_row", kernels->momentum_row, d, 1, {lr, 0.9f, 1, wd},
              [&](float& w, float& trace, float&, float g) {
                trace = 0.9f * trace + g;
                w = (1 - lr * wd) * w - lr * (g + 0.9f * trace);
              });
  CheckUpdate("adagrad_row", kernels->adagrad_row, d, 1, {lr, eps, wd},
              [&](float& w, float& acc, float&, float g) {
                acc += g * g;
                w = (1 - lr * wd) * w - lr * g / (std::sqrt(acc) + eps);
              });
  CheckUpdate("adam_row", kernels->adam_row, d, 2,
              {lr, 0.9f, 0.99f, eps, 0.5f, 0.2f, wd},
              [&](float& w, float& mu, float& nu, float g) {
                mu = 0.9f * mu + 0.1f * g;
                nu = 0.99f * nu + 0.01f * g * g;
                w = (1 - lr * wd) * w - lr * mu / 0.5f / (std::sqrt(nu / 0.2f) + eps);
              });
}

void CheckRowwiseAdagrad(int64_t d) {
  const Floats g = Random(d), hyper{0.1f, 1e-3f, 0.01f};
  Floats w = Random(d), acc{0.5f};
  double mean = 0;
  for (const float v : g) mean += double{v} * v / d;
  Floats want = w;
  for (int64_t c = 0; c < d; ++c) {
    want[c] = 0.999f * w[c] - 0.1f * g[c] / (std::sqrt(0.5 + mean) + 1e-3);
  }
  float* rows[] = {w.data(), acc.data()};
  kernels->rowwise_adagrad_row(rows, g.data(), d, hyper.data());
  ExpectAll("rowwise_adagrad_row", w, want);
  Expect("rowwise_adagrad_row", acc[0], 0.5 + mean, 1e-5);
}

void CheckCatchUp(int64_t d) {
  const Floats history{0.1f, 1, 0.2f, 2, 0.3f, 3, 0.4f, 4};
  const fsparse::MissedSteps missed{history.data(), 4,    3,    2,    0.9f, 0.99f,
                                    1e-3f,          0.8f, 0.7f, 0.6f, 0.5f};
  Floats w = Random(d), mu = Random(d), nu = Random(d);
  for (float& v : nu) v = std::fabs(v);
  Floats want = w, want_mu = mu, want_nu = nu;
  for (int64_t c = 0; c < d; ++c) {
    double m = 0.8 * mu[c], root = std::sqrt(0.7 * nu[c]);
    for (const int slot : {3, 0}) {
      m *= 0.9;
      root *= 0.99;
      want[c] -= history[2 * slot] * m / (root * history[2 * slot + 1] + 1e-3);
    }
    want_mu[c] = m * 0.6;
    want_nu[c] = nu[c] * 0.5;
  }
  float* rows[] = {w.data(), mu.data(), nu.data()};
  kernels->adam_catch_up_row(rows, d, missed);
  ExpectAll("adam_catch_up_row w", w, want);
  ExpectAll("adam_catch_up_row mu", mu, want_mu);
  ExpectAll("adam_catch_up_row nu", nu, want_nu);
}

void CheckRounding(int64_t d) {
  const Floats x = Random(d);
  const uint32_t seed[] = {3, 5};
  std::vector<uint16_t> half(d), again(d);
  Floats wide(d);
  kernels->round_row(x.data(), d, {seed, 7, 0}, half.data());
  kernels->widen_row(half.data(), d, wide.data());
  kernels->round_row(wide.data(), d, {seed, 8, 1}, again.data());
  for (int64_t c = 0; c < d; ++c) {
    Expect("widen_row", wide[c], Widen(half[c]), 0);
    Expect("round_row", wide[c], x[c], std::fabs(x[c]) / 64);
    Expect("round_row of what fits", again[c], half[c], 0);
  }
}

void CheckSigns(int64_t d) {
  Floats x = Random(d);
  std::vector<uint8_t> bits(2 * ((d + 15) / 16));
  kernels->pack_signs(x.data(), d, bits.data());
  for (int64_t c = 0; c < d; ++c) {
    Expect("pack_signs", bits[c / 8] >> c % 8 & 1, x[c] > 0, 0);
  }
  Expect("all_finite", kernels->all_finite(x.data(), d), 1, 0);
  x[d - 1] = INFINITY;
  Expect("all_finite", kernels->all_finite(x.data(), d), 0, 0);
}

void CheckRotation(int64_t n) {
  Floats y(n), signs(3 * n);
  const Floats x = Random(n);
  for (float& s : signs) s = NextRandom() >> 31 ? 1 : -1;
  kernels->rotate(x.data(), signs.data(), n, n, y.data());
  std::vector<double> now(x.begin(), x.end()), next(n);
  for (int pass = 0; pass < 3; ++pass) {
    for (int64_t i = 0; i < n; ++i) {
      next[i] = 0;
      for (int64_t j = 0; j < n; ++j) {
        const double term = signs[pass * n + j] * now[j];
        next[i] += __builtin_parityll(i & j) ? -term : term;
      }
    }
    now = next;
  }
  for (int64_t i = 0; i < n; ++i) Expect("rotate", y[i], now[i], 1e-3);
}

void CheckTopK(int64_t n, int64_t k) {
  Floats scores(n), best(k, -INFINITY);
  for (float& s : scores) s = static_cast<float>(NextRandom() % 50);
  scores[n / 2] = NAN;
  Ids ids(k, -1), order;
  kernels->merge_top_k(scores.data(), n / 3, 0, k, best.data(), ids.data());
  kernels->merge_top_k(scores.data() + n / 3, n - n / 3, static_cast<int32_t>(n / 3), k,
                       best.data(), ids.data());
  for (int32_t i = 0; i < n; ++i) {
    if (scores[i] == scores[i]) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  for (int64_t r = 0; r < k; ++r) {
    const bool is_there = r < static_cast<int64_t>(order.size());
    Expect("merge_top_k", ids[r], is_there ? order[r] : -1, 0);
    if (is_there) Expect("merge_top_k", best[r], scores[order[r]], 0);
  }
}

template <typename Count>
void CheckCounters(const fsparse::CounterKernels<Count>& counting) {
  constexpr int64_t kLine = fsparse::kLineRows;
  std::vector<Count> counters(90 * kLine);
  for (Count& c : counters) c = static_cast<Count>(NextRandom() >> 24);
  Ids lines, rows(counters.size() + kLine), want;
  for (int32_t l = 0; l < 90; l += 1 + l % 3) lines.push_back(l);
  for (const int32_t l : lines) {
    for (int64_t i = l * kLine; i < (l + 1) * kLine; ++i) {
      if (counters[i] >= 200 && counters[i] <= 240)
        want.push_back(static_cast<int32_t>(i));
    }
  }
  const int64_t num_lines = lines.size();
  const int64_t picked =
      counting.pick_between(counters.data(), lines.data(), num_lines, 200, 240,
                            static_cast<int64_t>(rows.size()), rows.data());
  Expect("pick_between", picked, want.size(), 0);
  for (size_t i = 0; i < want.size(); ++i) Expect("pick_between", rows[i], want[i], 0);
  int64_t counts[fsparse::kCountedLevels];
  counting.count_levels(counters.data(), lines.data(), num_lines, Count{200}, counts);
  for (int i = 0; i < fsparse::kCountedLevels; ++i) {
    int64_t found = 0;
    for (const int32_t l : lines) {
      for (int64_t j = l * kLine; j < (l + 1) * kLine; ++j) {
        found += counters[j] >= static_cast<Count>(200 + i);
      }
    }
    Expect("count_levels", counts[i], found, 0);
  }
}

void CheckExp(int64_t m) {
  const Floats x = Random(m), dx = Random(m);
  std::vector<uint8_t> is_active(m);
  for (uint8_t& a : is_active) a = NextRandom() >> 31;
  double most = -INFINITY, sum = 0, dot = 0;
  for (int64_t j = 0; j < m; ++j) {
    if (is_active[j]) most = std::fmax(most, x[j]);
  }
  const double shift = std::isfinite(most) ? most : 0;
  Floats out(m);
  kernels->scaled_exp(x.data(), is_active.data(), m, shift, 3, out.data());
  for (int64_t j = 0; j < m; ++j) {
    const double e = is_active[j] ? std::exp(x[j] - shift) : 0;
    sum += e;
    dot += dx[j] * e;
    Expect("scaled_exp", out[j], 3 * e, 1e-6);
  }
  const fsparse::ExpSum found = kernels->sum_exp(x.data(), is_active.data(), m);
  Expect("sum_exp", found.shift, shift, 0);
  Expect("sum_exp", found.sum, sum, 1e-5);
  Expect("dot_exp", kernels->dot_exp(x.data(), dx.data(), is_active.data(), m, shift),
         dot, 1e-5);
}

void CheckAll() {
  for (const int64_t d : {1, 7, 64, 131}) {
    for (const int64_t n : {1, 5, 300}) {
      for (const Element element : {Element::kF32, Element::kBf16}) {
        const Table table(n, d, element);
        for (const bool by_id : {false, true}) {
          CheckRows(table, by_id);
          CheckProduct(Gemm(), table, by_id);
          CheckProduct(kernels->product, table, by_id);
        }
      }
      CheckInt8(n, d);
    }
    CheckSums(d);
    CheckOptimizers(d);
    CheckRowwiseAdagrad(d);
    CheckCatchUp(d);
    CheckRounding(d);
    CheckSigns(d);
    CheckExp(d);
  }
  CheckInt8(40, 1100);
  for (const int64_t n : {1, 2, 8, 64, 256}) CheckRotation(n);
  for (const int64_t k : {1, 5, 70, 400}) CheckTopK(300, k);
  CheckCounters(kernels->counters_u8);
  CheckCounters(kernels->counters_u16);
  CheckCounters(kernels->counters_u32);
}

}  // namespace

int main() {
  kernels = fsparse::Dispatch();
  if (!kernels) return 3;
  CheckAll();
  std::printf("%s: %lld compared, %lld wrong\n", kernels->name,
              static_cast<long long>(num_compared), static_cast<long long>(num_wrong));
  return num_wrong ? 1 : 0;
}
