"""What the numbers of a benchmark depend on."""

import ctypes.util
import importlib.metadata
import os
import platform
from pathlib import Path

Facts = dict[str, str | int | None]

HOW_TO_GET_TCMALLOC = "apt-get install libtcmalloc-minimal4 (Debian, Ubuntu)"


def facts(*packages: str) -> Facts:
    """The processor, the cores this process may use, and versions."""
    return {"cpu": cpu_model(), "cores": cores(), **versions(*packages)}


def versions(*packages: str) -> Facts:
    """Of Python, fsparse and other packages."""
    found = {package: version(package) for package in ("fsparse", *packages)}
    return {"python": platform.python_version(), **found}


def cores() -> int:
    """That this process may use: `taskset` gives it fewer."""
    return len(os.sched_getaffinity(0))


def show(found: Facts) -> None:
    """Prints a fact a line."""
    print(
        "\n".join(
            f"{name}: {value or 'not installed'}" for name, value in found.items()
        )
    )


def version(package: str) -> str | None:
    """Of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    """The name its maker gave it, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()


def free_gigabytes() -> float:
    """Memory that can be had without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("MemAvailable")]
    return int(line.split()[1]) / 1e6


def tcmalloc() -> str | None:
    """The library, if it is installed."""
    return ctypes.util.find_library("tcmalloc_minimal") or ctypes.util.find_library(
        "tcmalloc"
    )
