"""Flags that must stand before jax is imported: 8 fake devices, and the CPU convolutions of `experiments.main`.

And `--every=N` for a part of the suite, and a listener for compilations.
"""

import itertools
import os

import pytest

from experiments.platform import cpu_flags, in_jaxlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8", *cpu_flags()]
)

import jax  # the flags come first


def pytest_addoption(parser):
    parser.addoption("--every", type=int, default=1, metavar="N", help="run the first of every N tests of each file")


@pytest.hookimpl(trylast=True)  # after the tests that are not asked for have been left out
def pytest_collection_modifyitems(config, items):
    """`--every=10` is a tenth of the suite that touches every file."""
    files = itertools.groupby(items, key=lambda item: item.path)
    items[:] = [item for _, tests in files for item in itertools.islice(tests, 0, None, config.option.every)]


def pytest_configure(config):
    """All but the slow tests compile for longer than they compute: without optimisation they take half the time."""
    if config.option.markexpr == "not slow":
        os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
        if in_jaxlib("xla_cpu_use_fusion_emitters\0"):  # not in jaxlib 0.12, which aborts on it
            os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"


@pytest.fixture
def compilations():
    """A list that grows by one for each program that XLA compiles."""
    seen = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)
