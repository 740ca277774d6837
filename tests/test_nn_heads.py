"""Heads of fsparse.nn: against the softmax over all labels, and by brute force."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import fsparse
from fsparse import nn
from fsparse.nn._popularity import popularity_sampler
from fsparse.samplers import Query, popularity

KEY = jax.random.key(0)
N, D, B, L = 20, 5, 4, 2
LABELS = jnp.array([[3, 7], [7, N], [-1, 0], [N, N]], jnp.int32)  # the last has none


def hidden(rng, b=B):
    return jnp.asarray(rng.standard_normal((b, D)), jnp.float32)


def trained(head, rng):
    """Parameters that are no longer what they start as, and the state."""
    params, state = head.init(KEY)
    noise = lambda x: jnp.asarray(rng.standard_normal(x.shape), x.dtype)  # noqa: E731
    return jax.tree.map(noise, params), state


def own_labels(i, n=N):
    return {int(x) for x in LABELS[i] if 0 <= x < n}


def all_logits(params, h):
    w = np.asarray(jax.tree.leaves(params)[0], np.float64)
    return np.asarray(h, np.float64) @ w[:, :D].T + w[:, D]


def full_softmax(logits):
    log_p = special.log_softmax(logits, axis=1)
    sets = [sorted(own_labels(i)) for i in range(len(logits))]
    return [-log_p[i, s].mean() if s else 0.0 for i, s in enumerate(sets)]


def full_sigmoid(logits):
    is_label = [[j in own_labels(i) for j in range(N)] for i in range(len(logits))]
    signed = np.where(is_label, logits, -logits)
    return np.where(np.any(is_label, axis=1), np.logaddexp(0, -signed).sum(1), 0)


FULL = {"softmax": full_softmax, "sigmoid": full_sigmoid}
SAMPLERS = ("popularity", "uniform", "lsh", "mix", "top_k")


# ---- the loss -----------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["shared", "per_example"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_set_of_all_labels_gives_the_full_loss(rng, sampler, scope):
    objective = "softmax" if scope == "shared" else "sigmoid"
    options = {"sampler": sampler, "scope": scope, "objective": objective}
    head = nn.SparseLinear(D, N, num_negatives=N, num_tables=2, **options)
    params, state = trained(head, rng)
    h = hidden(rng)
    got, _ = jax.jit(head.loss)(params, state, h, LABELS, key=KEY)
    want = FULL[objective](all_logits(params, h))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert got[-1] == 0


@pytest.mark.parametrize("objective", FULL)
def test_softmax_head_is_the_full_loss(rng, objective):
    head = nn.Softmax(D, N, objective=objective)
    params, state = trained(head, rng)
    h = hidden(rng)
    got, _ = head.loss(params, state, h, LABELS)
    want = FULL[objective](all_logits(params, h))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scope", ["shared", "per_example"])
def test_in_batch_negatives_are_the_labels_of_the_batch(rng, scope):
    head = nn.SparseLinear(D, N, 9, sampler="in_batch", scope=scope)
    params, state = trained(head, rng)
    h = hidden(rng)
    logits = all_logits(params, h)
    got, _ = head.loss(params, state, h, LABELS, key=KEY)
    logits[:, [j for j in range(N) if j not in (0, 3, 7)]] = -np.inf
    with np.errstate(invalid="ignore"):
        want = full_softmax(logits)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scope", ["shared", "per_example"])
def test_without_negatives_only_labels_are_active(rng, scope):
    head = nn.SparseLinear(D, N, 0, scope=scope)
    params, state = trained(head, rng)
    h = hidden(rng)
    got, _ = head.loss(params, state, h, LABELS, key=KEY)
    logits = all_logits(params, h)
    every = {0, 3, 7}
    for i in range(B):
        active = every if scope == "shared" else own_labels(i)
        logits[i, [j for j in range(N) if j not in active]] = -np.inf
    with np.errstate(invalid="ignore"):
        want = full_softmax(logits)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
def test_popularity_of_a_state_is_that_of_the_sampler(rng, power):
    """The same draws of the same key, and the same corrections."""
    counts = rng.integers(0, 50, N)
    head = nn.SparseLinear(D, N, power=power)
    state = head.with_label_counts(head.init(KEY)[1], counts)
    ours = popularity_sampler(state["popularity"])
    theirs = popularity(counts, power=power)
    query = Query(LABELS)
    for each in (False, True):
        got = ours.sample(KEY, query, 50, each)
        np.testing.assert_array_equal(got, theirs.sample(KEY, query, 50, each))
    ids = jnp.arange(-1, N + 1, dtype=jnp.int32)
    np.testing.assert_allclose(ours.log_q(ids, 7), theirs.log_q(ids, 7), rtol=1e-5)


@pytest.mark.parametrize(("scope", "b"), [("shared", 8), ("per_example", 1)])
def test_the_correction_leaves_true_probabilities_as_they_are(scope, b):
    """Where logits are the logs of frequencies, the mean gradient is 0."""
    counts = 1000 // np.arange(1, N + 1)
    p = (counts + 1) / np.sum(counts + 1)
    table = jnp.zeros((N, D + 1)).at[:, D].set(np.log(p))

    def mean_gradient(log_q):
        head = nn.SparseLinear(D, N, 6, scope=scope, power=1.0, log_q=log_q)
        state = head.with_label_counts(head.init(KEY)[1], counts)

        def loss(table, key):
            labels = jax.random.choice(key, N, (b, 1), p=p).astype(jnp.int32)
            params, key = {"table": table}, jax.random.fold_in(key, 1)
            return head.loss(params, state, jnp.zeros((b, D)), labels, key=key)[
                0
            ].mean()

        keys = jax.random.split(KEY, 3000)
        mean = lambda table: jax.vmap(loss, (None, 0))(table, keys).mean()  # noqa: E731
        return jnp.abs(jax.jit(jax.grad(mean))(table)).sum()

    assert mean_gradient(True) < 0.2 * mean_gradient(False)


def test_gradients_are_of_the_active_rows_alone(rng):
    head = nn.SparseLinear(D, N, 3, sampler="uniform")
    params, state = trained(head, rng)
    h = hidden(rng)

    def loss(params):
        losses, new = head.loss(params, state, h, LABELS, key=KEY)
        return losses.sum(), new

    (_, _), rows = fsparse.value_and_grad(loss, has_aux=True)(params)
    dense = jax.grad(loss, has_aux=True)(params)[0]["table"].value
    got = rows["table"]
    np.testing.assert_allclose(got.to_dense(), dense, rtol=1e-4, atol=1e-5)
    assert got.ids.size <= LABELS.size + 3
    assert 3 <= int((np.abs(dense).sum(1) > 0).sum()) <= 6


@pytest.mark.parametrize("scope", ["shared", "per_example"])
@pytest.mark.parametrize("objective", ["softmax", "sigmoid"])
def test_many_logits_are_not_held(rng, objective, scope, monkeypatch):
    """Where they can be spared: of a softmax over a set that is shared."""
    head = nn.SparseLinear(D, N, 6, objective=objective, scope=scope)
    params, state = trained(head, rng)
    state = head.with_label_counts(state, jnp.arange(N) + 1)
    h, key = hidden(rng), jax.random.key(1)

    def loss(params, h):
        return jnp.sum(head.loss(params, state, h, LABELS, key=key)[0])

    both = fsparse.value_and_grad(loss, argnums=(0, 1))
    want = both(params, h)
    monkeypatch.setattr("fsparse.nn._sparse_linear.FUSED_FROM", 0)
    got = both(params, h)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    is_fused = "fused_softmax" in str(jax.make_jaxpr(both)(params, h))
    assert is_fused == (objective == "softmax" and scope == "shared")


def test_hash_tables_are_built_anew_on_schedule(rng):
    """With gradients taken and under jit, as a step of training does."""
    head = nn.SparseLinear(D, N, 4, sampler="lsh", refresh_every=2, num_tables=2)
    params, state = head.init(KEY)
    h = hidden(rng)

    @jax.jit
    def step(params, state):
        loss = lambda p: head.loss(p, state, h, LABELS, key=KEY)  # noqa: E731
        with_mean = lambda p: (lambda y, s: (y.mean(), s))(*loss(p))  # noqa: E731
        (_, state), grads = fsparse.value_and_grad(with_mean, has_aux=True)(params)
        return grads, state

    codes = lambda state: np.asarray(state["index"].buckets.codes)  # noqa: E731
    first = codes(state)
    for i in range(4):
        params = jax.tree.map(lambda x: x + jax.random.normal(KEY, x.shape), params)
        before = codes(state)
        grads, state = step(params, state)
        fresh = fsparse.lsh.build(state["index"].family, params["table"])
        if i % 2 == 0:
            np.testing.assert_array_equal(codes(state), fresh.buckets.codes)
        else:
            np.testing.assert_array_equal(codes(state), before)
        assert isinstance(grads["table"], fsparse.RowGrad)
    assert (codes(state) != first).any()
    assert int(state["step"]) == 4


def test_measuring_changes_no_state_and_draws_the_same(rng):
    head = nn.SparseLinear(D, 1000, 10, sampler="mix", num_tables=2)
    params, state = trained(head, rng)
    h = hidden(rng)
    losses, new = head.loss(params, state, h, LABELS, train=False)
    again, _ = head.loss(params, state, h, LABELS, train=False)
    np.testing.assert_array_equal(losses, again)
    assert all(map(np.array_equal, jax.tree.leaves(new), jax.tree.leaves(state)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tables_are_of_the_dtype_and_start_small(dtype):
    params, _ = nn.SparseLinear(31, 500, dtype=dtype).init(KEY)
    table = params["table"]
    assert table.dtype.name == dtype
    assert table.shape == (500, 32)
    assert 0.009 < float(jnp.std(table.value.astype("float32"))) < 0.011


def test_a_head_without_bias_has_no_column_for_it(rng):
    head = nn.SparseLinear(D, N, bias=False)
    params, state = trained(head, rng)
    h = hidden(rng)
    want = h @ params["table"].value.T
    assert params["table"].shape == (N, D)
    np.testing.assert_allclose(head.apply(params, state, h)[0], want, rtol=1e-4)


# ---- the best labels ----------------------------------------------------------------


@pytest.mark.parametrize("make", [nn.SparseLinear, nn.Softmax])
def test_top_k_is_that_of_all_logits(rng, make):
    head = make(D, N)
    params, state = trained(head, rng)
    h = hidden(rng)
    logits, _ = head.apply(params, state, h)
    np.testing.assert_allclose(logits, all_logits(params, h), rtol=1e-4, atol=1e-5)
    scores, ids = head.top_k(params, state, h, k=3)
    want, best = jax.lax.top_k(logits, 3)
    np.testing.assert_allclose(scores, want, rtol=1e-5)
    np.testing.assert_array_equal(ids, best)


def test_an_index_takes_the_place_of_the_dense_search(rng):
    head = nn.SparseLinear(D, 300, sampler="uniform")
    params, state = trained(head, rng)
    h = hidden(rng)
    scores, ids = head.top_k(params, state, h, k=3)
    indexed = head.with_index(params, state, key=KEY, size=300, num_probes=4)
    assert state["search"] is None
    got_scores, got = jax.jit(head.top_k, static_argnums=3)(params, indexed, h, 3)
    is_hit = got == ids
    assert float(is_hit.mean()) > 0.5
    np.testing.assert_allclose(got_scores[is_hit], scores[is_hit], rtol=1e-5)


def test_a_tuned_search_is_one_that_lsh_would_take(rng):
    head = nn.SparseLinear(D, N)
    params, state = trained(head, rng)
    tuned = head.with_tuned_search(params, state, hidden(rng), key=KEY, k=2)
    assert isinstance(tuned["search"], fsparse.lsh.TunedSearch)
    scores, _ = head.top_k(params, tuned, hidden(rng), k=1)
    assert scores.shape == (B, 1)


# ---- MACH ---------------------------------------------------------------------------


def mach(rng, n, objective="softmax", num_hashes=3, num_buckets=6):
    head = nn.Mach(D, n, num_hashes, num_buckets, objective=objective)
    return head, *trained(head, rng)


def brute_scores(head, params, h):
    """Label by label, hash by hash."""
    logits = all_logits(params, h).reshape(len(h), head.num_hashes, head.num_buckets)
    sigmoid = head.objective == "sigmoid"
    p = special.expit(logits) if sigmoid else special.softmax(logits, axis=2)
    buckets = np.asarray(head.buckets(jnp.arange(head.num_labels)))
    each = [p[:, r, buckets[:, r]] for r in range(head.num_hashes)]
    return np.mean(each, axis=0)


@pytest.mark.parametrize("objective", FULL)
def test_mach_scores_are_means_of_bucket_probabilities(rng, objective):
    head, params, state = mach(rng, N, objective)
    h = hidden(rng)
    want = brute_scores(head, params, h)
    np.testing.assert_allclose(head.apply(params, state, h)[0], want, rtol=1e-4)


@pytest.mark.parametrize("n", [N, 4096, 9001])
def test_mach_top_k_needs_no_row_of_all_labels(rng, n):
    """Blocks that are full, that are not, and one that is short; ties rank by id."""
    head, params, state = mach(rng, n)
    h = hidden(rng)
    scores, ids = head.top_k(params, state, h, k=7)
    want = brute_scores(head, params, h)
    order = np.argsort(-want, axis=1, kind="stable")[:, :7]
    best = np.take_along_axis(want, order, axis=1)
    np.testing.assert_allclose(scores, best, rtol=1e-4)
    exact = jax.lax.top_k(head.apply(params, state, h)[0], 7)
    np.testing.assert_array_equal(ids, exact[1])


def test_mach_top_k_pads_what_there_is_not(rng):
    head, params, state = mach(rng, 3)
    h = hidden(rng).at[1].set(jnp.nan)
    scores, ids = head.top_k(params, state, h, k=5)
    assert sorted(ids[0, :3].tolist()) == [0, 1, 2]
    np.testing.assert_array_equal(ids[0, 3:], 3)
    np.testing.assert_array_equal(scores[0, 3:], -np.inf)
    np.testing.assert_array_equal(ids[1], 3)


@pytest.mark.parametrize("objective", FULL)
def test_mach_loss_is_the_mean_of_its_classifiers(rng, objective):
    head, params, state = mach(rng, N, objective)
    h = hidden(rng)
    got, _ = head.loss(params, state, h, LABELS)
    logits = all_logits(params, h).reshape(B, 3, 6)
    buckets = np.asarray(head.buckets(jnp.arange(N)))
    for i in range(B):
        own = [buckets[j] for j in sorted(own_labels(i))]
        want = 0.0
        for r in range(3) if own else ():
            hit = [b[r] for b in own]
            if objective == "softmax":
                want -= special.log_softmax(logits[i, r])[hit].mean() / 3
            else:
                sign = np.where(np.isin(np.arange(6), hit), -1, 1)
                want += np.logaddexp(0, sign * logits[i, r]).sum() / 3
        np.testing.assert_allclose(got[i], want, rtol=1e-4, atol=1e-6)


def test_mach_estimates_probabilities_without_bias():
    """Where buckets know the probabilities: the paper's estimate, over many seeds."""
    n, num_buckets, num_seeds = 30, 5, 40
    p = np.random.default_rng(1).dirichlet(np.ones(n))
    estimates = []
    for seed in range(num_seeds):
        head = nn.Mach(1, n, 8, num_buckets, seed=seed)
        own = np.asarray(head.buckets(jnp.arange(n)))
        mass = [np.bincount(own[:, r], p, num_buckets)[own[:, r]] for r in range(8)]
        score = np.mean(mass, axis=0)
        estimates.append(num_buckets / (num_buckets - 1) * (score - 1 / num_buckets))
    error = np.mean(estimates, axis=0) - p
    deviation = np.std(estimates, axis=0) / math.sqrt(num_seeds)
    assert (np.abs(error) < 4.5 * deviation).all()


