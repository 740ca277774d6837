// Handlers of the softmax loss of logits that are never held. A tile of them, some
// examples by some ids, is made anew wherever it is wanted, and stays in L2 meanwhile.
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "blocks.h"
#include "handlers.h"
#include "parallel_for.h"
#include "table.h"

namespace fsparse {
namespace {

using Mask = ffi::BufferR2<ffi::PRED>;
constexpr int64_t kTileExamples = 256, kMostTileIds = 640, kWholeIds = 32;
// Slices of ids, which threads take, add to a z each: many, but for their memory, which
// is at most twice this, or 7 z.
constexpr int64_t kMostPartFloats = 1 << 22, kFewSlices = 4, kLeastTasks = 8;

constexpr int64_t kFlopsPerExp = 30;

// One tile of the logits of group g.
struct LogitTile {
  int64_t g, i0, b, j0, m;
};

// y[g, i, j] = x[g, i] . w[ids[g, j]] + offsets[g, j], and each example's labels.
struct Problem {
  int64_t groups, b, m, d, num_targets;
  int parts;  // of the operands of products
  const float* x;
  Rows w;  // with all ids
  const float* offsets;
  const int32_t* targets;
  const uint8_t* is_active;
  std::vector<int64_t> live;  // of a group's m columns: those past it are of no account

  int64_t TileIds() const { return EvenPart(m, kMostTileIds, kWholeIds); }
  int64_t IdTiles() const { return (m + TileIds() - 1) / TileIds(); }
  int64_t ExampleTiles() const { return (b + kTileExamples - 1) / kTileExamples; }

  LogitTile Tile(int64_t g, int64_t of_examples, int64_t of_ids) const {
    const int64_t i0 = of_examples * kTileExamples, j0 = of_ids * TileIds();
    return {g, i0, std::min(kTileExamples, b - i0), j0,
            std::clamp<int64_t>(live[g] - j0, 0, TileIds())};
  }

  const float* X(const LogitTile& t) const { return x + (t.g * b + t.i0) * d; }
  const uint8_t* IsActive(const LogitTile& t) const {
    return is_active + t.g * m + t.j0;
  }
  Rows W(const LogitTile& t) const {
    Rows own = w;
    own.ids += t.g * m + t.j0;
    return own;
  }

  // Calls fn(l, target) for the labels of an example.
  template <typename Fn>
  void ForLabels(int64_t example, const Fn& fn) const {
    const int64_t first = example * num_targets;
    for (int64_t l = first; l < first + num_targets; ++l) {
      if (targets[l] >= 0 && targets[l] < m) fn(l, targets[l]);
    }
  }

