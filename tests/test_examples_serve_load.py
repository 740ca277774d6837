"""The load of examples/serve_load.py, on a server of a small predictor."""

import json
import threading
import time

import pytest

pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("httptools", reason="needs the extra serve")

from example_cases import example
from serving import Doubler, running


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("x\n1\n2\n3\n")
    return path


def figures_of(tmp_path, rows, port, *more):
    path = tmp_path / "load.json"
    url = f"http://127.0.0.1:{port}/predict"
    given = ["--url", url, "--json", path, "--connections", 4, *more]
    example("serve_load").main([str(each) for each in (rows, *given)])
    return json.loads(path.read_text())


def test_every_planned_request_is_answered(tmp_path, rows):
    predictor = Doubler()
    with running(predictor) as port:
        more = ["--requests-per-second", 200, "--seconds", 0.5]
        found = figures_of(tmp_path, rows, port, *more)
    assert found["statuses"] == {"200": 100}
    seen = [example["x"] for batch in predictor.batches for example in batch]
    assert sorted(seen) == ["1"] * 34 + ["2"] * 33 + ["3"] * 33
    assert 0 < found["p50_ms"] <= found["p90_ms"] <= found["p99_ms"] <= found["max_ms"]
    assert found["requests_per_second"] < 250


def test_latencies_count_from_the_planned_time(tmp_path, rows):
    predictor = Doubler()
    predictor.may_go.clear()

    def go():
        predictor.has_begun.wait()
        time.sleep(0.5)
        predictor.may_go.set()

    with running(predictor) as port:
        threading.Thread(target=go).start()
        more = ["--requests-per-second", 100, "--seconds", 0.3]
        found = figures_of(tmp_path, rows, port, *more)
    assert found["statuses"] == {"200": 30}
    assert found["p50_ms"] > 200  # planned in .3 s, sent when the first are answered


def test_bad_requests_are_refused_and_counted(tmp_path, rows):
    with running(Doubler(), body_seconds=0.1, header_seconds=0.1) as port:
        more = ["--requests-per-second", 20, "--seconds", 1, "--bad", 8]
        found = figures_of(tmp_path, rows, port, *more)
    assert found["statuses"] == {"200": 20}
    assert set(found["bad"]) == {
        *["no JSON: 400", "NaN: 400", "no HTTP: 400", "wrong path: 404"],
        *["slow body: 408", "slow headers: 408", "too large: 413", "long path: 431"],
    }


def test_requests_that_are_refused_are_told_by_status(tmp_path):
    rows = tmp_path / "other.csv"
    rows.write_text("y\n1\n")
    with running(Doubler()) as port:
        more = ["--requests-per-second", 20, "--seconds", 0.2]
        found = figures_of(tmp_path, rows, port, *more)
    assert found["statuses"]["400"] >= 1
    assert found["p50_ms"] is None
