"""What users of the package see: its names, their documentation, what it imports."""

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

import fsparse

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    name
    for _, name, _ in pkgutil.walk_packages(fsparse.__path__, "fsparse.")
    if name != "fsparse._ffi"
)
PUBLIC = {name: getattr(fsparse, name) for name in fsparse.__all__}
FUNCTIONS = [name for name, x in PUBLIC.items() if isinstance(x, types.FunctionType)]
FUNCTIONS_OF_MODULES = {
    f"{module.__name__.split('.')[1]}.{name}": x
    for module in PUBLIC.values()
    if isinstance(module, types.ModuleType)
    for name, x in vars(module).items()
    if isinstance(x, types.FunctionType)
    and x.__module__.startswith(module.__name__)
    and not name.startswith("_")
}


def test_version_is_that_of_the_sources_and_of_the_newest_change():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert fsparse.__version__ == project["version"]
    changes = (ROOT / "CHANGELOG.md").read_text().splitlines()
    newest = next(line for line in changes if line.startswith("## "))
    assert newest.startswith(f"## [{fsparse.__version__}]")


def test_names_are_sorted_and_complete():
    assert fsparse.__all__ == sorted(fsparse.__all__)
    public = {name for name in vars(fsparse) if not name.startswith("_")}
    modules = {name.split(".")[1] for name in MODULES}
    assert public - modules <= set(PUBLIC) <= public | set(fsparse._ROOM_OF)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_documented(name):
    assert inspect.getdoc(PUBLIC[name])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_says_what_it_raises_and_shows_a_call(name):
    doc = inspect.getdoc(PUBLIC[name])
    for section in ("Args:", "Returns:", "Raises:", "Example:"):
        assert section in doc.splitlines(), section
    assert f">>> {name}(" in doc or f"= {name}(" in doc


@pytest.mark.parametrize("name", FUNCTIONS_OF_MODULES)
def test_every_function_of_public_modules_shows_a_call(name):
    assert f"{name.split('.')[1]}(" in FUNCTIONS_OF_MODULES[name].__doc__
    assert ">>> " in FUNCTIONS_OF_MODULES[name].__doc__


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module)
    assert not failed


def test_import_is_light():
    """Only what is needed: the rest belongs to examples, tests and data sets."""
    heavy = {"matplotlib", "optax", "pandas", "pyarrow", "pytest", "rich", "scipy"}
    program = "import sys, fsparse; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True
    )
    assert "fsparse" in done.stdout.split(), done.stderr
    assert not heavy & set(done.stdout.split())


def test_types_are_for_users_too():
    assert (Path(fsparse.__file__).parent / "py.typed").exists()


def test_a_build_runs_on_other_machines_than_its_own():
    """Instruction sets are chosen at import, never by the machine that compiles."""
    build = (ROOT / "CMakeLists.txt").read_text()
    for flag in ("-march=native", "-mtune=native", "-mcpu=native"):
        assert flag not in build


def test_rooms_are_imported_when_they_are_named():
    program = """
import sys, fsparse
rooms = {"adaptive", "checkpoint", "data", "nn", "pipeline", "serve", "sketch"}
rooms |= {"tabular", "train"}
assert not {f"fsparse.{room}" for room in rooms} & set(sys.modules)
assert rooms <= set(fsparse.__all__)
for room in rooms:
    assert getattr(fsparse, room) is sys.modules[f"fsparse.{room}"]
"""
    subprocess.run([sys.executable, "-P", "-c", program], check=True)
    with pytest.raises(AttributeError, match="'fsparse' has no attribute 'datum'"):
        fsparse.datum  # noqa: B018
