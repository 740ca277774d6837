"""BOLT's rules against what they are known to give, and against plain arithmetic."""

import math
from decimal import ROUND_HALF_UP, Decimal

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fsparse
from fsparse import bolt_autotune, lsh

DIM = 256
# n, sparsity, active, K, bits, L, R, MB of tables, MB of weights at width 256
KNOWN = [
    (1_000, 0.1, 100, 3, 9, 51, 4, 0.4, 1),
    (5_000, 0.02, 100, 4, 12, 82, 4, 5.4, 5),
    (10_000, 0.01, 100, 5, 15, 328, 4, 172, 10),
    (20_000, 0.005, 100, 5, 15, 164, 4, 86, 20),
    (205_443, 0.005, 1_027, 5, 15, 164, 24, 516, 210),
    (325_056, 0.005, 1_625, 5, 15, 164, 36, 774, 333),
    (670_091, 0.005, 3_350, 5, 15, 164, 80, 1_720, 686),
    (3_000_000, 0.005, 15_000, 5, 15, 164, 364, 7_825, 3_072),
]
LIMITS = [450, 900, 1_800, 4_000, 10_000, 20_000]
SPARSITIES = [1.0, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005]


@pytest.mark.parametrize("row", KNOWN, ids=lambda row: str(row[0]))
def test_the_known_table(row):
    n, sparsity, active, hashes, bits, tables, reservoir, megabytes, _ = row
    config = bolt_autotune(n, DIM)
    assert config[:5] == (sparsity, active, hashes, bits, tables)
    assert config.reservoir_size == reservoir == 4 * config.bucket_size
    assert config.table_bytes / 1e6 == pytest.approx(megabytes, abs=0.5, rel=0.02)


@pytest.mark.parametrize("i", range(len(LIMITS)))
def test_sparsity_changes_at_the_limits_and_nowhere_beside_them(i):
    around = [bolt_autotune(LIMITS[i] + step, DIM).sparsity for step in (-1, 0, 1)]
    assert around == [SPARSITIES[i], SPARSITIES[i + 1], SPARSITIES[i + 1]]


def test_the_least_and_the_most_rows():
    assert bolt_autotune(1, 1).sparsity == 1
    assert bolt_autotune(10**9, 1).sparsity == 0.005


@pytest.mark.parametrize("layer", [{"num_rows": 449}, {"num_rows": 9, "sparsity": 1}])
def test_a_dense_layer_has_no_index_and_no_schedule(layer):
    config = bolt_autotune(dim=DIM, **layer, num_examples=10**6, batch_size=100)
    assert config == (1, layer["num_rows"], 0, 0, 0, 0, 0, 0, 0, None, None)


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "expected"),
    [
        (99_999, 100, (50, 250)),  # 1000 steps: a 20th
        (100_000, 100, (10, 250)),  # a 100th
        (490_449, 256, (19, 479)),  # 1916 steps
        (490_449, 2_048, (2, 60)),  # 240 steps
        (101, 100, (1, 1)),  # 2 steps
        (1, 100, (1, 1)),
    ],
)
def test_schedule(num_examples, batch_size, expected):
    config = bolt_autotune(
        670_091, DIM, num_examples=num_examples, batch_size=batch_size
    )
    assert (config.rebuild_every, config.reconstruct_every) == expected


def test_no_schedule_without_an_epoch():
    assert bolt_autotune(670_091, DIM)[-2:] == (None, None)


def half_up(x):
    return int(Decimal(x).to_integral_value(ROUND_HALF_UP))


@given(st.integers(1_000, 10**7), st.integers(1, 5_000), st.integers(1, 999))
def test_the_rules_in_decimal_arithmetic(n, dim, thousandths):
    sparsity = Decimal(thousandths) / 1000
    config = bolt_autotune(n, dim, sparsity=float(sparsity))
    hashes = min(max(half_up(math.log2(128 / float(sparsity)) / 3), 2), 8)
    tables = half_up(sparsity * 8**hashes)
    assert config.num_active == int(sparsity * n)
    assert (config.num_hashes, config.num_tables) == (hashes, tables)
    assert config.bucket_size == max(n // 8**hashes, 1)
    permutations = config.num_permutations
    assert dim * (permutations - 1) < 8 * hashes * tables <= dim * permutations


def test_halves_are_rounded_away_from_zero():
    assert bolt_autotune(10**6, DIM, sparsity=2.0**-0.5 * 1.01).num_hashes == 2
    assert bolt_autotune(10**6, DIM, sparsity=2.0**-0.5 * 0.99).num_hashes == 3
    assert bolt_autotune(10**6, DIM, sparsity=0.7265625).num_tables == 47  # 46.5


def test_few_active_rows_need_more_bits_than_our_tables_have():
    assert bolt_autotune(10**6, DIM, sparsity=0.0014).num_bits == 15
    assert bolt_autotune(10**6, DIM, sparsity=0.0013).num_bits == 18
    assert bolt_autotune(2 * 10**9, DIM, sparsity=1e-9).num_bits == 24
    assert bolt_autotune(2 * 10**9, DIM, sparsity=1e-9).num_tables == 1


def test_the_family_has_as_many_permutations():
    config = bolt_autotune(1_000, 64)
    family = lsh.dwta(
        jax.random.key(0),
        64,
        num_tables=config.num_tables,
        num_hashes=config.num_hashes,
    )
    assert family.num_buckets == 2**config.num_bits
    assert family.places.shape[1] == config.num_permutations


MISTAKES = [
    ({"num_rows": 0}, ValueError, "num_rows must be at least 1; got 0"),
    ({"dim": 0}, ValueError, "dim must be at least 1; got 0"),
    ({"num_rows": 2.0}, TypeError, "num_rows must be a static integer; got float"),
    ({"sparsity": 0}, ValueError, r"sparsity must be in \(0, 1\]; got 0"),
    ({"sparsity": 1.5}, ValueError, r"sparsity must be in \(0, 1\]; got 1.5"),
    ({"sparsity": float("nan")}, ValueError, r"must be in \(0, 1\]; got nan"),
    ({"sparsity": "1"}, TypeError, "sparsity must be a number; got str"),
    ({"sparsity": 1e-4}, ValueError, r"must be at least 1; got 0.0001 \* 1000"),
    ({"num_examples": 9}, ValueError, "must be given together; got 9 and None"),
    ({"batch_size": 9}, ValueError, "must be given together; got None and 9"),
    ({"num_examples": 0, "batch_size": 1}, ValueError, "num_examples must be at least"),
]


@pytest.mark.parametrize(("changes", "error", "message"), MISTAKES)
def test_mistakes(changes, error, message):
    with pytest.raises(error, match=f"^bolt_autotune: .*{message}"):
        fsparse.bolt_autotune(**{"num_rows": 1_000, "dim": DIM, **changes})
