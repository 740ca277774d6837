"""Checkpoints come back bit for bit or not at all, and a failed write harms nothing."""

import json
import os
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsparse import checkpoint
from fsparse.checkpoint import CheckpointError, load, load_metadata, save
from fsparse.rows import adam_init

NANS = np.array([0x7FC00001, 0xFFC12345, 0x7F800001], np.uint32).view(np.float32)
LEAVES = {
    "f32": np.linspace(-1, 1, 7, dtype=np.float32),
    "nan_payloads": NANS,
    "signed_zero": np.array([-0.0, 0.0], np.float32),
    "i32": np.arange(6, dtype=np.int32).reshape(2, 3),
    "u32": np.array([0, 2**32 - 1], np.uint32),
    "bool": np.array([True, False]),
    "scalar": np.float32(3.5),
    "empty": np.zeros((0, 4), np.float32),
    "bf16": np.arange(5).astype(jnp.bfloat16),
    "f8": np.arange(5).astype(jnp.float8_e4m3fn),
    "i4": np.arange(-8, 8).astype(jnp.int4),
    "f16": np.array([65504, 6e-8], np.float16),
    "c64": np.array([1 + 2j], np.complex64),
    "f64": np.array([1 / 3, np.pi]),
    "i64": np.array([2**62 + 1]),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "key_data": np.asarray(jax.random.key_data(jax.random.key(7))),
}
TREE = {"a": jnp.arange(3.0), "b": [jnp.zeros((2, 2), jnp.int32)]}


def bits(leaf):
    array = np.asarray(leaf)
    return array.dtype, array.shape, array.tobytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.ckpt"


@pytest.fixture
def saved(path):
    save(path, TREE, {"step": 3})
    return path


@pytest.mark.parametrize("name", LEAVES)
def test_round_trip_is_bit_for_bit(path, name):
    save(path, {"x": LEAVES[name]}, {"step": 1})
    tree, metadata = load(path, {"x": LEAVES[name]})
    assert bits(tree["x"]) == bits(LEAVES[name])
    assert metadata == load_metadata(path) == {"step": 1}


def test_round_trip_of_a_state(path):
    state = adam_init(jnp.ones((4, 3)))._replace(count=jnp.int32(9))
    save(path, (state, None, ()), {})
    like = jax.eval_shape(lambda: (state, None, ()))
    tree, _ = load(path, like)
    assert jax.tree.structure(tree) == jax.tree.structure(like)
    assert list(map(bits, jax.tree.leaves(tree))) == list(map(bits, state))


def test_loaded_arrays_are_their_own(saved):
    tree, _ = load(saved, TREE)
    saved.unlink()
    donated = jax.jit(lambda x: x + 1, donate_argnums=0)(tree["a"])
    np.testing.assert_array_equal(donated, [1, 2, 3])


def test_keys_of_a_saved_key_draw_the_same(path):
    key = jax.random.key(42)
    save(path, jax.random.key_data(key), {})
    data, _ = load(path, jax.random.key_data(key))
    again = jax.random.wrap_key_data(data)
    np.testing.assert_array_equal(jax.random.bits(again, 4), jax.random.bits(key, 4))


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"a": TREE["a"]}, r"expected leaf nothing ; got \['b'\]\[0\] i32\[2,2\]"),
        ({**TREE, "c": TREE["a"]}, r"expected leaf \['c'\] f32\[3\]; got nothing"),
        ({**TREE, "a": jnp.zeros(4)}, r"leaf \['a'\] f32\[4\]; got \['a'\] f32\[3\]"),
        ({**TREE, "a": jnp.zeros(3, jnp.int32)}, r"\['a'\] i32\[3\]; got \['a'\] f32"),
        ({**TREE, "b": (TREE["a"],)}, r"\['b'\]\[0\] f32\[3\]; got \['b'\]\[0\] i32"),
        (TREE["a"], r"expected leaf leaf f32\[3\]; got \['a'\]"),
    ],
)
def test_another_tree_is_refused_by_name(saved, like, message):
    with pytest.raises(CheckpointError, match=message):
        load(saved, like)


@pytest.mark.parametrize(
    ("tree", "metadata", "message"),
    [
        ({"n": 3}, {}, r"save: leaf \['n'\] must be an array; got int"),
        ({"k": jax.random.key(0)}, {}, "key_data"),
        (TREE, {"f": print}, "JSON"),
    ],
)
def test_what_cannot_be_saved_is_refused_and_harms_nothing(
    saved, tree, metadata, message
):
    with pytest.raises(TypeError, match=message):
        save(saved, tree, metadata)
    assert load(saved, TREE)[1] == {"step": 3}
    assert os.listdir(saved.parent) == [saved.name]


