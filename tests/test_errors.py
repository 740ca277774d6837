"""One table of mistakes: what is raised, at trace time, and what the message says."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest

import fsparse
from fsparse import RowGrad, losses, lsh, metrics, rows

f32, i32 = jnp.ones, partial(jnp.zeros, dtype=jnp.int32)
X, W, V, IDS, SHARED = f32((3, 4)), f32((5, 4)), f32((3, 2)), i32((3, 2)), i32(2)
HUGE = jax.ShapeDtypeStruct((2**31 - 1, 4), jnp.float32)  # traced, never allocated
T_IDS, T_SCALE, T_SOURCE = i32(6), f32(6), i32(6)
GRAD = RowGrad(T_IDS, T_SCALE, T_SOURCE, X, num_rows=5)
COUNTED = {"count": i32(()), "key": jnp.zeros(2, jnp.uint32)}


def on_row_grad(update, make_state):
    """An update as a function of flat named arguments."""

    def call(ids, scale, source, x, table, learning_rate, num_rows=5, **moments):
        state = make_state(**moments, **COUNTED)
        grad = RowGrad(ids, scale, source, x, num_rows)
        return update(table, state, grad, learning_rate=learning_rate)

    return call


KEY = jax.random.key(0)
FAMILY = lsh.simhash(KEY, 4, num_tables=2, num_bits=3)
INDEX = lsh.build(FAMILY, W, max_inserted=3)


def exact_adam_state(**moments):
    return rows.ExactAdamState(**moments, rates=f32(8), decay=f32(3) / 2)


OPTIMIZERS = ["sgd", "momentum", "adagrad", "rowwise_adagrad", "adam", "exact_adam"]
PARTS = {"ids": T_IDS, "scale": T_SCALE, "source": T_SOURCE, "x": X}
ROWS = {**PARTS, "table": W, "learning_rate": f32(())}
CALLS = {
    "sampled_matmul": (fsparse.sampled_matmul, {"x": X, "w": W, "ids": IDS}),
    "gather_matmul": (fsparse.gather_matmul, {"v": V, "w": W, "ids": IDS}),
    "scatter_outer": (
        fsparse.scatter_outer,
        {"v": V, "x": X, "ids": IDS, "num_rows": 5},
    ),
    "take_rows": (fsparse.take_rows, {"w": W, "ids": SHARED}),
    "embedding_bag": (fsparse.embedding_bag, {"table": W, "ids": IDS, "weights": V}),
    "dense_top_k": (fsparse.dense_top_k, {"x": X, "w": W, "k": 2}),
    "sampled_top_k": (fsparse.sampled_top_k, {"x": X, "w": W, "ids": IDS, "k": 2}),
    "quantize_rows": (fsparse.quantize_rows, {"w": W}),
    "row_grad": (
        fsparse.row_grad,
        {"ids": IDS, "x": X, "num_rows": 5},
    ),
    "sgd_update": (on_row_grad(rows.sgd_update, rows.SgdState), ROWS),
    "momentum_update": (
        on_row_grad(rows.momentum_update, rows.MomentumState),
        {**ROWS, "trace": W},
    ),
    "adagrad_update": (
        on_row_grad(rows.adagrad_update, rows.AdagradState),
        {**ROWS, "acc": W},
    ),
    "rowwise_adagrad_update": (
        on_row_grad(rows.rowwise_adagrad_update, rows.RowwiseAdagradState),
        {**ROWS, "acc": f32(5)},
    ),
    "adam_update": (
        on_row_grad(rows.adam_update, rows.AdamState),
        {**ROWS, "mu": W, "nu": W},
    ),
    "exact_adam_update": (
        on_row_grad(rows.exact_adam_update, exact_adam_state),
        {**ROWS, "mu": W, "nu": W, "last": i32(5)},
    ),
    "exact_adam_catch_up": (
        lambda table, mu, nu, last, ids: rows.exact_adam_catch_up(
            table, exact_adam_state(mu=mu, nu=nu, last=last, **COUNTED), ids
        ),
        {"table": W, "mu": W, "nu": W, "last": i32(5), "ids": SHARED},
    ),
    "exact_adam_flush": (
        lambda table, mu, nu, last: rows.exact_adam_flush(
            table, exact_adam_state(mu=mu, nu=nu, last=last, **COUNTED)
        ),
        {"table": W, "mu": W, "nu": W, "last": i32(5)},
    ),
    "lsh.build": (partial(lsh.build, FAMILY), {"table": W, "max_inserted": 2}),
    "lsh.refresh": (partial(lsh.refresh, INDEX), {"table": W, "ids": SHARED}),
    "lsh.remove": (partial(lsh.remove, INDEX), {"ids": SHARED}),
    "lsh.insert": (partial(lsh.insert, INDEX), {"x": X, "ids": IDS}),
    "lsh.query": (partial(lsh.query, INDEX), {"x": X, "size": 2, "num_probes": 1}),
    "add_rows": (
        lambda table, scale: rows.add_rows(table, GRAD, scale=scale),
        {"table": W, "scale": f32(())},
    ),
    "sum_squares": (
        lambda ids, scale, source, x: rows.sum_squares(
            RowGrad(ids, scale, source, x, 5)
        ),
        PARTS,
    ),
    "first_distinct": (fsparse.first_distinct, {"ids": IDS, "k": 2, "num_rows": 5}),
    "active_set": (
        lambda **args: fsparse.active_set(
            args.pop("labels"), args.pop("candidates[0]"), **args
        ),
        {"labels": IDS, "candidates[0]": SHARED, "num_rows": 5, "size": 3},
    ),
    "sampled_softmax_loss": (
        losses.sampled_softmax_loss,
        {"logits": X, "targets": IDS, "is_active": jnp.ones(4, bool)},
    ),
    "fused_softmax_loss": (
        losses.fused_softmax_loss,
        {
            "x": X,
            "w": W,
            "ids": SHARED,
            "targets": IDS,
            "is_active": jnp.ones(SHARED.shape, bool),
            "offsets": f32(*SHARED.shape),
        },
    ),
    "hits": (
        partial(metrics.hits, num_labels=5),
        {"predicted": IDS, "labels": IDS},
    ),
    "precision_at": (metrics.precision_at, {"k": 2, "is_hit": jnp.ones((3, 2), bool)}),
    "hit_at": (metrics.hit_at, {"k": 2, "is_hit": jnp.ones((3, 2), bool)}),
    "propensity_gains": (
        metrics.propensity_gains,
        {"k": 2, "predicted": IDS, "labels": IDS, "weights": f32(5)},
    ),
}
# Tables and moments: float32 or bfloat16.
TABLES = {
    ("sampled_matmul", "w"),
    ("fused_softmax_loss", "w"),
    ("gather_matmul", "w"),
    ("take_rows", "w"),
    ("dense_top_k", "w"),
    ("sampled_top_k", "w"),
    ("quantize_rows", "w"),
    *[(name, arg) for name in CALLS for arg in ("table", "mu", "nu")],
    ("momentum_update", "trace"),
    ("adagrad_update", "acc"),
}
# What the mechanical mistakes below do not apply to: converted, or compared as shapes.
ANY_DTYPE = {"learning_rate"}
ANY_RANK = {"is_active", "trace", "acc", "mu", "nu", "last"}
OTHER_DTYPES = [
    (jnp.float32, jnp.bfloat16),
    (jnp.int32, jnp.uint8),
    (jnp.bool_, jnp.uint8),
]


def aval(x):
    short = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
    short |= {"int32": "i32", "uint8": "u8"}
    return f"{short.get(x.dtype.name, x.dtype.name)}[{','.join(map(str, x.shape))}]"


def wrong_dtypes(name, arg, x):
    """What the message must say, and the argument of a dtype that is refused."""
    if (name, arg) in TABLES:
        return [("float32 or bfloat16", x.astype(jnp.float16))]
    return [
        (dtype.dtype.name, x.astype(other))
        for dtype, other in OTHER_DTYPES
        if x.dtype == dtype and arg not in ANY_DTYPE and name != "add_rows"
    ]


def mechanical_mistakes():
    """Each argument of each function, of a wrong dtype, of a wrong rank, no array."""
    for name, (_, args) in CALLS.items():
        for arg, x in args.items():
            if isinstance(x, int):
                yield (
                    name,
                    {arg: 2.5},
                    TypeError,
                    f"{arg} must be a static integer; got",
                )
                continue
            yield (
                name,
                {arg: object()},
                TypeError,
                f"{arg} must be an array; got object",
            )
            yield name, {arg: "text"}, TypeError, f"{arg} must be an array; got str"
            for wanted, cast in wrong_dtypes(name, arg, x):
                want = f"{arg} must be {wanted}; got {arg}: {aval(cast)}."
                yield name, {arg: cast}, TypeError, want
            if arg not in ANY_RANK:
                wide = x[None, None]
                want = f" axes; got {arg}: {aval(wide)}."
                yield name, {arg: wide}, ValueError, want


# Function, changed arguments, exception, part of the message after the name.
MISTAKES = [
    *mechanical_mistakes(),
    # shapes
    (
        "sampled_matmul",
        {"w": f32((5, 3))},
        ValueError,
        "w.shape[1] must equal x.shape[1]; got w: f32[5,3], x: f32[3,4].",
    ),
    (
        "sampled_matmul",
        {"ids": IDS[:2]},
        ValueError,
        "ids.shape[0] must equal x.shape[0]; got ids: i32[2,2], x: f32[3,4].",
    ),
    (
        "gather_matmul",
        {"ids": IDS[:2]},
        ValueError,
        "ids.shape[0] must equal v.shape[0]; got ids: i32[2,2], v: f32[3,2].",
    ),
    (
        "gather_matmul",
        {"ids": i32(7)},
        ValueError,
        "v.shape[1] must equal ids.shape[-1]; got v: f32[3,2], ids: i32[7].",
    ),
    (
        "scatter_outer",
        {"x": X[:2]},
        ValueError,
        "v.shape[0] must equal x.shape[0]; got v: f32[3,2], x: f32[2,4].",
    ),
    (
        "scatter_outer",
        {"ids": i32((3, 7))},
        ValueError,
        "v.shape[1] must equal ids.shape[-1]; got v: f32[3,2], ids: i32[3,7].",
    ),
    (
        "take_rows",
        {"ids": IDS},
        ValueError,
        "ids must have 1 axes; got ids: i32[3,2].",
    ),
    (
        "embedding_bag",
        {"ids": SHARED},
        ValueError,
        "ids must have 2 axes; got ids: i32[2].",
    ),
    (
        "embedding_bag",
        {"weights": V[:2]},
        ValueError,
        "ids.shape[0] must equal weights.shape[0]; got ids: i32[3,2], "
        "weights: f32[2,2].",
    ),
    (
        "dense_top_k",
        {"w": f32((5, 3))},
        ValueError,
        "w.shape[1] must equal x.shape[1]; got w: f32[5,3], x: f32[3,4].",
    ),
    (
        "sampled_top_k",
        {"w": f32((5, 3))},
        ValueError,
        "w.shape[1] must equal x.shape[1]; got w: f32[5,3], x: f32[3,4].",
    ),
    (
        "sampled_top_k",
        {"ids": IDS[:2]},
        ValueError,
        "ids must have a row for each example; got ids: i32[2,2], x: f32[3,4].",
    ),
    *[
        (
            "row_grad",
            changed,
            ValueError,
            "ids and scale must have one shape, [m] or [b, k], and x a row for each m "
            f"or b; got {got}",
        )
        for changed, got in [
            ({"x": f32((2, 4))}, "ids: i32[3,2], scale: f32[3,2], x: f32[2,4]."),
            ({"scale": f32((3, 9))}, "ids: i32[3,2], scale: f32[3,9], x: f32[3,4]."),
        ]
    ],
    *[
        (f"{name}_update", changed, ValueError, message)
        for name in OPTIMIZERS
        for changed, message in [
            (
                {"scale": f32(9)},
                "ids, scale and source must have one shape [t]; got "
                "ids: i32[6], scale: f32[9], source: i32[6].",
            ),
            (
                {"source": i32(9)},
                "ids, scale and source must have one shape [t]; got "
                "ids: i32[6], scale: f32[6], source: i32[9].",
            ),
            (
                {"x": f32((3, 9))},
                "x.shape[1] must equal table.shape[1]; got x: f32[3,9], "
                "table: f32[5,4].",
            ),
            (
                {"num_rows": 6},
                "grad.num_rows must equal table.shape[0]; is it the gradient of "
                "another table?; got num_rows: 6, table: f32[5,4].",
            ),
            ({"learning_rate": f32(2)}, "learning_rate must have 0 axes; got"),
        ]
    ],
    *[
        (
            name,
            {arg: f32((6, 4))},
            ValueError,
            f"{arg} must have the shape of table; was it made for another table?; got "
            f"{arg}: f32[6,4], table: f32[5,4].",
        )
        for name, arg in [
            ("momentum_update", "trace"),
            ("adagrad_update", "acc"),
            ("adam_update", "mu"),
            ("adam_update", "nu"),
            ("exact_adam_update", "mu"),
            ("exact_adam_catch_up", "mu"),
            ("exact_adam_flush", "nu"),
        ]
    ],
    *[
        (
            name,
            {arg: x},
            ValueError,
            f"{arg} must have an entry for each row of table; was it made for another "
            f"table?; got {arg}: {aval(x)}, table: f32[5,4].",
        )
        for name, arg, x in [
            ("rowwise_adagrad_update", "acc", f32(6)),
            ("rowwise_adagrad_update", "acc", W),
            ("exact_adam_update", "last", i32(6)),
            ("exact_adam_flush", "last", i32(6)),
        ]
    ],
    (
        "add_rows",
        {"table": W.astype(jnp.bfloat16)},
        ValueError,
        "a bfloat16 table must come with a key; got table: bf16[5,4], key: None. Pass "
        "key=jax.random.key(step).",
    ),
    (
        "sampled_softmax_loss",
        {"targets": IDS[:2]},
        ValueError,
        "targets and logits must have a row for each example; got "
        "targets: i32[2,2], logits: f32[3,4].",
    ),
    (
        "sampled_softmax_loss",
        {"is_active": jnp.ones(5, bool)},
        ValueError,
        "is_active must have one entry for each column of logits; got "
        "is_active: bool[5], logits: f32[3,4].",
    ),
    (
        "sampled_softmax_loss",
        {"is_active": jnp.ones((4, 4), bool)},
        ValueError,
        "is_active must have one entry for each column of logits; got "
        "is_active: bool[4,4], logits: f32[3,4].",
    ),
    *[
        ("fused_softmax_loss", {arg: x}, ValueError, message)
        for arg, x, message in [
            (
                "w",
                f32((5, 3)),
                "w.shape[1] must equal x.shape[1]; got w: f32[5,3], x: f32[3,4].",
            ),
            (
                "targets",
                IDS[:2],
                "targets and x must have a row for each example; got "
                "targets: i32[2,2], x: f32[3,4].",
            ),
            (
                "offsets",
                f32(3),
                "offsets must have one entry for each of ids; got offsets: f32[3], "
                "ids: i32[2].",
            ),
            (
                "is_active",
                jnp.ones((3, 2), bool),
                "is_active must have one entry for each of ids; got "
                "is_active: bool[3,2], ids: i32[2].",
            ),
        ]
    ],
    *[
        (
            "active_set",
            {"candidates[0]": x},
            ValueError,
            "candidates must all be i32[c], shared by the batch, or all i32[b, c], "
            f"with a row for each row of labels; got labels: i32[3,2], candidates[0]: "
            f"{aval(x)}.",
        )
        for x in (IDS[:2], i32((1, 4)))
    ],
    (
        "hits",
        {"labels": IDS[:2]},
        ValueError,
        "predicted and labels must have a row for each example; got "
        "predicted: i32[3,2], labels: i32[2,2].",
    ),
    *[
        (
            name,
            {"k": 3},
            ValueError,
            f"{arg} must have at least k=3 columns; got {arg}: ",
        )
        for name, arg in [
            ("precision_at", "is_hit"),
            ("hit_at", "is_hit"),
            ("propensity_gains", "predicted"),
        ]
    ],
    ("lsh.build", {"table": f32((0, 4))}, ValueError, "table must have rows; got"),
    *[
        (name, {arg: x}, ValueError, message)
        for name, arg, x, message in [
            (
                "lsh.build",
                "table",
                f32((5, 3)),
                "table must give vectors of the family's width 4; got table: f32[5,3], "
                "which gives 3.",
            ),
            (
                "lsh.refresh",
                "table",
                f32((5, 3)),
                "table must give vectors of the family's width 4; got",
            ),
            (
                "lsh.refresh",
                "table",
                f32((6, 4)),
                "table must have the 5 rows of the index; got table: f32[6,4].",
            ),
            (
                "lsh.query",
                "x",
                f32((3, 5)),
                "x must give vectors of the family's width 4; got x: f32[3,5]",
            ),
            (
                "lsh.insert",
                "x",
                f32((3, 5)),
                "x must give vectors of the family's width 4; got x: f32[3,5]",
            ),
            (
                "lsh.insert",
                "ids",
                IDS[:2],
                "ids must have a row for each example; got ids: i32[2,2], x: f32[3,4].",
            ),
            (
                "lsh.query",
                "start",
                i32(1),
                "start must have 0 axes; got start: i32[1].",
            ),
        ]
    ],
    (
        "lsh.query",
        {"start": f32(())},
        TypeError,
        "start must be an integer; got f32[].",
    ),
    # values
    ("lsh.build", {"max_inserted": -1}, ValueError, "must be at least 0; got -1."),
    ("lsh.query", {"size": 0}, ValueError, "size must be at least 1; got 0."),
    ("lsh.query", {"num_probes": 0}, ValueError, "must be at least 1; got 0."),
    (
        "lsh.build",
        {"table": HUGE},
        ValueError,
        "17 / 16 (rows + max_inserted) must be less than 2**31, for slots are numbered "
        "in int32; got 2281701378. Split the table.",
    ),
    (
        "lsh.build",
        {"max_inserted": 2**31 - 1},
        ValueError,
        "17 / 16 (rows + max_inserted) must be less than 2**31, for slots are numbered",
    ),
    ("dense_top_k", {"k": 0}, ValueError, "k must be at least 1; got 0."),
    ("dense_top_k", {"k": -3}, ValueError, "k must be at least 1; got -3."),
    ("sampled_top_k", {"k": 0}, ValueError, "k must be at least 1; got 0."),
    *[
        (name, {"k": 0}, ValueError, "k must be at least 1; got 0.")
        for name in ("precision_at", "hit_at", "propensity_gains")
    ],
    (
        "scatter_outer",
        {"num_rows": -1},
        ValueError,
        "num_rows must be at least 0; got -1.",
    ),
    *[
        (name, {arg: 0}, ValueError, f"{arg} must be at least 1; got 0.")
        for name, arg in [
            ("first_distinct", "k"),
            ("first_distinct", "num_rows"),
            ("active_set", "size"),
            ("active_set", "num_rows"),
        ]
    ],
    *[
        (name, changed, ValueError, "fewer than 2**31 - 1 rows")
        for name, changed in [
            ("sampled_matmul", {"w": HUGE}),
            ("gather_matmul", {"w": HUGE}),
            ("scatter_outer", {"num_rows": 2**31 - 1}),
            ("take_rows", {"w": HUGE}),
            ("embedding_bag", {"table": HUGE}),
            ("dense_top_k", {"w": HUGE}),
            ("sampled_top_k", {"w": HUGE}),
            ("sgd_update", {"table": HUGE}),
            ("first_distinct", {"num_rows": 2**31 - 1}),
            ("active_set", {"num_rows": 2**31 - 1}),
        ]
    ],
]


def is_array(x):
    return hasattr(x, "dtype")


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(
    ("name", "changed", "error", "message"),
    MISTAKES,
    ids=[f"{m[0]}-{'-'.join(m[1])}-{i}" for i, m in enumerate(MISTAKES)],
)
def test_mistakes_are_named(name, changed, error, message, jitted):
    call, args = CALLS[name]
    args = args | changed
    arrays = {arg: x for arg, x in args.items() if is_array(x)}
    rest = {arg: x for arg, x in args.items() if not is_array(x)}
    call = partial(call, **rest)
    if jitted or HUGE in changed.values():
        call = jax.jit(call).trace
    with pytest.raises(error, match=rf"^{name}: .*{re.escape(message)}"):
        call(**arrays)


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_themselves_are_right(name):
    call, args = CALLS[name]
    jax.block_until_ready(call(**args))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: rows.sgd_update(W, rows.sgd_init(W), W, learning_rate=0.1),
            "sgd_update: grad must be of type RowGrad; got ArrayImpl",
        ),
        (
            lambda: rows.adam_update(W, rows.adagrad_init(W), GRAD, learning_rate=0.1),
            "adam_update: state must be of type AdamState; got AdagradState",
        ),
        (
            lambda: rows.adagrad_update(W, rows.adam_init(W), GRAD, learning_rate=0.1),
            "adagrad_update: state must be of type AdagradState; got AdamState",
        ),
        (
            lambda: rows.exact_adam_flush(W, rows.adam_init(W)),
            "exact_adam_flush: state must be of type ExactAdamState; got AdamState",
        ),
        (
            lambda: rows.adam_init(W, moment_dtype=jnp.float16),
            "adam_init: moment_dtype must be float32 or bfloat16; got float16.",
        ),
        *[
            (
                partial(call, *args),
                f"lsh.{name}: index must be of type Index; got SimHash",
            )
            for name, call, args in [
                ("refresh", lsh.refresh, (FAMILY, W, SHARED)),
                ("remove", lsh.remove, (FAMILY, SHARED)),
                ("insert", lsh.insert, (FAMILY, X, IDS)),
                ("query", lsh.query, (FAMILY, X, 2)),
                ("num_bytes", lsh.num_bytes, (FAMILY,)),
            ]
        ],
        (
            lambda: jax.jit(fsparse.dense_top_k)(X, W, 2),
            "dense_top_k: k must be a static integer; got",
        ),
    ],
)
def test_wrong_kinds_are_named(call, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        call()


def test_tables_folded_by_vmap_must_fit_int32():
    w = jax.ShapeDtypeStruct((4, 2**29, 4), jnp.float32)
    mapped = jax.vmap(fsparse.sampled_matmul, in_axes=(None, 0, None))
    with pytest.raises(ValueError, match=r"vmap: .*got 2147483648\. Split the table"):
        jax.eval_shape(mapped, X, w, IDS)


def test_buckets_must_fit_int32():
    """Checked before anything is allocated."""
    shape = jax.eval_shape(lambda: lsh.simhash(KEY, 1, num_tables=2**17, num_bits=14))
    table = jax.ShapeDtypeStruct((3, 1), jnp.float32)
    with pytest.raises(ValueError, match=r"^lsh\.build: .*got 2147483648\. Use fewer"):
        jax.eval_shape(lsh.build, shape, table)
