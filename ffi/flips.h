// Codes beside a code: which of its bits to flip, the least certain ones first.
#ifndef FSPARSE_FLIPS_H_
#define FSPARSE_FLIPS_H_

#include <cstdint>
#include <vector>

namespace fsparse {

constexpr int64_t kMaxBits = 15;  // of a code

// Sets of ranks: bit r of a set stands for the bit whose |margin| is the r-th smallest,
// from 0 on. A set costs the sum of its margins, added in rising order.
class Flips {
 public:
  // sets[count, ranks], ranks <= kMaxBits.
  Flips(const bool* sets, int64_t count, int64_t ranks);

  // probes[0..p) = code with the p cheapest sets flipped, in rising order of cost; of
  // equal margins the lower bit ranks first, of equal costs the set that comes first.
  // A margin that is not finite costs as much as the largest finite one.
  void Probe(const float* margins, int64_t num_bits, int32_t code, int64_t p,
             int32_t* probes) const;

 private:
  std::vector<uint16_t> sets_;
};

}  // namespace fsparse

#endif  // FSPARSE_FLIPS_H_
