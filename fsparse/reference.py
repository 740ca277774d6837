"""The pure-JAX twin of every custom call: specification, oracle, fallback.

Each twin takes and returns what the C++ handler of the same name does. In the matmul
family ``g`` counts independent products (the batch, when active sets are per example
and ``b == 1``) and ``b`` the examples that share one set of ids. An id outside
``[0, n)`` marks padding: it selects a row of zeros and receives nothing.
"""

from functools import partial

import jax
import jax.numpy as jnp

from fsparse._precision import ALL_PARTS, of_dot

Array = jax.Array
Rows = tuple[Array, Array, Array]


def valid(ids: Array, num_rows: int | Array) -> Array:
    """Which ids name a row: ``bool`` of the shape of ``ids``."""
    return (ids >= 0) & (ids < num_rows)


def take_rows(w: Array, ids: Array) -> Array:
    """``w[ids]`` as f32 with zeros for padding: ``f32[..., d]``."""
    if w.shape[0] == 0:
        return jnp.zeros((*ids.shape, w.shape[1]), jnp.float32)
    safe = jnp.where(valid(ids, w.shape[0]), ids, 0)
    return jnp.where(valid(ids, w.shape[0])[..., None], w[safe].astype(jnp.float32), 0)


def sampled_matmul(
    x: Array, w: Array, ids: Array, num_parts: int = ALL_PARTS
) -> tuple[Array]:
    """``y[g, i, j] = x[g, i] . w[ids[g, j]]``: ``f32[g, b, m]``."""
    precision = of_dot(num_parts)
    y = jnp.einsum("gbd,gmd->gbm", x, take_rows(w, ids), precision=precision)
    return (jnp.where(valid(ids, w.shape[0])[:, None, :], y, 0),)


def gather_matmul(
    v: Array, w: Array, ids: Array, num_parts: int = ALL_PARTS
) -> tuple[Array]:
    """``z[g, i] = sum_j v[g, i, j] w[ids[g, j]]``: ``f32[g, b, d]``."""
    v, precision = jnp.where(valid(ids, w.shape[0])[:, None], v, 0), of_dot(num_parts)
    return (jnp.einsum("gbm,gmd->gbd", v, take_rows(w, ids), precision=precision),)


def sum_examples(v: Array, x: Array, num_parts: int = ALL_PARTS) -> tuple[Array]:
    """``out[g, j] = sum_i v[g, i, j] x[g, i]``: ``f32[g, m, d]``."""
    return (jnp.einsum("gbm,gbd->gmd", v, x, precision=of_dot(num_parts)),)


def num_products(v: Array) -> int:
    """Rows of scratch that the handler of `scatter_outer` wants: see matmul_ffi.cc."""
    g, b, m = v.shape
    return 0 if b == 1 else g * m


def scatter_outer(
    v: Array, x: Array, ids: Array, num_rows: int, num_parts: int = ALL_PARTS
) -> tuple[Array, Array]:
    """``out[ids[g, j]] += sum_i v[g, i, j] x[g, i]``: ``f32[num_rows, d]``, scratch."""
    (rows,) = sum_examples(v, x, num_parts)
    safe = jnp.where(valid(ids, num_rows), ids, num_rows)
    out = jnp.zeros((num_rows, x.shape[-1]), x.dtype)
    scratch = jnp.zeros((num_products(v), x.shape[-1]), x.dtype)
    return out.at[safe].add(rows, mode="drop"), scratch


def coalesce(
    ids: Array, scale: Array, source: Array, x: Array, num_rows: int | Array
) -> tuple[Array, Array]:
    """Sums the occurrences of a row gradient by row.

    Returns:
      ``i32[t]`` distinct row ids in rising order, padded with ``num_rows``, and
      ``f32[t, d]`` the gradients of those rows, 0 for padding.
    """
    is_row = valid(ids, num_rows) & valid(source, x.shape[0])
    rows, inverse = jnp.unique(
        jnp.where(is_row, ids, num_rows),
        size=ids.size,
        fill_value=num_rows,
        return_inverse=True,
    )
    scale = jnp.where(is_row, scale, 0)
    terms = scale[:, None] * take_rows(x, jnp.where(is_row, source, -1))
    return rows, jnp.zeros_like(terms).at[inverse.ravel()].add(terms)


