"""A run that begins with a part of another run's parameters."""

import jax
import numpy as np
import pytest

from configs import ssl_digits
from diffjax.errors import InputError
from experiments import parameters, run
from experiments.opened import open_run

pytestmark = pytest.mark.slow


def configuration(model, **ssl):
    config = ssl_digits.get_config()
    config.ssl.update(model=model, **ssl)
    config.net.update(latent=2, features=(4,), style=2, units=(4,))
    config.evaluation.update(grid=4, num_examples=4, batch_size=4)
    config.training.update(steps=2, batch_size=8)
    return config


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("m1")
    run.train(configuration("m1"), workdir)
    return workdir


def test_a_frozen_part_stays_and_the_other_learns(first, tmp_path):
    config = configuration("m1m2", freeze_m1=True)
    config.init_from = str(first)
    run.train(config, tmp_path)
    _, given = parameters.restore_ema(open_run(configuration("m1"), first), None)
    _, start = parameters.restore_ema(open_run(config, tmp_path), 0)
    step, end = parameters.restore_ema(open_run(config, tmp_path), None)
    assert step == 2
    jax.tree.map(np.testing.assert_array_equal, given["m1"], start["m1"])
    jax.tree.map(np.testing.assert_array_equal, given["m1"], end["m1"])
    moved = [np.any(a != b) for a, b in zip(jax.tree.leaves(start["m2"]), jax.tree.leaves(end["m2"]), strict=True)]
    assert all(moved)


def test_a_run_of_another_size_is_refused(first, tmp_path):
    config = configuration("m1m2")
    config.init_from, config.net.latent = str(first), 3
    with pytest.raises(InputError, match=r"init_from=.* has the parts m1, of which none .* or not of the same sizes"):
        run.train(config, tmp_path)
