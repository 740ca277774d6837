// The XLA FFI handlers, for module.cc to register, and what they share.
#ifndef FSPARSE_HANDLERS_H_
#define FSPARSE_HANDLERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "kernels.h"
#include "xla/ffi/api/ffi.h"

namespace fsparse {

XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseSampledMatmul);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseGatherMatmul);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseScatterOuter);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseSgdRows);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseAdagradRows);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseAdamRows);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseDenseTopK);

namespace ffi = ::xla::ffi;

using F32R1 = ffi::BufferR1<ffi::F32>;
using F32R2 = ffi::BufferR2<ffi::F32>;
using F32R3 = ffi::BufferR3<ffi::F32>;
using S32R2 = ffi::BufferR2<ffi::S32>;

// Python has checked the shapes with names and values. This is the second line of
// defence, for calls that did not come through fsparse.
inline ffi::Error CheckSize(const char* what, int64_t got, int64_t expected) {
  if (got == expected) return ffi::Error::Success();
  return ffi::Error::InvalidArgument(std::string("fsparse: ") + what + " must be " +
                                     std::to_string(expected) + "; got " +
                                     std::to_string(got) + ".");
}

#define FSPARSE_RETURN_IF_ERROR(expr)                       \
  if (ffi::Error error = (expr); error.failure()) return error

// Scratch of the calling thread, grown to `floats` and kept.
inline float* Scratch(int64_t floats) {
  thread_local std::vector<float> scratch;
  if (static_cast<int64_t>(scratch.size()) < floats) scratch.resize(floats);
  return scratch.data();
}

}  // namespace fsparse

#endif  // FSPARSE_HANDLERS_H_
