"""The trainer as its users meet it: figures, files, and one line for what is wrong."""

import json
import signal
import zlib

import numpy as np
import pytest
from example_cases import (
    arrays_of,
    assert_same_bits,
    course,
    example,
    finish,
    launch,
    run,
    write_examples,
)

train_extreme = example("train_extreme")
NUM_EXAMPLES, NUM_LABELS, NUM_FEATURES = 600, 50, 190
POOLS = (1, 4)
OPTIONS = ["--width", 64, "--batch-size", 32, "--num-negatives", 600, "--neighbours"]
OPTIONS += ["--no-centroids", "--learning-rate", 0.02, "--epochs", 12]
PNG = b"\x89PNG\r\n\x1a\n"


def crc_split(m):
    """How many lines are trained on and tested on, without a file of test examples."""
    num_test = sum(zlib.crc32(str(i).encode()) % 10 == 0 for i in range(m))
    return m - num_test, num_test


# ---- the program --------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    write_examples(folder / "tiny.txt", NUM_EXAMPLES)
    return folder


def launch_training(folder, out, *options, pool=1):
    argv = ["--data", "tiny.txt", "--out", out, "--json", f"{out}.json", *OPTIONS]
    argv += options
    return launch("train_extreme.py", *argv, cwd=folder, PJRT_NPROC=str(pool))


@pytest.fixture(scope="module")
def printed(folder):
    """What the program prints for each size of the pool; they run beside each other."""
    runs = {size: launch_training(folder, f"pool{size}", pool=size) for size in POOLS}
    printed = {}
    for size, process in runs.items():
        status, out, err = finish(process)
        assert status == 0, err
        assert "Traceback" not in err
        printed[size] = out
    return printed


def figures(folder, out):
    return json.loads((folder / f"{out}.json").read_text())


@pytest.fixture(scope="module")
def result(folder, printed):
    return figures(folder, "pool1")


def test_sizes_are_those_of_the_file(result):
    num_train, num_test = crc_split(NUM_EXAMPLES)
    assert result["n_labels"] == NUM_LABELS
    assert result["n_features"] == NUM_FEATURES
    assert (result["n_train"], result["n_test"]) == (num_train, num_test)
    assert result["n_validation"] == num_train // 100
    assert result["notes"] == [
        f"{num_test} of {NUM_EXAMPLES} examples are held out to test by"
    ]


def test_it_learns(result):
    """Two labels of 50 are right by chance once in 30; half the examples have one."""
    losses = [point["loss"] for point in result["curve"]]
    assert losses[-1] < losses[0] / 4
    assert 0.9 < result["p_at_1"] <= 1
    assert 0.9 < result["psp_at_1"] <= 1
    assert 0.2 < result["p_at_5"] <= 0.4
    assert result["p_at_1"] <= result["hit_at_5"] <= result["hit_at_10"] <= 1


def test_bfloat16_learns_in_half_the_memory(folder, result):
    options = ["--data", folder / "tiny.txt", *OPTIONS, "--table-dtype", "bfloat16"]
    half = run(*options, "--out", folder / "half", "--json", folder / "half.json")
    assert 0.9 < half["p_at_1"] <= 1
    tables = 3 * (NUM_FEATURES + NUM_LABELS) * 64  # with two moments
    assert result["state_bytes"] - half["state_bytes"] == 2 * tables
    assert half["state_bytes"] == figures(folder, "half")["state_bytes"]
    assert 2 * tables < half["state_bytes"] < 2 * tables + 100


def test_time_and_memory_are_plausible(result):
    trained_on = 12 * (result["n_train"] - result["n_validation"])
    seconds = result["train_seconds"]
    assert 0 < seconds < 240
    np.testing.assert_allclose(result["examples_per_second"] * seconds, trained_on)
    assert 1e8 < result["peak_rss_bytes"] < 1e10
    assert [p["seconds"] for p in result["curve"]] == sorted(
        p["seconds"] for p in result["curve"]
    )
    assert result["curve"][-1]["step"] == result["steps"]


def test_files_of_a_run(folder, result):
    assert (folder / "pool1" / "curve.png").read_bytes().startswith(PNG)
    assert result["checkpoint"] == "pool1/checkpoint.npz"
    steps = {
        int(array)
        for array in arrays_of(folder / result["checkpoint"]).values()
        if array.shape == ()
    }
    assert result["steps"] in steps


def test_printed_table_has_the_figures(printed, result):
    for key, value in result.items():
        if isinstance(value, float):
            assert f"{value:.4f}" in printed[1], key
        if isinstance(value, int | float | str):
            assert key in printed[1]
    assert result["checkpoint"] in printed[1]


def assert_same_course(folder, out, result):
    assert_same_bits(folder / out / "checkpoint.npz", folder / result["checkpoint"])
    other = figures(folder, out)
    assert course(other) == course(result)
    assert other["psp_at_1"] == result["psp_at_1"]


def test_bits_do_not_depend_on_the_number_of_threads(folder, result):
    assert_same_course(folder, "pool4", result)


def test_interrupted_program_resumes_to_the_same_bits(folder, result):
    """Each step is saved, so that there is time for the signal before the end. This
    run has two threads, the one it is compared with has one.
    """
    process = launch_training(folder, "stopped", "--checkpoint-every", 1e-6, pool=2)
    seen = []
    while not (seen and seen[-1].startswith("step ")):
        seen.append(process.stderr.readline())
        assert seen[-1], "".join(seen)
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert status == 1, err
    stopped = int(err.split("stopped at step ")[1].split(",")[0])
    assert 0 < stopped < result["steps"]
    assert f"{stopped}, and saved. Go on with --resume." in err
    assert "Traceback" not in "".join(seen) + err

    status, _, err = finish(launch_training(folder, "stopped", "--resume", pool=2))
    assert status == 0, err
    assert_same_course(folder, "stopped", result)


def test_program_ends_with_one_line(folder):
    status, out, err = finish(launch_training(folder, "none", "--scale", "-1"))
    assert (status, out) == (1, "")
    assert err == "train_extreme: --scale must be positive and finite; got -1.0.\n"


def test_help_shows_a_command(capsys):
    with pytest.raises(SystemExit) as ended:
        train_extreme.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "python examples/train_extreme.py --data polish-lemmas" in shown
    for name in train_extreme.Config._fields:
        assert f"--{name.replace('_', '-')}" in shown
