"""A run that was stopped goes on to the same bits, or says why it cannot."""

import resource
import runpy
import shutil
import signal
import sys

import numpy as np
import pytest
from example_cases import (
    EXAMPLES,
    SMALL,
    arrays_of,
    assert_same_bits,
    complaint,
    course,
    example,
    run,
    write_examples,
)

from fsparse import checkpoint

train_extreme = example("train_extreme")
STEPS, STEPS_A_ROUND = 48, 3
MODES = {
    "shuffled": [],
    "neighbours": ["--neighbours"],
    "bfloat16": ["--table-dtype", "bfloat16"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_examples(tmp_path_factory.mktemp("data") / "tiny.txt", 200)


@pytest.fixture(autouse=True)
def unplotted(monkeypatch):
    monkeypatch.setattr(train_extreme, "plot", lambda *args: None)


def argv(data, out, *options):
    return ["--data", data, "--out", out, *SMALL, *options]


@pytest.fixture(scope="module", params=MODES)
def whole(request, data, tmp_path_factory):
    """A run that nothing stopped: its mode and figures."""
    out = tmp_path_factory.mktemp(request.param)
    mode = MODES[request.param]
    return mode, run(*argv(data, out, *mode))


def stop_at(monkeypatch, step, number=signal.SIGINT):
    """The signal comes while the figures of a step are shown."""

    def show(bar, task, config, at, *figures):
        if at == step:
            signal.raise_signal(number)
            assert signal.getsignal(number) == signal.SIG_DFL  # a second one ends it

    monkeypatch.setattr(train_extreme, "show", show)


def stop(monkeypatch, step, *options, number=signal.SIGINT):
    stop_at(monkeypatch, step, number)
    message = complaint(*options)
    stop_at(monkeypatch, None)
    assert message == (
        f"train_extreme: stopped at step {step}, and saved. Go on with --resume."
    )


INTERRUPTS = {
    "first step": [1],
    "middle of a round": [7],
    "end of a round": [9],
    "end of an epoch": [12],
    "successive steps": [19, 20, 21],
    "last step": [STEPS],
    "often": [2, 10, 23, 30, 47],
}


@pytest.mark.parametrize("steps", INTERRUPTS.values(), ids=INTERRUPTS)
def test_stopped_run_resumes_to_the_same_bits(
    whole, data, tmp_path, monkeypatch, steps
):
    mode, result = whole
    assert result["steps"] == STEPS
    options = argv(data, tmp_path, *mode)
    for step in steps:
        stop(monkeypatch, step, *options)
        arrays = arrays_of(tmp_path / "checkpoint.npz").values()
        assert step in [array for array in arrays if array.shape == ()]
        options = argv(data, tmp_path, *mode, "--resume")
    resumed = run(*options)
    assert_same_bits(tmp_path / "checkpoint.npz", result["checkpoint"])
    assert course(resumed) == course(result)
    assert resumed["psp_at_1"] == result["psp_at_1"]


def test_curve_has_points_next_to_interrupts(whole):
    """So the losses that are compared above depend on the step before the stop."""
    measured = {step for step, _, _ in course(whole[1])}
    stopped = {step for steps in INTERRUPTS.values() for step in steps}
    assert measured & {step + 1 for step in stopped}
    assert any(step % STEPS_A_ROUND for step in stopped)


def test_finished_run_resumes_to_its_figures(whole, data, tmp_path):
    mode, result = whole
    shutil.copy(result["checkpoint"], tmp_path)
    again = run(*argv(data, tmp_path, *mode, "--resume"))
    assert again["curve"] == result["curve"]
    assert again["p_at_1"] == result["p_at_1"]
    assert_same_bits(tmp_path / "checkpoint.npz", result["checkpoint"])


def test_the_seed_decides(data, tmp_path):
    paths = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        run(*argv(data, tmp_path / name, "--seed", seed))
        paths.append(tmp_path / name / "checkpoint.npz")
    assert_same_bits(paths[0], paths[1])
    one, other = arrays_of(paths[0]), arrays_of(paths[2])
    wide = [name for name, array in one.items() if array.ndim == 2]
    assert len(wide) >= 6
    assert not any(np.array_equal(one[name], other[name]) for name in wide)


def test_termination_is_an_interrupt_and_handlers_come_back(
    data, tmp_path, monkeypatch
):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    stop(monkeypatch, 5, *argv(data, tmp_path), number=signal.SIGTERM)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.fixture
def interruptible():
    """As in a terminal: a job in the background ignores Ctrl-C."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, old)


@pytest.mark.usefixtures("interruptible")
def test_interrupt_before_training_is_no_traceback(data, tmp_path, monkeypatch):
    def interrupted(*args):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(train_extreme.extreme_model, "init", interrupted)
    words = ["train_extreme.py", *map(str, argv(data, tmp_path))]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="interrupted outside of training"):
        runpy.run_path(str(EXAMPLES / words[0]), run_name="__main__")
    assert not list(tmp_path.iterdir())


# ---- checkpoints that cannot be resumed ---------------------------------------------


@pytest.fixture(scope="module")
def stopped_once(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as monkeypatch:
        stop(monkeypatch, 7, *argv(data, out))
    return out / "checkpoint.npz"


@pytest.fixture
def stopped(stopped_once, tmp_path):
    return shutil.copy(stopped_once, tmp_path / "checkpoint.npz")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def write_numpy_file(path):
    with path.open("wb") as file:
        np.savez(file, table=np.zeros((3, 4)))


def write_noise(path):
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def write_other_model(path):
    """Of other shapes, with the same settings: a newer version of the example."""
    checkpoint.save(path, {"w": np.zeros(3)}, checkpoint.load_metadata(path))


def write_other_program(path):
    checkpoint.save(path, {"w": np.zeros(3)}, {"epoch": 3})


DAMAGES = {
    "truncated": (truncate, "not a whole checkpoint"),
    "empty": (lambda path: path.write_bytes(b""), "not a whole checkpoint"),
    "bit flipped": (flip_a_bit, "not a whole checkpoint"),
    "noise": (write_noise, "not a whole checkpoint"),
    "numpy's": (write_numpy_file, "a zip file, but no fsparse-checkpoint"),
    "another model": (
        write_other_model,
        "expected leaf .params.table.value f32[190,16]",
    ),
    "another program": (write_other_program, "data=tiny (saved: None)"),
    "gone": (lambda path: path.unlink(), "--resume needs a checkpoint; there is no"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGES.values(), ids=DAMAGES)
def test_unusable_checkpoint_is_named(data, stopped, damage, reason):
    damage(stopped)
    found = stopped.read_bytes() if stopped.exists() else None
    message = complaint(*argv(data, stopped.parent, "--resume"))
    assert str(stopped) in message
    assert reason in message
    if found is not None:
        assert stopped.read_bytes() == found


CHANGES = {
    "width": (["--width", 8], "width=8 (saved: 16)"),
    "batch_size": (["--batch-size", 15], "batch_size=15 (saved: 16)"),
    "seed": (["--seed", 1], "seed=1 (saved: 0)"),
    "clock": (["--seconds", 9], "seconds=9.0 (saved: None)"),
    "epochs": (["--epochs", 5], "epochs=5.0 (saved: 4.0)"),
    "neighbours": (["--neighbours"], "neighbours=True (saved: False)"),
    "dtype": (
        ["--table-dtype", "bfloat16"],
        "table_dtype=bfloat16 (saved: float32)",
    ),
    "two": (
        ["--margin", 0, "--scale", 3],
        "scale=3.0 (saved: 12.0), margin=0.0 (saved: 0.5)",
    ),
}


@pytest.mark.parametrize(("options", "change"), CHANGES.values(), ids=CHANGES)
def test_changed_setting_is_named(data, stopped, options, change):
    message = complaint(*argv(data, stopped.parent, "--resume", *options))
    assert f"{stopped}: a run resumes with the settings it was started with" in message
    assert f"got {change}" in message
    assert "Give the same options, or start anew without --resume." in message


def test_changed_examples_are_noticed(data, stopped, tmp_path):
    """Of the same name and sizes."""
    folder = tmp_path / "other"
    folder.mkdir()
    other = write_examples(folder / data.name, 200, seed=1)
    message = complaint(*argv(other, stopped.parent, "--resume"))
    assert "got training_set_crc32=" in message


# ---- a full disk --------------------------------------------------------------------


@pytest.fixture
def full_disk(monkeypatch):
    """A limit of the size of files stands in for it, while a checkpoint is written."""
    save = checkpoint.save

    def save_to_full_disk(*args):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        try:
            save(*args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_to_full_disk)
        yield patch


@pytest.mark.parametrize("every", [1e-9, 1e9], ids=["on the way", "at the end"])
def test_full_disk_leaves_the_last_checkpoint(data, stopped, full_disk, every):
    found = stopped.read_bytes()
    options = argv(data, stopped.parent, "--resume", "--checkpoint-every", every)
    message = complaint(*options)
    assert f"cannot write {stopped}: " in message
    assert "File too large" in message
    assert "The previous checkpoint, if there was one, is whole." in message
    assert stopped.read_bytes() == found
    assert [path.name for path in stopped.parent.iterdir()] == [stopped.name]
    full_disk.undo()
    assert run(*options)["steps"] == STEPS


def test_full_disk_before_the_first_checkpoint(data, tmp_path, full_disk):
    assert "cannot write" in complaint(*argv(data, tmp_path))
    assert not list(tmp_path.iterdir())


def no_room(*args):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("what", "reason"), [("plot", "No space left"), ("json", "Is a directory")]
)
def test_results_that_cannot_be_written(data, stopped, monkeypatch, what, reason):
    """The checkpoint is there, so nothing is lost."""
    json_path = stopped.with_name("r.json")
    if what == "plot":
        monkeypatch.setattr(train_extreme, "plot", no_room)
    else:
        json_path.mkdir()
    options = argv(data, stopped.parent, "--resume", "--json", json_path)
    assert reason in complaint(*options)
    assert checkpoint.load_metadata(stopped)["curve"][-1][0] == STEPS
