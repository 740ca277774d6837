// The kernels' interface: plain pointers and sizes, no Python, no XLA, no threads.
//
// Every function here has one implementation (gemm.h, amx_gemm.h, amx_grads.h, rows.h,
// scan.h, int8.h, topk.h, optimizers.h, rounding.h, counters.h, signs.h, hadamard.h,
// softmax.h) that kernels.cc compiles once for each instruction set; `Dispatch()`
// returns the set to use. For a given set the bits of a result never depend on how the
// caller splits the work.
#ifndef FSPARSE_KERNELS_H_
#define FSPARSE_KERNELS_H_

#include <cstdint>

namespace fsparse {

constexpr int64_t kBytesPerLine = 64;
constexpr int kIntoL2 = 2;  // of __builtin_prefetch

// What a matrix is made of. bf16 is widened to f32 as it is read: results are those of
// the f32 matrix of the same values, bit for bit.
enum class Element { kF32, kBf16 };

// Rows of a row-major matrix, optionally picked by id. Row r is
//   ids == nullptr ? data[r, :] : (0 <= ids[r] < num_rows ? data[ids[r], :] : 0).
struct Rows {
  const void* data;
  int64_t stride;                // elements between consecutive rows
  const int32_t* ids = nullptr;  // row ids, or all rows in order
  int64_t num_rows = 0;          // rows of data; used with ids
  Element element = Element::kF32;
  int64_t num_ids = 0;  // those that may be looked at ahead of what is asked for
};

constexpr int kAllParts = 3;  // bf16 parts that hold all bits of an f32

// An operand of a product, indexed by (outer, depth), where depth is summed over.
// kOuter: a row is one outer index (x in x @ w.T); kDepth: a row is one depth index.
enum class RowsAre { kOuter, kDepth };
struct Operand {
  Rows rows;
  RowsAre rows_are;
  int parts = kAllParts;  // bf16 parts of an f32 that are multiplied, or 1: the nearest
};

// A block [i0, i0 + m) x [j0, j0 + n) of a product whose summed dimension is `depth`.
struct Block {
  int64_t i0, m, j0, n, depth;
};

// Updates rows[0], a row of the table, and rows[1], ..., those of its moments, by the
// gradient g and the hyper-parameters that the optimizer's handler lists.
using RowUpdate = void(float* const* rows, const float* g, int64_t d,
                       const float* hyper);

// Steps of Adam that a row missed, because its gradient was 0: see adam_catch_up_row.
struct MissedSteps {
  const float* history;  // [num_slots, 2], a ring of (alpha, corr), one for each step
  int64_t num_slots, first_slot, num_steps;
  float b1, sqrt_b2, eps;
  float mu_before, nu_before;  // decay over the steps that the ring forgot
  float mu_after;              // decay over the steps whose terms are too small to add
  float nu_all;                // decay over all of these
};

// What the random bits of a row are a hash of: see rounding.h.
struct RoundingKey {
  const uint32_t* seed;  // [2]
  uint32_t row, slot;    // slot: 0 for a table, 1, 2, ... for its moments
};

// sum = sum_j e^(x[j] - shift), where the shift is the largest x[j], or 0 if infinite.
struct ExpSum {
  float shift, sum;
};

// Examples of whole numbers, each times a scale.
struct Int8Examples {
  const int16_t* values;  // [b, d]
  const float* scale;     // [b]
};

// Counters of rows, [num_rows rounded up to whole lines]. Only the lines listed, by
// rising number, are looked at.
constexpr int32_t kLineRows = 64;
constexpr int kCountedLevels = 4;
template <typename Count>
struct CounterKernels {
  // counts[i] = how many counters are at least first + i, for i < kCountedLevels.
  void (*count_levels)(const Count* counters, const int32_t* lines, int64_t num_lines,
                       Count first, int64_t* counts);
  // Writes the rows whose counters lie in [least, most], rising, and returns how many.
  // Stops after the line in which `limit` is reached: fewer than kLineRows too many.
  int64_t (*pick_between)(const Count* counters, const int32_t* lines,
                          int64_t num_lines, Count least, Count most, int64_t limit,
                          int32_t* rows);
};

// A blocked product: it works in tiles of tile_m x tile_n, takes blocks of at most
// max_block_m x max_block_n, and needs scratch_floats of scratch.
struct Product {
  int64_t tile_m, tile_n, max_block_m, max_block_n, scratch_floats;
  void (*run)(Operand a, Operand b, Block block, float* out, int64_t ldc,
              float* scratch);
};

// Both gradients of logits y[i, j] = x[i] . w[j], by their cotangent v, for a slice of
// w's ids: z[i] = sum_j v[i, j] w[j] is what the slice adds to that of x, and
// rows[j] = sum_i v[i, j] x[i] are its own, 0 for padding.
struct GradSlice {
  const float* v;
  int64_t stride;  // elements between consecutive rows of v
  const float* x;  // [b, d]
  const float* packed_x;
  const uint32_t* bad_x;
  Rows w;
  int64_t b, m, d;
  float* z;                // [b, d]
  float* rows;             // [m, d]
  uint32_t* bad_examples;  // scratch, [b / 32 rounded up]
  int parts;               // of all operands
};

// How a level computes them for d <= max_width, if it has a better way than two
// products; else `run` is nullptr. x is packed once, for all slices, and has a bit for
// each column in `bad`, [max_width / 32], which begins as zeros.
struct ProductGrads {
  int64_t max_width, scratch_floats;
  int64_t (*packed_floats)(int64_t b, int64_t d);
  void (*pack)(const float* x, int64_t b, int64_t d, int parts, float* packed,
               uint32_t* bad);
  void (*run)(const GradSlice& slice, float* scratch);
};

struct Kernels {
  const char* name;

