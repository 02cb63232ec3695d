"""Flags that must stand before jax is imported: 8 fake devices, and the CPU convolutions of `experiments.main`."""

import os

from experiments.platform import cpu_flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8", *cpu_flags()]
)


def pytest_configure(config):
    """All but the slow tests compile for longer than they compute: less optimisation takes a quarter off."""
    if config.option.markexpr == "not slow":
        os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=1"
