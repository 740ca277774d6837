"""The comparison of samplers, on data that is made here and learnt at once."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_cases import example, make_examples

import fsparse
from fsparse import data
from fsparse.data import DenseDataset, DenseSplits, Splits

adaptive_sampling = example("adaptive_sampling")
sampling_data = example("sampling_data")
sampling_figures = example("sampling_figures")
sampling_methods = example("sampling_methods")
sampling_models = example("sampling_models")
sampling_runs = example("sampling_runs")
PNG = b"\x89PNG\r\n\x1a\n"
NUM_CLASSES, DIM = 4, 6
STREAM = ["uniform_all", "gradient_norm", "cache"]
EPOCHS = [
    "uniform",
    "uniform_equal_time",
    "random_score",
    "nw",
    "nw_paper",
    "infobatch",
]
ROWS = {
    "data",
    "method",
    "setting",
    "seed",
    "lr",
    "accuracy",
    "loss",
    "seconds",
    "examples_trained",
    "seconds_to_uniform_final",
    "curve",
    "variance_reduction_end",
    "machine",
}


def clusters(m, seed):
    """Points about the corners of a cube, a class a corner."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, NUM_CLASSES, m).astype(np.int32)
    centres = np.random.default_rng(0).choice([-1.0, 1.0], (NUM_CLASSES, DIM))
    noise = rng.standard_normal((m, DIM))
    return DenseDataset((centres[labels] + noise).astype(np.float32), labels)


def dense_problem(options):
    splits = DenseSplits(
        clusters(1000, 1), clusters(300, 2), NUM_CLASSES, DIM, "letter"
    )
    model = sampling_models.dense((DIM, 16, NUM_CLASSES))
    return sampling_data.of_arrays(
        splits, options, model, None, batch=8, rate=3e-2, epoch_steps=40
    )


def fields_problem(options):
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 50, (700, 3)).astype(np.int32)
    labels = (ids[:, 0] % 4 == 0).astype(np.int32)
    splits = DenseSplits(
        DenseDataset(ids[:500], labels[:500]),
        DenseDataset(ids[500:], labels[500:]),
        2,
        50,
        "ctr",
    )
    model = sampling_models.of_table(50, 4, (8, 2), num_fields=3, ranked=True)
    return sampling_data.of_arrays(
        splits, options, model, None, batch=8, rate=3e-2, metric="auc"
    )


def sparse_splits(name):
    parts = [make_examples(m, 12, seed) for m, seed in ((400, 1), (100, 2))]
    one = [  # the first label of each
        part._replace(
            labels=data.from_lists(part.labels.ids[part.labels.indptr[:-1], None], 12)
        )
        for part in parts
    ]
    return data.tfidf(Splits(*one, name))


def weighted_fields_problem(options):
    """Fields of which the first is a number."""
    plain = fields_problem(options)

    def weighted(part):
        weights = (
            jnp.ones(part.inputs.ids.shape).at[:, 0].set(part.inputs.ids[:, 0] % 4)
        )
        ids = part.inputs.ids.at[:, 0].set(0)
        return part._replace(inputs=sampling_models.Bags(ids, weights))

    parts = {
        name: weighted(getattr(plain, name)) for name in ("train", "validation", "test")
    }
    return plain._replace(**parts)


def bags_problem(options):
    splits = sparse_splits("20newsgroups")
    columns = splits.train.features.num_columns
    model = sampling_models.of_table(columns, 8, (16, 12))
    return sampling_data.of_rows(splits, options, model, 8, batch=8, rate=1e-2)


def wide_problem(options):
    splits = sparse_splits("polish-lemmas")
    columns = splits.train.features.num_columns
    model = sampling_models.wide(columns, 8, 12, num_negatives=3)
    return sampling_data.of_rows(
        splits, options, model, 8, batch=8, rate=1e-2, metric="precision_at_1"
    )


PROBLEMS = {
    "dense": dense_problem,
    "fields": fields_problem,
    "weighted": weighted_fields_problem,
    "bags": bags_problem,
    "wide": wide_problem,
}


