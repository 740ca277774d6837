// Compiled once for each instruction set, with FSPARSE_LEVEL naming it.
#include "kernels.h"

#if defined(__AMX_BF16__)
#include "amx_grads.h"
#endif
#include "counters.h"
#include "gemm.h"
#include "hadamard.h"
#include "int8.h"
#include "optimizers.h"
#include "rounding.h"
#include "rows.h"
#include "scan.h"
#include "signs.h"
#include "softmax.h"
#include "topk.h"

#define FSPARSE_STRING_(x) #x
#define FSPARSE_STRING(x) FSPARSE_STRING_(x)

namespace fsparse::FSPARSE_LEVEL {

#if defined(__AMX_BF16__)
constexpr Product kProduct = {kPanel, kPanel, kAmxBlockM, kAmxBlockN, kAmxScratchFloats,
                              AmxGemm};
constexpr ProductGrads kProductGrads = {kMaxGradWidth, kGradScratchFloats, PackedFloats,
                                        PackExamples, GradsOfSlice};
#else
constexpr Product kProduct = {kTileM, kTileN, kBlockM, kBlockN, kScratchFloats, Gemm};
constexpr ProductGrads kProductGrads = {};
#endif

extern const Kernels kKernels;
const Kernels kKernels = {
    /*name=*/FSPARSE_STRING(FSPARSE_LEVEL),
    kProduct,
    kProductGrads,
    /*tile_m=*/kTileM,
    /*tile_n=*/kTileN,
    /*max_block_m=*/kBlockM,
    /*max_block_n=*/kBlockN,
    /*scratch_floats=*/kScratchFloats,
    Gemm,
    DotRows,
    ScanRows,
    QuantizeRow,
    ScanInt8,
    SumRows,
    AddRows,
    SumOuter,
    SumOccurrences,
    SquaredNorm,
    SgdRow,
    MomentumRow,
    AdagradRow,
    RowwiseAdagradRow,
    AdamRow,
    AdamCatchUpRow,
    WidenRow,
    RoundRow,
    PackSigns,
    Rotate,
    AllFinite,
    MergeTopK,
    SumExp,
    ScaledExp,
    DotExp,
    {CountLevels<uint8_t>, PickBetween<uint8_t>},
    {CountLevels<uint16_t>, PickBetween<uint16_t>},
    {CountLevels<uint32_t>, PickBetween<uint32_t>},
};

}  // namespace fsparse::FSPARSE_LEVEL
