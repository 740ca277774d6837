"""The search for a plan, with training functions that are formulas."""

import builtins
import math
import os

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fsparse
from fsparse import Plan, Trial, Tuned, _tables, autotune, default_plans, lsh

BATCH, EXAMPLES = 100, 10_000
SIZES = {"num_rows": 100_000, "dim": 64, "batch_size": BATCH, "num_examples": EXAMPLES}
DENSE = Plan()


def shared(size):
    return Plan("shared", "uniform", size)


def by_table(table):
    """Accuracy and seconds of a step of each plan, alike in every round."""

    def train(plan, num_examples):
        accuracy, step_seconds = table[plan]
        return Trial(accuracy, step_seconds * num_examples / BATCH, num_examples)

    return train


def tuned(table, **options):
    arguments = {**SIZES, "quiet": True, **options}
    return autotune(by_table(table), list(table), **arguments)


def test_the_fastest_within_the_loss_of_the_dense_layer():
    table = {
        DENSE: (0.500, 1.0),
        shared(1): (0.490, 0.1),  # too much lost
        shared(2): (0.496, 0.2),
        shared(3): (0.499, 0.4),
        shared(4): (0.510, 0.8),
    }
    found = tuned(table)
    assert found.plan == shared(2)
    assert not found.use_dense
    assert "fastest within 0.005 of the accuracy of the dense layer, 0.5" in found.why
    assert tuned(table, within=0.02).plan == shared(1)
    assert tuned(table, within=0).plan == shared(4)
    assert tuned(table, within=None).plan == shared(4)


def test_the_most_accurate_of_fast_steps():
    table = {
        DENSE: (0.5, 1.0),
        shared(1): (0.1, 0.1),
        shared(2): (0.2, 0.2),
        shared(3): (0.3, 0.3),
    }
    found = tuned(table, step_seconds=0.25)
    assert found.plan == shared(2)
    assert found.why.endswith("the most accurate within 250 ms, 0.2000.")
    assert tuned(table, step_seconds=0.3).plan == shared(3)
    assert tuned(table, step_seconds=2).use_dense
    nobody = tuned(table, step_seconds=0.05)
    assert nobody.plan == shared(1)
    assert "the fastest, since none is within 50 ms" in nobody.why


def test_dense_wins_where_nothing_is_as_accurate_and_faster():
    for other in [(0.49, 0.1), (0.6, 2.0)]:
        found = tuned({DENSE: (0.5, 1.0), shared(1): other})
        assert found.use_dense
        assert found.why.startswith("Use the dense layer: 1e+03 ms a step")
        assert "none within 0.005 is faster" in found.why


def test_of_equals_the_first_wins():
    same = (0.5, 1.0)
    first, second = shared(1), shared(2)
    assert tuned({first: same, second: same, DENSE: same}).plan == first
    assert tuned({DENSE: same, second: same, first: same}).use_dense


def test_without_dense_the_most_accurate_is_the_reference():
    table = {shared(1): (0.5, 1.0), shared(2): (0.498, 0.5), shared(3): (0.4, 0.1)}
    found = tuned(table)
    assert found.plan == shared(2)
    assert "of the accuracy of the most accurate, 0.5" in found.why
    assert "not compared: it is not among the plans" in found.why


def expected(table, within):
    """The best of all, by a look at all."""
    plans = list(table)
    best = max(accuracy for accuracy, _ in table.values())
    reference = table[DENSE][0] if DENSE in table else best
    fits = [p for p in plans if reference - table[p][0] <= within]
    return min(fits, key=lambda p: (table[p][1], -table[p][0], plans.index(p)))


