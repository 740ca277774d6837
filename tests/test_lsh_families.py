"""The hash families against slow references and the closed forms of their sources.

Statistics are of fixed seeds. A binomial test rejects at 1e-4 (two-sided), a mean at 4
standard errors (6e-5).
"""

import itertools

import jax
import jax.numpy as jnp
import lsh_oracles as oracles
import numpy as np
import pytest
from scipy.stats import binomtest, norm

from fsparse import lsh
from fsparse.lsh._dwta import _dealt
from fsparse.lsh._probing import candidates
from fsparse.lsh._projections import rotate

KEY = jax.random.key(0)
KINDS = ("dense", "sparse", "hadamard")


def assert_binomial(agree, p):
    agree = np.asarray(agree).ravel()
    assert binomtest(int(agree.sum()), agree.size, p).pvalue > 1e-4


def assert_mean(samples, mean):
    samples = np.asarray(samples, np.float64)
    error = samples.std(ddof=1) / np.sqrt(len(samples))
    assert abs(samples.mean() - mean) < 4 * error


def agreement(make, num_keys, rows):
    """Which tables agree on two rows, of families of many keys: ``bool[keys, l]``."""

    def one(key):
        a, b = lsh.codes(make(key), rows)
        return a == b

    return jax.jit(jax.vmap(one))(jax.random.split(KEY, num_keys))


# ---- SimHash ------------------------------------------------------------------------


