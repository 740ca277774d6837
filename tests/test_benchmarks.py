"""The benchmarks: the command, its rows and refusals, how it groups and computes."""

import importlib
import json
import sys

import pytest
from example_cases import EXAMPLES, example, finish, launch, require_examples

require_examples()
sys.path.append(str(EXAMPLES / "benchmarks"))
MODULES = "jobs", "report", "roofline", "traffic", "turns", "cases"
jobs, report, roofline, traffic, turns, cases = map(example, MODULES)

CASES, Job = cases.CASES, jobs.Job
FIELDS = {
    "case",
    "shape",
    "system",
    "median_seconds",
    "min_seconds",
    "ratio_to_fsparse",
    "bytes_or_flops",
    "roofline_fraction",
    "versions",
    "threads",
    "cpu",
}
FACTS = {"versions": {}, "threads": 1, "cpu": "cpu"}


def bench(tmp_path, *argv):
    return finish(launch("benchmarks/run.py", *argv, cwd=tmp_path))


def test_the_cases_are_listed(tmp_path):
    status, out, err = bench(tmp_path, "--list")
    assert status == 0, err
    assert [line.split()[0] for line in out.splitlines() if "  " in line] == [*CASES]


def test_a_case_from_end_to_end(tmp_path):
    argv = ["--quick", "--case", "ffi-overhead", "--rounds", 1, "--json", "rows.json"]
    status, out, err = bench(tmp_path, *argv, "--plot", "figures")
    assert status == 0, err
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert all({*row} == FIELDS for row in rows)
    own = [row for row in rows if row["case"] == "ffi-overhead"]
    assert [row["system"] for row in own] == ["fsparse", "jax"] * 2
    for row in own:
        assert 0 < row["min_seconds"] <= row["median_seconds"]
        assert row["system"] in out
        assert row["versions"]["jax"]
        assert row["threads"] >= 1
    assert [row["ratio_to_fsparse"] for row in own[::2]] == [1, 1]
    assert (tmp_path / "figures" / "other_ratios.png").stat().st_size > 1000
    again = ["--rows", "rows.json", "--json", "copy.json"]
    assert bench(tmp_path, *again)[0] == 0
    assert json.loads((tmp_path / "copy.json").read_text()) == rows


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["--help"], 0, "python examples/benchmarks/run.py --case"),
        (["--case", "train-all"], 2, "there is no case train-all; there are train-"),
        (["--rounds", 0], 2, "--rounds must be at least 1"),
        (["--seconds", "nan"], 2, "--seconds in (0, 3600)"),
        (["--rows", "absent.json"], 2, "there is no absent.json"),
        (["--json", "absent/rows.json"], 2, "must be in a folder that is there"),
    ],
)
def test_its_help_and_mistakes(tmp_path, argv, status, words):
    got, out, err = bench(tmp_path, *argv)
    assert got == status
    assert words in " ".join((out + err).split())


def test_every_quick_job_names_a_function_and_a_reference():
    for case in CASES.values():
        planned = case.jobs(True)
        for job in planned:
            module, name = job.make.split(":")
            source = (EXAMPLES / "benchmarks" / module.replace(".", "/")).with_suffix(
                ".py"
            )
            assert f"def {name}(" in source.read_text()
            assert jobs.reference(planned, job) in planned
            json.dumps([job.shape, job.arguments])


def quick_calls():
    """A job of each function that makes calls in JAX, in no process of their own."""
    every = [job for case in CASES.values() for job in case.jobs(True)]
    found = {job.make: job for job in every if job.package in ("jax", "optax")}
    return {k: v for k, v in found.items() if not k.endswith((":imported", ":reader"))}


@pytest.mark.parametrize("name", quick_calls())
def test_the_calls_of_quick_jobs_run(name):
    job = quick_calls()[name]
    module, function = job.make.split(":")
    made = getattr(importlib.import_module(module), function)
    call = made(**job.shape | job.arguments)
    for _ in range(2):
        seconds = call()
        assert not isinstance(seconds, float) or seconds > 0


def make_job(system, shape=1, gigabytes=1.0, **more):
    return Job({"n": shape}, system, "m:f", gigabytes=gigabytes, **more)


def test_groups_fit_in_memory_and_have_their_references():
    every = [
        *(make_job(name) for name in ("fsparse", "a", "b", "c")),
        *(make_job(name, shape=2) for name in ("fsparse", "d")),
    ]
    assert jobs.groups(every, 100.0) == [every]
    found = jobs.groups(every, 3.0)
    names = [[f"{job.system}{job.shape['n']}" for job in group] for group in found]
    assert names == [
        ["fsparse1", "a1", "b1"],
        ["fsparse1", "c1", "fsparse2"],
        ["fsparse2", "d2"],
    ]
    assert not jobs.fits(every, every[1], 1.5)


