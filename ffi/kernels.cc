// Compiled once for each instruction set, with FSPARSE_LEVEL naming it.
#include "kernels.h"

#include "counters.h"
#include "gemm.h"
#include "hadamard.h"
#include "optimizers.h"
#include "rounding.h"
#include "rows.h"
#include "signs.h"
#include "topk.h"

#define FSPARSE_STRING_(x) #x
#define FSPARSE_STRING(x) FSPARSE_STRING_(x)

namespace fsparse::FSPARSE_LEVEL {

extern const Kernels kKernels;
const Kernels kKernels = {
    /*name=*/FSPARSE_STRING(FSPARSE_LEVEL),
    /*tile_m=*/kTileM,
    /*tile_n=*/kTileN,
    /*max_block_m=*/kBlockM,
    /*max_block_n=*/kBlockN,
    /*scratch_floats=*/kScratchFloats,
    Gemm,
    DotRows,
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
    {CountAtLeast<uint8_t>, PickBetween<uint8_t>},
    {CountAtLeast<uint16_t>, PickBetween<uint16_t>},
    {CountAtLeast<uint32_t>, PickBetween<uint32_t>},
};

}  // namespace fsparse::FSPARSE_LEVEL