  // What gemm computes, as fast as the level can: sums run in an order of its own, with
  // an error like that of f32 (and up to 6 x 2^-126 for each term, at the level amx, or
  // that of rounding to bf16, with operands of 1 part), and an element's bits depend on
  // its rows alone.
  Product product;

  // z and rows of a GradSlice, as exact as products are.
  ProductGrads product_grads;

  // Gemm's tiles, blocks and scratch, as of a product. Its sums run over p in order,
  // one fused multiply-add at a time.
  int64_t tile_m, tile_n, max_block_m, max_block_n, scratch_floats;

  // out[i - i0, j - j0] = sum_p a(i, p) * b(j, p) for the block; ldc: row stride of
  // out. Where an id of b is out of range, its outer index gets 0, its depth index adds
  // nothing, whatever a holds (NaN included).
  void (*gemm)(Operand a, Operand b, Block block, float* out, int64_t ldc,
               float* scratch);

  // y[j] = x . rows[first + j] for j < k.
  void (*dot_rows)(const float* x, Rows rows, int64_t first, int64_t k, int64_t d,
                   float* y);

  // y[i * stride + j] = x[i, :] . rows[first + j] for i < b, j < k, best for a few
  // examples. Undefined where an id is out of range; there must be a row then.
  void (*scan_rows)(const float* x, int64_t b, Rows rows, int64_t first, int64_t k,
                    int64_t d, float* y, int64_t stride);

  // values[:] = x / scale, rounded; returns the scale: see int8.h.
  float (*quantize_row)(const float* x, int64_t d, int16_t* values);

  // As scan_rows, for rows of int8 with a scale for each row of the data.
  void (*scan_int8)(Int8Examples x, int64_t b, Rows rows, const float* scale,
                    int64_t first, int64_t k, int64_t d, float* y, int64_t stride);

  // z[:] = sum_j v[j] * rows[j], over the j whose id is in range.
  void (*sum_rows)(const float* v, Rows rows, int64_t k, int64_t d, float* z);

  // z[:] += v[first + j] * rows[first + j] for j < k, in order: the bits of sum_rows.
  void (*add_rows)(const float* v, Rows rows, int64_t first, int64_t k, int64_t d,
                   float* z);

  // g[:] = sum over `occurrences` o of scale[o] * x[o / k, :]; scale may be
  // nullptr, for ones.
  void (*sum_outer)(const int32_t* occurrences, int64_t count, const float* scale,
                    const float* x, int64_t k, int64_t d, float* g);

