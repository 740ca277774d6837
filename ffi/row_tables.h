// What the row optimizers' handlers share: operands, their checks, and the loop that
// opens each row that is named, lets an update change it, and stores it back.
#ifndef FSPARSE_ROW_TABLES_H_
#define FSPARSE_ROW_TABLES_H_

#include <cstring>
#include <sstream>

#include "group.h"
#include "handlers.h"
#include "parallel_for.h"

namespace fsparse {

// g[r] = sum over the occurrences o with ids[o] == r of scale[o] * x[source[o]].
struct RowGrad {
  S32R1 ids;     // [t]
  F32R1 scale;   // [t]
  S32R1 source;  // [t]
  F32R2 x;       // [s, d]
};

// A table or a moment, and the result that takes its place. A moment of rank 1 has one
// f32 for each row.
struct Table {
  const char* name;
  ffi::AnyBuffer old, now;
  size_t rank = 2;
};
using Tables = std::initializer_list<Table>;

// The same, checked and ready to be updated in place.
struct StoredRows {
  char* data;
  int64_t width, row_bytes;  // elements and bytes of a row
  bool is_bf16;
};
constexpr int kMaxTables = 3;
struct StoredTables {
  int count = 0;
  int64_t width = 0;  // of the widest
  StoredRows at[kMaxTables];
};

template <typename... Parts>
ffi::Error Invalid(const char* op, const Parts&... parts) {
  std::ostringstream message;
  message << op << ": ";
  (message << ... << parts);
  return ffi::Error::InvalidArgument(message.str());
}

inline ffi::Error CheckShape(const char* op, const char* what, const Table& table,
                             ffi::AnyBuffer buffer, const int64_t* shape) {
  const auto got = buffer.dimensions();
  if (got.size() != table.rank) {
    return Invalid(op, what, table.name, " must have ", table.rank, " axes; got ",
                   got.size(), ".");
  }
  for (size_t i = 0; i < table.rank; ++i) {
    if (got[i] == shape[i]) continue;
    return Invalid(op, what, table.name, ".shape[", i, "] must be ", shape[i], "; got ",
                   got[i], ".");
  }
  return ffi::Error::Success();
}

inline ffi::Error CheckTable(const char* op, const Table& table, const int64_t* shape) {
  const ffi::DataType old = table.old.element_type(), now = table.now.element_type();
  if (old != ffi::F32 && (old != ffi::BF16 || table.rank == 1)) {
    return Invalid(op, table.name, " must be ", table.rank == 1 ? "F32" : "F32 or BF16",
                   "; got ", old, ".");
  }
  if (now != old) {
    return Invalid(op, "result ", table.name, " must be ", old, "; got ", now, ".");
  }
  FSPARSE_RETURN_IF_ERROR(CheckShape(op, "", table, table.old, shape));
  return CheckShape(op, "result ", table, table.now, shape);
}

// All tables have the n rows of the first, of width d where their rank is 2.
inline ffi::Error CheckTables(const char* op, Tables tables, U32R1 seed) {
  const auto first = tables.begin()->old.dimensions();
  if (first.size() != 2) {
    return Invalid(op, tables.begin()->name, " must have 2 axes; got ", first.size(),
                   ".");
  }
  for (const Table& table : tables) {
    FSPARSE_RETURN_IF_ERROR(CheckTable(op, table, first.begin()));
  }
  return CheckSizes(op, {{"seed.shape[0]", seed.dimensions()[0], 2}});
}

inline ffi::Error CheckRowGrad(const char* op, const RowGrad& grad) {
  const int64_t t = grad.ids.dimensions()[0];
  return CheckSizes(op, {{"scale.shape[0]", grad.scale.dimensions()[0], t},
                         {"source.shape[0]", grad.source.dimensions()[0], t}});
}

// XLA aliases each table with its result; a caller that did not alias pays a copy.
inline StoredTables InPlace(Tables tables) {
  StoredTables stored;
  for (const Table& table : tables) {
    if (table.old.untyped_data() != table.now.untyped_data()) {
      std::memcpy(table.now.untyped_data(), table.old.untyped_data(),
                  table.now.size_bytes());
    }
    const int64_t width = table.rank == 1 ? 1 : table.now.dimensions()[1];
    const ffi::DataType type = table.now.element_type();
    stored.at[stored.count++] = {static_cast<char*>(table.now.untyped_data()), width,
                                 width * static_cast<int64_t>(ffi::ByteWidth(type)),
                                 type == ffi::BF16};
    stored.width = std::max(stored.width, width);
  }
  return stored;
}

// So many rows cover the time that memory takes. They are wanted in L2, as in rows.h.
inline int64_t RowsAhead(const StoredTables& tables) {
  constexpr int64_t kBytesAhead = 24 << 10;
  int64_t bytes = 1;
  for (int i = 0; i < tables.count; ++i) bytes += tables.at[i].row_bytes;
  return std::clamp<int64_t>(kBytesAhead / bytes, 1, 32);
}

// Inlined by force: GCC takes a function that only prefetches for one without effect.
__attribute__((always_inline)) inline void PrefetchRows(const StoredTables& tables,
                                                        int64_t r) {
  for (int i = 0; i < tables.count; ++i) {
    const StoredRows& table = tables.at[i];
    const char* row = table.data + r * table.row_bytes;
    for (int64_t at = 0; at < table.row_bytes; at += kBytesPerLine) {
      __builtin_prefetch(row + at, /*rw=*/0, kIntoL2);
    }
  }
}

// rows[i] = row r of table i in f32: where it is stored, or widened into scratch.
inline void OpenRows(const Kernels& kernels, const StoredTables& tables, int64_t r,
                     float* scratch, float** rows) {
  for (int i = 0; i < tables.count; ++i) {
    const StoredRows& table = tables.at[i];
    char* row = table.data + r * table.row_bytes;
    rows[i] =
        table.is_bf16 ? scratch + i * tables.width : reinterpret_cast<float*>(row);
    if (table.is_bf16) {
      kernels.widen_row(reinterpret_cast<uint16_t*>(row), table.width, rows[i]);
    }
  }
}

inline void CloseRows(const Kernels& kernels, const StoredTables& tables, int64_t r,
                      const uint32_t* seed, float* const* rows) {
  for (int i = 0; i < tables.count; ++i) {
    const StoredRows& table = tables.at[i];
    if (!table.is_bf16) continue;
    const RoundingKey key{seed, static_cast<uint32_t>(r), static_cast<uint32_t>(i)};
    kernels.round_row(rows[i], table.width, key,
                      reinterpret_cast<uint16_t*>(table.data + r * table.row_bytes));
  }
}

// For each i: visit(i, rows, g), where rows[j] is row ids[i] of table j, to be changed,
// and g scratch for a row. The ids differ. Rows lie at random places in memory, so
// those of a later visit are asked for.
template <typename Visit>
void VisitRows(ffi::ThreadPool& pool, const std::vector<int32_t>& ids,
               const StoredTables& tables, U32R1 seed, int64_t flops_per_element,
               const Visit& visit) {
  const Kernels& kernels = *Dispatch();
  const int64_t count = ids.size(), ahead = RowsAhead(tables);
  auto run = [&](int64_t begin, int64_t end) {
    float* scratch = Scratch((kMaxTables + 1) * tables.width);
    float* rows[kMaxTables];
    for (int64_t i = begin; i < end; ++i) {
      if (i + ahead < count) PrefetchRows(tables, ids[i + ahead]);
      OpenRows(kernels, tables, ids[i], scratch, rows);
      visit(i, rows, scratch + kMaxTables * tables.width);
      CloseRows(kernels, tables, ids[i], seed.typed_data(), rows);
    }
  };
  ParallelFor(pool, count, GrainFor(flops_per_element * tables.width), run);
}

inline RowGroups GroupByRow(ffi::ThreadPool& pool, const RowGrad& grad,
                            int64_t num_rows) {
  return GroupByRow({grad.ids.typed_data(), grad.ids.dimensions()[0], num_rows,
                     grad.source.typed_data(), grad.x.dimensions()[0]},
                    ForEachOn(pool));
}

// g = the gradient of the row of group i.
inline void SumGroup(const Kernels& kernels, const RowGrad& grad,
                     const RowGroups& groups, int64_t i, float* g) {
  const int64_t first = groups.starts[i];
  kernels.sum_occurrences(groups.order.data() + first, groups.starts[i + 1] - first,
                          grad.scale.typed_data(), grad.source.typed_data(),
                          grad.x.typed_data(), grad.x.dimensions()[1], g);
}

// For each row r that the gradient names: update(r, rows, g), with g its gradient.
template <typename Update>
void UpdateRows(ffi::ThreadPool& pool, const RowGrad& grad, int64_t num_rows,
                const StoredTables& tables, U32R1 seed, int64_t flops_per_element,
                const Update& update) {
  const Kernels& kernels = *Dispatch();
  const RowGroups groups = GroupByRow(pool, grad, num_rows);
  VisitRows(pool, groups.rows, tables, seed, flops_per_element,
            [&](int64_t i, float* const* rows, float* g) {
              SumGroup(kernels, grad, groups, i, g);
              update(groups.rows[i], rows, g);
            });
}

}  // namespace fsparse

#endif  // FSPARSE_ROW_TABLES_H_
