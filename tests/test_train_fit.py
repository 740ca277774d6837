"""The training loop: what it minimises, when it ends, what it tells."""

import csv
import json
import sys
import types
import warnings
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from train_cases import ADAPTIVE, Tiny, assert_same_bits, course, examples

import fsparse
from fsparse import (
    NonFiniteWarning,
    adaptive,
    data,
    evaluate,
    fit,
    make_step,
    rows,
    train,
)
from fsparse.data import Dataset, from_lists
from fsparse.train import Every, History

TRAIN, VALID = examples(60), examples(30, seed=1)
QUIET = {"progress": False, "batch_size": 16}


def test_it_learns():
    options = QUIET | {"epochs": 20, "learning_rate": 0.05}
    fitted = fit(Tiny(), TRAIN, validation=VALID, **options)
    assert evaluate(*fitted[:3], VALID, ["p@1"])["p@1"] > 0.75
    losses = fitted.history.column("loss")[1]
    assert losses[-1] < losses[0] / 2
    last = fitted.history[-1]
    assert last["epoch"] == 20
    assert last["step"] == 80
    assert last["skipped"] == 0
    found = evaluate(*fitted[:3], VALID, ["loss", "p@1"], batch_size=16)
    assert found == {"loss": last["val_loss"], "p@1": last["val_p@1"]}


def test_the_loop_is_that_of_make_step():
    """By hand: the same batches, steps and bits."""
    model, optimizer = (
        Tiny(),
        fsparse.multi_transform({"tables": rows.adam(0.05), "dense": optax.adam(0.05)}),
    )
    init, step = make_step(model, fsparse.skip_nonfinite(optimizer))
    state, losses = init(jax.random.key(3)), []
    for epoch in range(2):
        order = np.random.default_rng((3, epoch)).permutation(60)
        room = {"feature_capacity": 3, "label_capacity": 1}
        for i, batch in enumerate(data.batches(TRAIN, order, 16, **room)):
            state, info = step(state, batch, np.arange(16) < 60 - 16 * i)
            losses.append(float(info.loss))
    fitted = fit(model, TRAIN, epochs=2, learning_rate=0.05, seed=3, **QUIET)
    assert_same_bits(fitted[1:3], (state.params, state.state))
    assert int(state.step) == int(fitted.state["calls"]) == 8
    assert fitted.history.column("loss")[1] == [
        np.mean(losses[:4]),
        np.mean(losses[4:]),
    ]