  // g[:] = sum over `occurrences` o of scale[o] * x[source[o], :].
  void (*sum_occurrences)(const int32_t* occurrences, int64_t count, const float* scale,
                          const int32_t* source, const float* x, int64_t d, float* g);

  // sum of g^2.
  float (*squared_norm)(const float* g, int64_t d);

  // w = (1 - lr wd) w - lr g;  hyper: lr, wd.
  RowUpdate* sgd_row;

  // trace = decay trace + g;  w = (1 - lr wd) w - lr u  with
  // u = nesterov ? g + decay trace : trace;  hyper: lr, decay, nesterov, wd.
  RowUpdate* momentum_row;

  // acc += g^2;  w = (1 - lr wd) w - lr g / (sqrt(acc) + eps);  hyper: lr, eps, wd.
  RowUpdate* adagrad_row;

  // The same with one accumulator for the row: acc += mean(g^2).
  RowUpdate* rowwise_adagrad_row;

  // mu = b1 mu + (1 - b1) g;  nu = b2 nu + (1 - b2) g^2;
  // w = (1 - lr wd) w - lr (mu / bias1) / (sqrt(nu / bias2) + eps);
  // hyper: lr, b1, b2, eps, bias1 = 1 - b1^t, bias2 = 1 - b2^t, wd.
  RowUpdate* adam_row;

  // What adam_row does with g = 0, over and over: rows are w, mu, nu.
  //   mu *= mu_before;  nu *= nu_before
  //   for each of num_steps slots (alpha, corr) of the ring, from first_slot on:
  //     mu *= b1;  nu *= b2;  w -= alpha mu / (sqrt(nu) corr + eps)
  //   mu *= mu_after;  nu = nu_all * the old nu
  void (*adam_catch_up_row)(float* const* rows, int64_t d, MissedSteps missed);

  // to[c] = from[c], and back with stochastic rounding.
  void (*widen_row)(const uint16_t* from, int64_t d, float* to);
  void (*round_row)(const float* from, int64_t d, RoundingKey key, uint16_t* to);

  // Bit c % 8 of bits[c / 8] is x[c] > 0, for c < n; 2 ceil(n / 16) bytes are written.
  void (*pack_signs)(const float* x, int64_t n, uint8_t* bits);

  // y[0..m) = the first m of H D3 H D2 H D1 x, with H of +-1, unscaled. n is a power of
  // two; y has room for n floats; D1, D2, D3 are signs[3, n] of +-1.
  void (*rotate)(const float* x, const float* signs, int64_t n, int64_t m, float* y);

  // Whether no x[c] is NaN or infinite.
  bool (*all_finite)(const float* x, int64_t n);

  // Merges scores[0..n), which belong to ids first_id, first_id + 1, ..., into a list
  // of the k best kept in descending order; of equal scores the first seen stays ahead.
  // Scores that are NaN or -inf are never taken.
  void (*merge_top_k)(const float* scores, int64_t n, int32_t first_id, int64_t k,
                      float* best_scores, int32_t* best_ids);

  // Over the j < m for which is_active[j]: the sum of e^x[j]; out[j] = scale * e^(x[j]
  // - shift), 0 for the other j; and the sum of dx[j] e^(x[j] - shift).
  ExpSum (*sum_exp)(const float* x, const uint8_t* is_active, int64_t m);
  void (*scaled_exp)(const float* x, const uint8_t* is_active, int64_t m, float shift,
                     float scale, float* out);
  float (*dot_exp)(const float* x, const float* dx, const uint8_t* is_active, int64_t m,
                   float shift);

  CounterKernels<uint8_t> counters_u8;
  CounterKernels<uint16_t> counters_u16;
  CounterKernels<uint32_t> counters_u32;
};

// The kernels for this CPU, or those that the environment variable FSPARSE_CPU_LEVEL
// (baseline, avx2, avx512, amx) asks for. nullptr if it asks for what the CPU lacks.
const Kernels* Dispatch();

}  // namespace fsparse

#endif  // FSPARSE_KERNELS_H_
