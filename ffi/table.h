// A table of weights, or rows, as an operand: f32 or bf16.
#ifndef FSPARSE_TABLE_H_
#define FSPARSE_TABLE_H_

#include <sstream>

#include "handlers.h"
#include "kernels.h"

namespace fsparse {

// To be checked before anything else is read from `w`.
inline ffi::Error CheckTable(const char* op, const ffi::AnyBuffer& w,
                             const char* what = "w", size_t rank_wanted = 2) {
  const ffi::DataType dtype = w.element_type();
  const size_t rank = w.dimensions().size();
  if ((dtype == ffi::F32 || dtype == ffi::BF16) && rank == rank_wanted) {
    return ffi::Error::Success();
  }
  std::ostringstream message;
  message << op << ": " << what << " must be F32 or BF16 of rank " << rank_wanted
          << "; got " << dtype << " of rank " << rank << ".";
  return ffi::Error::InvalidArgument(message.str());
}

// All rows of a table that has been checked, or those that `ids` picks.
inline Rows TableRows(const ffi::AnyBuffer& w, const int32_t* ids = nullptr) {
  const Element element =
      w.element_type() == ffi::BF16 ? Element::kBf16 : Element::kF32;
  return {w.untyped_data(), w.dimensions()[1], ids, w.dimensions()[0], element};
}

inline int64_t RowBytes(const Rows& rows) {
  return rows.stride * (rows.element == Element::kBf16 ? 2 : 4);
}

}  // namespace fsparse

#endif  // FSPARSE_TABLE_H_
