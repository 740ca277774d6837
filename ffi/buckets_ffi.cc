// Handlers of the hash tables of an index: build, move rows, insert entries. Each table
// has one owner, so that nothing depends on the number of threads.
#include "buckets.h"
#include "handlers.h"
#include "parallel_for.h"

namespace fsparse {
namespace {

template <typename Buffer>
using Out = ffi::Result<Buffer>;

// Tables to build or to change; every buffer is an output.
struct Tables {
  Out<S32R2> starts, sizes, entries;
};

ffi::Error CheckTables(const char* op, Tables& tables, int64_t num_tables) {
  return CheckSizes(op,
                    {{"starts.shape[0]", tables.starts->dimensions()[0], num_tables},
                     {"sizes.shape[0]", tables.sizes->dimensions()[0], num_tables},
                     {"entries.shape[0]", tables.entries->dimensions()[0], num_tables},
                     {"starts.shape[1]", tables.starts->dimensions()[1],
                      tables.sizes->dimensions()[1] + 1}});
}

Buckets TableOf(Tables& tables, int64_t num_rows, int64_t t) {
  const int64_t num_buckets = tables.sizes->dimensions()[1];
  const int64_t capacity = tables.entries->dimensions()[1];
  return {num_buckets,
          capacity,
          static_cast<int32_t>(num_rows),
          tables.starts->typed_data() + t * (num_buckets + 1),
          tables.sizes->typed_data() + t * num_buckets,
          tables.entries->typed_data() + t * capacity};
}

ffi::Error BuildBuckets(ffi::ThreadPool pool, U16R2 codes, Out<S32R2> starts,
                        Out<S32R2> sizes, Out<S32R2> entries) {
  const char* op = "fsparse_build_buckets";
  const int64_t num_tables = codes.dimensions()[0], n = codes.dimensions()[1];
  Tables tables{starts, sizes, entries};
  FSPARSE_RETURN_IF_ERROR(CheckTables(op, tables, num_tables));
  if (entries->dimensions()[1] < n || sizes->dimensions()[1] < 1) {
    return ffi::Error::InvalidArgument(
        std::string(op) + ": there must be a bucket, and a slot for each row; got " +
        std::to_string(sizes->dimensions()[1]) + " and " +
        std::to_string(entries->dimensions()[1]) + ".");
  }
  ParallelFor(pool, num_tables, GrainFor(8 * n), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      TableOf(tables, n, t).Build(codes.typed_data() + t * n, n);
    }
  });
  return ffi::Error::Success();
}

// What a change overwrites: an operand, and the result that takes its place.
template <typename Buffer>
struct InPlace {
  const char* name;
  Buffer old;
  Out<Buffer> now;

  // XLA aliases the two; a caller that did not alias pays a copy.
  ffi::Error Carry(const char* op) {
    for (size_t i = 0; i < old.dimensions().size(); ++i) {
      const std::string what =
          std::string("result ") + name + ".shape[" + std::to_string(i) + "]";
      FSPARSE_RETURN_IF_ERROR(
          CheckSizes(op, {{what.c_str(), now->dimensions()[i], old.dimensions()[i]}}));
    }
    if (old.typed_data() != now->typed_data()) {
      std::copy_n(old.typed_data(), old.element_count(), now->typed_data());
    }
    return ffi::Error::Success();
  }
};

struct State {
  InPlace<S32R2> starts, sizes, entries;
  InPlace<U16R2> codes;
  InPlace<S32R1> num_inserted, num_lost;

  ffi::Error Carry(const char* op) {
    FSPARSE_RETURN_IF_ERROR(starts.Carry(op));
    FSPARSE_RETURN_IF_ERROR(sizes.Carry(op));
    FSPARSE_RETURN_IF_ERROR(entries.Carry(op));
    FSPARSE_RETURN_IF_ERROR(codes.Carry(op));
    FSPARSE_RETURN_IF_ERROR(num_inserted.Carry(op));
    return num_lost.Carry(op);
  }
};

// Calls change(table, ids[j], new_codes[t, j]) for all tables t and all j in order.
template <typename Change>
ffi::Error ChangeTables(const char* op, ffi::ThreadPool& pool, State state, S32R1 ids,
                        U16R2 new_codes, const Change& change) {
  Out<U16R2> codes = state.codes.now;
  Tables tables{state.starts.now, state.sizes.now, state.entries.now};
  const int64_t num_tables = codes->dimensions()[0], n = codes->dimensions()[1];
  const int64_t m = ids.dimensions()[0];
  FSPARSE_RETURN_IF_ERROR(CheckTables(op, tables, num_tables));
  FSPARSE_RETURN_IF_ERROR(CheckSizes(
      op,
      {{"new_codes.shape[0]", new_codes.dimensions()[0], num_tables},
       {"new_codes.shape[1]", new_codes.dimensions()[1], m},
       {"num_inserted.shape[0]", state.num_inserted.old.dimensions()[0], num_tables},
       {"num_lost.shape[0]", state.num_lost.old.dimensions()[0], num_tables}}));
  FSPARSE_RETURN_IF_ERROR(state.Carry(op));
  ParallelFor(pool, num_tables, GrainFor(200 * m), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      TableState table{TableOf(tables, n, t), codes->typed_data() + t * n,
                       state.num_inserted.now->typed_data() + t,
                       state.num_lost.now->typed_data() + t};
      for (int64_t j = 0; j < m; ++j) {
        const int32_t id = ids.typed_data()[j];
        if (id >= 0 && id < n) change(table, id, new_codes.typed_data()[t * m + j]);
      }
    }
  });
  return ffi::Error::Success();
}

