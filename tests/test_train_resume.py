"""A run that was stopped goes on to the same bits, or says why it cannot."""

import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from train_cases import ADAPTIVE, Tiny, assert_same_bits, course, examples

from fsparse import checkpoint, data, fit
from fsparse.train import Every, Interrupted

TRAIN, VALID = examples(60), examples(20, seed=1)
NUM_KILLS = int(os.environ.get("FSPARSE_KILLS", 2))
OPTIONS = {
    "validation": VALID,
    "epochs": 3,
    "batch_size": 8,
    "learning_rate": 0.05,
    "keep_best": "p@1",
    "progress": False,
    "every": Every(log=3),
}


def stream(epoch):
    """Eight batches, the last of them short."""
    order = np.random.default_rng(epoch).permutation(60)
    room = {"feature_capacity": 3, "label_capacity": 1}
    for batch in data.batches(TRAIN, order, 8, **room):
        is_there = batch.label_ids[:, 0] < 6
        yield data.Batch(*(x[is_there] for x in batch))


MODES = {
    "in memory": (TRAIN, {}),
    "adaptive": (TRAIN, {"adaptive": ADAPTIVE, "epochs": 6}),
    "stream": (stream, {"steps": 22, "epochs": None, "every": Every(5, validation=4)}),
}


class StopAt:
    """Ctrl-C while the figures of a step are shown."""

    def __init__(self, *steps, number=signal.SIGINT):
        self.steps, self.number = set(steps), number

    def __call__(self, record, state):
        if record["step"] in self.steps:
            self.steps.remove(record["step"])
            signal.raise_signal(self.number)


def finish(examples, folder, stops, **options):
    """The result after so many interrupts."""
    stop = StopAt(*stops)
    for _ in stops:
        with pytest.raises(Interrupted, match="saved"):
            fit(Tiny(), examples, folder=folder, callbacks=[stop], **options)
    return fit(Tiny(), examples, folder=folder, **options)


@pytest.mark.parametrize("mode", MODES)
def test_interrupted_run_resumes_to_the_same_bits(mode, tmp_path):
    """In an epoch, at its end, and one after another."""
    train, changes = MODES[mode]
    options = OPTIONS | changes
    whole = fit(Tiny(), train, folder=tmp_path / "whole", **options)
    stops = {"stream": [5, 16], "adaptive": [4, 15]}.get(mode, [3, 16])
    again = finish(train, tmp_path / "parts", stops, **options)
    assert_same_bits(again[1:3], whole[1:3])
    assert course(again.history) == course(whole.history)
    for name in ("checkpoint.npz", "best.npz"):
        one, other = (read(tmp_path / part / name) for part in ("whole", "parts"))
        assert one == other