def test_mach_learns_labels_that_share_buckets():
    """60 labels in 4 x 12 buckets, from an example each."""
    n = 60
    head = nn.Mach(32, n, 4, 12)
    params, state = head.init(KEY)
    h = jax.random.normal(jax.random.key(1), (n, 32))
    label_ids = jnp.arange(n, dtype=jnp.int32)[:, None]

    @jax.jit
    def step(params, _):
        loss = lambda p: head.loss(p, state, h, label_ids)[0].mean()  # noqa: E731
        return jax.tree.map(lambda p, g: p - 3 * g, params, jax.grad(loss)(params)), 0

    params, _ = jax.lax.scan(step, params, length=300)
    _, ids = head.top_k(params, state, h, k=1)
    assert float((ids == label_ids).mean()) > 0.9


# ---- errors -------------------------------------------------------------------------

H, Y = jnp.ones((2, D)), jnp.zeros((2, 1), jnp.int32)
SPECIFICATIONS = {
    "labels": (lambda: nn.SparseLinear(D, 0), "num_labels must be at least 1; got 0"),
    "negatives": (
        lambda: nn.SparseLinear(D, 9, -1),
        "must be at least 0; got -1",
    ),
    "sampler": (lambda: nn.SparseLinear(D, 9, sampler="x"), "mix, top_k; got 'x'"),
    "scope": (lambda: nn.SparseLinear(D, 9, scope="all"), "one of shared, per_example"),
    "objective": (lambda: nn.Softmax(D, 9, objective="l2"), "one of softmax, sigmoid"),
    "refresh": (
        lambda: nn.SparseLinear(D, 9, refresh_every=0),
        "must be at least 1; got 0",
    ),
    "power": (lambda: nn.SparseLinear(D, 9, power=-1), r"power must be in \[0"),
    "rows": (lambda: nn.SparseLinear(D, 2**31), "fewer than 2"),
    "buckets": (lambda: nn.Mach(D, 9, 2, 1), "num_buckets must be at least 2; got 1"),
    "kernel": (lambda: nn.Mach(D, 9, 2**16, 2**15), "fewer than 2"),
}


