"""The sampler of hash tables: votes, exact scores, and what fills the rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fsparse
from fsparse import Table, lsh, samplers
from fsparse.samplers import Query

N, D, B = 60, 8, 5
KEY = jax.random.key(0)
W = jax.random.normal(jax.random.key(1), (N, D))
X = jax.random.normal(jax.random.key(2), (B, D))
LABELS = jnp.array([[3], [7], [7], [59], [60]], jnp.int32)  # 60 is padding
FAMILY = lsh.simhash(jax.random.key(3), D, num_tables=16, num_bits=3)
INDEX = lsh.build(FAMILY, W)
every_scope = pytest.mark.parametrize("per_example", [False, True])


def sample(sampler, size, per_example, query=Query(LABELS, X, W)):  # noqa: B008
    return np.asarray(sampler.sample(KEY, query, size, per_example))


@every_scope
def test_candidates_have_the_most_votes(per_example):
    ids = sample(lsh.sampler(INDEX), 10, per_example).reshape(-1, 10)
    votes = lsh.query(INDEX, X, N, shared=not per_example)
    for row, by_votes, count in zip(
        ids, *(np.atleast_2d(v) for v in votes[:2]), strict=True
    ):
        of = dict(zip(by_votes.tolist(), count.tolist(), strict=True))
        assert len(set(row.tolist())) == 10
        assert (
            sorted((of[i] for i in row.tolist()), reverse=True)
            == sorted(count.tolist(), reverse=True)[:10]
        )


@every_scope
@pytest.mark.parametrize("num_scored", [20, N])
def test_candidates_may_be_ranked_by_exact_scores(per_example, num_scored):
    ids = sample(lsh.sampler(INDEX, num_scored=num_scored), 6, per_example)
    scores = np.asarray(X @ W.T)
    start = jax.random.randint(KEY, (), 0, N)
    found = lsh.query(INDEX, X, num_scored, start=start, shared=not per_example).ids
    for i, candidates in enumerate(np.atleast_2d(found)):
        score = scores[i] if per_example else scores.max(axis=0)
        kept = candidates[candidates < N]
        best = kept[np.argsort(-score[kept], kind="stable")][:6]
        np.testing.assert_array_equal(np.atleast_2d(ids)[i], best)


@every_scope
@pytest.mark.parametrize("size", [1, 12, N, N + 7])
def test_uniform_rows_take_what_the_tables_leave(per_example, size):
    empty = lsh.remove(INDEX, jnp.arange(N))
    assert (sample(lsh.sampler(empty), size, per_example) == N).all()
    active = fsparse.sample_active_set(
        lsh.sampler(empty), KEY, Query(LABELS, X, W), size=size, per_example=per_example
    )
    count = np.sum(np.atleast_2d(active.ids) < N, axis=1)
    np.testing.assert_array_equal(count, min(size, N))


@every_scope
def test_mixed_with_uniform_rows_in_a_step(per_example):
    sampler = samplers.mix(lsh.sampler(INDEX), samplers.uniform(N), 0.5)

    def loss(w):
        query = Query(LABELS, X, w)
        active = fsparse.sample_active_set(
            sampler, KEY, query, size=20, per_example=per_example
        )
        logits = fsparse.sampled_matmul(X, w, active.ids)
        return fsparse.sampled_softmax_loss(
            logits, active.targets, active.is_active
        ).sum()

    by_rows = jax.jit(fsparse.grad(loss))(Table(W)).to_dense()
    np.testing.assert_allclose(by_rows, jax.grad(loss)(W), rtol=1e-5, atol=1e-6)
    assert np.any(np.asarray(by_rows)[3])  # a label


def test_rows_and_examples_of_nan_are_sought_as_zeros():
    w = W.at[0].set(jnp.nan)
    index = lsh.build(FAMILY, w)
    ids = sample(lsh.sampler(index), 5, True, Query(LABELS, X.at[1].set(jnp.nan), w))
    np.testing.assert_array_equal(np.sort(ids[1])[:1], [0])  # both have code 0
    assert (ids < N).all()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: lsh.sampler(FAMILY), TypeError, "index must be of type Index"),
        (lambda: lsh.sampler(INDEX, num_probes=0), ValueError, "num_probes"),
        (lambda: lsh.sampler(INDEX, num_scored=0), ValueError, "num_scored"),
        (
            lambda: lsh.sampler(INDEX).log_q(LABELS, 5),
            ValueError,
            "log_q must come from a sampler of known probabilities",
        ),
        (
            lambda: sample(lsh.sampler(INDEX), 5, True, Query(LABELS, table=W)),
            ValueError,
            "query.x must be given",
        ),
        (
            lambda: sample(lsh.sampler(INDEX), 5, True, Query(LABELS, X, W[1:])),
            ValueError,
            "table must have the 60 rows",
        ),
    ],
)
def test_mistakes(call, error, words):
    with pytest.raises(error, match=words):
        call()
