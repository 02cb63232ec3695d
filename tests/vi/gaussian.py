"""z ~ N(0, I), x | z ~ N(B z + c, S): log p(x) and p(z | x) in closed form, for bounds to be compared with."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

B = np.array([[1.0, 0.5], [-0.4, 0.8], [0.3, -1.1]])
C = np.array([0.2, -0.1, 0.4])
S = np.array([0.5, 0.8, 0.4])  # variances
X = np.array([[0.9, -0.5, 1.2], [-1.0, 0.7, 0.1], [0.4, 0.0, -0.8]])

PRECISION = np.eye(2) + B.T @ (B / S[:, None])
COV = np.linalg.inv(PRECISION)  # of z given x


def mean(x):
    """E[z | x], (batch, 2)."""
    return (x - C) / S @ B @ COV


def log_evidence(x):
    return stats.multivariate_normal(C, B @ B.T + np.diag(S)).logpdf(x)


def log_joint(x, z):
    slope, offset, variance = (constant.astype(z.dtype) for constant in (B, C, S))
    error = x - z @ slope.T - offset
    constant = float(np.log(2 * np.pi * S).sum() + 2 * np.log(2 * np.pi))
    return -0.5 * ((z**2).sum(-1) + (error**2 / variance).sum(-1) + constant)


def z_scores(log_w, x):
    """E w / p(x) - 1 in standard errors, for (draws, batch) log-weights: within 5 if E w = p(x)."""
    w = np.exp(np.asarray(log_w, np.float64) - log_evidence(x))
    error = w.std(0) / len(w) ** 0.5
    assert (error < 0.05).all(), "too few draws to tell"
    return (w.mean(0) - 1) / error


class Posterior:
    """p(z | x) as a Law of whole events; `spread` widens it."""

    def __init__(self, x, spread=1.0):
        self.mean, self.root = jnp.asarray(mean(np.asarray(x))), jnp.asarray(np.linalg.cholesky(spread * COV))

    def sample(self, key):
        return self.mean + jax.random.normal(key, self.mean.shape) @ self.root.T

    def log_prob(self, z):
        error = jnp.linalg.solve(self.root, (z - self.mean)[..., None])[..., 0]
        return -0.5 * (error**2).sum(-1) - jnp.log(jnp.diagonal(self.root)).sum() - jnp.log(2 * jnp.pi)
