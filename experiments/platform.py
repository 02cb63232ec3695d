"""Settings to make before jax starts, most of them before jax is imported. This module does not import jax itself."""

import contextlib
import ctypes
import functools
import importlib.util
import mmap
import os
from pathlib import Path

# By default, jaxlib 0.10 to 0.12 use a library for convolutions on CPU. Its weight gradient is up to 3.7 times slower
# than XLA's own. With this flag the library computes only matrix products and sums.
FUSION_FLAG = "xla_cpu_experimental_ynn_fusion_type"
FUSIONS = ("LIBRARY_FUSION_TYPE_DOT", "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT", "LIBRARY_FUSION_TYPE_REDUCE")


@functools.cache
def cpu_flags() -> tuple[str, ...]:
    """The flags for XLA's CPU backend that the installed jaxlib knows. An unknown flag would abort the process."""
    # A registered flag is a C string in the library. The name of a removed flag may still be there, but without the NUL
    # at its end.
    if not in_jaxlib(f"{FUSION_FLAG}\0", *FUSIONS):
        return ()
    return (f"--{FUSION_FLAG}={','.join(FUSIONS)}",)


def in_jaxlib(*texts: str) -> bool:
    """Whether XLA's shared library holds all of these texts. It takes some 0.4 s the first time, then a few ms."""
    package = importlib.util.find_spec("jaxlib")
    if package is None or package.origin is None:
        return False
    files = [file for file in Path(package.origin).parent.iterdir() if file.suffix in (".so", ".dylib", ".pyd", ".dll")]
    if not files:
        return False
    # XLA is nearly all of jaxlib: its library is the largest by far.
    largest = max(files, key=lambda file: file.stat().st_size)
    with largest.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as library:
        return all(library.find(text.encode()) >= 0 for text in texts)


def set_cpu_flags() -> None:
    """Adds `cpu_flags()` to XLA_FLAGS unless the user has set that flag or chosen another platform.

    The flags concern the CPU backend only, so they are harmless where an accelerator turns out to be present.
    """
    if os.environ.get("JAX_PLATFORMS", "cpu") != "cpu":
        return
    flags = os.environ.get("XLA_FLAGS", "")
    missing = [flag for flag in cpu_flags() if flag.split("=")[0] not in flags]
    os.environ["XLA_FLAGS"] = " ".join([flags, *missing]).strip()


def keep_one_arena() -> None:
    """Makes all threads share one glibc heap.

    Orbax writes each checkpoint from new threads. If threads have their own heaps, glibc returns little of the memory
    that they free: the digits' run grew by 2 MiB a checkpoint, and by 0.2 with one heap (benchmarks/soak.py).
    """
    arena_max = -8  # M_ARENA_MAX of glibc's malloc.h; another C library has no mallopt, or takes no such number
    with contextlib.suppress(AttributeError, OSError, TypeError):  # TypeError: no CDLL(None) on Windows
        ctypes.CDLL(None).mallopt(arena_max, 1)


def keep_quiet() -> None:
    """Silences absl's log, where orbax reports every file it writes, and errors that we report ourselves."""
    from absl import logging

    logging.set_verbosity(logging.FATAL)


def keep_compiled() -> None:
    """Caches compiled programs between runs. Compilation takes longer than a short run's training. Imports jax."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" in os.environ or jax.config.jax_compilation_cache_dir:
        return
    with contextlib.suppress(RuntimeError):  # no home directory, no cache
        jax.config.update("jax_compilation_cache_dir", str(Path("~/.cache/diffjax/compiled").expanduser()))
