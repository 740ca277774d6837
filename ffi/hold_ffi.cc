// Passes its first operands through, in place. The others are not looked at: XLA
// computes them before, and so orders what it would else leave open.
#include <algorithm>
#include <cstring>
#include <string>

#include "handlers.h"

namespace fsparse {
namespace {

bool SameShape(ffi::AnyBuffer::Dimensions a, ffi::AnyBuffer::Dimensions b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

ffi::Error Hold(ffi::RemainingArgs operands, ffi::RemainingRets results) {
  for (size_t i = 0; i < results.size(); ++i) {
    const auto operand = operands.get<ffi::AnyBuffer>(i);
    auto result = results.get<ffi::AnyBuffer>(i);
    if (!operand.has_value() || !result.has_value()) {
      return ffi::Error::InvalidArgument(
          "fsparse_hold: there must be an operand for each result; got fewer.");
    }
    if (operand->element_type() != (*result)->element_type() ||
        !SameShape(operand->dimensions(), (*result)->dimensions())) {
      return ffi::Error::InvalidArgument(
          "fsparse_hold: each result must have the type of its operand; result " +
          std::to_string(i) + " has another.");
    }
    void* to = (*result)->untyped_data();
    if (operand->untyped_data() != to)
      std::memcpy(to, operand->untyped_data(), operand->size_bytes());
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    FsparseHold, Hold,
    ffi::Ffi::Bind().RemainingArgs(/*held, until*/).RemainingRets(/*held, aliased*/));

}  // namespace fsparse
