"""The programs of examples/interop as their users meet them, with fewer steps."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
from example_cases import EXAMPLES, finish, launch, require_examples

require_examples()
PNG = b"\x89PNG\r\n\x1a\n"


class Program(NamedTuple):
    """How long it runs here, and what its last line must then hold."""

    steps: int
    bounds: dict[str, tuple[float, float]]  # figure -> least, greatest
    package: str = "optax"  # beside those of the extra `examples`


# By chance one label in 1,000 is right, and one of 10 items in 5,000.
PROGRAMS = {
    "flax_nnx": Program(150, {"accuracy": (0.8, 1)}, "flax"),
    "equinox_mlp": Program(200, {"precision": (0.6, 1)}, "equinox"),
    "plain_optax": Program(120, {"accuracy": (0.6, 1), "skipped": (1, 1)}),
    "ensemble_vmap": Program(
        40, {"accuracy": (0.8, 1), "accuracy_of_one": (0.2, 0.75), "difference": (0, 0)}
    ),
    "mixture_of_experts": Program(
        200, {"accuracy": (0.6, 1), "accuracy_of_one": (0.1, 0.4)}
    ),
    "steps_in_scan": Program(
        100, {"accuracy": (0.8, 1), "state_mb": (153, 154), "temp_mb": (0, 3)}
    ),
    # Sums over the examples, or the rows, of two devices are rounded once more.
    "data_parallel": Program(80, {"accuracy": (0.7, 1), "difference": (0, 1e-5)}),
    "row_sharded": Program(80, {"accuracy": (0.7, 1), "difference": (0, 1e-5)}),
}
every_program = pytest.mark.parametrize("name", PROGRAMS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("interop")


@pytest.fixture(scope="module")
def runs(folder):
    """All of them, two at a time: name -> (status, out, err), not yet awaited."""

    def run(name):
        argv = ["--steps", PROGRAMS[name].steps, "--json", f"{name}.json"]
        argv += ["--plot", "curve.png"] if name == "steps_in_scan" else []
        return finish(launch(f"interop/{name}.py", *argv, cwd=folder))

    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(run, name) for name in PROGRAMS}


def figures_of(name, runs):
    pytest.importorskip(PROGRAMS[name].package)
    status, out, err = runs[name].result()
    assert status == 0, err
    assert "Warning" not in err, err
    last = out.splitlines()[-1]
    return {key: float(value) for key, value in (x.split("=") for x in last.split())}


@every_program
def test_it_learns(name, runs):
    figures = figures_of(name, runs)
    assert figures["last_loss"] < figures["first_loss"] / 2
    for figure, (least, greatest) in PROGRAMS[name].bounds.items():
        assert least <= figures[figure] <= greatest, (figure, figures)


@every_program
def test_json_holds_what_was_printed(name, runs, folder):
    printed = figures_of(name, runs)
    written = json.loads((folder / f"{name}.json").read_text())
    assert {key: float(f"{value:.4g}") for key, value in written.items()} == printed


def test_curve_is_a_picture(runs, folder):
    figures_of("steps_in_scan", runs)
    assert (folder / "curve.png").read_bytes().startswith(PNG)


@every_program
def test_help_shows_a_command(name, tmp_path):
    pytest.importorskip(PROGRAMS[name].package)
    status, out, err = finish(launch(f"interop/{name}.py", "--help", cwd=tmp_path))
    assert status == 0, err
    assert f"example: python examples/interop/{name}.py --steps" in out


@pytest.mark.parametrize("path", sorted((EXAMPLES / "interop").glob("*.py")), ids=str)
def test_programs_are_short_and_in_plain_text(path):
    text = path.read_text()
    assert text.isascii()
    assert len(text.splitlines()) < 80
    assert path.stem in {*PROGRAMS, "common"}
