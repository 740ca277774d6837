// The XLA FFI handlers, for module.cc to register, and what they share.
#ifndef FSPARSE_HANDLERS_H_
#define FSPARSE_HANDLERS_H_

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "kernels.h"
#include "xla/ffi/api/ffi.h"

namespace fsparse {

XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseSampledMatmul);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseGatherMatmul);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseScatterOuter);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseSgdRows);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseMomentumRows);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseAdagradRows);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseRowwiseAdagradRows);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseAdamRows);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseExactAdamRows);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseAdamCatchUp);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseSumSquares);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseDenseTopK);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseSampledTopK);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseInt8TopK);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseSampledInt8TopK);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseBuildBuckets);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseMoveRows);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseInsertEntries);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseVote);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseFirstDistinct);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseSignCodes);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseHadamardCodes);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseSketchUpdate);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseSketchQuery);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseHold);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseSumExamples);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseSampledGrads);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseFusedSoftmaxLoss);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseFusedSoftmaxGrads);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseSoftmaxLoss);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseSoftmaxDelta);
XLA_FFI_DECLARE_HANDLER_SYMBOL(FsparseSoftmaxSlope);

namespace ffi = ::xla::ffi;

using F32R1 = ffi::BufferR1<ffi::F32>;
using F32R2 = ffi::BufferR2<ffi::F32>;
using F32R3 = ffi::BufferR3<ffi::F32>;
using S32R1 = ffi::BufferR1<ffi::S32>;
using S32R2 = ffi::BufferR2<ffi::S32>;
using U32R1 = ffi::BufferR1<ffi::U32>;
using U16R2 = ffi::BufferR2<ffi::U16>;

struct Size {
  const char* what;
  int64_t got, expected;
};

// Python has checked the shapes with names and values. This is the second line of
// defence, for calls that did not come through fsparse.
inline ffi::Error CheckSizes(const char* op, std::initializer_list<Size> sizes) {
  for (const Size& size : sizes) {
    if (size.got == size.expected) continue;
    return ffi::Error::InvalidArgument(std::string(op) + ": " + size.what +
                                       " must be " + std::to_string(size.expected) +
                                       "; got " + std::to_string(size.got) + ".");
  }
  return ffi::Error::Success();
}

// Of products: see Operand.
inline ffi::Error CheckParts(const char* op, int32_t parts) {
  if (parts == 1 || parts == kAllParts) return ffi::Error::Success();
  return ffi::Error::InvalidArgument(std::string(op) + ": num_parts must be 1 or 3; " +
                                     "got " + std::to_string(parts) + ".");
}

#define FSPARSE_RETURN_IF_ERROR(expr) \
  if (ffi::Error error = (expr); error.failure()) return error

// Scratch of the calling thread, grown to `floats` and kept: whole cache lines.
inline float* Scratch(int64_t floats) {
  constexpr int64_t kFloatsPerLine = kBytesPerLine / sizeof(float);
  thread_local std::vector<float> scratch;
  const int64_t room = floats + kFloatsPerLine;
  if (static_cast<int64_t>(scratch.size()) < room) scratch.resize(room);
  const uintptr_t at = reinterpret_cast<uintptr_t>(scratch.data());
  return scratch.data() + (kBytesPerLine - at % kBytesPerLine) / sizeof(float);
}

}  // namespace fsparse

#endif  // FSPARSE_HANDLERS_H_
