"""Which plan to train by: found by training a little by each."""

import math
import sys
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, NamedTuple

from fsparse import _checks
from fsparse._plans import SCOPES, Plan, default_plans
from fsparse._tables import print_table


class Trial(NamedTuple):
    """What a training run has reached, on examples held out from it."""

    accuracy: float  # the larger the better; NaN loses
    seconds: float  # of training, without compilation and evaluation
    examples: int  # trained on in these seconds


class Outcome(NamedTuple):
    """A run, and what became of its plan."""

    plan: Plan
    trial: Trial
    step_seconds: float
    note: str = ""  # why the plan was dropped after this run


class Tuned(NamedTuple):
    """The plan to train by; see :func:`autotune`."""

    plan: Plan
    outcomes: tuple[Outcome, ...]  # every run, round by round, the better ones first
    why: str

    @property
    def use_dense(self) -> bool:
        """Whether the layer is best left dense."""
        return self.plan.scope == "dense"


class _Target(NamedTuple):
    within: float | None
    step_seconds: float | None


def autotune(
    train: Callable[[Plan, int], Trial],
    plans: Sequence[Plan] | None = None,
    *,
    num_rows: int,
    dim: int,
    batch_size: int,
    num_examples: int,
    within: float | None = 0.005,
    step_seconds: float | None = None,
    max_seconds: float = math.inf,
    quiet: bool = False,
) -> Tuned:
    """The plan that trains a wide layer best, by training a fresh model with each.

    Successive halving: with ``r = max(ceil(log2(plans)), 1)`` rounds, each plan left is
    trained from the start on ``num_examples / 2**(r - 1)`` examples, the better half is
    trained on twice as many, and so on up to ``num_examples``. The dense layer, if it
    is among the plans, stays to the end as the reference.

    Better is, of the plans that meet the target, the faster one, by the seconds of a
    step; with ``step_seconds``, the more accurate one; they come before all that miss
    it. The target, in this order:

    - with ``step_seconds``: steps of at most that;
    - with ``within``: an accuracy of at least the dense layer's less ``within``, on as
      many examples. Without a dense layer, of at least the best one's less ``within``;
    - with neither: the best accuracy.

    So where accuracies and times of steps do not change from round to round, the plan
    is the best of all.

    Args:
      train: ``train(plan, num_examples)`` makes a new model, trains it by the plan on
        about so many examples, and returns a :class:`Trial` with the accuracy on
        examples held out, the same for each plan. Of ``m`` of them an accuracy has a
        standard error of up to ``.5 / sqrt(m)``: .005 takes 10,000. The choice is a
        function of what ``train`` returns.
      plans: distinct :class:`Plan` values; None for :func:`default_plans`.
      num_rows: ``n``, rows of the table.
      dim: width of a row.
      batch_size: examples of a step.
      num_examples: what the last round trains on: enough for plans to differ.
      within: accuracy that may be lost for speed, or None.
      step_seconds: the most that a step may take; replaces ``within``.
      max_seconds: the most that a run may take, after the first round, in which speeds
        are not known yet. A plan whose next run would take longer, at the speed of its
        last one, is dropped, the dense layer too.
      quiet: whether to leave out the progress on stderr and the table on stdout, which
        needs no further package and looks better with ``rich``.

    Returns:
      A :class:`Tuned`: the plan, the outcome of each run, and in ``why`` the reason,
      which says to use the dense layer where that wins. Of equals the one that comes
      first in ``plans`` is better. A plan with an accuracy of NaN or infinity is
      dropped. If no plan meets ``step_seconds``, the one of the fastest steps wins.

    Raises:
      TypeError: if ``plans`` has anything but plans, or ``train`` returns no Trial.
      ValueError: if ``plans`` is empty or has one twice or one of an unknown scope, a
        number is outside its range, a Trial has no positive time or no examples, or no
        plan of a round has a finite accuracy.

    Exceptions of ``train`` pass through.

    Source: Jamieson and Talwalkar, AISTATS 2016 (successive halving).

    Example:
      >>> def train(plan, num_examples):  # here by heart; yours trains a model
      ...     seconds = {"dense": 4e-3, "shared": 1e-4}[plan.scope] * num_examples
      ...     accuracy = 0.51 if plan.scope == "dense" else 0.508
      ...     return Trial(accuracy, seconds, num_examples)
      >>> sizes = {"num_rows": 100_000, "dim": 64, "batch_size": 256}
      >>> plans = [Plan(), Plan("shared", "uniform", size=1024)]
      >>> tuned = autotune(train, plans, **sizes, num_examples=10_000, quiet=True)
      >>> tuned.plan.scope, tuned.why
      ('shared', 'Train by "shared, uniform, 1,024 rows": 25.6 ms a step, the fastest \
within 0.005 of the accuracy of the dense layer, 0.5100; it has 0.5080.')
    """
    fn = "autotune"
    sizes = {"num_rows": num_rows, "dim": dim, "batch_size": batch_size}
    _checks.require_count(fn, 1, **sizes, num_examples=num_examples)
    _require_positive(fn, step_seconds=step_seconds, max_seconds=max_seconds)
    _require_positive(fn, least=0, within=within)
    target = _Target(None if step_seconds is not None else within, step_seconds)
    left = _checked(fn, default_plans(**sizes) if plans is None else list(plans))
    budgets = _budgets(num_examples, batch_size, len(left))
    outcomes, ranked = list[Outcome](), list[Outcome]()
    for i, now in enumerate(budgets):
        if not left:
            break
        say = _silent if quiet else _progress(f"round {i + 1} of {len(budgets)}")
        runs = [_run(fn, train, plan, now, batch_size, say) for plan in left]
        ranked = _ranked(fn, runs, target)
        judged = _judged(runs, ranked, budgets[i + 1 : i + 2], max_seconds)
        left = [outcome.plan for outcome in judged if not outcome.note]
        outcomes += judged
    tuned = Tuned(ranked[0].plan, tuple(outcomes), _why(ranked, outcomes, target))
    if not quiet:
        _show(tuned)
    return tuned