  int64_t NumLabels(int64_t example) const {
    int64_t count = 0;
    ForLabels(example, [&](int64_t, int32_t) { ++count; });
    return count;
  }
};

// Columns of a group without those at its end that are padding, inactive and no label.
int64_t Live(const Problem& p, int64_t g) {
  int64_t live = p.m;
  auto counts = [&](int64_t j) {
    const int32_t id = p.w.ids[g * p.m + j];
    return p.is_active[g * p.m + j] || (id >= 0 && id < p.w.num_rows);
  };
  while (live > 0 && !counts(live - 1)) --live;
  for (int64_t i = g * p.b; i < (g + 1) * p.b; ++i) {
    p.ForLabels(i, [&](int64_t, int32_t t) { live = std::max<int64_t>(live, t + 1); });
  }
  return live;
}

// to[c] += the sum over rows r of from[r, c].
void AddAll(const float* from, int64_t count, int64_t size, float* to) {
  static const std::vector<float> ones(kTileExamples, 1.0f);
  Dispatch()->add_rows(ones.data(), {from, size}, 0, count, size, to);
}

void Add(const float* from, int64_t size, float* to) { AddAll(from, 1, size, to); }

// out = the logits of a tile, row after row.
void Logits(const Problem& p, const LogitTile& t, float* out, float* scratch) {
  SerialGemm(Dispatch()->product, {{p.X(t), p.d}, RowsAre::kOuter, p.parts},
             {p.W(t), RowsAre::kOuter, p.parts}, t.b, t.m, p.d, out, scratch);
  for (int64_t i = 0; i < t.b; ++i) {
    Add(p.offsets + t.g * p.m + t.j0, t.m, out + i * t.m);
  }
}

int64_t TileFloats(const Problem& p) { return kTileExamples * p.TileIds(); }

// ---- the loss -----------------------------------------------------------------------

// What tiles find out: sums of exp, [groups, id tiles, b], and logits of labels, as
// targets are.
struct Found {
  std::vector<ExpSum> sums;
  std::vector<float> of_labels;
};

void LookAt(const Problem& p, const LogitTile& t, const float* logits, ExpSum* sums,
            float* of_labels) {
  for (int64_t i = 0; i < t.b; ++i) {
    const float* row = logits + i * t.m;
    sums[i] = Dispatch()->sum_exp(row, p.IsActive(t), t.m);
    p.ForLabels(t.g * p.b + t.i0 + i, [&](int64_t l, int32_t target) {
      const int64_t j = target - t.j0;
      if (j >= 0 && j < t.m) of_labels[l] = row[j];
    });
  }
}

// The sum of all; those without any active id are 0, whatever their shift.
ExpSum Total(const ExpSum* sums, int64_t count, int64_t stride) {
  ExpSum total{0.0f, 0.0f};
  for (int64_t k = 0; k < count; ++k) {
    const ExpSum& own = sums[k * stride];
    if (own.sum == 0.0f) continue;
    const bool is_first = total.sum == 0.0f;
    const float shift = is_first ? own.shift : std::max(total.shift, own.shift);
    const float before = is_first ? 0.0f : total.sum * std::exp(total.shift - shift);
    total = {shift, before + own.sum * std::exp(own.shift - shift)};
  }
  return total;
}

void PutLosses(ffi::ThreadPool& pool, const Problem& p, const Found& found, float* loss,
               float* sums) {
  const int64_t tiles = p.IdTiles();
  auto run = [&](int64_t begin, int64_t end) {
    for (int64_t e = begin; e < end; ++e) {
      const int64_t first = e / p.b * tiles * p.b + e % p.b;
      const ExpSum z = Total(found.sums.data() + first, tiles, p.b);
      const float log_z = std::log(z.sum) + z.shift;
      float total = 0.0f;
      p.ForLabels(e, [&](int64_t l, int32_t) { total += log_z - found.of_labels[l]; });
      loss[e] = total / std::max<int64_t>(1, p.NumLabels(e));
      sums[2 * e] = z.shift;
      sums[2 * e + 1] = z.sum;
    }
  };
  ParallelFor(pool, p.groups * p.b, GrainFor(kFlopsPerExp * tiles), run);
}

void Loss(ffi::ThreadPool& pool, const Problem& p, float* loss, float* sums) {
  const int64_t of_ids = p.IdTiles(), tiles = p.ExampleTiles() * of_ids;
  Found found{std::vector<ExpSum>(p.groups * of_ids * p.b),
              std::vector<float>(p.groups * p.b * p.num_targets)};
  auto run = [&](int64_t begin, int64_t end) {
    float* logits = Scratch(TileFloats(p) + Dispatch()->product.scratch_floats);
    for (int64_t k = begin; k < end; ++k) {
      const int64_t g = k / tiles, of_id = k % of_ids;
      const LogitTile t = p.Tile(g, k % tiles / of_ids, of_id);
      if (t.m == 0) continue;
      Logits(p, t, logits, logits + TileFloats(p));
      LookAt(p, t, logits, &found.sums[(g * of_ids + of_id) * p.b + t.i0],
             found.of_labels.data());
    }
  };
  ParallelFor(pool, p.groups * tiles,
              GrainFor(2 * std::min(kTileExamples, p.b) * p.TileIds() * p.d), run);
  PutLosses(pool, p, found, loss, sums);
}

// ---- its gradients ------------------------------------------------------------------

struct Gradients {
  const float* ct;    // [groups, b]
  const float* sums;  // [groups, b, 2], of the loss
  float* z;           // [groups, b, d], in x
  float* rows;        // [groups, m, d], in the rows of w
  float* columns;     // [groups, m], in the offsets
};

// Examples as a level's gradients want them, by tiles.
struct PackedExamples {
  int64_t floats, words;  // of a tile
  std::unique_ptr<float[]> packed;
  std::vector<uint32_t> bad;
};

// Whether the level computes both products in one visit of the cotangent.
bool HasKernel(const Problem& p) {
  const ProductGrads& kernel = Dispatch()->product_grads;
  return kernel.run && p.d <= kernel.max_width;
}

PackedExamples Pack(ffi::ThreadPool& pool, const Problem& p) {
  const ProductGrads& kernel = Dispatch()->product_grads;
  if (!HasKernel(p)) return {};
  const int64_t tiles = p.groups * p.ExampleTiles();
  PackedExamples out{
      kernel.packed_floats(kTileExamples, p.d), kernel.max_width / 32, nullptr, {}};
  out.packed.reset(new float[tiles * out.floats]);
  out.bad.resize(tiles * out.words);
  ParallelFor(
      pool, tiles, GrainFor(kTileExamples * p.d), [&](int64_t begin, int64_t end) {
        for (int64_t k = begin; k < end; ++k) {
          const LogitTile t = p.Tile(k / p.ExampleTiles(), k % p.ExampleTiles(), 0);
          kernel.pack(p.X(t), t.b, p.d, p.parts, &out.packed[k * out.floats],
                      &out.bad[k * out.words]);
        }
      });
  return out;
}

// v = ct[i] * (softmax - shares of labels), in place of the logits.
void Delta(const Problem& p, const Gradients& of, const LogitTile& t, float* v) {
  for (int64_t i = 0; i < t.b; ++i) {
    const int64_t e = t.g * p.b + t.i0 + i, count = p.NumLabels(e);
    float* row = v + i * t.m;
    if (count == 0) {
      std::fill_n(row, t.m, 0.0f);
      continue;
    }
    const float shift = of.sums[2 * e], sum = of.sums[2 * e + 1], ct = of.ct[e];
    Dispatch()->scaled_exp(row, p.IsActive(t), t.m, shift, sum == 0 ? 0 : ct / sum,
                           row);
    p.ForLabels(e, [&](int64_t, int32_t target) {
      const int64_t j = target - t.j0;
      if (j >= 0 && j < t.m) row[j] -= ct / count;
    });
  }
}

// z = v w and rows = v^T x, for a tile.
void TwoProducts(const Problem& p, const LogitTile& t, const float* v, float* z,
                 float* rows, float* scratch) {
  const Product& product = Dispatch()->product;
  const Rows w = p.W(t);
  SerialGemm(product, {{v, t.m}, RowsAre::kOuter, p.parts},
             {w, RowsAre::kDepth, p.parts}, t.b, p.d, t.m, z, scratch);
  SerialGemm(product, {{v, t.m}, RowsAre::kDepth, p.parts},
             {{p.X(t), p.d}, RowsAre::kDepth, p.parts}, t.m, p.d, t.b, rows, scratch);
  for (int64_t j = 0; j < t.m; ++j) {
    if (w.ids[j] < 0 || w.ids[j] >= w.num_rows) std::fill_n(rows + j * p.d, p.d, 0.0f);
  }
}

void BothProducts(const Problem& p, const PackedExamples& x, const LogitTile& t,
                  const float* v, float* z, float* rows, float* scratch) {
  if (!HasKernel(p)) return TwoProducts(p, t, v, z, rows, scratch);
  const int64_t k = t.g * p.ExampleTiles() + t.i0 / kTileExamples;
  uint32_t bad_examples[kTileExamples / 32];
  Dispatch()->product_grads.run(
      {v, t.m, p.X(t), &x.packed[k * x.floats], &x.bad[k * x.words], p.W(t), t.b, t.m,
       p.d, z, rows, bad_examples, p.parts},
      scratch);
}

// Where some tiles of a group add their gradients.
struct Sums {
  float* z;        // [b, d]
  float* rows;     // [m, d]
  float* columns;  // [m]
};

void AddTile(const Problem& p, const PackedExamples& x, const Gradients& of,
             const LogitTile& t, const Sums& to, float* scratch) {
  float* v = scratch;
  float* z = v + TileFloats(p);
  float* rows = z + kTileExamples * p.d;
  float* rest = rows + p.TileIds() * p.d;
  Logits(p, t, v, rest);
  Delta(p, of, t, v);
  BothProducts(p, x, t, v, z, rows, rest);
  Add(z, t.b * p.d, to.z + t.i0 * p.d);
  Add(rows, t.m * p.d, to.rows + t.j0 * p.d);
  AddAll(v, t.b, t.m, to.columns + t.j0);
}

int64_t GradientScratch(const Problem& p) {
  const Kernels& kernels = *Dispatch();
  return TileFloats(p) + (kTileExamples + p.TileIds()) * p.d +
         std::max(kernels.product.scratch_floats, kernels.product_grads.scratch_floats);
}

// A part of the tiles of ids, or of examples.
struct Range {
  int64_t each, parts, tiles;

