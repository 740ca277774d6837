"""What the numbers of a benchmark depend on."""

import importlib.metadata
import os
import platform
from pathlib import Path

Facts = dict[str, str | int | None]


def facts(*packages: str) -> Facts:
    """The processor, the cores this process may use, and versions."""
    versions = {package: version(package) for package in ("fsparse", *packages)}
    cores = len(os.sched_getaffinity(0))
    python = platform.python_version()
    return {"cpu": cpu_model(), "cores": cores, "python": python, **versions}


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
