"""Chains of few classes and places, enumerated in numpy and float64: every array, every path of one step."""

import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.linalg import expm
from scipy.special import log_softmax, softmax

from diffjax import predictions, processes, schedules

TINY = 1e-100  # what the exponential of a finite rate leaves of an infinite one


class Small(NamedTuple):
    """jumps: M (states, states) in float64; alpha_bar: of the grid i/T."""

    process: processes.Categorical
    jumps: np.ndarray
    num_classes: int
    num_places: int
    times: np.ndarray

    @property
    def num_states(self):
        return len(self.jumps)

    @property
    def arrays(self):
        """(states^D, D), in the order of `index`."""
        return np.array(list(itertools.product(range(self.num_states), repeat=self.num_places)))

    @property
    def data(self):
        """(K^D, D), the arrays without a mask."""
        return np.array(list(itertools.product(range(self.num_classes), repeat=self.num_places)))

    def index(self, x):
        return (np.asarray(x) * self.num_states ** np.arange(self.num_places)[::-1]).sum(-1)

    def rate(self, t):
        return np.float64(self.process.schedule.integrated_rate(t))

    def q(self, s, t):
        """The transition matrix from s to t."""
        rate = min(self.rate(t) - (self.rate(s) if s else 0.0), 500.0)
        return expm(rate * (self.jumps - np.eye(self.num_states)))

    def kernel_of_places(self, beliefs, s, t):
        """p(x_s^i | x_t), (states^D, D, states), of beliefs p(x_0^i | x_t) (states^D, D, K)."""
        to_s, to_t, between = self.q(0, s), self.q(0, t), self.q(s, t)
        k, here = self.num_classes, self.arrays
        like = to_t[:k, here].transpose(1, 2, 0)  # q(x_t^i | x_0 = a), (states^D, D, K)
        p = np.where(like > TINY, beliefs, 0.0)
        w = p / np.maximum(p.sum(-1, keepdims=True), TINY) / np.maximum(like, TINY)
        return np.einsum("nia,as,sni->nis", w, to_s[:k], between[:, here])

    def joint(self, kernel):
        """[x_t, x_s] of the kernel of places: the transition matrix between whole arrays."""
        rows = np.ones((len(self.arrays),) * 2)
        for i in range(self.num_places):
            rows *= kernel[:, i][:, self.arrays[:, i]]
        return rows

    def law(self, kernels):
        """The law of x_0 (states^D,) of a chain that starts in the prior; kernels from t = 1 down."""
        _, prior = self.prior
        p = prior
        for kernel in kernels:
            p = p @ self.joint(kernel)
        return p

    @property
    def prior(self):
        pi = np.asarray(self.process.law, np.float64)
        return pi, np.prod(pi[self.arrays], axis=1)

    def table(self, seed):
        """Logits of a denoiser that knows no time, (states^D, D, K)."""
        shape = (len(self.arrays), self.num_places, self.num_classes)
        return np.random.default_rng(seed).normal(0, 1, shape)

    def predict(self, table):
        weights = jnp.asarray(self.num_states ** np.arange(self.num_places)[::-1])
        table = jnp.asarray(table, jnp.float32)

        def fn(xt, t):
            return table[(xt.astype(int) * weights).sum(-1)]

        return predictions.logits(fn)


def beliefs(table):
    return softmax(table, axis=-1)


def log_beliefs(table):
    return log_softmax(table, axis=-1)


def small(kind, num_steps=4):
    """A process of each kind, on two places of two to four classes."""
    betas = 1 / np.arange(num_steps, 0, -1)
    times = np.arange(num_steps + 1) / num_steps
    if kind == "masked":
        jumps = np.zeros((3, 3))
        jumps[:, 2] = 1
        return Small(processes.categorical(betas, 2, "masked"), jumps, 2, 2, times)
    betas = np.linspace(0.2, 0.9, num_steps)
    law = np.array([0.5, 0.3, 0.2])
    jumps = {
        "uniform": np.full((3, 3), 1 / 3),
        "law": np.tile(law, (3, 1)),
        "gaussian": processes.gaussian_matrix(4, 0.8),
        "matrix": np.array([[0.1, 0.7, 0.2], [0.0, 0.3, 0.7], [0.6, 0.0, 0.4]]),  # not reversible
        "stationary": processes.metropolis(processes.gaussian_matrix(3, 1.0), law),
    }[kind]
    given = {"law": law, "matrix": jumps, "stationary": jumps}.get(kind, kind)
    process = processes.categorical(schedules.from_betas(betas), len(jumps), given, 0.8)
    return Small(process, jumps, len(jumps), 2, times)