# ---- the rounds ---------------------------------------------------------------------


def _checked(fn: str, plans: list[Plan]) -> list[Plan]:
    for i, plan in enumerate(plans):
        _checks.require_type(fn, Plan, **{f"plans[{i}]": plan})
        if plan.scope not in SCOPES:
            raise ValueError(
                f"{fn}: the scope of a plan must be one of {', '.join(SCOPES)}; got "
                f"{plan.scope!r} in plans[{i}]."
            )
        if plan.scope != "dense":
            _checks.require_count(fn, 1, **{f"plans[{i}].size": plan.size})
    if not plans or len(set(plans)) < len(plans):
        raise ValueError(
            f"{fn}: plans must have at least one plan, and none twice; got "
            f"{len(plans)}, of which {len(set(plans))} differ."
        )
    return plans


def _require_positive(fn: str, least: float | None = None, **values: Any) -> None:
    for name, x in values.items():
        if x is None:
            continue
        if not isinstance(x, Real):
            raise TypeError(f"{fn}: {name} must be a number; got {type(x).__name__}.")
        if not (float(x) > 0 or x == least):
            wanted = "positive" if least is None else f"at least {least}"
            raise ValueError(f"{fn}: {name} must be {wanted}; got {x}.")


def _budgets(num_examples: int, batch_size: int, num_plans: int) -> list[int]:
    """Examples of each round, doubling up to all, of a batch at least."""
    rounds = max(math.ceil(math.log2(num_plans)), 1)
    halved = [num_examples >> i for i in reversed(range(rounds))]
    return [max(budget, min(batch_size, num_examples)) for budget in halved]


def _run(
    fn: str,
    train: Callable[[Plan, int], Trial],
    plan: Plan,
    num_examples: int,
    batch_size: int,
    say: Callable[[str], None],
) -> Outcome:
    trial = train(plan, num_examples)
    if not isinstance(trial, Trial):
        raise TypeError(
            f"{fn}: train must return a Trial; got {type(trial).__name__} for {plan}."
        )
    accuracy, seconds, examples = map(float, trial)
    if not (0 < seconds < math.inf and examples >= 1):
        raise ValueError(
            f"{fn}: a Trial must have a positive time and examples; got {seconds:g} s "
            f"and {examples:g} examples for {plan}."
        )
    say(f"{plan}: accuracy {accuracy:.4f} after {num_examples:,} examples")
    step_seconds = seconds / examples * batch_size
    return Outcome(plan, Trial(accuracy, seconds, int(examples)), step_seconds)