def read(path):
    """All arrays of a file, which its checksums vouch for."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {n: archive.read(n) for n in archive.namelist() if n[-4:] == ".npy"}


def test_finished_run_is_read_and_a_longer_one_goes_on(tmp_path):
    short = OPTIONS | {"epochs": 1, "keep_best": None}
    first = fit(Tiny(), TRAIN, folder=tmp_path, **short)
    again = fit(Tiny(), TRAIN, folder=tmp_path, **short)
    assert_same_bits(again[1:3], first[1:3])
    assert again.history == first.history
    longer = fit(Tiny(), TRAIN, folder=tmp_path, **short | {"epochs": 2})
    whole = fit(Tiny(), TRAIN, **short | {"epochs": 2})
    assert_same_bits(longer[1:3], whole[1:3])


def test_interrupt_without_a_folder_gives_what_there_is():
    before = signal.getsignal(signal.SIGINT)
    options = OPTIONS | {"keep_best": None, "validation": None, "every": Every(log=1)}
    with pytest.raises(KeyboardInterrupt, match="step 2, and not saved") as stopped:
        fit(Tiny(), TRAIN, callbacks=[StopAt(2)], **options)
    assert stopped.value.fitted.history[-1]["step"] == 2
    assert signal.getsignal(signal.SIGINT) == before


def test_termination_saves_and_then_does_what_it_did(tmp_path):
    caught = []
    before = signal.signal(signal.SIGTERM, lambda *args: caught.append(args[0]))
    try:
        stop = StopAt(3, number=signal.SIGTERM)
        with pytest.raises(Interrupted):
            fit(Tiny(), TRAIN, folder=tmp_path, callbacks=[stop], **OPTIONS)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught == [signal.SIGTERM]
    assert (
        checkpoint.load_metadata(tmp_path / "checkpoint.npz")["progress"]["step"] == 3
    )


# ---- what cannot be resumed --------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Interrupted):
        fit(Tiny(), TRAIN, folder=folder, callbacks=[StopAt(3)], **OPTIONS)
    return folder


CHANGES = {
    "batch size": ({"batch_size": 9}, "batch=9 (saved: 8)"),
    "rate": ({"learning_rate": 0.1}, "learning_rate=0.1 (saved: 0.05)"),
    "schedule": ({"learning_rate": lambda count: 0.1}, "learning_rate='a schedule'"),
    "seed": ({"seed": 1}, "seed=1 (saved: 0)"),
    "best": ({"keep_best": "loss"}, "keep_best='loss' (saved: 'p@1')"),
    "sampling": ({"adaptive": ADAPTIVE}, "(saved: None)"),
}


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_changed_setting_is_named(stopped, change, words):
    before = read(stopped / "checkpoint.npz")
    with pytest.raises(checkpoint.CheckpointError) as e:
        fit(Tiny(), TRAIN, folder=stopped, **OPTIONS | change)
    assert words in str(e.value)
    assert "resume=False" in str(e.value)
    assert read(stopped / "checkpoint.npz") == before


def test_changed_data_and_models_are_named(stopped):
    with pytest.raises(checkpoint.CheckpointError, match="train='"):
        fit(Tiny(), examples(60, seed=5), folder=stopped, **OPTIONS)
    with pytest.raises(checkpoint.CheckpointError, match=r"noise=0\.5"):
        fit(Tiny(noise=0.5), TRAIN, folder=stopped, **OPTIONS)


def test_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "checkpoint.npz").write_bytes(b"half of it")
    with pytest.raises(checkpoint.CheckpointError, match="not a whole checkpoint"):
        fit(Tiny(), TRAIN, folder=tmp_path, **OPTIONS)


def test_resume_needs_a_checkpoint_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no"):
        fit(Tiny(), TRAIN, folder=tmp_path, resume=True, **OPTIONS)
    with pytest.raises(ValueError, match="must have a folder"):
        fit(Tiny(), TRAIN, resume=True, **OPTIONS)
    with pytest.raises(ValueError, match="True, False or 'auto'"):
        fit(Tiny(), TRAIN, folder=tmp_path, resume="yes", **OPTIONS)


def test_no_resume_starts_anew(stopped, tmp_path):
    for name in ("checkpoint.npz", "best.npz"):
        (tmp_path / name).write_bytes(b"of another run")
    options = OPTIONS | {"steps": 1, "epochs": None, "keep_best": None}
    fitted = fit(Tiny(), TRAIN, folder=tmp_path, resume=False, **options)
    assert fitted.history[-1]["step"] == 1
    assert not (tmp_path / "best.npz").exists()


def test_a_folder_serves_one_run_at_a_time(tmp_path):
    options = OPTIONS | {"steps": 1, "epochs": None}

    def second(record, state):
        with pytest.raises(RuntimeError, match="one run at a time"):
            fit(Tiny(), TRAIN, folder=tmp_path, **options)

    fit(Tiny(), TRAIN, folder=tmp_path, callbacks=[second], **options)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        fit(Tiny(), TRAIN, folder=tmp_path / "file" / "run", **OPTIONS)


def test_full_disk_names_the_file_and_leaves_the_last_one(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    options = OPTIONS | {"steps": 1, "epochs": None, "keep_best": None}
    with pytest.raises(OSError, match="No space left") as e:
        fit(Tiny(), TRAIN, folder=tmp_path, **options)
    assert "checkpoint.npz could not be written" in e.value.__notes__[0]


# ---- kill -9 -----------------------------------------------------------------------


PROGRAM = """
import sys
from train_cases import Tiny, examples
from fsparse import fit
from fsparse.train import Every

fit(
    Tiny(4000, 16),
    examples(400, num_features=4000, num_labels=16),
    validation=examples(40, 1, 4000, 16),
    epochs=4,
    batch_size=8,
    learning_rate=0.05,
    keep_best="loss",
    folder=sys.argv[1],
    every=Every(log=10, validation=7, checkpoint=0.0),
    callbacks=[lambda record, state: print(record["step"], flush=True)],
    progress=False,
)
print("end", flush=True)
"""


def start(folder):
    here = str(Path(__file__).parent)
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )


def kill_at_random(folder, longest):
    """Whether the run was killed before its end; it is left to end otherwise."""
    with start(folder) as run:
        line = run.stdout.readline()
        assert line, run.stderr.read()
        time.sleep(random.uniform(0, longest))
        run.kill()
        rest = run.stdout.read().split()
    return "end" not in [line.strip(), *rest]


def files_of(folder):
    """Every file that is there, read as a whole; none may be damaged."""
    names = ("checkpoint.npz", "best.npz")
    return {n: read(folder / n) for n in names if (folder / n).exists()}


def test_killed_at_random_moments_resumes_to_the_same_bits(tmp_path):
    """In steps and in saving, which takes about as long."""
    began = time.perf_counter()
    with start(tmp_path / "whole") as run:
        run.stdout.readline()
        began = time.perf_counter()
        assert "end" in run.stdout.read()
    longest = time.perf_counter() - began
    whole, kills, ends, kept = files_of(tmp_path / "whole"), 0, 0, 0
    assert len(whole) == 2
    while kills < NUM_KILLS or not ends:
        folder = tmp_path / f"run{ends}"
        share = 0.4 if kills < NUM_KILLS else 10
        if kill_at_random(folder, share * longest):
            kills += 1
            files = files_of(folder)  # whole, though the process was killed
            kept += "checkpoint.npz" in files
        else:
            ends += 1
            assert files_of(folder) == whole
            left = {p.name for p in folder.iterdir()}
            assert left == {"checkpoint.npz", "best.npz", ".lock"}
    print(f"{kills} kills, after {kept} of which there was a checkpoint; {ends} ends")
    assert kept
