"""The example of a wrapped step: it learns, and its scores pay."""

import re

import pytest
from example_cases import example, finish, launch

adaptive_step = example("adaptive_step")


def test_it_learns_and_the_scores_pay(tmp_path):
    status, out, err = finish(launch("adaptive_step.py", "--steps", 600, cwd=tmp_path))
    assert status == 0, err
    pattern = r"^step \d+: loss ([\d.]+), .* divided by ([\d.]+)(, off)?$"
    lines = re.findall(pattern, out, re.M)
    (first, *_), *_, (last, reduction, off) = lines
    assert len(lines) == 6
    assert float(last) < float(first) / 2
    assert float(reduction) > 1.2
    assert not off


def test_help_shows_a_command(capsys):
    with pytest.raises(SystemExit) as ended:
        adaptive_step.main(["--help"])
    assert ended.value.code == 0
    assert "python examples/adaptive_step.py" in capsys.readouterr().out