@given(
    st.lists(
        st.tuples(st.integers(0, 8).map(lambda i: i / 8), st.integers(1, 8)),
        min_size=1,
        max_size=11,
    ),
    st.booleans(),
    st.sampled_from([0.0, 0.125, 0.5]),
)
def test_where_rounds_agree_the_plan_is_the_best_of_all(figures, with_dense, within):
    plans = [shared(i) for i in range(1, len(figures) + 1)]
    if with_dense:
        plans[len(plans) // 2] = DENSE
    table = dict(zip(plans, figures, strict=True))
    assert tuned(table, within=within).plan == expected(table, within)


@given(st.permutations(range(1, 9)), st.permutations(range(1, 9)), st.integers(0, 9))
def test_the_most_accurate_of_fast_steps_is_the_best_of_all(accuracy, speed, limit):
    table = {shared(i): (float(accuracy[i - 1]), speed[i - 1]) for i in range(1, 9)}
    found = tuned(table, step_seconds=limit + 0.5).plan
    fits = [p for p in table if table[p][1] <= limit]
    best = max(fits, key=lambda p: table[p][0], default=None)
    assert found == (best or min(table, key=lambda p: table[p][1]))


def test_budgets_double_and_the_better_half_goes_on():
    calls = []
    plans = [DENSE, *map(shared, range(1, 8))]

    def train(plan, num_examples):
        calls.append((plan, num_examples))
        accuracy = 0.0 if plan.scope == "dense" else float(plan.size)
        return Trial(accuracy, 1.0, num_examples)

    found = autotune(train, plans, **SIZES, within=None, quiet=True)
    by_round = {}
    for plan, num_examples in calls:
        by_round.setdefault(num_examples, set()).add(plan)
    assert by_round == {
        2_500: set(plans),
        5_000: {DENSE, *map(shared, [4, 5, 6, 7])},
        10_000: {DENSE, *map(shared, [5, 6, 7])},
    }
    assert found.plan == shared(7)
    assert [outcome.trial.examples for outcome in found.outcomes] == [
        num_examples for _, num_examples in calls
    ]
    notes = {outcome.plan: outcome.note for outcome in found.outcomes[:8]}
    assert notes[shared(1)] == "not in the better half"
    assert notes[DENSE] == notes[shared(4)] == ""


def test_a_plan_that_learns_late_is_judged_by_the_last_round():
    def train(plan, num_examples):
        accuracy = {1: num_examples / EXAMPLES, 2: 0.6, 3: 0.4}[plan.size]
        return Trial(accuracy, 1.0, num_examples)

    plans = [shared(1), shared(2), shared(3)]
    found = autotune(train, plans, **SIZES, quiet=True)
    assert found.plan == shared(1)


def test_few_examples_are_a_batch_at_least():
    table = {shared(i): (0.5, 1.0) for i in range(1, 9)}
    found = tuned(table, num_examples=150)
    assert [o.trial.examples for o in found.outcomes] == [100] * 8 + [100] * 4 + [
        150
    ] * 2


def test_one_plan_is_trained_once():
    found = tuned({DENSE: (0.5, 1.0)})
    assert found.use_dense
    assert len(found.outcomes) == 1


@pytest.mark.parametrize("accuracy", [math.nan, math.inf, -math.inf])
def test_a_plan_without_a_finite_accuracy_loses_and_says_so(accuracy):
    found = tuned({shared(1): (accuracy, 0.1), DENSE: (0.5, 1.0)})
    assert found.use_dense
    assert found.outcomes[-1].note == f"accuracy {accuracy}"
    found = tuned({shared(1): (0.4, 0.1), DENSE: (accuracy, 1.0)})
    assert found.plan == shared(1)
    assert f"The dense layer was not compared: accuracy {accuracy}." in found.why


def test_all_accuracies_nan():
    with pytest.raises(ValueError, match=r"^autotune: at least one plan .*; got \[nan"):
        tuned({shared(1): (math.nan, 0.1), DENSE: (math.nan, 1.0)})


def test_a_dense_layer_that_is_too_slow_is_left_out_and_that_is_said():
    """A second a step: 50 s in the first round of 5,000 examples, 100 in the next."""
    table = {
        DENSE: (0.9, 1.0),
        shared(1): (0.5, 0.1),
        shared(2): (0.51, 0.2),
        shared(3): (0.6, 0.3),
    }
    plans = list(table)
    found = autotune(by_table(table), plans, **SIZES, max_seconds=40, quiet=True)
    assert found.plan == shared(3)
    assert (
        "The dense layer was not compared: the next run would take 100 s" in found.why
    )
    slow = tuned(table, max_seconds=1)
    assert slow.use_dense
    assert "There was no further round: the next run would take 100 s." in slow.why
    assert len(slow.outcomes) == 4


def test_exceptions_pass_through():
    def train(plan, num_examples):
        raise KeyError(plan)

    with pytest.raises(KeyError):
        autotune(train, [DENSE], **SIZES, quiet=True)


def test_arrays_will_do_as_figures():
    def train(plan, num_examples):
        accuracy = np.float32(0.5)
        return Trial(accuracy, 1.0, num_examples)

    assert (
        autotune(train, [DENSE], **SIZES, quiet=True).outcomes[0].trial.accuracy == 0.5
    )


MISTAKES = [
    ({"plans": []}, ValueError, "at least one plan, and none twice; got 0, of which 0"),
    ({"plans": [DENSE, Plan()]}, ValueError, "none twice; got 2, of which 1 differ"),
    ({"plans": ["dense"]}, TypeError, r"plans\[0\] must be of type Plan; got str"),
    (
        {"plans": [Plan("all")]},
        ValueError,
        r"one of dense, .*; got 'all' in plans\[0\]",
    ),
    ({"plans": [Plan("shared")]}, ValueError, r"plans\[0\].size must be at least 1"),
    ({"num_rows": 0}, ValueError, "num_rows must be at least 1; got 0"),
    ({"dim": 0}, ValueError, "dim must be at least 1; got 0"),
    ({"batch_size": 1.5}, TypeError, "batch_size must be a static integer; got float"),
    ({"num_examples": 0}, ValueError, "num_examples must be at least 1; got 0"),
    ({"within": -0.1}, ValueError, "within must be at least 0; got -0.1"),
    ({"within": "1"}, TypeError, "within must be a number; got str"),
    ({"step_seconds": 0}, ValueError, "step_seconds must be positive; got 0"),
    ({"max_seconds": math.nan}, ValueError, "max_seconds must be positive; got nan"),
    ({"train": lambda *_: 0.5}, TypeError, "must return a Trial; got float for dense"),
    ({"train": lambda *_: Trial(1, 0, 1)}, ValueError, "positive time .*; got 0 s"),
    ({"train": lambda *_: Trial(1, math.nan, 1)}, ValueError, "got nan s"),
    ({"train": lambda *_: Trial(1, 1, 0)}, ValueError, "and 0 examples for dense"),
]


@pytest.mark.parametrize(("changes", "error", "message"), MISTAKES)
def test_mistakes(changes, error, message):
    arguments = {"train": by_table({DENSE: (0.5, 1.0)}), "plans": [DENSE], **SIZES}
    with pytest.raises(error, match=f"^autotune: .*{message}"):
        autotune(**{**arguments, **changes}, quiet=True)


# ---- what is printed ----------------------------------------------------------------

TABLE = {DENSE: (0.5, 1.0), shared(1_000): (0.5, 0.5)}


def test_quiet_is_silent(capsys):
    tuned(TABLE)
    assert capsys.readouterr() == ("", "")


def test_progress_goes_to_stderr_and_the_table_to_stdout(capsys):
    found = tuned(TABLE, quiet=False)
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        "round 1 of 1: dense: accuracy 0.5000 after 10,000 examples",
        "round 1 of 1: shared, uniform, 1,000 rows: accuracy 0.5000 after 10,000 "
        "examples",
    ]
    assert out.splitlines()[-1] == found.why


