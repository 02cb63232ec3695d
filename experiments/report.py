"""The report of eval.json, and the lines that the screen shows of it."""

import contextlib
import importlib.metadata
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from diffjax.evaluation import measure
from diffjax.zoo import Model

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

ROOT = Path(__file__).parents[1]
PACKAGES = ("diffjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "diffrax", "numpy", "scipy")


def finished(report: Mapping[str, Any], began: float) -> dict[str, Any]:
    """The report with time, memory, machine, versions and command added. `began` is from `time.perf_counter`."""
    return dict(report) | {
        "wall_seconds": time.perf_counter() - began,
        "peak_memory_gb": _peak_memory(),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "devices": [device.device_kind for device in jax.devices()],
            "jax": jax.__version__,
            "python": platform.python_version(),
        },
        "versions": _versions(),
        "command": _command(),
    }


def lines(model: Model, options: Mapping[str, Any], report: Mapping[str, Any], path: Path) -> Iterator[str]:
    """The headline, and the lines of each measure."""
    width = f", ema_width {report['ema_width']:g}" if report.get("ema_width") else ""
    yield f"step {report['step']}{width}: {measure.headline(model, dict(report))}; {path}"
    for found in measure.measures_of(model, options):
        yield from found.lines(dict(report))


def line_of_step(step: int, seen: Mapping[str, float], picture: Path | None, seconds: float) -> str:
    """The line of an evaluation during training: the last values of the log, what was measured, and the picture."""
    parts = [f"{name} {value:.4g}" for name, value in seen.items()]
    parts += [f"samples in {picture}"] if picture else []
    return f"step {step}: {', '.join(parts)} ({seconds:.1f} s)"


def curves(model: Model, options: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, float]:
    """The values of the report that are worth a curve."""
    found: dict[str, float] = {}
    for each in measure.measures_of(model, options):
        found |= each.curves(dict(report))
    return found


def _peak_memory() -> float | None:
    """Peak memory of the process in GiB; None if it is not known."""
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 2**10  # Linux counts in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _versions() -> dict[str, str]:
    """The versions of the packages that affect the numbers, if installed."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _command() -> str:
    """The command line, ready to run again in the checkout; "" if the run was started by a function call."""
    place, *arguments = sys.argv
    if Path(place).parts[-2:] != ("experiments", "main.py"):
        return ""
    return shlex.join(["python", "-m", "experiments.main", *(a.replace(f"{ROOT}{os.sep}", "") for a in arguments)])


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
