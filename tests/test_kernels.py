"""The kernels without Python or XLA, against loops over doubles: see kernels_check.cc.

Built from the sources for this machine, at every level, and for aarch64, where a cross
compiler and an emulator are installed: Debian's g++-aarch64-linux-gnu and
qemu-user-static.
"""

import os
import pathlib
import platform
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FLAGS = "-O3 -std=c++17 -Wall -Wextra -Werror -Wno-psabi -fno-math-errno"
FLAGS += " -fno-trapping-math -ffp-contract=fast -static"
ON_X86 = platform.machine() in ("x86_64", "AMD64")
CROSS, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static"


def levels():
    """The levels that CMake builds, with their flags; the first is that of any CPU."""
    text = (ROOT / "CMakeLists.txt").read_text()
    found = re.findall(r"^ *add_kernel_level\((\w+)([^)$]*)\)", text, re.MULTILINE)
    return {name: flags.split() for name, flags in found}


def build(compiler, names, folder):
    """The check with the kernels of some levels."""

    def run(*arguments):
        command = [compiler, *FLAGS.split(), f"-I{ROOT / 'ffi'}", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    objects = [folder / f"{name}.o" for name in names]
    for name, out in zip(names, objects, strict=True):
        options = f"-DFSPARSE_LEVEL={name}", *levels()[name]
        run("-c", ROOT / "ffi" / "kernels.cc", *options, "-o", out)
    sources = ROOT / "ffi" / "dispatch.cc", ROOT / "tests" / "kernels_check.cc"
    run(*sources, *objects, "-o", folder / "check")
    return folder / "check"


def check(*command, level):
    done = subprocess.run(
        list(map(str, command)),
        env=os.environ | {"FSPARSE_CPU_LEVEL": level},
        capture_output=True,
        text=True,
    )
    if done.returncode == 3:
        pytest.skip(f"this CPU lacks {level}")
    assert done.returncode == 0, done.stdout + done.stderr
    name, compared = re.match(r"(\w+): (\d+) compared, 0 wrong", done.stdout).groups()
    assert name == level
    assert int(compared) > 100_000


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    compiler = shutil.which("g++")
    if not compiler:
        pytest.skip("there is no g++")
    names = list(levels()) if ON_X86 else list(levels())[:1]
    return build(compiler, names, tmp_path_factory.mktemp("native"))


@pytest.mark.parametrize("level", levels())
def test_kernels_of_this_machine(native, level):
    check(native, level=level)


def test_kernels_of_aarch64(tmp_path):
    missing = [tool for tool in (CROSS, EMULATOR) if not shutil.which(tool)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    level = next(iter(levels()))
    check(EMULATOR, build(CROSS, [level], tmp_path), level=level)
