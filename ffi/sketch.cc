#include "sketch.h"

#include <algorithm>

namespace fsparse {
namespace {

constexpr int64_t kFloatsPerLine = 16;

bool IsCell(const SketchShape& shape, int32_t cell) {
  return cell >= 0 && cell < shape.num_cells;
}

// Cells lie at random places, so those of the next example are asked for. Inlined by
// force: GCC takes a function that only prefetches for one without effect.
template <int kWrite>
__attribute__((always_inline)) inline void Prefetch(const SketchShape& shape,
                                                    const int32_t* cells, int64_t begin,
                                                    int64_t end, const float* table) {
  const int64_t floats = shape.num_blocks * shape.width;
  for (int64_t r = begin; r < end; ++r) {
    if (!IsCell(shape, cells[r])) continue;
    const float* cell = table + (r * shape.num_cells + cells[r]) * floats;
    for (int64_t i = 0; i < floats; i += kFloatsPerLine) {
      __builtin_prefetch(cell + i, kWrite);
    }
    __builtin_prefetch(cell + floats - 1, kWrite);
  }
}

// row = (c, t) of a cell.
void OpenCell(const SketchShape& shape, const float* cell, const float* centre,
              float* row) {
  const int64_t width = shape.width;
  std::copy_n(cell, width, row);
  for (int64_t k = 1; k < shape.num_blocks; ++k) {
    for (int64_t i = 0; i < width; ++i) row[i] += cell[k * width + i];
  }
  for (int64_t i = 1; i < width; ++i) row[i] -= centre[i - 1] * row[0];
}

// out[i] = the sum over rows of scratch[r, i].
void SumOverRows(const float* rows, int64_t num_rows, int64_t width, float* out) {
  std::fill_n(out, width, 0.0f);
  for (int64_t r = 0; r < num_rows; ++r) {
    for (int64_t i = 0; i < width; ++i) out[i] += rows[r * width + i];
  }
}

// Deviations from the mean: `rows` is overwritten. `mean` has room for a row.
void SumOfProducts(float* rows, int64_t num_rows, int64_t width, float* mean,
                   float* moments) {
  SumOverRows(rows, num_rows, width, mean);
  for (int64_t i = 0; i < width; ++i) mean[i] /= static_cast<float>(num_rows);
  const int64_t m = width - 1;
  std::fill_n(moments, 1 + 2 * m, 0.0f);
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

}  // namespace

void AddToSketch(const SketchShape& shape, int64_t num_examples, const int32_t* cells,
                 const float* values, float factor, int64_t begin, int64_t end,
                 float* table) {
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

void QuerySketch(const SketchShape& shape, const float* table, const int32_t* cells,
                 const float* centre, int64_t num_groups, int64_t begin, int64_t end,
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

}  // namespace fsparse
