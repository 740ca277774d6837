"""The program that compares sketches with what they stand for, on few points."""

import json

import pytest
from example_cases import example

sketch_error = example("sketch_error")
TINY = ["--points", "300", "--queries", "20", "--sketches", "8", "--bits", "4"]
PNG = b"\x89PNG\r\n\x1a\n"


def test_errors_fall_and_bounds_hold(tmp_path, capsys):
    path, picture = tmp_path / "rows.json", tmp_path / "error.png"
    argv = [*TINY, "--rows", "4", "64", "--json", str(path), "--plot", str(picture)]
    rows = sketch_error.main(argv)
    assert json.loads(path.read_text()) == [row._asdict() for row in rows]
    assert picture.read_bytes().startswith(PNG)
    assert "subsample" in capsys.readouterr().out
    few, many = rows
    assert 2 < few.rmse / many.rmse < 8  # a factor of 4 by theory
    assert few.rmse < few.p99
    assert many.failure <= few.failure
    assert many.bytes == 64 * 16 * 8 + 18 * 64 * 4 * 4 + 24
    assert few.rmse_subsample > many.rmse_subsample == pytest.approx(0, abs=1e-6)
    for row in rows:
        assert row.failure_median <= row.bound_local <= row.bound <= 1


@pytest.mark.parametrize("option", ["--rows", "--points", "--eps"])
def test_mistakes_are_named(option, capsys):
    with pytest.raises(SystemExit):
        sketch_error.main([option, "0"])
    assert f"{option} must be positive" in capsys.readouterr().err


def test_help_shows_a_call(capsys):
    with pytest.raises(SystemExit, match="0"):
        sketch_error.main(["--help"])
    assert "python examples/sketch_error.py --json" in capsys.readouterr().out
