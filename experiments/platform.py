"""What must be set before jax is imported. This module therefore imports nothing that imports jax."""

import contextlib
import ctypes
import os
from importlib.metadata import version

# On CPU, jaxlib 0.10 hands convolutions to a library whose weight gradient is up to 3.7 times slower than XLA's own.
# This sends only matrix products and sums there. An unknown flag aborts the process, hence the look at the version.
KINDS = ("DOT", "INDIVIDUAL_DOT", "REDUCE")
CPU_FLAGS = (
    ["--xla_cpu_experimental_ynn_fusion_type=" + ",".join(f"LIBRARY_FUSION_TYPE_{kind}" for kind in KINDS)]
    if version("jaxlib").startswith("0.10.")
    else []
)


def set_cpu_flags() -> None:
    """Adds `CPU_FLAGS` to XLA_FLAGS unless the user has set that flag or chosen another platform.

    The flag concerns the CPU backend only, so it is harmless where an accelerator turns out to be present.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if os.environ.get("JAX_PLATFORMS", "cpu") != "cpu":
        return
    missing = [flag for flag in CPU_FLAGS if flag.split("=")[0] not in flags]
    os.environ["XLA_FLAGS"] = " ".join([flags, *missing]).strip()


def keep_one_arena() -> None:
    """Lets all threads share glibc's one heap.

    Orbax writes each checkpoint from new threads. With a heap for each of several threads, glibc gives back little of
    what they free: the digits' run grew by 2 MiB a checkpoint, and by 0.2 with one heap (benchmarks/soak.py).
    """
    arena_max = -8  # M_ARENA_MAX of glibc's malloc.h; another C library has no mallopt, or takes no such number
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(arena_max, 1)