def sqrt(x: Array) -> Array:
    """The square root, with derivative 0 at 0.

    So ``g / (sqrt(g**2) + eps)`` has its derivative ``1 / eps`` at ``g == 0``, where
    the chain rule alone finds ``inf * 0``.
    """
    return jnp.where(x == 0, 0, jnp.sqrt(jnp.where(x == 0, 1, x)))


# ---- tables of bfloat16 -------------------------------------------------------------

GOLDEN = 0x9E3779B9


def mix(h: Array) -> Array:
    """A bijection of 32 bits with low bias: Wellons's ``lowbias32``."""
    for shift, factor in [(16, 0x7FEB352D), (15, 0x846CA68B)]:
        h = (h ^ (h >> jnp.uint32(shift))) * jnp.uint32(factor)
    return h ^ (h >> jnp.uint32(16))


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def round_to_bf16(x: Array, seed: Array, rows: Array, slot: int) -> Array:
    """Rounds ``f32[m, d]`` at random to a neighbour, so that the mean stays.

    The random bits are a hash of the seed, ``u32[2]``, of the row ``rows[i]``, the slot
    (0 for a table, 1, 2, ... for its moments) and the column; columns 16 apart share
    one of 32 bits. What bfloat16 holds stays as it is. The derivative is that of the
    identity.
    """
    row_keys = mix(
        mix(seed[:1] ^ rows.astype(jnp.uint32))
        + seed[1:]
        + jnp.uint32(slot * GOLDEN % 2**32)
    )
    columns = jnp.arange(x.shape[1], dtype=jnp.uint32)
    counters = (columns // 32 * 16 + columns % 16) * jnp.uint32(GOLDEN)
    half = 16 * (columns // 16 % 2)
    noise = mix(row_keys[:, None] + counters) >> half & jnp.uint32(0xFFFF)
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    quiet_nan = (bits >> jnp.uint32(16)) | jnp.uint32(0x40)
    rounded = (bits + noise) >> jnp.uint32(16)
    high = jnp.where(jnp.isnan(x), quiet_nan, rounded).astype(jnp.uint16)
    return jax.lax.bitcast_convert_type(high, jnp.bfloat16)


@round_to_bf16.defjvp
def _round_to_bf16_jvp(
    slot: int, primals: tuple[Array, ...], tangents: tuple[Array, ...]
) -> tuple[Array, Array]:
    return round_to_bf16(*primals, slot), tangents[0].astype(jnp.bfloat16)


def open_rows(tables: tuple[Array, ...], rows: Array) -> list[Array]:
    """The rows of a table and its moments as ``f32[m, d]`` each."""
    return [take_rows(table, rows).astype(jnp.float32) for table in tables]


def store_rows(
    tables: tuple[Array, ...], rows: Array, seed: Array, new: tuple[Array, ...]
) -> tuple[Array, ...]:
    """Overwrites rows, rounding where the table is bfloat16."""
    out = []
    for slot, (table, x) in enumerate(zip(tables, new, strict=True)):
        if table.dtype == jnp.bfloat16:
            x = round_to_bf16(x, seed, rows, slot)
        out.append(table.at[rows].set(x, mode="drop"))
    return tuple(out)


# ---- row optimizers: (ids, scale, source, x, hyper, seed, table, *moments) ----------


def sgd_rows(
    ids: Array,
    scale: Array,
    source: Array,
    x: Array,
    hyper: Array,
    seed: Array,
    table: Array,
) -> tuple[Array, ...]:
    """``w = (1 - lr wd) w - lr g`` for the rows named."""
    rows, g = coalesce(ids, scale, source, x, table.shape[0])
    learning_rate, decay = hyper
    (w,) = open_rows((table,), rows)
    w = (1 - learning_rate * decay) * w - learning_rate * g
    return store_rows((table,), rows, seed, (w,))


def momentum_rows(
    ids: Array,
    scale: Array,
    source: Array,
    x: Array,
    hyper: Array,
    seed: Array,
    table: Array,
    trace: Array,
) -> tuple[Array, ...]:
    """``trace = decay trace + g; w = (1 - lr wd) w - lr trace``, or Nesterov's."""
    rows, g = coalesce(ids, scale, source, x, table.shape[0])
    learning_rate, decay, nesterov, weight_decay = hyper
    w, v = open_rows((table, trace), rows)
    v = decay * v + g
    u = jnp.where(nesterov != 0, g + decay * v, v)
    w = (1 - learning_rate * weight_decay) * w - learning_rate * u
    return store_rows((table, trace), rows, seed, (w, v))


def adagrad_rows(
    ids: Array,
    scale: Array,
    source: Array,
    x: Array,
    hyper: Array,
    seed: Array,
    table: Array,
    acc: Array,
) -> tuple[Array, ...]:
    """``acc += g**2; w = (1 - lr wd) w - lr g / (sqrt(acc) + eps)``."""
    rows, g = coalesce(ids, scale, source, x, table.shape[0])
    learning_rate, eps, decay = hyper
    w, a = open_rows((table, acc), rows)
    a = a + g**2
    w = (1 - learning_rate * decay) * w - learning_rate * g / (sqrt(a) + eps)
    return store_rows((table, acc), rows, seed, (w, a))


def rowwise_adagrad_rows(
    ids: Array,
    scale: Array,
    source: Array,
    x: Array,
    hyper: Array,
    seed: Array,
    table: Array,
    acc: Array,
) -> tuple[Array, ...]:
    """The same with one accumulator a row, ``f32[n]``: ``acc += mean(g**2)``."""
    rows, g = coalesce(ids, scale, source, x, table.shape[0])
    learning_rate, eps, decay = hyper
    w, a = open_rows((table, acc[:, None]), rows)
    a = a + jnp.sum(g**2, axis=1, keepdims=True) / max(x.shape[1], 1)
    w = (1 - learning_rate * decay) * w - learning_rate / (sqrt(a) + eps) * g
    table, acc = store_rows((table, acc[:, None]), rows, seed, (w, a))
    return table, acc[:, 0]


def adam_step(
    g: Array, hyper: Array, w: Array, mu: Array, nu: Array
) -> tuple[Array, Array, Array]:
    """A step of Adam on open rows, with bias corrections given in ``hyper``."""
    learning_rate, b1, b2, eps, bias1, bias2, decay = hyper
    mu = b1 * mu + (1 - b1) * g
    nu = b2 * nu + (1 - b2) * g**2
    step = learning_rate * (mu / bias1) / (sqrt(nu / bias2) + eps)
    return (1 - learning_rate * decay) * w - step, mu, nu


def adam_rows(
    ids: Array,
    scale: Array,
    source: Array,
    x: Array,
    hyper: Array,
    seed: Array,
    table: Array,
    mu: Array,
    nu: Array,
) -> tuple[Array, ...]:
    """Adam on the rows named; hyper: ``lr, b1, b2, eps, bias1, bias2, wd``."""
    rows, g = coalesce(ids, scale, source, x, table.shape[0])
    tables = (table, mu, nu)
    new = adam_step(g, hyper, *open_rows(tables, rows))
    return store_rows(tables, rows, seed, new)


# ---- Adam whose rows catch up -------------------------------------------------------


def missed_steps(
    decay: Array,
    history: Array,
    step: Array,
    last: Array,
    w: Array,
    mu: Array,
    nu: Array,
) -> Rows:
    """Adam with ``g = 0`` on open rows, for the updates ``last + 1, ..., step``.

    At most ``max_terms`` of them move ``w``, the first that ``history`` still holds.
    """
    b1, b2, eps, max_terms = decay
    slots = history.shape[0]
    missed = jnp.where((last >= 0) & (last <= step), step - last, 0)
    kept = jnp.minimum(missed, slots)
    terms = jnp.minimum(kept, jnp.minimum(max_terms, slots).astype(jnp.int32))

    def power(b: Array, steps: Array) -> Array:
        return (b ** steps.astype(jnp.float32))[:, None]

    def move(j: Array, w: Array, m: Array, s: Array) -> Rows:
        is_missed = (j < terms)[:, None]
        alpha, corr = jnp.split(history[(step - kept + 1 + j) % slots], 2, axis=1)
        new_m, new_s = b1 * m, jnp.sqrt(b2) * s
        new_w = w - alpha * new_m / (new_s * corr + eps)
        return (
            jnp.where(is_missed, new_w, w),
            jnp.where(is_missed, new_m, m),
            jnp.where(is_missed, new_s, s),
        )

    def stay(j: Array, w: Array, m: Array, s: Array) -> Rows:
        return w, m, s

    def body(rows: Rows, j: Array) -> tuple[Rows, None]:
        return jax.lax.cond(jnp.any(j < terms), move, stay, j, *rows), None

    opened = (
        w,
        mu * power(b1, missed - kept),
        sqrt(nu * power(b2, missed - kept)),
    )
    (w, mu, _), _ = jax.lax.scan(body, opened, jnp.arange(slots, dtype=jnp.int32))
    return w, mu * power(b1, kept - terms), nu * power(b2, missed)


def last_of(last: Array, rows: Array, step: Array) -> Array:
    """``last[rows]``, and ``step`` for padding."""
    num_rows = last.shape[0]
    if num_rows == 0:
        return jnp.broadcast_to(step, rows.shape)
    safe = jnp.minimum(rows, num_rows - 1)
    return jnp.where(rows < num_rows, last[safe], step)


def exact_adam_rows(
    ids: Array,
    scale: Array,
    source: Array,
    x: Array,
    hyper: Array,
    history: Array,
    step: Array,
    seed: Array,
    table: Array,
    mu: Array,
    nu: Array,
    last: Array,
) -> tuple[Array, ...]:
    """Rows named catch up; then Adam. hyper: ``lr, b1, b2, eps, bias1, bias2, J``."""
    rows, g = coalesce(ids, scale, source, x, table.shape[0])
    tables = (table, mu, nu)
    decay = jnp.append(hyper[1:4], hyper[6:])
    opened = missed_steps(
        decay, history, step, last_of(last, rows, step), *open_rows(tables, rows)
    )
    new = adam_step(g, hyper.at[6].set(0), *opened)
    last = last.at[rows].set(step[0] + 1, mode="drop")
    return *store_rows(tables, rows, seed, new), last


def adam_catch_up(
    ids: Array,
    hyper: Array,
    history: Array,
    step: Array,
    seed: Array,
    table: Array,
    mu: Array,
    nu: Array,
    last: Array,
) -> tuple[Array, ...]:
    """Only the catching up; hyper: ``b1, b2, eps, max_terms``."""
    num_rows, tables = table.shape[0], (table, mu, nu)
    named = jnp.where(valid(ids, num_rows), ids, num_rows)
    rows = jnp.unique(named, size=ids.size, fill_value=num_rows)
    new = missed_steps(
        hyper, history, step, last_of(last, rows, step), *open_rows(tables, rows)
    )
    last = last.at[rows].set(step[0], mode="drop")
    return *store_rows(tables, rows, seed, new), last


def sum_squares(
    ids: Array, scale: Array, source: Array, x: Array, num_rows: Array
) -> tuple[Array]:
    """``sum over rows of |g[r]|**2``: ``f32[1]``."""
    _, g = coalesce(ids, scale, source, x, num_rows[0])
    return (jnp.sum(g**2)[None],)


def dense_top_k(x: Array, w: Array, k: int) -> tuple[Array, Array]:
    """The ``k`` largest ``x @ w.T`` of each row and their ids, best first.

    Where fewer than ``k`` scores are comparable (``k > n``, NaN, -inf), the rest are
    ``-inf`` with id ``n``.
    """
    n = w.shape[0]
    scores = jnp.matmul(x, w.T.astype(jnp.float32), precision="highest")
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    scores = jnp.pad(scores, ((0, 0), (0, k)), constant_values=-jnp.inf)
    best, ids = jax.lax.top_k(scores, k)
    return best, jnp.where(jnp.isneginf(best), n, ids).astype(jnp.int32)


def sampled_top_k(x: Array, w: Array, ids: Array, k: int) -> tuple[Array, Array]:
    """The ``k`` largest of ``x[i] . w[ids[i, j]]`` and their ids, best first.

    Equal scores in the order of ``ids``. Padding, NaN and -inf are no candidates.
    """
    (scores,) = sampled_matmul(x[:, None], w, ids)
    is_row = valid(ids, w.shape[0]) & (scores[:, 0] > -jnp.inf)
    scores = jnp.where(is_row, scores[:, 0], -jnp.inf)
    scores = jnp.pad(scores, ((0, 0), (0, k)), constant_values=-jnp.inf)
    best, at = jax.lax.top_k(scores, k)
    ids = jnp.take_along_axis(jnp.pad(ids, ((0, 0), (0, k))), at, axis=1)
    return best, jnp.where(best > -jnp.inf, ids, w.shape[0])
