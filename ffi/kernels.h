// The kernels' interface: plain pointers and sizes, no Python, no XLA, no threads.
//
// Every function here has one implementation (gemm.h, rows.h, topk.h) that kernels.cc
// compiles once for each instruction set; `Dispatch()` returns the set to use. For a
// given set the bits of a result never depend on how the caller splits the work.
#ifndef FSPARSE_KERNELS_H_
#define FSPARSE_KERNELS_H_

#include <cstdint>

namespace fsparse {

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
};

// An operand of a product, indexed by (outer, depth), where depth is summed over.
// kOuter: a row is one outer index (x in x @ w.T); kDepth: a row is one depth index.
enum class RowsAre { kOuter, kDepth };
struct Operand {
  Rows rows;
  RowsAre rows_are;
};

// A block [i0, i0 + m) x [j0, j0 + n) of a product whose summed dimension is `depth`.
struct Block {
  int64_t i0, m, j0, n, depth;
};

struct AdamConstants {
  float learning_rate, b1, b2, eps;
  float bias1, bias2;  // 1 - b1^t and 1 - b2^t
};

struct Kernels {
  const char* name;

  // Gemm works in tiles of tile_m x tile_n, takes blocks of at most max_block_m x
  // max_block_n, and needs scratch_floats of scratch.
  int64_t tile_m, tile_n, max_block_m, max_block_n, scratch_floats;

  // out[i - i0, j - j0] = sum_p a(i, p) * b(j, p) for the block; ldc: row stride of
  // out. Where an id of b is out of range, its outer index gets 0, its depth index adds
  // nothing, whatever a holds (NaN included).
  void (*gemm)(Operand a, Operand b, Block block, float* out, int64_t ldc,
               float* scratch);

  // y[j] = x . rows[first + j] for j < k.
  void (*dot_rows)(const float* x, Rows rows, int64_t first, int64_t k, int64_t d,
                   float* y);

  // z[:] = sum_j v[j] * rows[j], over the j whose id is in range.
  void (*sum_rows)(const float* v, Rows rows, int64_t k, int64_t d, float* z);

  // g[:] = sum over `occurrences` o of scale[o] * x[o / k, :]; scale may be
  // nullptr, for ones.
  void (*sum_outer)(const int32_t* occurrences, int64_t count, const float* scale,
                    const float* x, int64_t k, int64_t d, float* g);

  // w -= learning_rate * g.
  void (*sgd_row)(float* w, const float* g, int64_t d, float learning_rate);

  // acc += g^2;  w -= learning_rate * g / (sqrt(acc) + eps).
  void (*adagrad_row)(float* w, float* acc, const float* g, int64_t d,
                      float learning_rate, float eps);

  // mu = b1 mu + (1 - b1) g;  nu = b2 nu + (1 - b2) g^2;
  // w -= learning_rate * (mu / bias1) / (sqrt(nu / bias2) + eps).
  void (*adam_row)(float* w, float* mu, float* nu, const float* g, int64_t d,
                   AdamConstants c);

  // Merges scores[0..n), which belong to ids first_id, first_id + 1, ..., into a list
  // of the k best kept in descending order; of equal scores the first seen stays ahead.
  // Scores that are NaN or -inf are never taken.
  void (*merge_top_k)(const float* scores, int64_t n, int32_t first_id, int64_t k,
                      float* best_scores, int32_t* best_ids);
};

// The kernels for this CPU, or those that the environment variable FSPARSE_CPU_LEVEL
// (baseline, avx2, avx512) asks for. nullptr if it asks for what the CPU lacks.
const Kernels* Dispatch();

}  // namespace fsparse

#endif  // FSPARSE_KERNELS_H_