def test_without_rich_the_table_is_plain_text(capsys, monkeypatch):
    def no_rich(name, *args, **options):
        if name.startswith("rich"):
            raise ImportError(name)
        return imported(name, *args, **options)

    imported = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", no_rich)
    found = tuned(TABLE, quiet=False)
    assert capsys.readouterr().out.splitlines() == [
        "plan                         examples  accuracy  ms/step  seconds  dropped",
        "shared, uniform, 1,000 rows    10,000    0.5000      500       50",
        "dense                          10,000    0.5000    1e+03      100",
        found.why,
    ]


def test_rich_shows_every_cell(capsys, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setattr(os, "environ", {**os.environ, "COLUMNS": "120"})
    _tables.print_table(("plan", "rows"), [("dense", "7"), ("shared", "8")])
    out = capsys.readouterr().out
    assert all(cell in out for cell in ("plan", "rows", "dense", "7", "shared", "8"))


# ---- default plans ------------------------------------------------------------------


@given(
    st.integers(1, 10**6), st.sampled_from([1, 16, 200]), st.sampled_from([1, 32, 4096])
)
def test_default_plans_fit_the_layer(num_rows, dim, batch_size):
    plans = default_plans(num_rows, dim, batch_size)
    assert plans[0] == DENSE
    assert len(set(plans)) == len(plans) <= 8
    most = {"dense": 0, "shared": num_rows / 2, "per_example": num_rows / 50}
    for plan in plans:
        assert plan.size <= most[plan.scope]
        assert (plan.num_tables > 0) == (plan.sampler in {"lsh", "mix"})


def test_indexes_of_default_plans_have_the_default_sizes():
    plan = default_plans(100_000, 32, 256)[-1]
    family = lsh.default_family(jax.random.key(0), 100_000, 32)
    assert plan.scope == "per_example"
    assert plan.size == fsparse.bolt_autotune(100_000, 32).num_active
    assert plan.num_tables == family.num_tables
    assert 2**plan.num_bits == family.num_buckets
    hashed, trained = plan.num_tables * plan.num_bits, 3 * 256 * plan.refresh_every
    assert 8 * hashed <= trained < 8 * hashed + 3 * 256


def test_a_small_layer_is_dense():
    assert default_plans(500, 64, batch_size=256) == [DENSE]
    table = {DENSE: (0.5, 1.0)}
    arguments = {**SIZES, "num_rows": 500, "batch_size": 256}
    found = autotune(by_table(table), **arguments, quiet=True)
    assert isinstance(found, Tuned)
    assert found.use_dense


@pytest.mark.parametrize("name", ["num_rows", "dim", "batch_size"])
def test_sizes_of_default_plans_are_checked(name):
    sizes = {"num_rows": 9, "dim": 9, "batch_size": 9, name: 0}
    with pytest.raises(ValueError, match=f"^default_plans: {name} must be at least 1"):
        default_plans(**sizes)
