"""The ops on sketches against their twins and plain numpy; in place."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsparse import lsh
from fsparse.sketch import _ops, _reference, nw_init, nw_rotate, nw_update

# g, b, R, n, blocks, m, groups
SIZES = [
    (1, 1, 1, 1, 1, 1, 1),
    (1, 9, 6, 5, 1, 1, 3),
    (2, 8, 4, 7, 3, 1, 2),
    (3, 33, 12, 16, 2, 20, 4),
    (2, 0, 4, 5, 1, 2, 2),
    (1, 5, 3, 4, 1, 0, 1),
]
every_size = pytest.mark.parametrize("size", SIZES, ids=str)


def operands_of(size, rng):
    g, b, r, n, blocks, m, _ = size
    cells = rng.integers(-1, n * blocks + 2, (g, b, r)).astype(np.int32)
    values = rng.standard_normal((g, b, 1 + m)).astype(np.float32)
    table = rng.standard_normal((g * r, n * blocks, 1 + m)).astype(np.float32)
    return tuple(map(jnp.asarray, (cells, values, table)))


@every_size
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_update_has_the_bits_of_its_twin(size, factor, rng):
    cells, values, table = operands_of(size, rng)
    factors = jnp.full(size[0], factor).at[0].set(1.0)
    (got,) = _ops.update_op(cells, values, factors, table)
    (want,) = _reference.update(cells, values, factors, table)
    np.testing.assert_array_equal(got, want)


@every_size
def test_query_matches_float64(size, rng):
    """Up to the rounding of sums of as many terms as there are rows."""
    g, _, r, n, blocks, m, groups = size
    cells, values, table = operands_of(size, rng)
    cells, centre = cells // blocks, values[:, :, 1:]
    table = table.reshape(g, r, n, blocks, 1 + m)
    got = _ops.query_op(cells, centre, table, num_groups=groups)
    twin = _reference.query(cells, centre, table, num_groups=groups)
    want = query_by_loop(*(np.asarray(x) for x in (cells, centre, table)), groups)
    for ours, theirs, exact in zip(got, twin, want, strict=True):
        assert ours.shape == theirs.shape == exact.shape
        for y in (ours, theirs):
            np.testing.assert_allclose(y, exact, rtol=1e-5, atol=4e-6 * blocks * r)


def query_by_loop(cells, centre, table, groups):
    """One example and row after the other, in float64."""
    g, b, r = cells.shape
    m = centre.shape[2]
    rows = np.zeros((g, b, r, 1 + m))
    for i, e, j in np.ndindex(g, b, r):
        if 0 <= cells[i, e, j] < table.shape[2]:
            held = table[i, j, cells[i, e, j]].astype(np.float64).sum(0)
            rows[i, e, j] = held - np.append(0, centre[i, e] * held[0])
    sums = rows.reshape(g, b, groups, r // groups, 1 + m).sum(3)
    off = rows - rows.mean(2, keepdims=True)
    dc, dt = off[..., :1], off[..., 1:]
    return sums, np.concatenate([dc * dc, dc * dt, dt * dt], 3).sum(2)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_cells_at_all_are_safe(seed):
    """Nothing outside the table is read or written: else this crashes."""
    rng = np.random.default_rng(seed)
    wild = [-(2**31), -1, 0, 3, 4, 5, 2**30, 2**31 - 1]
    cells = jnp.asarray(rng.choice(wild, (1, 6, 4)), jnp.int32)
    table, values = jnp.zeros((4, 5, 2)), jnp.ones((1, 6, 2))
    (table,) = _ops.update_op(cells, values, jnp.ones(1), table)
    inside = (np.asarray(cells) >= 0) & (np.asarray(cells) < 5)
    np.testing.assert_array_equal(table.sum((1, 2)), 2 * inside.sum((0, 1)))
    query = partial(_ops.query_op, num_groups=2)
    sums, _ = query(cells, jnp.zeros((1, 6, 1)), table[None, :, :, None])
    assert np.isfinite(sums).all()


def test_one_sketch_asked_by_many_is_not_copied():
    """``vmap`` over examples alone adds examples."""
    table, cells = jnp.zeros((8, 4096, 1, 2)), jnp.zeros((5, 3, 8), jnp.int32)
    ask = jax.vmap(partial(_ops.query, num_groups=1), (0, None, None))
    text = jax.jit(ask).lower(cells, jnp.zeros((3, 1)), table).as_text()
    assert "tensor<1x15x8xi32>" in text
    assert "tensor<5x8x4096x1x2xf32>" not in text


# ---- in place -----------------------------------------------------------------------

FAMILY = lsh.simhash(jax.random.key(0), 4, num_tables=16, num_bits=12)


def make_sketch():
    return jax.tree.map(jnp.copy, nw_init(FAMILY, num_slices=2, num_blocks=2))


def batch():
    x = jax.random.normal(jax.random.key(1), (8, 4))
    return x, x[:, 0], jnp.arange(8, dtype=jnp.int32)


def over_steps(sketch, *args):
    step = lambda s, _: (nw_update(s, *args), None)  # noqa: E731
    return jax.lax.scan(step, sketch, length=3)[0]


@pytest.mark.parametrize("update", [nw_update, over_steps], ids=["jit", "scan"])
def test_a_donated_sketch_is_updated_in_place(update):
    sketch, args = make_sketch(), batch()
    table_bytes = sketch.table.nbytes
    step = jax.jit(update, donate_argnums=0).lower(sketch, *args).compile()
    memory = step.memory_analysis()
    assert memory.alias_size_in_bytes >= table_bytes
    assert memory.temp_size_in_bytes < table_bytes / 10
    pointer = sketch.table.unsafe_buffer_pointer()
    for _ in range(2):
        sketch = step(sketch, *args)
        assert sketch.table.unsafe_buffer_pointer() == pointer


def test_a_ring_turns_in_place():
    sketch = make_sketch()
    turn = jax.jit(nw_rotate, donate_argnums=0).lower(sketch).compile()
    memory = turn.memory_analysis()
    assert memory.alias_size_in_bytes >= sketch.table.nbytes
    assert memory.temp_size_in_bytes < sketch.table.nbytes