  int64_t begin(int64_t part) const { return part * each; }
  int64_t end(int64_t part) const { return std::min(begin(part) + each, tiles); }
};

// At least `wanted` parts, if there are as many tiles.
Range Divide(int64_t tiles, int64_t wanted) {
  const int64_t each = std::max<int64_t>(1, tiles / std::max<int64_t>(1, wanted));
  return {each, (tiles + each - 1) / each, tiles};
}

// The tasks of a group: each slice of ids has a z of its own, and where slices are few
// each chunk of examples has its own rows. They depend on sizes alone.
struct Tasks {
  Range slices, chunks;

  explicit Tasks(const Problem& p)
      : slices(Divide(p.IdTiles(), std::max(kFewSlices, MostSlices(p)))),
        chunks(Divide(p.ExampleTiles(),
                      kLeastTasks / std::max<int64_t>(1, slices.parts))) {}

  static int64_t MostSlices(const Problem& p) {
    return kMostPartFloats / std::max<int64_t>(1, p.b * p.d);
  }
  int64_t count() const { return slices.parts * chunks.parts; }
};

void RunTask(const Problem& p, const PackedExamples& x, const Gradients& of,
             const Tasks& tasks, int64_t g, int64_t task, const Sums& to) {
  const int64_t slice = task / tasks.chunks.parts, chunk = task % tasks.chunks.parts;
  const int64_t i_begin = tasks.chunks.begin(chunk), i_end = tasks.chunks.end(chunk);
  float* scratch = Scratch(GradientScratch(p));
  std::fill(to.z + std::min(p.b, i_begin * kTileExamples) * p.d,
            to.z + std::min(p.b, i_end * kTileExamples) * p.d, 0.0f);
  for (int64_t j = tasks.slices.begin(slice); j < tasks.slices.end(slice); ++j) {
    const int64_t j0 = j * p.TileIds(), j1 = std::min(j0 + p.TileIds(), p.m);
    std::fill(to.rows + j0 * p.d, to.rows + j1 * p.d, 0.0f);
    std::fill(to.columns + j0, to.columns + j1, 0.0f);
    for (int64_t i = i_begin; i < i_end; ++i) {
      const LogitTile t = p.Tile(g, i, j);
      if (t.m > 0) AddTile(p, x, of, t, to, scratch);
    }
  }
}

void AllGradients(ffi::ThreadPool& pool, const Problem& p, const Gradients& of) {
  const Tasks tasks(p);
  const int64_t slices = tasks.slices.parts, chunks = tasks.chunks.parts;
  const std::unique_ptr<float[]> z(new float[p.groups * slices * p.b * p.d]);
  const std::unique_ptr<float[]> own(
      new float[chunks > 1 ? p.groups * chunks * p.m * (p.d + 1) : 0]);
  float* rows = chunks > 1 ? own.get() : of.rows;
  float* columns = chunks > 1 ? rows + p.groups * chunks * p.m * p.d : of.columns;
  const PackedExamples x = Pack(pool, p);
  auto run = [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t g = k / tasks.count(), task = k % tasks.count();
      const int64_t slice = g * slices + task / chunks,
                    chunk = g * chunks + task % chunks;
      RunTask(p, x, of, tasks, g, task,
              {&z[slice * p.b * p.d], rows + chunk * p.m * p.d, columns + chunk * p.m});
    }
  };
  const int64_t examples = std::min(p.b, tasks.chunks.each * kTileExamples);
  ParallelFor(pool, p.groups * tasks.count(),
              GrainFor(6 * examples * p.TileIds() * p.d), run);
  SumSlices(pool, z.get(), p.groups, slices, p.b, p.d, of.z);
  if (chunks == 1 && p.b > 0) return;
  SumSlices(pool, rows, p.groups, chunks, p.m, p.d, of.rows);
  SumSlices(pool, columns, p.groups, chunks, p.m, 1, of.columns);
}

// ---- handlers -----------------------------------------------------------------------

Problem MakeProblem(int parts, F32R3 x, ffi::AnyBuffer w, S32R2 ids, F32R2 offsets,
                    ffi::BufferR3<ffi::S32> targets, Mask is_active) {
  Problem p{x.dimensions()[0],
            x.dimensions()[1],
            ids.dimensions()[1],
            x.dimensions()[2],
            targets.dimensions()[2],
            parts,
            x.typed_data(),
            TableRows(w, ids.typed_data()),
            offsets.typed_data(),
            targets.typed_data(),
            reinterpret_cast<const uint8_t*>(is_active.typed_data()),
            {}};
  for (int64_t g = 0; g < p.groups; ++g) p.live.push_back(Live(p, g));
  return p;
}

ffi::Error CheckProblem(const char* op, int32_t parts, F32R3 x, ffi::AnyBuffer w,
                        S32R2 ids, F32R2 offsets, ffi::BufferR3<ffi::S32> targets,
                        Mask is_active) {
  FSPARSE_RETURN_IF_ERROR(CheckParts(op, parts));
  FSPARSE_RETURN_IF_ERROR(CheckTable(op, w));
  const int64_t groups = x.dimensions()[0], b = x.dimensions()[1];
  const int64_t m = ids.dimensions()[1];
  return CheckSizes(op, {{"w.shape[1]", w.dimensions()[1], x.dimensions()[2]},
                         {"ids.shape[0]", ids.dimensions()[0], groups},
                         {"offsets.shape[0]", offsets.dimensions()[0], groups},
                         {"offsets.shape[1]", offsets.dimensions()[1], m},
                         {"targets.shape[0]", targets.dimensions()[0], groups},
                         {"targets.shape[1]", targets.dimensions()[1], b},
                         {"is_active.shape[0]", is_active.dimensions()[0], groups},
                         {"is_active.shape[1]", is_active.dimensions()[1], m}});
}

// loss[g, i] = -mean_l log softmax(y[g, i])[targets[g, i, l]].
ffi::Error FusedSoftmaxLoss(ffi::ThreadPool pool, int32_t parts, F32R3 x,
                            ffi::AnyBuffer w, S32R2 ids, F32R2 offsets,
                            ffi::BufferR3<ffi::S32> targets, Mask is_active,
                            ffi::ResultBufferR2<ffi::F32> loss,
                            ffi::ResultBufferR3<ffi::F32> sums) {
  const char* op = "fsparse_fused_softmax_loss";
  FSPARSE_RETURN_IF_ERROR(
      CheckProblem(op, parts, x, w, ids, offsets, targets, is_active));
  const Problem p = MakeProblem(parts, x, w, ids, offsets, targets, is_active);
  FSPARSE_RETURN_IF_ERROR(
      CheckSizes(op, {{"loss.shape[0]", loss->dimensions()[0], p.groups},
                      {"loss.shape[1]", loss->dimensions()[1], p.b},
                      {"sums.shape[0]", sums->dimensions()[0], p.groups},
                      {"sums.shape[1]", sums->dimensions()[1], p.b},
                      {"sums.shape[2]", sums->dimensions()[2], 2}}));
  Loss(pool, p, loss->typed_data(), sums->typed_data());
  return ffi::Error::Success();
}

// Its gradients, times ct[g, i], in x, in the rows that ids name (0 for padding), and
// in the offsets.
ffi::Error FusedSoftmaxGrads(ffi::ThreadPool pool, int32_t parts, F32R2 ct, F32R3 sums,
                             F32R3 x, ffi::AnyBuffer w, S32R2 ids, F32R2 offsets,
                             ffi::BufferR3<ffi::S32> targets, Mask is_active,
                             ffi::ResultBufferR3<ffi::F32> z,
                             ffi::ResultBufferR3<ffi::F32> rows,
                             ffi::ResultBufferR2<ffi::F32> columns) {
  const char* op = "fsparse_fused_softmax_grads";
  FSPARSE_RETURN_IF_ERROR(
      CheckProblem(op, parts, x, w, ids, offsets, targets, is_active));
  const Problem p = MakeProblem(parts, x, w, ids, offsets, targets, is_active);
  FSPARSE_RETURN_IF_ERROR(
      CheckSizes(op, {{"ct.shape[0]", ct.dimensions()[0], p.groups},
                      {"ct.shape[1]", ct.dimensions()[1], p.b},
                      {"sums.shape[0]", sums.dimensions()[0], p.groups},
                      {"sums.shape[1]", sums.dimensions()[1], p.b},
                      {"sums.shape[2]", sums.dimensions()[2], 2},
                      {"z.shape[0]", z->dimensions()[0], p.groups},
                      {"z.shape[1]", z->dimensions()[1], p.b},
                      {"z.shape[2]", z->dimensions()[2], p.d},
                      {"rows.shape[0]", rows->dimensions()[0], p.groups},
                      {"rows.shape[1]", rows->dimensions()[1], p.m},
                      {"rows.shape[2]", rows->dimensions()[2], p.d},
                      {"columns.shape[0]", columns->dimensions()[0], p.groups},
                      {"columns.shape[1]", columns->dimensions()[1], p.m}}));
  AllGradients(pool, p,
               {ct.typed_data(), sums.typed_data(), z->typed_data(), rows->typed_data(),
                columns->typed_data()});
  return ffi::Error::Success();
}

#define FSPARSE_PROBLEM_ARGS                                   \
  Arg<F32R3>(/*x: f32[g, b, d]*/)                              \
      .Arg<ffi::AnyBuffer>(/*w: f32 or bf16[n, d]*/)           \
      .Arg<S32R2>(/*ids: i32[g, m]*/)                          \
      .Arg<F32R2>(/*offsets: f32[g, m]*/)                      \
      .Arg<ffi::BufferR3<ffi::S32>>(/*targets: i32[g, b, l]*/) \
      .Arg<Mask>(/*is_active: pred[g, m]*/)

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseFusedSoftmaxLoss, FusedSoftmaxLoss,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int32_t>("num_parts")
                                  .FSPARSE_PROBLEM_ARGS.Ret<F32R2>(/*loss: f32[g, b]*/)
                                  .Ret<F32R3>(/*sums: f32[g, b, 2]*/));

XLA_FFI_DEFINE_HANDLER_SYMBOL(FsparseFusedSoftmaxGrads, FusedSoftmaxGrads,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int32_t>("num_parts")
                                  .Arg<F32R2>(/*ct: f32[g, b]*/)
                                  .Arg<F32R3>(/*sums: f32[g, b, 2]*/)
                                  .FSPARSE_PROBLEM_ARGS.Ret<F32R3>(/*z: f32[g, b, d]*/)
                                  .Ret<F32R3>(/*rows: f32[g, m, d]*/)
                                  .Ret<F32R2>(/*columns: f32[g, m]*/));

}  // namespace fsparse