ffi::Error MoveRows(ffi::ThreadPool pool, S32R1 ids, U16R2 new_codes, S32R2 starts,
                    S32R2 sizes, S32R2 entries, U16R2 codes, S32R1 num_inserted,
                    S32R1 num_lost, Out<S32R2> new_starts, Out<S32R2> new_sizes,
                    Out<S32R2> new_entries, Out<U16R2> all_codes,
                    Out<S32R1> new_num_inserted, Out<S32R1> new_num_lost) {
  return ChangeTables("fsparse_move_rows", pool,
                      {{"starts", starts, new_starts},
                       {"sizes", sizes, new_sizes},
                       {"entries", entries, new_entries},
                       {"codes", codes, all_codes},
                       {"num_inserted", num_inserted, new_num_inserted},
                       {"num_lost", num_lost, new_num_lost}},
                      ids, new_codes, [](TableState& table, int32_t id, uint16_t code) {
                        table.Move(id, code);
                      });
}

ffi::Error InsertEntries(ffi::ThreadPool pool, S32R1 ids, U16R2 new_codes,
                         S32R1 max_inserted, S32R2 starts, S32R2 sizes, S32R2 entries,
                         U16R2 codes, S32R1 num_inserted, S32R1 num_lost,
                         Out<S32R2> new_starts, Out<S32R2> new_sizes,
                         Out<S32R2> new_entries, Out<U16R2> all_codes,
                         Out<S32R1> new_num_inserted, Out<S32R1> new_num_lost) {
  const char* op = "fsparse_insert_entries";
  FSPARSE_RETURN_IF_ERROR(
      CheckSizes(op, {{"max_inserted.shape[0]", max_inserted.dimensions()[0], 1}}));
  const int32_t most = max_inserted.typed_data()[0];
  return ChangeTables(op, pool,
                      {{"starts", starts, new_starts},
                       {"sizes", sizes, new_sizes},
                       {"entries", entries, new_entries},
                       {"codes", codes, all_codes},
                       {"num_inserted", num_inserted, new_num_inserted},
                       {"num_lost", num_lost, new_num_lost}},
                      ids, new_codes,
                      [most](TableState& table, int32_t id, uint16_t code) {
                        table.InsertEntry(id, code, most);
                      });
}

#define FSPARSE_STATE_ARGS                  \
  Arg<S32R2>(/*starts: i32[l, r + 1]*/)     \
      .Arg<S32R2>(/*sizes: i32[l, r]*/)     \
      .Arg<S32R2>(/*entries: i32[l, c]*/)   \
      .Arg<U16R2>(/*codes: u16[l, n]*/)     \
      .Arg<S32R1>(/*num_inserted: i32[l]*/) \
      .Arg<S32R1>(/*num_lost: i32[l]*/)     \
      .Ret<S32R2>(/*starts*/)               \
      .Ret<S32R2>(/*sizes*/)                \
      .Ret<S32R2>(/*entries*/)              \
      .Ret<U16R2>(/*codes*/)                \
      .Ret<S32R1>(/*num_inserted*/)         \
      .Ret<S32R1>(/*num_lost*/)

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseBuildBuckets, BuildBuckets,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<U16R2>(/*codes: u16[l, n]*/)
                                  .Ret<S32R2>(/*starts: i32[l, r + 1]*/)
                                  .Ret<S32R2>(/*sizes: i32[l, r]*/)
                                  .Ret<S32R2>(/*entries: i32[l, c]*/));

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseMoveRows, MoveRows,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<S32R1>(/*ids: i32[m]*/)
                                  .Arg<U16R2>(/*new_codes: u16[l, m]*/)
                                  .FSPARSE_STATE_ARGS);

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseInsertEntries, InsertEntries,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<S32R1>(/*ids: i32[m]*/)
                                  .Arg<U16R2>(/*new_codes: u16[l, m]*/)
                                  .Arg<S32R1>(/*max_inserted: i32[1]*/)
                                  .FSPARSE_STATE_ARGS);

}  // namespace fsparse
