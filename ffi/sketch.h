// The table of a Nadaraya-Watson sketch: rows of cells, of which each example has one
// in every row. A cell is a count and sums, for each of a few blocks.
#ifndef FSPARSE_SKETCH_H_
#define FSPARSE_SKETCH_H_

#include <cstdint>

namespace fsparse {

struct SketchShape {
  int64_t num_rows, num_cells, num_blocks;
  int64_t width;  // 1 + m: a count and m sums
};

// For each row r in [begin, end):
//   table[r] *= factor
//   for each of num_examples examples e:  table[r, cells[e, r]] += values[e]
// A cell out of range is none. Blocks are cells of their own here.
void AddToSketch(const SketchShape& shape, int64_t num_examples, const int32_t* cells,
                 const float* values, float factor, int64_t begin, int64_t end,
                 float* table);

// For each example e in [begin, end), with c and t = s - centre[e] c of the count c and
// the sums s that row r has in cell cells[e, r], all blocks together:
//   sums[e, group of r] += (c, t)
//   moments[e] = sum over r of (dc dc, dc dt, dt dt), d from the mean over r
// A cell out of range has zeros. `scratch` holds (num_rows + 1) * width floats.
void QuerySketch(const SketchShape& shape, const float* table, const int32_t* cells,
                 const float* centre, int64_t num_groups, int64_t begin, int64_t end,
                 float* scratch, float* sums, float* moments);

}  // namespace fsparse

#endif  // FSPARSE_SKETCH_H_
