"""What the README says: its example runs, its commands and names exist."""

import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sysconfig
from pathlib import Path

import pytest

import fsparse

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
NEW_USER = "From a table to a served model"

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


def blocks(language: str) -> dict[str, list[str]]:
    """The fenced blocks of each section that has any."""
    text = README.read_text(encoding="utf-8") if README.exists() else ""
    sections = (part.partition("\n") for part in re.split(r"^## ", text, flags=re.M))
    fence = rf"^```{language}\n(.*?)^```$"
    found = {title: re.findall(fence, body, re.M | re.S) for title, _, body in sections}
    return {title: code for title, code in found.items() if code}


def table() -> str:
    """The CSV file that the README writes."""
    (script, *_) = blocks("sh")[NEW_USER]
    return script.split("<<END\n")[1].split("END\n")[0]


def run_shell(script: str, folder: Path) -> str:
    """What a shell prints that stops at the first error, and leaves nothing running."""
    stop = "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n"
    scripts = sysconfig.get_path("scripts")
    path = os.pathsep.join([scripts, os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", stop + script],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("title", blocks("python"))
def test_python_blocks_run_one_after_the_other(title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tickets.csv").write_text(table())
    names = {"__name__": "__main__"}
    for code in blocks("python")[title]:
        if code != part("quickstart"):  # which has a test of its own
            exec(compile(code, f"README.md, {title}", "exec"), names)


def test_a_new_user_trains_from_the_shell(tmp_path):
    script, _ = blocks("sh")[NEW_USER]
    out = run_shell(script, tmp_path)
    assert "p@1: 1.0000\nhit@2: 1.0000\n" in out
    assert re.search(r"^12,1,returns,", out, re.M)
    assert re.search(r"^returns: 0\.\d+\n.*message = 'the lamp", out, re.M)
    assert "p99" in out
    row = {"message": "the lamp came broken", "price": 30}
    ((best,),) = fsparse.load_exported(tmp_path / "compiled.fsparse").predict([row])
    assert best.label == "returns"


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_a_new_user_serves_from_the_shell(tmp_path):
    (tmp_path / "tickets.csv").write_text(table())
    options = {"width": 4, "epochs": 1, "progress": False}
    pipeline = fsparse.train_table(tmp_path / "tickets.csv", "team", **options)
    pipeline.save(tmp_path / "tickets.fsparse")
    _, script = blocks("sh")[NEW_USER]
    out = run_shell(script.replace("8000", str(free_port())), tmp_path)
    ((first, second),) = json.loads(out.splitlines()[-1])["predictions"]
    assert first["score"] > second["score"] > 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


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