@pytest.mark.parametrize("case", SPECIFICATIONS)
def test_specifications_say_what_is_wrong(case):
    make, message = SPECIFICATIONS[case]
    with pytest.raises(ValueError, match=message):
        make()


HEADS = {
    "nn.SparseLinear": nn.SparseLinear(D, N),
    "nn.Softmax": nn.Softmax(D, N),
    "nn.Mach": nn.Mach(D, N, 2, 4),
}


@pytest.mark.parametrize("name", HEADS)
def test_inputs_that_do_not_fit_are_named(name):
    head = HEADS[name]
    params, state = head.init(KEY)
    with pytest.raises(ValueError, match=rf"{name}: x must be .*5\].*f32\[2,4\]"):
        head.loss(params, state, H[:, :4], Y, key=KEY)
    with pytest.raises(ValueError, match=rf"{name}: label_ids must be i32\[b, l\]"):
        head.loss(params, state, H, Y[:1], key=KEY)
    with pytest.raises(TypeError, match=rf"{name}: label_ids must be int32"):
        head.loss(params, state, H, H, key=KEY)
    with pytest.raises(ValueError, match="k must be at least 1; got 0"):
        head.top_k(params, state, H, k=0)


def test_training_needs_a_key():
    head = HEADS["nn.SparseLinear"]
    with pytest.raises(ValueError, match="SparseLinear: key must be given to train"):
        head.loss(*head.init(KEY), H, Y)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.ones(3), "must have 20 entries"),
        (-np.ones(N), "must be finite and"),
    ],
)
def test_label_counts_are_checked(counts, message):
    head = nn.SparseLinear(D, N)
    with pytest.raises(ValueError, match=message):
        head.with_label_counts(head.init(KEY)[1], counts)


def test_label_counts_change_nothing_where_they_do_not_matter():
    head = nn.SparseLinear(D, N, sampler="uniform")
    state = head.init(KEY)[1]
    assert head.with_label_counts(state, np.arange(N)) is state


# ---- some labels --------------------------------------------------------------------

SOME = jnp.array([7, 0, 7, 19], jnp.int32)


@pytest.mark.parametrize(
    "head",
    [
        nn.Softmax(D, N),
        nn.SparseLinear(D, N),
        nn.SparseLinear(D, N, bias=False),
        nn.Mach(D, N, num_hashes=3, num_buckets=7),
    ],
)
def test_scores_are_those_of_all_labels(rng, head):
    params, state = trained(head, rng)
    h = hidden(rng)
    every, _ = head.apply(params, state, h)
    found = head.scores(params, state, h, SOME)
    np.testing.assert_allclose(found, np.asarray(every)[:, SOME], rtol=1e-5)


@pytest.mark.parametrize(
    "head", [nn.SparseLinear(D, 10**6), nn.Mach(D, 10**6, num_hashes=3, num_buckets=7)]
)
def test_scores_of_some_labels_compute_no_others(head):
    params, state = jax.eval_shape(head.init, KEY)
    h = jax.ShapeDtypeStruct((B, D), jnp.float32)
    program = jax.make_jaxpr(head.scores)(params, state, h, SOME)
    sizes = [var.aval.size for eqn in program.eqns for var in eqn.outvars]
    assert max(sizes) < 10**6 / 10


def test_without_the_only_label_an_example_is_a_negative_one(rng):
    head = nn.Softmax(D, 1)
    params, state = trained(head, rng)
    h = hidden(rng, 3)
    logits = all_logits(params, h)[:, 0]
    label_ids = jnp.array([[0, 1], [1, 1], [1, 0]], jnp.int32)
    got, _ = head.loss(params, state, h, label_ids)
    chance = special.expit(logits)
    want = -np.log([chance[0], 1 - chance[1], chance[2]])
    np.testing.assert_allclose(got, want, rtol=1e-5)