def pair_at(rng, angle, d):
    """Two rows at an angle, of different lengths."""
    q, _ = np.linalg.qr(rng.standard_normal((d, 2)))
    pair = q[:, 0], 3 * (np.cos(angle) * q[:, 0] + np.sin(angle) * q[:, 1])
    return np.array(pair, np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("angle", [0.3, 1.2, 2.5])
def test_simhash_bits_agree_as_angles(rng, kind, angle):
    make = lambda key: lsh.simhash(key, 64, num_tables=64, num_bits=1, kind=kind)  # noqa: E731
    agree = agreement(make, 200, pair_at(rng, angle, 64))
    assert_mean(np.mean(agree, axis=1), 1 - angle / np.pi)
    if kind == "dense":
        assert_binomial(agree, 1 - angle / np.pi)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_simhash_codes_are_bits_of_signs(rng, kind):
    family = lsh.simhash(KEY, 9, num_tables=5, num_bits=7, kind=kind)
    x = rng.standard_normal((4, 9)).astype(np.float32)
    bits = x @ np.asarray(family.directions, np.float32) > 0
    want = oracles.packed(bits.reshape(4, 5, 7))
    np.testing.assert_array_equal(lsh.codes(family, x), want)


@pytest.mark.parametrize("density", [1 / 3, 0.1, 1.0])
def test_sparse_directions_are_signs_at_a_density(density):
    family = lsh.simhash(KEY, 200, num_bits=10, kind="sparse", density=density)
    entries = np.asarray(family.directions, np.float32)
    assert family.directions.dtype == jnp.bfloat16
    assert set(np.unique(entries)) <= {-1.0, 0.0, 1.0}
    assert binomtest(int((entries != 0).sum()), entries.size, density).pvalue > 1e-4
    count = int((entries != 0).sum())
    assert binomtest(int((entries > 0).sum()), count, 0.5).pvalue > 1e-4


def test_signs_belong_to_coordinates():
    """Else rows without negative entries had most bits in common, whatever the row."""
    eye = np.eye(32, dtype=np.float32)
    for kind in KINDS:
        family = lsh.simhash(KEY, 32, num_tables=200, num_bits=1, kind=kind, density=1)
        agree = np.mean(lsh.codes(family, eye[:16]) == lsh.codes(family, eye[16:]))
        assert 0.45 < agree < 0.55, kind


@pytest.mark.parametrize("n", [1, 2, 8, 64])
def test_rotations_are_matrices_of_hadamard(rng, n):
    """In every block an orthogonal one, ``n`` times as long as Gaussian directions."""
    h = np.array([[(-1) ** (i & j).bit_count() for j in range(n)] for i in range(n)])
    signs = rng.choice([-1.0, 1.0], (2, 3, n)).astype(np.float32)
    x = rng.standard_normal((3, n)).astype(np.float32)
    got = jax.jit(rotate)(x, signs)
    for block, (d1, d2, d3) in enumerate(signs):
        matrix = h @ np.diag(d3) @ h @ np.diag(d2) @ h @ np.diag(d1) / n
        y = got[:, block] / n
        np.testing.assert_allclose(y, x @ matrix.T, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(matrix @ matrix.T, n * np.eye(n), atol=1e-4)


# ---- probes -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("num_bits", "num_probes"), [(1, 2), (4, 16), (9, 20)])
def test_probes_are_the_best_sets_of_flips(rng, kind, num_bits, num_probes):
    family = lsh.simhash(KEY, 12, num_tables=3, num_bits=num_bits, kind=kind)
    x = jnp.asarray(rng.standard_normal((6, 12)), jnp.float32)
    got = np.asarray(lsh.probes(family, x, num_probes))
    code = np.asarray(lsh.codes(family, x))
    margins = oracles.margins(family, np.asarray(x))
    np.testing.assert_array_equal(got[..., 0], code)
    for i, t in np.ndindex(6, 3):
        masks = got[i, t] ^ code[i, t]
        order, totals = oracles.by_probability(margins[i, t])
        rank = np.argsort(order)[masks]
        assert len(set(masks)) == num_probes
        np.testing.assert_allclose(totals[rank], totals[:num_probes], rtol=1e-5)


def test_probes_of_equal_margins_are_distinct():
    """A row of zeros: the code, then one of the fixed orders."""
    family = lsh.simhash(KEY, 5, num_tables=2, num_bits=4)
    got = np.asarray(lsh.probes(family, np.zeros((1, 5), np.float32), 16))
    assert (got[..., 0] == 0).all()
    np.testing.assert_array_equal(np.sort(got), np.broadcast_to(range(16), (1, 2, 16)))


@pytest.mark.parametrize("huge", [1e37, 3e38])
def test_probes_of_projections_that_overflow(huge):
    family = lsh.simhash(KEY, 64, num_tables=8, num_bits=6)
    got = np.asarray(lsh.probes(family, np.full((1, 64), huge, np.float32), 64))
    np.testing.assert_array_equal(np.sort(got)[0], np.broadcast_to(range(64), (8, 64)))


@pytest.mark.parametrize(("num_bits", "num_probes"), [(5, 7), (6, 64), (7, 1)])
def test_candidates_are_the_sets_that_dominate_few_others(num_bits, num_probes):
    """By comparing all pairs of sets, aligned at their largest ranks."""
    of_size = (itertools.combinations(range(num_bits), r) for r in range(num_bits + 1))
    sets = list(itertools.chain.from_iterable(of_size))

    def dominates(s, t):
        return len(t) <= len(s) and all(
            a <= b for a, b in zip(t[::-1], s[::-1], strict=False)
        )

    want = {s for s in sets if sum(dominates(s, t) for t in sets) <= num_probes}
    got = [tuple(np.flatnonzero(row)) for row in candidates(num_bits, num_probes)]
    assert len(got) == len(set(got))
    assert set(got) == want
    assert got[0] == ()


# ---- L2 -----------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
def test_l2_agrees_as_distance_over_width(rng, ratio):
    """Datar et al. 2004, section 3.2, with ``r = width / distance``."""
    a, step = rng.standard_normal((2, 24))
    rows = np.array([a, a + 2.5 / ratio * step / np.linalg.norm(step)], np.float32)
    family = lsh.l2(KEY, 24, num_tables=20_000, num_hashes=1, width=2.5, num_bits=15)
    one, other = lsh.codes(family, rows)
    p = 1 - 2 * norm.cdf(-ratio)
    p -= 2 / (np.sqrt(2 * np.pi) * ratio) * (1 - np.exp(-(ratio**2) / 2))
    assert_binomial(one == other, p + (1 - p) * 2.0**-15)


def test_l2_codes_join_intervals(rng):
    family = lsh.l2(KEY, 6, num_tables=7, num_hashes=3, width=0.5, num_bits=9)
    x = rng.standard_normal((5, 6)).astype(np.float32)
    y = np.floor(x @ np.asarray(family.directions) + np.asarray(family.shifts))
    y = (y.astype(int) + np.asarray(family.origins)).reshape(5, 7, 3) & oracles.MASK
    want = [[oracles.joined(map(int, hashes), 9) for hashes in row] for row in y]
    np.testing.assert_array_equal(lsh.codes(family, x), want)


@pytest.mark.parametrize("huge", [1e12, 3e38])
def test_l2_of_projections_that_overflow(huge):
    """Defined, and the same in every sense of direction that overflows."""
    family = lsh.l2(KEY, 64, num_tables=40, num_hashes=1, num_bits=15)
    got = np.asarray(lsh.codes(family, np.full((2, 64), huge, np.float32)))
    ends = [int(np.float32(2**31 - 128)), -int(np.float32(2**31 - 128)), 0]
    for codes, origin in zip(got.T.tolist(), family.origins.tolist(), strict=True):
        numbers = [(end + origin) & oracles.MASK for end in ends]
        assert set(codes) <= {oracles.joined([number], 15) for number in numbers}
    np.testing.assert_array_equal(got[0], got[1])


# ---- MinHash ------------------------------------------------------------------------


@pytest.mark.parametrize(("shared", "own"), [(2, 2), (6, 3), (1, 9), (40, 20)])
def test_minhash_agrees_as_jaccard(shared, own):
    """Also where most of the 8 bins are empty, and borrow."""
    rows = np.zeros((2, 200), np.float32)
    rows[:, 3 : 3 + shared] = 1
    rows[0, 100 : 100 + own], rows[1, 150 : 150 + own] = -2, 5
    make = lambda key: lsh.minhash(key, 200, num_tables=8, num_hashes=1, num_bits=15)  # noqa: E731
    jaccard = shared / (shared + 2 * own)
    agree = agreement(make, 4000, rows)
    assert_mean(np.mean(agree, axis=1), jaccard + (1 - jaccard) * 2.0**-15)


@pytest.mark.parametrize("d", [1, 7, 60])
def test_minhash_matches_its_reference(rng, d):
    family = lsh.minhash(KEY, d, num_tables=5, num_hashes=3, num_bits=11)
    x = (rng.random((20, d)) < np.linspace(0, 1, 20)[:, None]).astype(np.float32)
    want = [oracles.minhash_row(family, row) for row in x]
    np.testing.assert_array_equal(lsh.codes(family, x), want)


# ---- DWTA ---------------------------------------------------------------------------

DWTA_SIZES = [(1, 2, 1, 2), (5, 3, 2, 4), (40, 2, 2, 2), (6, 20, 5, 8), (31, 4, 3, 8)]


def small_dwta(size):
    d, num_tables, num_hashes, bin_size = size
    return lsh.dwta(
        KEY, d, num_tables=num_tables, num_hashes=num_hashes, bin_size=bin_size
    )


@pytest.mark.parametrize("size", DWTA_SIZES, ids=str)
def test_dwta_matches_its_reference(rng, size):
    """Whole numbers tie; rows from empty to full."""
    family = small_dwta(size)
    x = rng.integers(-2, 3, (12, size[0])).astype(np.float32)
    x *= rng.random(x.shape) < np.linspace(0, 1, 12)[:, None]
    want = [oracles.dwta_row(family, row) for row in x]
    np.testing.assert_array_equal(lsh.codes(family, x), want)


@pytest.mark.parametrize("size", DWTA_SIZES, ids=str)
def test_dwta_deals_evenly(size):
    """Coordinates p times each, positions as evenly as can be; both maps agree."""
    family = small_dwta(size)
    d, bins = size[0], size[1] * size[2]
    positions = bins * family.bin_size
    p = -(-positions // d)
    members, places = np.asarray(family.members), np.asarray(family.places)[:-1]
    copies = members.shape[1] // family.bin_size
    held = (members.reshape(positions, copies) < d).sum(1)
    assert set(held) <= {d * p // positions, -(-d * p // positions)}
    assert held.min() >= 1
    assert places.shape == (d, p)
    assert len(np.unique(places)) == d * p
    np.testing.assert_array_equal(
        members.ravel()[places], np.broadcast_to(np.arange(d)[:, None], (d, p))
    )
    assert (np.asarray(family.places)[-1] >= members.size).all()


def test_dwta_deals_at_random():
    """5 coordinates, 4 positions: each sits in each with probability 1/4, and the
    position with two of them is any.
    """
    deals = jax.vmap(lambda key: _dealt(key, 5, 4))(jax.random.split(KEY, 4000))
    deals = np.asarray(deals)[..., 0]
    for i in range(5):
        for position in range(4):
            count = int((deals[:, i] == position).sum())
            assert binomtest(count, 4000, 0.25).pvalue > 1e-4


def test_dwta_bins_of_two_agree_as_pairs_of_ranks():
    """Winner-take-all with k = 2: the share of pairs that both rows order alike."""
    rows = np.array([[1, 2, 3, 4, 5, 6], [2, 1, 6, 3, 5, 4]], np.float32)
    i, j = np.transpose(list(itertools.combinations(range(6), 2)))
    same = np.equal(*np.sign(rows[:, i] - rows[:, j]))
    make = lambda key: lsh.dwta(key, 6, num_tables=3, num_hashes=1, bin_size=2)  # noqa: E731
    agree = agreement(make, 4000, rows)
    assert_mean(np.mean(agree, axis=1), np.mean(same))


def test_dwta_agrees_as_an_enumeration_of_all_deals():
    """5 coordinates to a bin of 4 positions, one of which takes two of them."""
    rows = np.array([[5, 4, 3, 2, 1], [4, 5, 1, 2, 3]], np.float32)
    decks = [(*range(4), extra) for extra in range(4)]
    deals = [deal for deck in decks for deal in itertools.permutations(deck)]
    same = [deal[rows[0].argmax()] == deal[rows[1].argmax()] for deal in deals]
    make = lambda key: lsh.dwta(key, 5, num_tables=1, num_hashes=1, bin_size=4)  # noqa: E731
    assert_binomial(agreement(make, 8000, rows), np.mean(same))


def test_dwta_agrees_as_an_enumeration_with_zeros():
    """Two bins of 2 positions; 4 coordinates, and empty bins borrow."""
    rows = np.array([[-1, 0, 0, 2], [3, 0, 1, 0]], np.float32)

    def winners(deal, row):
        seats = [deal.index(location) for location in range(4)]
        out = []
        for a, b in (seats[:2], seats[2:]):
            here = [(row[i], -j) for j, i in enumerate((a, b)) if row[i] != 0]
            out.append(-max(here)[1] if here else None)
        # Of two bins, an empty one borrows from the other.
        return [w if w is not None else out[1 - i] for i, w in enumerate(out)]

    pairs = [
        (winners(deal, rows[0]), winners(deal, rows[1]))
        for deal in itertools.permutations(range(4))
    ]
    want = np.mean([[a == b for a, b in zip(*pair, strict=True)] for pair in pairs])
    make = lambda key: lsh.dwta(key, 4, num_tables=2, num_hashes=1, bin_size=2)  # noqa: E731
    assert_mean(np.mean(agreement(make, 6000, rows), axis=1), want)