def _ranked(fn: str, runs: list[Outcome], target: _Target) -> list[Outcome]:
    """Better ones first, without those that failed; equals in their order."""
    sound = [run for run in runs if math.isfinite(run.trial.accuracy)]
    if not sound:
        raise ValueError(
            f"{fn}: at least one plan must have a finite accuracy; got "
            f"{[run.trial.accuracy for run in runs]}. Lower the learning rate."
        )
    reference = _reference(sound).trial.accuracy

    def key(run: Outcome) -> tuple[bool, float, float]:
        speed, accuracy = run.step_seconds, run.trial.accuracy
        if target.step_seconds is not None:
            misses = speed > target.step_seconds
            return (True, speed, -accuracy) if misses else (False, -accuracy, speed)
        misses = target.within is None or reference - accuracy > target.within
        return (True, -accuracy, speed) if misses else (False, speed, -accuracy)

    return sorted(sound, key=key)


def _reference(runs: list[Outcome]) -> Outcome:
    """The dense layer, or the most accurate."""
    dense = (run for run in runs if run.plan.scope == "dense")
    return next(dense, None) or max(runs, key=lambda run: run.trial.accuracy)


def _judged(
    runs: list[Outcome],
    ranked: list[Outcome],
    then: list[int],
    max_seconds: float,
) -> list[Outcome]:
    """The runs, better ones first, with a note where a plan is dropped.

    ``then`` has the examples of the next round, if there is one.
    """
    better = ranked[: -(-len(ranked) // 2)] if then else ranked

    def note(run: Outcome) -> str:
        if run not in better and run.plan.scope != "dense":
            return "not in the better half"
        seconds = sum(then) * run.trial.seconds / run.trial.examples
        if seconds > max_seconds:
            return f"the next run would take {seconds:.3g} s"
        return ""

    failed = [run for run in runs if run not in ranked]
    return [
        *(run._replace(note=note(run)) for run in ranked),
        *(run._replace(note=f"accuracy {run.trial.accuracy}") for run in failed),
    ]


# ---- what is said -------------------------------------------------------------------


def _why(ranked: list[Outcome], outcomes: list[Outcome], target: _Target) -> str:
    best = ranked[0]
    dense = best.plan.scope == "dense"
    what = "Use the dense layer" if dense else f'Train by "{best.plan}"'
    why = f"{what}: {_ms(best.step_seconds)} a step, {_reason(ranked, target)}."
    notes = {outcome.plan: outcome.note for outcome in outcomes}  # the last of each
    if target.within is not None and _reference(ranked).plan.scope != "dense":
        of_dense = (note for plan, note in notes.items() if plan.scope == "dense")
        missing = next(of_dense, "it is not among the plans")
        why += f" The dense layer was not compared: {missing}."
    if notes[best.plan]:
        why += f" There was no further round: {notes[best.plan]}."
    return why


def _reason(ranked: list[Outcome], target: _Target) -> str:
    best, reference = ranked[0], _reference(ranked)
    accuracy = f"{best.trial.accuracy:.4f}"
    if target.step_seconds is not None:
        limit = _ms(target.step_seconds)
        if best.step_seconds > target.step_seconds:
            return f"the fastest, since none is within {limit}; accuracy {accuracy}"
        return f"the most accurate within {limit}, {accuracy}"
    if target.within is None:
        return f"the most accurate, {accuracy}"
    if best is reference:
        return f"accuracy {accuracy}, and none within {target.within:g} is faster"
    dense = reference.plan.scope == "dense"
    whose = "the dense layer" if dense else "the most accurate"
    return (
        f"the fastest within {target.within:g} of the accuracy of {whose}, "
        f"{reference.trial.accuracy:.4f}; it has {accuracy}"
    )


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


def _silent(message: str) -> None:
    del message


def _progress(where: str) -> Callable[[str], None]:
    return lambda message: print(f"{where}: {message}", file=sys.stderr, flush=True)


def _show(tuned: Tuned) -> None:
    names = "plan", "examples", "accuracy", "ms/step", "seconds", "dropped"
    rows = [
        (
            str(plan),
            f"{trial.examples:,}",
            f"{trial.accuracy:.4f}",
            f"{1e3 * step_seconds:.3g}",
            f"{trial.seconds:.3g}",
            note,
        )
        for plan, trial, step_seconds, note in tuned.outcomes
    ]
    print_table(names, rows)
    print(tuned.why)
