// Runs a batch of matrix products, or what needs one, block by block on the pool.
#ifndef FSPARSE_BLOCKS_H_
#define FSPARSE_BLOCKS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "handlers.h"
#include "kernels.h"
#include "parallel_for.h"

namespace fsparse {

// Splits `total` into the fewest parts of at most `most`, equal but for rounding up to
// whole tiles, and returns a part's size.
inline int64_t EvenPart(int64_t total, int64_t most, int64_t tile) {
  const int64_t parts = std::max<int64_t>(1, (total + most - 1) / most);
  const int64_t part = (total + parts - 1) / parts;
  return std::max<int64_t>(tile, (part + tile - 1) / tile * tile);
}

// Blocks wanted for each thread, so that the last ones do not leave a thread idle long.
constexpr int64_t kBlocksPerThread = 4;
// Least sides of a block, in tiles: below, packing costs as much as multiplying.
constexpr int64_t kLeastTiles = 4;

inline int64_t BlocksWanted(ffi::ThreadPool& pool) {
  return kBlocksPerThread * std::max<int64_t>(1, pool.num_threads());
}

// A batch of products [m, n], summed over `depth`.
struct Products {
  int64_t groups, m, n, depth;
};

// Calls fn(g, block) for blocks that cover the products of all groups g, of at most
// block_n columns, which the kernels must be able to take. `Tiles` are those of a
// Product, or of Kernels.
template <typename Tiles, typename Fn>
void ParallelBlocks(ffi::ThreadPool& pool, const Tiles& tiles, Products products,
                    int64_t block_n, const Fn& fn) {
  const auto [groups, m, n, depth] = products;
  const int64_t blocks_n = (n + block_n - 1) / block_n;
  const int64_t most_m = m * groups * blocks_n / BlocksWanted(pool);
  const int64_t block_m =
      EvenPart(m, std::clamp(most_m, kLeastTiles * tiles.tile_m, tiles.max_block_m),
               tiles.tile_m);
  const int64_t blocks_m = (m + block_m - 1) / block_m;
  auto run = [&, m = m, n = n, depth = depth](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t g = t / (blocks_m * blocks_n);
      const int64_t j0 = t / blocks_m % blocks_n * block_n;
      const int64_t i0 = t % blocks_m * block_m;
      fn(g, Block{i0, std::min(block_m, m - i0), j0, std::min(block_n, n - j0), depth});
    }
  };
  ParallelFor(pool, groups * blocks_m * blocks_n,
              GrainFor(2 * std::min(m, block_m) * std::min(n, block_n) * depth), run);
}

// Columns of a block: a product is split by columns first, since the rows of a, which
// every block packs anew, are those that are not gathered.
inline int64_t BlockColumns(ffi::ThreadPool& pool, const Product& product,
                            const Products& products) {
  const auto [groups, m, n, depth] = products;
  const int64_t blocks = groups * ((m + product.max_block_m - 1) / product.max_block_m);
  const int64_t wanted = BlocksWanted(pool);
  const int64_t most = (n * blocks + wanted - 1) / wanted;
  return EvenPart(n,
                  std::clamp(most, kLeastTiles * product.tile_n, product.max_block_n),
                  product.tile_n);
}

// For each g < groups: out(g)[m, n] = product of a(g) and b(g), summed over `depth`.
template <typename OperandA, typename OperandB>
void ParallelGemm(ffi::ThreadPool& pool, const Product& product, Products products,
                  const OperandA& a, const OperandB& b, float* out) {
  const int64_t m = products.m, n = products.n;
  auto run = [&](int64_t g, const Block& block) {
    product.run(a(g), b(g), block, out + (g * m + block.i0) * n + block.j0, n,
                Scratch(product.scratch_floats));
  };
  ParallelBlocks(pool, product, products, BlockColumns(pool, product, products), run);
}

// The same for one product, on the calling thread.
inline void SerialGemm(const Product& product, Operand a, Operand b, int64_t m,
                       int64_t n, int64_t depth, float* out, float* scratch) {
  for (int64_t j0 = 0; j0 < n; j0 += product.max_block_n) {
    for (int64_t i0 = 0; i0 < m; i0 += product.max_block_m) {
      const Block block{i0, std::min(product.max_block_m, m - i0), j0,
                        std::min(product.max_block_n, n - j0), depth};
      product.run(a, b, block, out + i0 * n + j0, n, scratch);
    }
  }
}

// out[g, r, :] = the sum over s of parts[g, s, r, :], in order.
inline void SumSlices(ffi::ThreadPool& pool, const float* parts, int64_t groups,
                      int64_t slices, int64_t rows, int64_t d, float* out) {
  const std::vector<float> ones(slices, 1.0f);
  auto run = [&](int64_t begin, int64_t end) {
    std::fill(out + begin * d, out + end * d, 0.0f);
    for (int64_t k = begin; k < end; ++k) {
      const float* first = parts + (k / rows * slices * rows + k % rows) * d;
      Dispatch()->add_rows(ones.data(), {first, rows * d}, 0, slices, d, out + k * d);
    }
  };
  ParallelFor(pool, groups * rows, GrainFor(slices * d), run);
}

}  // namespace fsparse

#endif  // FSPARSE_BLOCKS_H_