@pytest.fixture(scope="module", params=PROBLEMS)
def problem(request):
    return PROBLEMS[request.param](sampling_data.Options())


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two settings, on the dense problem; compiling is what costs."""
    folder = tmp_path_factory.mktemp("sampling")
    argv = ["--data", "letter", "--grid", 1, "--steps", 20, "--test-examples", 200]
    stream = ["--settings", "stream", "--methods", *STREAM, "--seeds", 1]
    epochs = ["--settings", "epochs", "--methods", *EPOCHS, "--seeds", 2]
    known = sampling_data.PROBLEMS["letter"]
    sampling_data.PROBLEMS["letter"] = dense_problem
    rows = []
    try:
        for name, options in (("stream", stream), ("epochs", epochs)):
            files = ["--json", folder / name, "--plot", folder / f"{name}.png"]
            rows += adaptive_sampling.main(list(map(str, argv + options + files)))
    finally:
        sampling_data.PROBLEMS["letter"] = known
    return folder, rows


def test_all_methods_are_compared(compared):
    folder, rows = compared
    saved = [json.loads((folder / name).read_text()) for name in ("stream", "epochs")]
    assert saved[0] + saved[1] == rows
    assert all(row.keys() >= ROWS for row in rows)
    runs = [(r["setting"], r["method"], r["seed"]) for r in rows]
    wanted = [("stream", name, 0) for name in STREAM if name != "cache"]
    wanted += [("epochs", name, seed) for seed in (0, 1) for name in EPOCHS]
    assert sorted(runs) == sorted(wanted)
    assert (folder / "epochs.png").read_bytes().startswith(PNG)


def test_rows_say_what_was_done(compared):
    _, rows = compared
    for row in rows:
        assert row["accuracy"] > 0.35  # chance is 0.25
        assert row["seconds"] > 0
        end = row["curve"][-1]
        assert end["accuracy"] == row["accuracy"]
        times = [point["seconds"] for point in row["curve"]]
        assert times == sorted(times)
        assert end["examples_trained"] == row["examples_trained"]
        if row["method"] not in ("nw_paper", "uniform_all"):
            assert row["examples_trained"] == row["steps"] * row["batch"]
    (row,) = (r for r in rows if r["method"] == "uniform_all")
    assert row["examples_trained"] == 20 * 32


def test_uniform_has_no_gain_and_gradient_norms_have_some(compared):
    _, rows = compared
    for row in rows:
        reduction = row["variance_reduction_end"]
        if row["method"].startswith("uniform"):
            assert reduction == pytest.approx(1, abs=1e-4)
        if row["method"] == "gradient_norm":
            assert reduction > 1.2


def test_seconds_to_what_uniform_ends_with(compared):
    _, rows = compared
    for (setting,), own in sampling_figures.groups(rows, "setting").items():
        if setting == "stream":  # without uniform there is no level
            assert all(row["seconds_to_uniform_final"] is None for row in own)
            continue
        level = np.mean([r["accuracy"] for r in own if r["method"] == "uniform"])
        for row in own:
            reached = any(p["accuracy"] >= level for p in row["curve"])
            assert (row["seconds_to_uniform_final"] is not None) == reached
            assert (row["seconds_to_uniform_final"] or 0) <= row["seconds"]


def test_saved_rows_are_shown(compared, capsys):
    folder, _ = compared
    files = [str(folder / name) for name in ("stream", "epochs")]
    adaptive_sampling.main(["--show", *files])
    out = capsys.readouterr().out
    assert "letter, stream" in out
    assert all(method in out for method in EPOCHS)


def test_runs_that_diverged_are_null(compared):
    _, rows = compared
    row = {"loss": math.nan, "curve": [{"accuracy": math.inf, "seconds": 1.0}], "n": 1}
    assert adaptive_sampling.finite(row) == {
        "loss": None,
        "curve": [{"accuracy": None, "seconds": 1.0}],
        "n": 1,
    }
    lost = [{**r, "accuracy": None, "seed": 9} for r in rows if r["method"] == "nw"]
    sampling_figures.show(rows + lost)
    assert sampling_figures.first_above([{"accuracy": None}], 0.0) is None


def test_differences_to_uniform_have_a_verdict():
    uniform = {seed: {"accuracy": 0.5 + 0.1 * seed} for seed in range(4)}

    def verdict(gains, good):
        runs = [
            {"seed": seed, "accuracy": uniform[seed]["accuracy"] + gain}
            for seed, gain in enumerate(gains)
        ]
        return sampling_figures.against(runs, uniform, "accuracy", good)

    assert verdict([0.10, 0.11, 0.09, 0.10], 1).endswith("better")
    assert verdict([0.10, 0.11, 0.09, 0.10], -1).endswith("worse")
    assert verdict([0.10, -0.11, 0.09, -0.10], 1) == "-0.0050 ± 0.1839"
    assert verdict([0, 0, 0, 0], 1) == ""


def test_own_files_are_problems(tmp_path, rng):
    path = tmp_path / "ratings.csv"
    ratings = rng.integers(1, 6, (300, 3))
    lines = [f"{user},{item},{stars},0\n" for user, item, stars in ratings]
    path.write_text("".join(lines))
    problem = sampling_data.load(f"movielens:{path}", sampling_data.Options())
    assert problem.metric == "auc"
    sizes = [len(part.labels) for part in problem[3:6]]
    assert sum(sizes) == 300
    assert 10 < sizes[2] < 60  # a tenth is held out
    labels = np.concatenate([part.labels for part in problem[3:6]])
    assert labels.sum() == (ratings[:, 2] >= 4).sum()


@pytest.mark.parametrize("name", sampling_methods.SCORED)
def test_every_score_is_finite(name):
    problem = dense_problem(sampling_data.Options())
    sampling = sampling_methods.Sampling()
    scorer, target = sampling_methods.scorer_of(name, problem, sampling)
    assert target in sampling_models.Outcome._fields
    batch = jax.tree.map(lambda x: x[:5], problem.validation)
    train = sampling_methods.start(problem, 0, 0.1, 1.0)

    @jax.jit
    def learn_and_score(key):
        state = scorer.init(key)
        encoded = scorer.encode(state, batch)
        state = scorer.update(state, encoded, jnp.arange(5.0), jnp.ones(5))
        return scorer.score(state, encoded, train, batch)

    scores = learn_and_score(jax.random.key(0))
    assert scores.shape == (5,)
    assert np.isfinite(scores).all()


def test_a_level_is_reached_between_points():
    points = [(1.0, 0.2), (2.0, 0.6), (3.0, 0.5)]
    curve = [{"seconds": s, "accuracy": a} for s, a in points]
    assert sampling_figures.first_above(curve, 0.1) == 1.0
    assert sampling_figures.first_above(curve, 0.3) == pytest.approx(1.25)
    assert sampling_figures.first_above(curve, 0.7) is None


@pytest.mark.parametrize(
    ("n", "t"), [(2, 12.706), (5, 2.776), (12, 2.201), (31, 2.042)]
)
def test_interval(n, t):
    values = np.random.default_rng(n).standard_normal(n)
    wanted = t * values.std(ddof=1) / math.sqrt(n)
    assert sampling_figures.interval(values) == pytest.approx(wanted, rel=2e-3)
    assert math.isnan(sampling_figures.interval([1.0]))


def test_auc(rng):
    scores, labels = rng.integers(0, 9, 60), rng.integers(0, 2, 60)
    positive, negative = scores[labels == 1, None], scores[labels == 0]
    wanted = np.mean((positive > negative) + 0.5 * (positive == negative))
    assert sampling_runs.auc(scores, labels) == pytest.approx(wanted)
    assert math.isnan(sampling_runs.auc(scores, np.ones(60)))


def params_of(problem):
    """Parameters in the middle of training: everything is random."""
    params = problem.model.init(jax.random.key(1))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    pairs = zip(keys, leaves, strict=True)
    noisy = [x + 0.3 * jax.random.normal(key, x.shape) for key, x in pairs]
    return structure.unflatten(noisy)


def test_gradients_of_examples_are_exact(problem):
    batch = jax.tree.map(lambda x: x[:20], problem.train)
    shares = jnp.concatenate([jnp.eye(20), jnp.full((1, 20), 1 / 20)])

    @jax.jit
    def both(params, key):
        def norm(share):
            losses = lambda params: problem.model.forward(params, batch, key).losses  # noqa: E731
            grads = fsparse.grad(lambda params: share @ losses(params))(params)
            return fsparse.rows.global_norm(grads)

        got = sampling_models.gradient_squares(problem.model, params, batch, key)
        return *got, jax.lax.map(norm, shares)

    squares, of_mean, norms = both(params_of(problem), jax.random.key(3))
    *norms, norm_of_mean = norms
    ids = batch.inputs.ids if hasattr(batch.inputs, "ids") else np.zeros((20, 0))
    repeats = np.array([len(set(row)) < len(row) for row in np.sort(ids).tolist()])
    repeats &= problem.metric == "auc"  # padding repeats, without weight
    assert repeats.mean() < 0.5
    wanted = np.square(norms)[~repeats]
    np.testing.assert_allclose(squares[~repeats], wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(of_mean, norm_of_mean**2, rtol=1e-4)


def test_every_model_learns(problem):
    sampling = sampling_methods.Sampling()
    compiled = sampling_runs.compile_method("uniform", problem, sampling, 30)
    plan = sampling_runs.Plan("epochs", 0, problem.rate, 120, 30)
    judged = problem.test
    before = sampling_runs.begin(compiled, problem, plan).train.params
    metric, loss = sampling_runs.judge(problem, before, judged)
    (end,) = sampling_runs.run(compiled, problem, plan, judged, brief=True).curve
    assert end.loss < loss
    assert end.accuracy > metric
    assert end.examples_trained == 120 * problem.batch


def test_a_stream_shows_each_example_once():
    problem = dense_problem(sampling_data.Options())
    n = len(problem.train.labels)
    loop = sampling_methods.Loop(32, 1, None, None, None)
    plan = sampling_runs.Plan("stream", 5, 0.1, n // 32, 1)
    feed = sampling_runs.Feed(loop, plan, n)
    seen = np.concatenate([feed.next(None)[0].ravel() for _ in range(plan.steps)])
    assert len(set(seen.tolist())) == len(seen) == plan.steps * 32
    with pytest.raises(ValueError, match="too short"):
        feed.next(None)


def test_keys_are_alike_where_fields_are(rng):
    ids = jnp.asarray(rng.integers(0, 1000, (2, 9)), jnp.int32)
    keys = sampling_data.random_signs(sampling_models.Bags(ids, None))
    assert keys.shape == (2, 32)
    signs = sampling_data.random_signs(
        sampling_models.Bags(jnp.arange(4000, dtype=jnp.int32)[:, None], None)
    )
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert np.abs(np.mean(signs, axis=0)).max() < 5 / math.sqrt(4000)
    correlations = np.corrcoef(signs.T) - np.eye(32)
    assert np.abs(correlations).max() < 5 / math.sqrt(4000)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--seeds", "0"], "--seeds must be positive; got 0"),
        (["--test-examples", "-1"], "--test-examples must be positive; got -1"),
        (["--grid", "0"], "--grid must be factors above 0"),
        (["--min-gain", "-1"], "--min-gain must not be negative"),
        (["--methods", "best"], "invalid choice: 'best'"),
        (["--data", "mnist"], "--data must be fashion-mnist, "),
        (["--data", "netflix:a.txt"], "or KIND:FILE"),
    ],
)
def test_mistakes(argv, words, capsys):
    with pytest.raises(SystemExit) as ended:
        adaptive_sampling.main(argv)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_help_shows_a_command(capsys):
    with pytest.raises(SystemExit) as ended:
        adaptive_sampling.main(["--help"])
    assert ended.value.code == 0
    assert "python examples/adaptive_sampling.py --data" in capsys.readouterr().out
