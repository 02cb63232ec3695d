"""What must stand before jax is imported: 8 fake devices, `experiments.main`'s CPU convolutions, quick compilation.

Also `--optimize` for long trainings, the mark `fast`, and a listener for compilations.
"""

import collections
import gc
import os

import pytest

from experiments.platform import cpu_flags, in_jaxlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8", *cpu_flags()]
)

import jax  # the flags come first

# Tracing makes many small objects that stay. Looking through them less often takes a twelfth off the tests' time.
gc.set_threshold(200_000, 20, 1000)


def pytest_addoption(parser):
    parser.addoption("--optimize", action="store_true", help="let XLA optimize, for tests that compute for minutes")


@pytest.hookimpl(tryfirst=True)  # before the tests that are not asked for are left out
def pytest_collection_modifyitems(config, items):
    """`fast(N)` makes all but the first N cases of a test slow."""
    seen = collections.Counter()
    for item in items:
        mark = item.get_closest_marker("fast")
        if mark and not item.get_closest_marker("slow"):
            test = (item.path, item.originalname)
            seen[test] += 1
            if seen[test] > mark.args[0]:
                item.add_marker("slow")


def pytest_configure(config):
    """Most tests compile for longer than they compute: without optimization they take half the time.

    Several workers divide the cores. Trainings take a tenth to a third less of the processors' time than where the
    threads of each spread over all cores. What a test starts inherits it.
    """
    worker = getattr(config, "workerinput", None)
    if worker and hasattr(os, "sched_setaffinity"):  # not on macOS
        cores = sorted(os.sched_getaffinity(0))[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]
        os.sched_setaffinity(0, cores or os.sched_getaffinity(0))
    if config.option.optimize:
        return
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
