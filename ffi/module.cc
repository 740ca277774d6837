// The compiled module: a table of handlers, the level they run at, host functions.
#include <nanobind/nanobind.h>

#include "handlers.h"
#include "huge_pages.h"
#include "kernels.h"

namespace nb = nanobind;

namespace fsparse {

void DefineText(nb::module_& m);  // text_module.cc

namespace {

nb::capsule Capsule(XLA_FFI_Handler* handler) {
  return nb::capsule(reinterpret_cast<void*>(handler));
}

nb::dict Registrations() {
  nb::dict table;
  table["fsparse_sampled_matmul"] = Capsule(FsparseSampledMatmul);
  table["fsparse_gather_matmul"] = Capsule(FsparseGatherMatmul);
  table["fsparse_scatter_outer"] = Capsule(FsparseScatterOuter);
  table["fsparse_sgd_rows"] = Capsule(FsparseSgdRows);
  table["fsparse_momentum_rows"] = Capsule(FsparseMomentumRows);
  table["fsparse_adagrad_rows"] = Capsule(FsparseAdagradRows);
  table["fsparse_rowwise_adagrad_rows"] = Capsule(FsparseRowwiseAdagradRows);
  table["fsparse_adam_rows"] = Capsule(FsparseAdamRows);
  table["fsparse_exact_adam_rows"] = Capsule(FsparseExactAdamRows);
  table["fsparse_adam_catch_up"] = Capsule(FsparseAdamCatchUp);
  table["fsparse_sum_squares"] = Capsule(FsparseSumSquares);
  table["fsparse_hold"] = Capsule(FsparseHold);
  table["fsparse_dense_top_k"] = Capsule(FsparseDenseTopK);
  table["fsparse_sampled_top_k"] = Capsule(FsparseSampledTopK);
  table["fsparse_int8_top_k"] = Capsule(FsparseInt8TopK);
  table["fsparse_sampled_int8_top_k"] = Capsule(FsparseSampledInt8TopK);
  table["fsparse_build_buckets"] = Capsule(FsparseBuildBuckets);
  table["fsparse_move_rows"] = Capsule(FsparseMoveRows);
  table["fsparse_insert_entries"] = Capsule(FsparseInsertEntries);
  table["fsparse_vote"] = Capsule(FsparseVote);
  table["fsparse_sketch_update"] = Capsule(FsparseSketchUpdate);
  table["fsparse_sketch_query"] = Capsule(FsparseSketchQuery);
  table["fsparse_first_distinct"] = Capsule(FsparseFirstDistinct);
  table["fsparse_sign_codes"] = Capsule(FsparseSignCodes);
  table["fsparse_hadamard_codes"] = Capsule(FsparseHadamardCodes);
  table["fsparse_sum_examples"] = Capsule(FsparseSumExamples);
  table["fsparse_sampled_grads"] = Capsule(FsparseSampledGrads);
  table["fsparse_fused_softmax_loss"] = Capsule(FsparseFusedSoftmaxLoss);
  table["fsparse_fused_softmax_grads"] = Capsule(FsparseFusedSoftmaxGrads);
  table["fsparse_softmax_loss"] = Capsule(FsparseSoftmaxLoss);
  table["fsparse_softmax_delta"] = Capsule(FsparseSoftmaxDelta);
  table["fsparse_softmax_slope"] = Capsule(FsparseSoftmaxSlope);
  return table;
}

}  // namespace

NB_MODULE(_ffi, m) {
  const Kernels* kernels = Dispatch();
  m.def("registrations", &Registrations);
  m.def("use_huge_pages", &UseHugePages, nb::call_guard<nb::gil_scoped_release>());
  m.attr("cpu_level") = kernels ? kernels->name : "unsupported";
  m.attr("api_version") = nb::make_tuple(XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR);
  DefineText(m);
}

}  // namespace fsparse
