"""What the README says: its example runs, its commands and names exist."""

import re
import runpy
from pathlib import Path

import pytest

import fsparse

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"

pytestmark = pytest.mark.skipif(
    not README.exists(), reason="outside of the source tree there is no README"
)


def part(name: str) -> str:
    """The code between the markers of that name."""
    text = README.read_text(encoding="utf-8")
    found = re.search(
        rf"<!-- {name} -->\n```\w+\n(.*?)```\n<!-- /{name} -->", text, re.S
    )
    assert found, f"README.md lacks the markers of {name}"
    return found.group(1)


def test_the_example_of_the_readme_is_the_quickstart():
    assert part("quickstart") == (ROOT / "examples" / "quickstart.py").read_text()


def test_the_quickstart_learns(capsys):
    runpy.run_path(str(ROOT / "examples" / "quickstart.py"))
    losses = [
        float(loss) for loss in re.findall(r"loss ([\d.]+)", capsys.readouterr().out)
    ]
    assert len(losses) == 3
    assert losses[0] > losses[-1]
    assert losses[-1] < 0.02


def test_the_test_command_makes_its_own_environment():
    assert part("test-command").startswith(
        "python3 -m venv .venv && .venv/bin/pip install"
    )


def test_the_table_names_ops_that_exist():
    text = README.read_text(encoding="utf-8")
    names = re.findall(r"^\| `([\w.]+)\(", text, re.M)
    assert {"sampled_matmul", "rows.adam_update", "dense_top_k"} <= set(names)
    for name in names:
        value = fsparse
        for attribute in name.split("."):
            value = getattr(value, attribute)
        assert callable(value)


def test_the_files_that_the_readme_links_to_exist():
    links = re.findall(r"\]\((?!http)([^)]+)\)", README.read_text(encoding="utf-8"))
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []
