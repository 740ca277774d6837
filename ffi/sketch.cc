#include "sketch.h"

#include <algorithm>

namespace fsparse {
namespace {

constexpr int64_t kFloatsPerLine = 16;

// For functions that are to be compiled again for shapes that the compiler knows.
#define FSPARSE_FORCE_INLINE __attribute__((always_inline)) inline

FSPARSE_FORCE_INLINE bool IsCell(const SketchShape& shape, int32_t cell) {
  return static_cast<uint32_t>(cell) < static_cast<uint64_t>(shape.num_cells);
}

// Cells lie at random places, so those of the next example are asked for. (GCC takes a
// function that only prefetches for one without effect, unless it is inlined.)
template <int kWrite>
FSPARSE_FORCE_INLINE void Prefetch(const SketchShape& shape, const int32_t* cells,
                                   int64_t begin, int64_t end, const float* table) {
  const int64_t floats = shape.num_blocks * shape.width;
  for (int64_t r = begin; r < end; ++r) {
    if (!IsCell(shape, cells[r])) continue;
    const float* cell = table + (r * shape.num_cells + cells[r]) * floats;
    for (int64_t i = 0; i < floats; i += kFloatsPerLine) {
      __builtin_prefetch(cell + i, kWrite);
    }
    if (kFloatsPerLine % floats != 0) __builtin_prefetch(cell + floats - 1, kWrite);
  }
}

// row = (c, t) of a cell.
FSPARSE_FORCE_INLINE void OpenCell(const SketchShape& shape, const float* cell,
                                   const float* centre, float* row) {
  const int64_t width = shape.width;
  for (int64_t i = 0; i < width; ++i) row[i] = cell[i];
  for (int64_t k = 1; k < shape.num_blocks; ++k) {
    for (int64_t i = 0; i < width; ++i) row[i] += cell[k * width + i];
  }
  for (int64_t i = 1; i < width; ++i) row[i] -= centre[i - 1] * row[0];
}

// out[i] = the sum over rows of rows[r, i].
FSPARSE_FORCE_INLINE void SumOverRows(const float* rows, int64_t num_rows,
                                      int64_t width, float* out) {
  for (int64_t i = 0; i < width; ++i) out[i] = 0;
  for (int64_t r = 0; r < num_rows; ++r) {
    for (int64_t i = 0; i < width; ++i) out[i] += rows[r * width + i];
  }
}

// Of deviations from the mean, for which there is room in `mean`.
FSPARSE_FORCE_INLINE void SumOfProducts(const float* rows, int64_t num_rows,
                                        int64_t width, float* mean, float* moments) {
  SumOverRows(rows, num_rows, width, mean);
  for (int64_t i = 0; i < width; ++i) mean[i] /= static_cast<float>(num_rows);
  const int64_t m = width - 1;
  for (int64_t i = 0; i < 1 + 2 * m; ++i) moments[i] = 0;
  for (int64_t r = 0; r < num_rows; ++r) {
    const float* row = rows + r * width;
    const float dc = row[0] - mean[0];
    moments[0] += dc * dc;
    for (int64_t i = 1; i <= m; ++i) {
      const float dt = row[i] - mean[i];
      moments[i] += dc * dt;
      moments[m + i] += dt * dt;
    }
  }
}

FSPARSE_FORCE_INLINE void Add(const SketchShape& shape, int64_t num_examples,
                              const int32_t* cells, const float* values, float factor,
                              int64_t begin, int64_t end, float* table) {
  const int64_t width = shape.width, floats = shape.num_cells * width;
  if (factor != 1.0f) {
    for (int64_t i = begin * floats; i < end * floats; ++i) table[i] *= factor;
  }
  for (int64_t e = 0; e < num_examples; ++e) {
    const int32_t* own = cells + e * shape.num_rows;
    if (e + 1 < num_examples) {
      Prefetch<1>(shape, own + shape.num_rows, begin, end, table);
    }
    for (int64_t r = begin; r < end; ++r) {
      if (!IsCell(shape, own[r])) continue;
      float* cell = table + r * floats + own[r] * width;
      for (int64_t i = 0; i < width; ++i) cell[i] += values[e * width + i];
    }
  }
}

FSPARSE_FORCE_INLINE void Query(const SketchShape& shape, const float* table,
                                const int32_t* cells, const float* centre,
                                int64_t num_groups, int64_t begin, int64_t end,
                                float* scratch, float* sums, float* moments) {
  const int64_t rows = shape.num_rows, width = shape.width, m = width - 1;
  const int64_t floats = shape.num_blocks * width, group = rows / num_groups;
  for (int64_t e = begin; e < end; ++e) {
    const int32_t* own = cells + e * rows;
    if (e + 1 < end) Prefetch<0>(shape, own + rows, 0, rows, table);
    for (int64_t r = 0; r < rows; ++r) {
      float* row = scratch + r * width;
      if (IsCell(shape, own[r])) {
        const float* cell = table + (r * shape.num_cells + own[r]) * floats;
        OpenCell(shape, cell, centre + e * m, row);
      } else {
        std::fill_n(row, width, 0.0f);
      }
    }
    float* of_groups = sums + e * num_groups * width;
    for (int64_t g = 0; g < num_groups; ++g) {
      SumOverRows(scratch + g * group * width, group, width, of_groups + g * width);
    }
    SumOfProducts(scratch, rows, width, scratch + rows * width,
                  moments + e * (1 + 2 * m));
  }
}

// Whether cells are a count and a sum, which nearly all are.
bool IsPlain(const SketchShape& shape) {
  return shape.num_blocks == 1 && shape.width == 2;
}

SketchShape Plain(const SketchShape& shape) {
  return {shape.num_rows, shape.num_cells, 1, 2};
}

}  // namespace

void AddToSketch(const SketchShape& shape, int64_t num_examples, const int32_t* cells,
                 const float* values, float factor, int64_t begin, int64_t end,
                 float* table) {
  if (IsPlain(shape)) {
    Add(Plain(shape), num_examples, cells, values, factor, begin, end, table);
  } else {
    Add(shape, num_examples, cells, values, factor, begin, end, table);
  }
}

void QuerySketch(const SketchShape& shape, const float* table, const int32_t* cells,
                 const float* centre, int64_t num_groups, int64_t begin, int64_t end,
                 float* scratch, float* sums, float* moments) {
  if (IsPlain(shape)) {
    Query(Plain(shape), table, cells, centre, num_groups, begin, end, scratch, sums,
          moments);
  } else {
    Query(shape, table, cells, centre, num_groups, begin, end, scratch, sums, moments);
  }
}

}  // namespace fsparse
