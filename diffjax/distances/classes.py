"""Measures of samples by the classes that a classifier gives them."""

import math

import numpy as np
from jaxtyping import Float

from diffjax.distances.features import Estimate
from diffjax.distances.frechet import Moments
from diffjax.dtypes import AnyArray


def inception_score(log_probs: Moments) -> Estimate:
    """exp(E KL(p(y|x) ‖ p(y))) over all samples together (Salimans et al. 2016), from 1 to the number of classes.

    The paper takes a mean over splits, which has a bias that depends on their number. The standard error is that of the
    samples.

    Args:
        log_probs: the moments of `score_terms` of the samples.
    """
    p, negative_entropy = log_probs.mean[:-1], log_probs.mean[-1]
    log_p = np.log(np.maximum(p, 1e-300))
    score = math.exp(negative_entropy - p @ log_p)
    slope = np.append(-log_p * (p > 0), 1.0)  # of the divergence. The slope of p(y) cancels
    return Estimate(score, score * math.sqrt(max(slope @ log_probs.covariance @ slope, 0.0) / log_probs.num))


def score_terms(log_probs: Float[AnyArray, "n classes"]) -> np.ndarray:
    """(n, classes + 1): p(y|x) and Σ_y p(y|x) log p(y|x). Their moments give the inception score.

    Args:
        log_probs: log p(y|x) in nats.
    """
    log_probs = np.asarray(log_probs, np.float64)
    probs = np.exp(log_probs)
    return np.concatenate([probs, (probs * np.where(probs > 0, log_probs, 0.0)).sum(1, keepdims=True)], 1)


def distance_of_shares(p: Float[AnyArray, " classes"], q: Float[AnyArray, " classes"]) -> float:
    """The total variation ½ Σ |p - q| of two distributions of classes: 0 if equal, 1 if they share no class."""
    return float(0.5 * np.abs(np.asarray(p, np.float64) - np.asarray(q, np.float64)).sum())
