"""use_huge_pages: what the kernel says lies where, in /proc/self/smaps."""

import platform
import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import fsparse
from fsparse import Table, rows
from fsparse.data import Dataset, from_lists

HUGE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
PAGE = int(HUGE.read_text()) if HUGE.exists() else None
RELEASE = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
CAN_MOVE = PAGE is not None and RELEASE >= (6, 1)


def huge_bytes(array):
    """Of the mapping that an array lies in, all of it that is in huge pages."""
    address = array.unsafe_buffer_pointer()
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if bounds := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            begin, end = (int(bound, 16) for bound in bounds.groups())
            inside = begin < address + array.nbytes and address < end
        elif inside and line.startswith("AnonHugePages:"):
            found += 1024 * int(line.split()[1])
    return found


def whole_pages(array):
    """Bytes of the huge pages that lie whole in an array."""
    begin = array.unsafe_buffer_pointer()
    return (begin + array.nbytes) // PAGE * PAGE - -(-begin // PAGE) * PAGE


needs_huge_pages = pytest.mark.skipif(not CAN_MOVE, reason="no MADV_COLLAPSE here")


@pytest.fixture
def table():
    return jax.random.normal(jax.random.key(0), (80_000, 64))  # 20 MB, or 5 of bytes


@needs_huge_pages
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "bool"])
def test_arrays_move_and_stay_what_they_are(table, dtype):
    table = table.astype(dtype)
    before, address = np.array(table), table.unsafe_buffer_pointer()
    moved = fsparse.use_huge_pages({"a": [Table(table)], "b": None})
    assert moved == whole_pages(table) > 0
    assert huge_bytes(table) >= moved
    assert table.unsafe_buffer_pointer() == address
    np.testing.assert_array_equal(np.asarray(table), before)
    assert fsparse.use_huge_pages(table) == moved  # again, which changes nothing


@needs_huge_pages
def test_steps_that_donate_leave_them_there(table):
    optimizer = rows.adam(1e-3)
    state = jax.jit(optimizer.init)(table)
    moved = fsparse.use_huge_pages((table, state))
    places = [x.unsafe_buffer_pointer() for x in jax.tree.leaves((table, state.mu))]

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(table, state):
        ids, source = jnp.arange(8)[:, None], jnp.ones((8, 64))
        grad = fsparse.row_grad(ids, source, num_rows=len(table))
        return optimizer.update(table, state, grad)

    for _ in range(3):
        table, state = step(table, state)
    now = [x.unsafe_buffer_pointer() for x in jax.tree.leaves((table, state.mu))]
    assert now == places
    assert fsparse.use_huge_pages((table, state)) == moved
    assert huge_bytes(table) >= whole_pages(table)


@needs_huge_pages
def test_all_shards_move(table):
    mesh = jax.make_mesh((2,), ("rows",))
    split = jax.device_put(table, NamedSharding(mesh, PartitionSpec("rows")))
    parts = [shard.data for shard in split.addressable_shards]
    moved = fsparse.use_huge_pages(split)
    assert len(parts) == 2
    assert moved == sum(map(whole_pages, parts))
    assert all(huge_bytes(part) >= whole_pages(part) for part in parts)


@needs_huge_pages
def test_fit_moves_what_it_trains():
    classifier = fsparse.nn.extreme_classifier(40_000, 50, width=64, num_negatives=8)
    ids = from_lists([[0], [1], [2]], 40_000)
    data = Dataset(ids, from_lists([[0], [1], [2]], 50))
    fitted = fsparse.fit(classifier, data, batch_size=2, progress=False)
    table = fitted.params["body"][0]["table"].value
    assert huge_bytes(table) >= whole_pages(table) > 0


def test_what_cannot_gain_stays(table):
    others = [jnp.zeros(7), jax.random.key(0), np.zeros((4096, 4096)), "text", 3]
    assert fsparse.use_huge_pages(others) == 0
    assert fsparse.use_huge_pages(None) == 0


def test_tracers_and_deleted_arrays_are_refused(table):
    message = r"use_huge_pages: .* in memory; got a tracer, f32\[80000,64\]\. Call it"
    with pytest.raises(ValueError, match=message):
        jax.jit(fsparse.use_huge_pages)(table)
    table.delete()
    with pytest.raises(RuntimeError, match="deleted"):
        fsparse.use_huge_pages(table)
