"""Two systems and their data, small enough to train in a test: a denoiser with dropout that draws its times by what it
has learned of them, and a mean, whose steps are known in closed form and take a second less to compile.

Run as `python tiny.py DIRECTORY STEPS MODE`, it trains the denoiser and prints the number of each step it has finished.
"""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import randomness
from diffjax.memory import Memory, of_times
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
    "flip": False,
    "log_every": 1,
    "eval_every": 0,
    "save_every": 5,
    "keep_every": 0,
}


class System(NamedTuple):
    """What training needs."""

    init: Callable
    loss: Callable
    memory: Any = None


PIXELS, HIDDEN = 36, 8


def _init(key):
    first, last = jax.random.split(key)
    return {
        "first": jax.random.normal(first, (PIXELS, HIDDEN)) / 6,
        "last": jax.random.normal(last, (HIDDEN, PIXELS)) / 3,
        "bias": jnp.zeros(HIDDEN),
    }


def _loss(params, keys, batch):
    x0 = _flat(batch)
    # One draw for both, since each costs compilation: the noise, and which units drop out, 0.8 of them being kept.
    eps, z = jnp.split(randomness.normal(keys, (len(x0), PIXELS + HIDDEN)), [PIXELS], axis=1)
    hidden = jnp.tanh((x0 + batch["t"][:, None] * eps) @ params["first"] + params["bias"])
    hidden = hidden * (z < 0.8416) / 0.8
    return jnp.sum((hidden @ params["last"] - eps) ** 2, axis=1) + _poison(batch)


def _flat(batch):
    return batch["image"].reshape(len(batch["image"]), -1) / 127.5 - 1


def _poison(batch):
    """A label of -1 stands for what makes a run diverge."""
    return jnp.where(batch["label"] < 0, jnp.nan, 0.0)


def _sample_times(state, key, num):
    """From the density that is `state` on equal bins of (0, 1], by the inverse of its distribution function."""
    p = state / state.sum()
    below = jnp.cumsum(p) - p
    u = 1 - jax.random.uniform(key, (num,))
    index = jnp.sum(u[:, None] > below[1:], axis=1)
    return (index + (u - below[index]) / p[index]) / BINS, 1 / (BINS * p[index])


def _update_times(state, t, losses):
    index = jnp.clip(jnp.ceil(t * BINS).astype(int) - 1, 0, BINS - 1)
    return state.at[index].add(0.02 * jnp.sqrt(losses))


denoiser = System(_init, _loss, of_times(TimeSampler(lambda: jnp.ones(BINS), _sample_times, _update_times)))

# loss_i = |params - x_i|^2 / 2, so the gradient of the mean is params - mean(x). It remembers the sum of its losses.
mean = System(
    init=lambda key: jnp.zeros(PIXELS),
    loss=lambda params, keys, batch: 0.5 * jnp.sum((params - _flat(batch)) ** 2, axis=1) + _poison(batch),
    memory=Memory(
        init=lambda params: jnp.zeros(()),
        draw=lambda memory, key, num: {},
        update=lambda memory, key, params, batch, losses: memory + losses.sum(),
    ),
)


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
        denoiser,
        {**CONFIG, "flip": True, "steps": int(sys.argv[2]), "parallel": sys.argv[3]},
        make_batches,
        sys.argv[1],
        on_log=lambda step, metrics: print(step, flush=True),
        devices=jax.devices()[:DEVICES],
    )
