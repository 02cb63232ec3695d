"""What is set before jax works. Most of it must stand before jax is imported: importing this module imports no jax."""

import contextlib
import ctypes
import functools
import importlib.util
import mmap
import os
from pathlib import Path

# As they come, jaxlib 0.10 to 0.12 hand convolutions on CPU to a library whose weight gradient is up to 3.7 times
# slower than XLA's own. This flag sends only matrix products and sums there.
FUSION_FLAG = "xla_cpu_experimental_ynn_fusion_type"
FUSIONS = ("LIBRARY_FUSION_TYPE_DOT", "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT", "LIBRARY_FUSION_TYPE_REDUCE")


@functools.cache
def cpu_flags() -> tuple[str, ...]:
    """The flags for XLA's CPU backend that the installed jaxlib knows. An unknown flag would abort the process."""
    # A flag that is registered stands in the library as a C string. The name of a removed one may stand there without
    # the NUL at its end.
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
    # XLA is all but the whole of jaxlib: its library is the largest by far.
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
    """Lets all threads share glibc's one heap.

    Orbax writes each checkpoint from new threads. With a heap for each of several threads, glibc gives back little of
    what they free: the digits' run grew by 2 MiB a checkpoint, and by 0.2 with one heap (benchmarks/soak.py).
    """
    arena_max = -8  # M_ARENA_MAX of glibc's malloc.h; another C library has no mallopt, or takes no such number
    with contextlib.suppress(AttributeError, OSError, TypeError):  # TypeError: no CDLL(None) on Windows
        ctypes.CDLL(None).mallopt(arena_max, 1)


def keep_quiet() -> None:
    """Silences absl's log: orbax tells of every file it writes, and of errors that we tell of."""
    from absl import logging

    logging.set_verbosity(logging.FATAL)


def keep_compiled() -> None:
    """Keeps compiled programs between runs, for compilation takes longer than a short run's training. Imports jax."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" in os.environ or jax.config.jax_compilation_cache_dir:
        return
    with contextlib.suppress(RuntimeError):  # no home directory, no cache
        jax.config.update("jax_compilation_cache_dir", str(Path("~/.cache/diffjax/compiled").expanduser()))