def test_a_step_is_the_gradient_of_the_mean_over_what_is_valid():
    """Against JAX's own gradient; padding has no part in it."""
    model = Tiny(noise=0.0)
    optimizer = fsparse.multi_transform(
        {"tables": rows.sgd(0.5), "dense": optax.sgd(0.5)}
    )
    init, step = make_step(model, optimizer)
    state = init(jax.random.key(0))
    (batch,) = data.batches(
        TRAIN, np.arange(5), 8, feature_capacity=3, label_capacity=1
    )

    def mean_loss(params):
        return jnp.sum(model.loss(params, {"calls": 0}, batch, train=False)[0]) / 5

    old = jax.tree.map(jnp.copy, state.params)
    loss, grads = jax.value_and_grad(mean_loss)(old)
    new, info = step(state, batch, np.arange(8) < 5)
    wanted = jax.tree.map(lambda p, g: p - 0.5 * g, old, grads)
    for a, b in zip(*map(jax.tree.leaves, (new.params, wanted)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(info.loss, loss, rtol=1e-6)


@pytest.mark.parametrize("adaptive", [None, ADAPTIVE])
def test_a_step_allocates_nothing_of_the_size_of_a_table(adaptive):
    """Also where it may be skipped, and where the state holds that of a sampler."""
    n, d = 50_000, 16
    optimizer = fsparse.multi_transform(
        {"tables": rows.adam(0.1), "dense": optax.adam(0.1)}
    )
    init, step = make_step(
        Tiny(n, d), fsparse.skip_nonfinite(optimizer), adaptive=adaptive
    )
    state = jax.eval_shape(init, jax.random.key(0))
    (batch,) = data.batches(
        TRAIN, np.arange(16), 16, feature_capacity=3, label_capacity=1
    )
    lowered = jax.jit(step, donate_argnums=0).lower(state, batch, np.ones(16, bool))
    memory = lowered.compile().memory_analysis()
    assert memory.temp_size_in_bytes < n * d
    assert memory.alias_size_in_bytes > 3 * 4 * n * d


def test_adaptive_sampling_is_one_argument():
    options = QUIET | {"epochs": 6, "learning_rate": 0.05, "batch_size": 8}
    sampled = fit(Tiny(), TRAIN, adaptive=ADAPTIVE, **options)
    assert sampled.history[-1]["step"] == 6 * 4  # of 16 candidates each
    assert all(r["variance_reduction"] > 0 for r in sampled.history)
    always = replace(ADAPTIVE, min_gain=None)
    init, step = make_step(
        Tiny(),
        fsparse.multi_transform({"tables": rows.sgd(0.1), "dense": optax.sgd(0.1)}),
        adaptive=always,
    )
    (batch,) = data.batches(
        TRAIN, np.arange(16), 16, feature_capacity=3, label_capacity=1
    )
    state, info = step(init(jax.random.key(0)), batch)
    assert info.weights.shape == info.losses.shape == (8,)
    assert int(state.sampling.num_steps) == int(state.step) == 1


class Counting:
    """Its parameters count how often each label is trained on."""

    def init(self, key):
        return jnp.zeros(32), ()

    def loss(self, params, state, batch, *, key=None, train=True):
        return params[batch.label_ids[:, 0]], state

    def predict(self, params, state, batch, k):
        return jax.lax.top_k(jnp.tile(params, (len(batch.label_ids), 1)), k)


def test_uniform_steps_of_adaptive_sampling_meet_each_example_once():
    """As plain training does, though all are candidates in each epoch."""
    one_each = data.from_lists([[i] for i in range(32)], 32)
    always_off = train.Adaptive(adaptive.uniform(), pool=4)
    fitted = fit(
        Counting(),
        data.Dataset(one_each, one_each),
        adaptive=always_off,
        optimizer=fsparse.multi_transform({"dense": optax.sgd(2.0)}),
        batch_size=2,
        epochs=4,
        progress=False,
    )
    np.testing.assert_array_equal(fitted.params, -np.ones(32))


def test_steps_and_seconds_end_it():
    assert fit(Tiny(), TRAIN, steps=5, **QUIET).history[-1]["step"] == 5
    assert fit(Tiny(), TRAIN, steps=0, **QUIET).history[-1]["step"] == 0
    last = fit(Tiny(), TRAIN, seconds=0.01, **QUIET).history[-1]
    assert last["seconds"] >= 0.01


def test_a_batch_may_be_larger_than_the_data():
    fitted = fit(Tiny(), TRAIN, progress=False, batch_size=1000)
    assert fitted.history[-1]["step"] == 1


def test_initial_parameters_are_copied():
    params, state = Tiny().init(jax.random.key(7))
    before = np.array(params["w"].value)
    fitted = fit(Tiny(), TRAIN, steps=2, initial=(params, state), **QUIET)
    np.testing.assert_array_equal(params["w"].value, before)
    assert not np.array_equal(fitted.params["w"].value, before)
    still = fit(Tiny(), TRAIN, steps=0, initial=(params, state), **QUIET)
    np.testing.assert_array_equal(still.params["w"].value, before)


def test_schedules():
    """A rate that falls to 0 leaves the parameters where they are."""
    rate = optax.piecewise_constant_schedule(0.1, {2: 0.0})
    two = fit(Tiny(), TRAIN, steps=2, learning_rate=rate, **QUIET)
    five = fit(Tiny(), TRAIN, steps=5, learning_rate=rate, **QUIET)
    assert_same_bits(two.params, five.params)
    start = fit(Tiny(), TRAIN, steps=0, learning_rate=rate, **QUIET)
    assert not np.array_equal(start.params["w"].value, two.params["w"].value)


# ---- the best, and giving up -------------------------------------------------------


class Scripted(Tiny):
    """Validation losses by the number of steps, from a script in the state."""

    def loss(self, params, state, batch, *, key=None, train=True):
        if train:
            losses, new = super().loss(params, state, batch, key=key, train=True)
            return losses, state | new
        return jnp.full(len(batch.label_ids), state["script"][state["calls"]]), state


def scripted(script, folder, **options):
    params, state = Scripted().init(jax.random.key(0))
    places = jnp.zeros(8).at[1 : len(script) + 1].set(jnp.array(script))
    return fit(
        Scripted(),
        TRAIN,
        validation=VALID,
        initial=(params, state | {"script": places}),
        steps=len(script),
        keep_best="loss",
        metrics=(),
        folder=folder,
        every=Every(log=10**6, validation=1),
        **QUIET | options,
    )


SCRIPTS = {
    "in the middle": ((3, 1, 2, 1), 2),
    "first of equals": ((2, 2, 2), 1),
    "not a number": ((np.nan, 5, np.nan), 2),
    "never a number": ((np.nan, np.nan), 2),  # the last one
}


@pytest.mark.parametrize("where", ["folder", "memory"])
@pytest.mark.parametrize(("script", "best"), SCRIPTS.values(), ids=SCRIPTS)
def test_the_best_is_kept(script, best, where, tmp_path):
    fitted = scripted(script, tmp_path if where == "folder" else None)
    assert int(fitted.state["calls"]) == best
    np.testing.assert_array_equal(fitted.history.column("val_loss")[1], script)


@pytest.mark.parametrize(
    ("script", "end"), [((3, 1, 2, 2, 0), 4), ((3, 2, 1, 0), 4), ((np.nan,) * 4, 2)]
)
def test_patience(script, end):
    assert scripted(script, None, patience=2).history[-1]["step"] == end


def test_a_run_out_of_patience_stays_so(tmp_path):
    first = scripted((3, 1, 2, 2, 0), tmp_path, patience=2)
    again = scripted((3, 1, 2, 2, 0), tmp_path, patience=2)
    assert again.history == first.history
    assert int(again.state["calls"]) == 2


# ---- what is not finite ------------------------------------------------------------


def bad_values(m, where):
    dataset = examples(m)
    values = dataset.features.values.copy()
    values[dataset.features.indptr[where]] = np.inf
    return dataset._replace(features=dataset.features._replace(values=values))


def test_steps_that_are_not_finite_are_skipped_counted_and_warned_of():
    with pytest.warns(NonFiniteWarning, match="1 steps before step"):
        fitted = fit(Tiny(), bad_values(60, 20), epochs=2, **QUIET)
    assert [r["skipped"] for r in fitted.history] == [1, 2]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(fitted.params))
    assert np.isfinite(fitted.history.column("loss")[1]).all()


# ---- history, callbacks and what is told -------------------------------------------


def test_callbacks_see_records_and_may_end_it():
    seen = []

    def callback(record, state):
        seen.append((record, int(state.step)))
        return record["step"] == 4

    options = QUIET | {"every": Every(log=2), "epochs": 5}
    fitted = fit(Tiny(), TRAIN, validation=VALID, callbacks=[callback], **options)
    assert [step for _, step in seen][:2] == [2, 4]
    assert fitted.history[-1]["step"] == 4
    assert "val_loss" in fitted.history[-1]


HISTORY = History(
    [
        {"step": 2, "epoch": 0, "seconds": 0.5, "skipped": 0, "loss": 0.25},
        {"step": 3, "epoch": 1, "seconds": 1.0, "skipped": 0, "val_p@1": float("nan")},
    ]
)


def test_history_as_csv_and_json(tmp_path):
    HISTORY.to_csv(tmp_path / "h.csv")
    with (tmp_path / "h.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert lines[0]["loss"] == "0.25"
    assert lines[0]["val_p@1"] == ""
    assert lines[1]["val_p@1"] == "nan"
    HISTORY.to_json(tmp_path / "h.json")
    read = json.loads((tmp_path / "h.json").read_text())
    assert read == [HISTORY[0], HISTORY[1] | {"val_p@1": None}]


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    train.plot(HISTORY, tmp_path / "h.png")
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match="got none"):
        train.plot(History(), tmp_path / "h.png")


@pytest.fixture
def lacking(monkeypatch):
    """Makes the import of modules fail."""

    def lack(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return lack


def test_what_is_not_installed_is_named(lacking, tmp_path):
    lacking("matplotlib", "matplotlib.figure", "optax")
    lacking("tensorboardX", "tensorboard", "tensorboard.summary")
    with pytest.raises(ImportError, match="matplotlib must be installed"):
        train.plot(HISTORY, tmp_path / "h.png")
    with pytest.raises(ImportError, match="pip install tensorboardX"):
        train.TensorBoard(tmp_path)
    with pytest.raises(ImportError, match="optax must be installed"):
        fit(Tiny(), TRAIN, learning_rate=0.0123, **QUIET)  # of no other test


def test_tensorboard_gets_all_figures(monkeypatch, tmp_path):
    written = []

    class Writer:
        def __init__(self, folder):
            self.folder = folder

        def add_scalar(self, tag, value, step):
            written.append((tag, value, step))

        def flush(self):
            written.append("flush")

        def close(self):
            written.append("close")

    fake = types.ModuleType("tensorboardX")
    fake.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "tensorboardX", fake)
    train.TensorBoard(tmp_path)({"step": 3, "loss": 0.5, "val_p@1": 1}, None)
    wanted = [("loss", 0.5, 3), ("validation/p_at_1", 1.0, 3), "flush", "close"]
    assert written == wanted


def test_tensorboard_files(tmp_path):
    pytest.importorskip("tensorboardX")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        board = train.TensorBoard(tmp_path)
        board({"step": 3, "loss": 0.5}, None)
        board.close()
    (file,) = tmp_path.iterdir()
    assert b"loss" in file.read_bytes()


def test_progress_in_lines_is_told_on_stderr(capsys):
    fit(Tiny(), TRAIN, validation=VALID, batch_size=16, metrics=["p@1"])
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("step 4  epoch 1  seconds ")
    assert "  val_p@1 " in err


def test_progress_as_a_bar(monkeypatch, capsys):
    pytest.importorskip("rich")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fit(Tiny(), TRAIN, batch_size=16, steps=2)
    assert "step 2" in capsys.readouterr().err


# ---- refusals ----------------------------------------------------------------------


OTHER = examples(20, num_features=13)
EMPTY = Dataset(from_lists([], 12), from_lists([], 6))
REFUSALS = {
    "empty": ({"train": EMPTY}, "train must have at least 1 example; got 0"),
    "columns": ({"validation": OTHER}, "got 13 features, not 12"),
    "empty validation": ({"validation": EMPTY}, "validation must have at least 1"),
    "empty stream": ({"train": lambda epoch: []}, "at least 1 batch in each epoch"),
    "metric": ({"validation": VALID, "metrics": ["p@7"]}, "labels than there are, 6"),
    "unknown": ({"metrics": ["accuracy"]}, "got 'accuracy'"),
    "two ends": ({"epochs": 1, "steps": 2}, "one of epochs, steps, seconds"),
    "no patience": ({"patience": 2}, "patience must go with keep_best"),
    "no judge": ({"keep_best": "p@1"}, "must have a validation set"),
    "batch size": ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
    "every": ({"every": Every(log=0)}, "every.log must be at least 1; got 0"),
    "long rows": ({"feature_capacity": 1}, "capacity"),
    "two rates": (
        {"learning_rate": 0.1, "optimizer": fsparse.multi_transform({})},
        "learning_rate must be left out",
    ),
    "exact": (
        {
            "optimizer": fsparse.multi_transform(
                {"tables": rows.exact_adam(0.1), "dense": optax.adam(0.1)}
            )
        },
        "got rows.exact_adam",
    ),
}


@pytest.mark.parametrize(("change", "words"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(change, words):
    options = QUIET | {"train": TRAIN} | change
    with pytest.raises(ValueError, match="must") as e:
        fit(Tiny(), **options)
    assert words in str(e.value)


class Unhashable(Tiny):
    __hash__ = None


class Short(Tiny):
    def loss(self, params, state, batch, *, key=None, train=True):
        losses, state = super().loss(params, state, batch, key=key, train=train)
        return losses.mean(), state


def test_refusals_of_models_and_types():
    with pytest.raises(TypeError, match="must be hashable"):
        fit(Unhashable(), TRAIN, **QUIET)
    with pytest.raises(ValueError, match=r"losses must be f32\[16\]"):
        fit(Short(), TRAIN, **QUIET)
    with pytest.raises(TypeError, match="optimizer must be of type Optimizer"):
        fit(Tiny(), TRAIN, optimizer=optax.adam(0.1), **QUIET)
    with pytest.raises(TypeError, match="adaptive must be of type Adaptive"):
        fit(Tiny(), TRAIN, adaptive=ADAPTIVE.scorer, **QUIET)
    unlabelled = [(np.zeros((4, 1), np.float32),)]
    with pytest.raises(TypeError, match="must have label_ids"):
        fit(Tiny(), TRAIN, validation=unlabelled, metrics=["p@1"], **QUIET)


def test_a_stream_of_any_pytree():
    """Only the model knows what is in a batch."""

    @dataclass(frozen=True)
    class Line:
        def init(self, key):
            return jnp.zeros(()), ()

        def loss(self, params, state, batch, *, key=None, train=True):
            return (batch["y"] - params * batch["x"]) ** 2, state

        def predict(self, params, state, batch, k):
            raise NotImplementedError

    x = np.linspace(-1, 1, 10, dtype=np.float32)
    stream = [{"x": x[:7], "y": 2 * x[:7]}, {"x": x[7:], "y": 2 * x[7:]}]
    fitted = fit(
        Line(),
        lambda epoch: stream,
        validation=stream,
        metrics=["loss"],
        epochs=200,
        batch_size=7,
        learning_rate=0.05,
        progress=False,
    )
    np.testing.assert_allclose(fitted.params, 2, atol=1e-3)
    assert fitted.history[-1]["val_loss"] < 1e-5


def test_courses_do_not_depend_on_records():
    """Logging, validation and saving change no bit of the training."""
    one = fit(Tiny(), TRAIN, epochs=2, **QUIET)
    other = fit(Tiny(), TRAIN, validation=VALID, epochs=2, every=Every(1, 1), **QUIET)
    assert_same_bits(one[1:3], other[1:3])
    assert len(course(other.history)) == 8