def test_jobs_run_again_where_another_environment_may_be_faster():
    plain, dense = make_job("a"), make_job("b", is_dense=True, tries_huge_pages=True)
    assert jobs.variants(plain, "tcmalloc.so") == []
    under_tcmalloc, in_huge_pages = jobs.variants(dense, "tcmalloc.so")
    assert under_tcmalloc.system == "b (tcmalloc)"
    assert under_tcmalloc.environment == {"LD_PRELOAD": "tcmalloc.so"}
    assert in_huge_pages.system == "b (huge pages)"
    assert "hugetlb=1" in in_huge_pages.environment["GLIBC_TUNABLES"]
    assert jobs.variants(dense, None) == [in_huge_pages]


def test_ratios_are_taken_round_by_round_and_in_the_same_group():
    ours, peer, late = (make_job(name) for name in ("fsparse", "peer", "late"))
    first = [
        (ours, turns.Found([[1.0], [2.0], [4.0]], 10)),
        (peer, turns.Found([[3.0], [6.0], [9.0]], 30)),
    ]
    second = [
        (ours, turns.Found([[10.0]], 10)),
        (late, turns.Found([[50.0]], 20)),
    ]
    rows = report.rows("case", [first, second], {}, FACTS)
    assert [row["ratio_to_fsparse"] for row in rows] == [1, 3, 5]
    assert [row["median_seconds"] for row in rows] == [3, 6, 50]
    assert [row["min_seconds"] for row in rows] == [1, 3, 50]
    assert all({*row} == FIELDS for row in rows)


def test_without_fsparse_there_is_no_ratio():
    ours, peer = make_job("fsparse"), make_job("peer")
    group = [(peer, turns.Found([[3.0]], 30))]
    alone = [(ours, turns.Found([[1.0]], 10))]
    for groups in ([group], [group, alone]):
        rows = report.rows("case", groups, {}, FACTS)
        assert rows[0]["ratio_to_fsparse"] is None


def test_tails_and_memory_have_rows_of_their_own():
    ours = make_job("fsparse", has_tail=True)
    peer = make_job("peer", of_memory=True)
    group = [
        (ours, turns.Found([[1.0] * 99 + [2.0]], 10)),
        (peer, turns.Found([[1.0]], 40)),
    ]
    typical, tail, memory = report.rows("case", [group], {}, FACTS)
    assert typical["median_seconds"] == 1
    assert tail["shape"] == {"n": 1, "statistic": "p99"}
    assert 1 < tail["median_seconds"] < 2
    assert (memory["bytes_or_flops"], memory["ratio_to_fsparse"]) == (40, 4)


def test_the_longer_of_moving_and_computing_counts():
    rates = {"read": 10.0, "copy": 5.0, "flops_f32": 100.0}
    work = ({"read": 20.0, "copy": 5.0, "flops_f32": 500.0}, {"read": 10.0})
    assert roofline.least_seconds(work, rates) == 5 + 1
    assert roofline.amount(work) == 35
    assert roofline.amount(({"flops_f32": 7.0},)) == 7
    assert roofline.least_seconds(({"flops_bf16": 1.0},), rates) is None
    assert roofline.least_seconds((), rates) is None


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(roofline.NoProbesError, match="no g\\+\\+"):
        roofline.measure(1)


def test_rooflines_are_measured_where_there_is_a_compiler():
    try:
        rates = roofline.measure(1, quick=True)
    except roofline.NoProbesError as e:
        pytest.skip(str(e))
    assert {"read", "copy", "random_read", "sorted_read", "random_update"} <= {*rates}
    assert min(rates.values()) > 0


def test_traffic_counts_each_row_once_a_phase():
    counted = traffic.Visits(features=3, output=5, products=20)
    work = traffic.training(counted, width=10)
    assert work[0] == {"sorted_read": 3 * 40}
    assert work[1] == {"sorted_read": 5 * 40, "flops_f32": 400}
    assert work[2] == {"random_update": 2 * 5 * 120, "flops_f32": 800}
    assert work[3] == {"random_update": 2 * 3 * 120}


def test_visits_are_those_of_the_batches():
    shape = {"features": 50, "nonzeros": 4, "labels": 40, "labels_per_example": 2}
    shared = traffic.visits(**shape, batch=8, negatives=10)
    assert 0 < shared.features <= 32
    assert 10 < shared.output <= 26
    assert shared.products == 8 * shared.output
    each = traffic.visits(**shape, batch=8, negatives=10, per_example=True)
    assert shared.output < each.output <= 40
    assert each.products == 80


def test_a_child_that_fails_says_why():
    job = Job({}, "broken", "systems.calls:imported", {"name": "no_such_module"})
    _, complaints = turns.take_turns([job], 1, 0.01, lambda _: None)
    assert "broken" in complaints[0]
    assert "no_such_module" in complaints[0] or "CalledProcessError" in complaints[0]


def test_a_child_that_dies_later_says_so(tmp_path, monkeypatch):
    (tmp_path / "mortal.py").write_text(
        "import os\ncalls = []\n"
        "def make():\n"
        "    return lambda: os._exit(9) if len(calls) > 4 else calls.append(1)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    job = Job({}, "mortal", "mortal:make")
    found, complaints = turns.take_turns([job], 3, 1e-9, lambda _: None)
    assert found == []
    assert complaints == ["mortal at {} ended, 9:\n"]