# ---- damage -------------------------------------------------------------------------


def same_as_saved(tree, metadata):
    leaves = zip(jax.tree.leaves(tree), jax.tree.leaves(TREE), strict=True)
    return metadata == {"step": 3} and all(bits(a) == bits(b) for a, b in leaves)


@pytest.mark.parametrize("fraction", [0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_truncated(saved, fraction):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(fraction * len(content))])
    for read in (lambda: load(saved, TREE), lambda: load_metadata(saved)):
        with pytest.raises(CheckpointError, match="not a whole checkpoint"):
            read()


def test_no_flipped_byte_goes_unnoticed(saved):
    """A flip is refused, unless it hits what nobody reads, such as a time stamp."""
    content = saved.read_bytes()
    refused = 0
    for at in range(len(content)):
        saved.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        try:
            assert same_as_saved(*load(saved, TREE)), at
        except CheckpointError:
            refused += 1
    assert refused > len(content) // 2


@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.75])
def test_flipped_byte_of_a_leaf_is_detected(path, fraction):
    leaf = np.arange(50_000, dtype=np.float32)
    save(path, leaf, {})
    content = bytearray(path.read_bytes())
    content[int(fraction * len(content))] ^= 16
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="CRC"):
        load(path, leaf)


def foreign_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


MANIFEST = {"format": "fsparse-checkpoint", "version": 1, "leaves": [], "metadata": {}}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.txt": "hello"}, "a zip file, but no fsparse-checkpoint"),
        ({"manifest.json": "[]"}, "not a whole checkpoint"),
        ({"manifest.json": "not json"}, "not a whole checkpoint"),
        ({"manifest.json": "{}"}, "got None version None"),
        (
            {"manifest.json": json.dumps(MANIFEST | {"version": 99})},
            "got .* version 99",
        ),
        ({"manifest.json": json.dumps(MANIFEST | {"format": "x"})}, "got x version 1"),
        ({"manifest.json": json.dumps(MANIFEST)}, "expected leaf .*; got nothing"),
    ],
)
def test_foreign_zip(path, members, message):
    foreign_zip(path, members)
    with pytest.raises(CheckpointError, match=message):
        load(path, TREE)


@pytest.mark.parametrize("content", [b"", b"hello", bytes(range(256)) * 9])
def test_foreign_file(path, content):
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="truncated or foreign"):
        load(path, TREE)


def test_missing_file(path):
    for read in (lambda: load(path, TREE), lambda: load_metadata(path)):
        with pytest.raises(FileNotFoundError):
            read()


# ---- a write that fails -------------------------------------------------------------


@pytest.mark.parametrize("limit", [100, 5_000, 400_000])
def test_full_disk_leaves_the_old_checkpoint(saved, limit):
    """A file size limit stands in for a full disk: the write fails half way."""
    program = f"""
import resource, signal, sys
import numpy as np
from fsparse.checkpoint import save
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    save({str(saved)!r}, np.zeros(1_000_000, np.float32), {{}})
except OSError as e:
    print("OSError", e.errno)
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.startswith("OSError"), done.stderr
    assert same_as_saved(*load(saved, TREE))
    assert os.listdir(saved.parent) == [saved.name]


@pytest.mark.parametrize("failure", ["_write", "os.fsync", "os.replace"])
def test_failure_at_each_stage_leaves_the_old_checkpoint(saved, monkeypatch, failure):
    def fail(*args):
        raise OSError(28, "No space left on device")

    target = checkpoint if failure == "_write" else os
    monkeypatch.setattr(target, failure.removeprefix("os."), fail)
    with pytest.raises(OSError, match="No space left"):
        save(saved, {"a": TREE["a"]}, {})
    monkeypatch.undo()
    assert same_as_saved(*load(saved, TREE))
    assert os.listdir(saved.parent) == [saved.name]


def test_saving_again_replaces(saved):
    save(saved, TREE["a"] + 1, {"step": 4})
    tree, metadata = load(saved, TREE["a"])
    np.testing.assert_array_equal(tree, [1, 2, 3])
    assert metadata == {"step": 4}
    assert os.listdir(saved.parent) == [saved.name]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX files")
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_a_new_file_honours_the_umask(path, umask):
    before = os.umask(umask)
    try:
        save(path, TREE, {})
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX files")
def test_a_replaced_file_keeps_its_permissions(saved):
    saved.chmod(0o640)
    save(saved, TREE, {"step": 3})
    assert saved.stat().st_mode & 0o777 == 0o640
    assert same_as_saved(*load(saved, TREE))
