// Passes its first operands through, in place. The others are not looked at: XLA
// computes them before, and so orders what it would else leave open.
#include <cstring>

#include "handlers.h"

namespace fsparse {
namespace {

ffi::Error Hold(ffi::RemainingArgs operands, ffi::RemainingRets results) {
  for (size_t i = 0; i < results.size(); ++i) {
    const auto operand = operands.get<ffi::AnyBuffer>(i);
    auto result = results.get<ffi::AnyBuffer>(i);
    if (!operand.has_value() || !result.has_value()) {
      return ffi::Error::InvalidArgument(
          "fsparse_hold: there must be an operand for each result; got fewer.");
    }
    const int64_t bytes = operand->size_bytes(), size = (*result)->size_bytes();
    FSPARSE_RETURN_IF_ERROR(
        CheckSizes("fsparse_hold", {{"bytes of a result", size, bytes}}));
    void* to = (*result)->untyped_data();
    if (operand->untyped_data() != to) std::memcpy(to, operand->untyped_data(), bytes);
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    FsparseHold, Hold,
    ffi::Ffi::Bind().RemainingArgs(/*held, until*/).RemainingRets(/*held, aliased*/));

}  // namespace fsparse
