"""A denoiser with dropout, a time sampler and data, small enough to train in a test.

Run as `python tiny.py DIRECTORY STEPS MODE`, it trains and prints the number of each step it has finished.
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import randomness
from diffjax.time_sampling import TimeSampler
from diffjax.training.loop import train

BATCH = 16
BINS = 10
DEVICES = 2  # of the loop's tests; the layouts have their own
CONFIG = {
    "steps": 20,
    "batch_size": BATCH,
    "learning_rate": 1e-2,
    "warmup": 6,
    "grad_clip": 0.5,
    "ema_decay": 0.9,
    "flip": True,
    "log_every": 1,
    "eval_every": 0,
    "save_every": 5,
    "keep_every": 0,
}


class Tiny(NamedTuple):
    init: Callable
    loss: Callable


def _convolve(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _init(key):
    first, last = jax.random.split(key)
    return {
        "first": jax.random.normal(first, (3, 3, 1, 4)) / 3,
        "last": jax.random.normal(last, (3, 3, 4, 1)) / 6,
        "bias": jnp.zeros(4),
    }


def _loss(params, key, batch):
    noise_key, dropout_key = randomness.split(key, 2)
    x0 = batch["image"] / 127.5 - 1
    eps = randomness.normal(noise_key, x0.shape)
    hidden = jnp.tanh(_convolve(x0 + batch["t"][:, None, None, None] * eps, params["first"]) + params["bias"])
    hidden = hidden * (randomness.uniform(dropout_key, hidden.shape) < 0.8) / 0.8
    # A label of -1 stands for what makes a run diverge.
    poison = jnp.where(batch["label"] < 0, jnp.nan, 0.0)
    return jnp.sum((_convolve(hidden, params["last"]) - eps) ** 2, axis=(1, 2, 3)) + poison


model = Tiny(_init, _loss)


def _sample_times(state, key, num):
    bin_key, place_key = jax.random.split(key)
    p = state / state.sum()
    index = jax.random.categorical(bin_key, jnp.log(p), shape=(num,))
    return (index + 1 - jax.random.uniform(place_key, (num,))) / BINS, 1 / (BINS * p[index])


def _update_times(state, t, losses):
    index = jnp.clip(jnp.ceil(t * BINS).astype(int) - 1, 0, BINS - 1)
    return state.at[index].add(0.02 * jnp.sqrt(losses))


time_sampler = TimeSampler(lambda: jnp.ones(BINS), _sample_times, _update_times)


def batch_of_step(n, size=BATCH):
    rng = np.random.default_rng([7, n])
    return {
        "image": rng.integers(0, 256, (size, 6, 6, 1), dtype=np.uint8),
        "label": rng.integers(0, 10, size, dtype=np.int32),
    }


def make_batches(start):
    while True:
        start += 1
        yield batch_of_step(start)


if __name__ == "__main__":
    train(
        model,
        {**CONFIG, "steps": int(sys.argv[2]), "parallel": sys.argv[3]},
        make_batches,
        sys.argv[1],
        time_sampler=time_sampler,
        on_log=lambda step, metrics: print(step, flush=True),
        devices=jax.devices()[:DEVICES],
    )
