// From the signs of projections to the codes that they spell, and probes beside them.
#ifndef FSPARSE_CODES_H_
#define FSPARSE_CODES_H_

#include <cstdint>
#include <string>

#include "flips.h"
#include "handlers.h"
#include "kernels.h"

namespace fsparse {

// Scratch for n signs as bits, and two bytes to spare.
inline int64_t FloatsForSigns(int64_t n) { return n / 32 + 2; }

// The k bits from `first` on of a string of bits that has two bytes to spare.
inline int32_t BitsAt(const uint8_t* bits, int64_t first, int64_t k) {
  const uint8_t* at = bits + first / 8;
  const uint32_t word = at[0] | uint32_t{at[1]} << 8 | uint32_t{at[2]} << 16;
  return static_cast<int32_t>(word >> first % 8 & ((1u << k) - 1));
}

// Writes codes of k bits, in p variants each.
struct CodeWriter {
  const Kernels& kernels;
  const Flips& flips;
  int64_t k, p;

  // probes[tables, p] of margins[tables, k], with FloatsForSigns(tables * k) of
  // scratch.
  void Write(const float* margins, int64_t tables, float* scratch,
             int32_t* probes) const {
    auto* bits = reinterpret_cast<uint8_t*>(scratch);
    kernels.pack_signs(margins, tables * k, bits);
    for (int64_t t = 0; t < tables; ++t) {
      const int32_t code = BitsAt(bits, t * k, k);
      if (p == 1) {
        probes[t] = code;
      } else {
        flips.Probe(margins + t * k, k, code, p, probes + t * p);
      }
    }
  }
};

inline ffi::Error CheckAtMost(const char* op, const char* what, int64_t got,
                              int64_t most) {
  if (got <= most) return ffi::Error::Success();
  return ffi::Error::InvalidArgument(std::string(op) + ": " + what + " must be " +
                                     std::to_string(most) + " or less; got " +
                                     std::to_string(got) + ".");
}

// What the writer asks for; k_is says how the caller's operands spell k.
inline ffi::Error CheckCodes(const char* op, const char* k_is, int64_t k, int64_t p,
                             const ffi::BufferR2<ffi::PRED>& flips) {
  FSPARSE_RETURN_IF_ERROR(CheckAtMost(op, k_is, k, kMaxBits));
  FSPARSE_RETURN_IF_ERROR(CheckAtMost(op, "flips.shape[1]", flips.dimensions()[1], k));
  return CheckAtMost(op, "probes.shape[3]", p, flips.dimensions()[0]);
}

}  // namespace fsparse

#endif  // FSPARSE_CODES_H_
