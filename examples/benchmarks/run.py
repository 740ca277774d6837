"""How fast fsparse is, beside plain JAX and PyTorch and beside what the machine can do.

Examples:
  python examples/benchmarks/run.py
  python examples/benchmarks/run.py --list
  python examples/benchmarks/run.py --case train-amazon670k scaling --rounds 7
  taskset -c 0 python examples/benchmarks/run.py --case ffi-overhead
  python examples/benchmarks/run.py --json all.json --plot figures
  python examples/benchmarks/run.py --rows all.json --plot figures

Each system is a process of its own, and they take turns; where not all fit in memory,
they do so in groups, with fsparse in each. A turn is a call that is not counted, and
then calls for --seconds, at least one. Printed are medians and minima over all counted
calls, the median over rounds of how many times as long as fsparse a system took, and
the share of the time that the machine's limits, measured by a small C++ program in the
same run, make necessary. All results are those of the cores that this process may use.

PyTorch takes part where it is installed, and tcmalloc, under which systems with large
temporaries are measured a second time.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import machine
import plots
import report
import rich.console
import rich.progress
import roofline
import turns
from cases import CASES
from jobs import Case, Job, fits, groups, variants

from fsparse import _ffi

_SHARE_OF_MEMORY = 0.85
_WIDTH = 100
CONSOLE = rich.console.Console(stderr=True)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    args = parse_args(argv)
    if args.list:
        for name, case in CASES.items():
            print(f"{name:22}{case.summary}")
        return 0
    rows = report.read(args.rows) if args.rows else []
    complaints: list[str] = []
    if not args.rows:
        rows, complaints = measure(args)
    if args.json:
        report.write(args.json, rows)
    if args.plot:
        plots.draw(rows, args.plot)
    for complaint in complaints:
        print(f"FAILED: {complaint}", file=sys.stderr)
    return 1 if complaints else 0


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--list", action="store_true", help="name the cases, and end")
    add("--case", nargs="+", metavar="NAME", default=list(CASES), help="default: all")
    add("--quick", action="store_true", help="tiny sizes: to see that it works")
    add("--rounds", type=int, help="turns of each system (default: 7; 2 if quick)")
    add("--seconds", type=float, help="of a turn (default: 1; .05 if quick)")
    add("--json", type=Path, help="write the rows to this file")
    add("--rows", type=Path, help="measure nothing: take the rows of this file")
    add("--plot", type=Path, help="draw PNG files into this folder")
    args = parser.parse_args(argv)
    args.rounds = (2 if args.quick else 7) if args.rounds is None else args.rounds
    quick_or_not = 0.05 if args.quick else 1.0
    args.seconds = quick_or_not if args.seconds is None else args.seconds
    check(parser, args)
    return args


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program where it cannot do what is asked."""
    unknown = [name for name in args.case if name not in CASES]
    if unknown:
        parser.error(f"there is no case {unknown[0]}; there are {', '.join(CASES)}")
    if args.rounds < 1 or not 0 < args.seconds < 3600:
        parser.error("--rounds must be at least 1, and --seconds in (0, 3600)")
    if args.rows and not args.rows.is_file():
        parser.error(f"--rows must be a file; there is no {args.rows}")
    folder = args.json.parent if args.json else None
    if folder and not folder.is_dir():
        parser.error(f"--json must be in a folder that is there; got {args.json}")


def measure(args: argparse.Namespace) -> tuple[list[report.Row], list[str]]:
    """Rows of all cases asked for, and what failed."""
    facts = report.of_machine(_ffi.cpu_level)
    show_machine(facts)
    rates = measured_rates(facts["threads"], args.quick)
    rows, complaints = rate_rows(rates, facts), []
    for name in args.case:
        found, failed = run(name, CASES[name], args)
        complaints += failed
        some = report.rows(name, found, rates[facts["threads"]], facts)
        report.show(f"{name}: {CASES[name].summary}", some)
        rows += some
        if args.json:
            report.write(args.json, rows)  # what is there, if the next case fails
    return rows, complaints


def run(name: str, case: Case, args: argparse.Namespace) -> tuple[Any, list[str]]:
    """What the turns of a case gave."""
    planned = groups(able(case.jobs(args.quick)), memory())
    found, complaints = [], []
    total = sum(len(group) * (1 + args.rounds) for group in planned)
    with rich.progress.Progress(console=CONSOLE, transient=True) as bar:
        task = bar.add_task(name, total=total)

        def tick(what: str) -> None:
            bar.update(task, advance=1, description=f"{name}: {what}")

        for group in planned:
            some, failed = turns.take_turns(group, args.rounds, args.seconds, tick)
            found.append(some)
            complaints += failed
    return found, complaints


def able(jobs: list[Job]) -> list[Job]:
    """Those that can run here, in all environments that may make them faster."""
    installed = [job for job in jobs if machine.version(job.package)]
    fitting = [job for job in installed if fits(installed, job, memory())]
    for job in installed:
        if job not in fitting:
            need = f"{job.gigabytes:.0f} GB, of which {memory():.0f} are free"
            print(f"left out: {job.system} at {report.words(job.shape)} needs {need}")
    library = machine.tcmalloc()
    return fitting + [again for job in fitting for again in variants(job, library)]


def memory() -> float:
    """Gigabytes that the systems of a group may use together."""
    return _SHARE_OF_MEMORY * machine.free_gigabytes()


# ---- the machine --------------------------------------------------------------------


def show_machine(facts: report.Row) -> None:
    """What the figures depend on, and what is not there."""
    machine.show({"cpu": facts["cpu"], "threads": facts["threads"]})
    machine.show(facts["versions"])
    if not facts["versions"]["torch"]:
        print("PyTorch's rows are absent: pip install torch")
    print(f"tcmalloc: {machine.tcmalloc() or machine.HOW_TO_GET_TCMALLOC}\n")


def measured_rates(threads: int, quick: bool) -> dict[int, roofline.Rates]:
    """Of all cores and of one; empty, with the reason printed, where not measurable."""
    counts = sorted({1, threads})
    try:
        return {count: roofline.measure(count, quick=quick) for count in counts}
    except roofline.NoProbesError as e:
        print(f"no rooflines, so fractions are null: {e}", file=sys.stderr)
        return {count: {} for count in counts}


def rate_rows(rates: dict[int, roofline.Rates], facts: report.Row) -> list[report.Row]:
    """The machine's limits as rows: the seconds of a billion bytes or operations."""
    rows = [
        {
            "case": "rooflines",
            "shape": {"kind": kind, "threads": threads},
            "system": "C++ probe",
            "median_seconds": 1e9 / rate,
            "min_seconds": 1e9 / rate,
            "ratio_to_fsparse": None,
            "bytes_or_flops": 1e9,
            "roofline_fraction": 1.0,
            **facts,
            "threads": threads,
        }
        for threads, own in rates.items()
        for kind, rate in own.items()
    ]
    for row in rows:
        rate, own = 1 / row["median_seconds"], report.words(row["shape"])
        unit = "Gflop/s" if "flops" in own else "GB/s"
        print(f"{own:40}{rate:>10.1f} {unit}")
    return rows


if __name__ == "__main__":
    sys.exit(main())
