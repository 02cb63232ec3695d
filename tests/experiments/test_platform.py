"""The flags that are set before jax starts: XLA itself is asked whether it knows them."""

import os
import subprocess
import sys

import pytest

from experiments import platform


def starts(flag):
    """Whether jax starts with this flag: XLA aborts the process on one that it does not know."""
    done = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env={**os.environ, "XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", [platform.FUSION_FLAG, "xla_cpu_enable_fast_math", "xla_cpu_no_such_flag"])
def test_the_library_tells_which_flags_it_knows(name):
    value = ",".join(platform.FUSIONS) if name == platform.FUSION_FLAG else "false"
    assert platform.in_jaxlib(f"{name}\0") == starts(f"--{name}={value}")


def test_flags_are_added_beside_the_users(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    ours = list(platform.cpu_flags())
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1")
    platform.set_cpu_flags()
    platform.set_cpu_flags()
    assert os.environ["XLA_FLAGS"].split() == ["--xla_a=1", *ours]
    monkeypatch.setenv("XLA_FLAGS", f"--{platform.FUSION_FLAG}=")  # the user's own choice
    platform.set_cpu_flags()
    assert os.environ["XLA_FLAGS"] == f"--{platform.FUSION_FLAG}="
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    platform.set_cpu_flags()
    assert os.environ["XLA_FLAGS"] == ""


def test_without_jaxlib_there_are_no_flags(monkeypatch):
    monkeypatch.setattr(platform.importlib.util, "find_spec", lambda name: None)
    assert not platform.in_jaxlib("x")
