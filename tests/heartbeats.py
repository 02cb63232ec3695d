"""What is known exactly of the binomial diffusion of heartbeats: 20 bits with a 1 at every fifth, T steps, prior r.

Given the phase the bits of x_t are independent, so that all there is to know of x_t are the numbers n_c = 0 .. 4 of its
ones in each of the five classes of places that a phase can occupy: 5^5 cases. In float64, in bits.
"""

import itertools
import math

import numpy as np

LENGTH, PERIOD = 20, 5
BEATS = LENGTH // PERIOD
COUNTS = np.array(list(itertools.product(range(BEATS + 1), repeat=PERIOD)))
MULTIPLICITY = np.prod([[math.comb(BEATS, n) for n in row] for row in COUNTS], axis=1)


def on_probabilities(step, num_steps, r):
    """q(x_t = 1 | x_0 = 1) and q(x_t = 1 | x_0 = 0) at alpha_bar = 1 - step/T."""
    keep = 1 - step / num_steps
    return keep + (1 - keep) * r, (1 - keep) * r


def best_bound(num_steps, r, edge):
    """The largest K that kernels which treat bits apart can reach, in bits per sequence."""
    total = 0.0
    for step in range(1 if edge == "learned" else 2, num_steps + 1):
        total += _step_cost(step, num_steps, r)
    return -total - (_fixed_edge(num_steps, r) if edge == "fixed" else 0.0)


def _step_cost(step, num_steps, r):
    """Σ_bits E KL(q(x_{t-1} | x_t, x_0) ‖ q(x_{t-1} | x_t)): what the best kernel of independent bits pays at t."""
    on, off = on_probabilities(step, num_steps, r)
    # log P(counts | phase), each row of counts standing for MULTIPLICITY sequences of equal probability
    of_beats, of_rest = _log_power(on, COUNTS), _log_power(off, COUNTS)
    likelihood = np.exp(of_rest.sum(1, keepdims=True) - of_rest + of_beats) * MULTIPLICITY[:, None]
    probability = likelihood.mean(1)
    phase = likelihood / np.maximum(PERIOD * probability[:, None], 1e-300)
    fresh = 1 / (num_steps - step + 1)
    before_on, before_off = on_probabilities(step - 1, num_steps, r)
    cost = 0.0
    for bit, number in ((1, COUNTS), (0, BEATS - COUNTS)):
        again = fresh * (r if bit else 1 - r)
        if_on, if_off = again + (1 - fresh) * bit, again + (1 - fresh) * (1 - bit)
        back = [p * if_on / (p * if_on + (1 - p) * if_off) for p in (before_on, before_off)]
        mixed = phase * back[0] + (1 - phase) * back[1]
        information = _entropy(mixed) - phase * _entropy(back[0]) - (1 - phase) * _entropy(back[1])
        cost += (probability[:, None] * number * information).sum()
    return cost


def _fixed_edge(num_steps, r):
    """E -log2 p(x_0 | x_1) with p(x_0 | x_1) = q(x_1 | x_0) π(x_0)/π(x_1)."""
    cost = 0.0
    for x0, x1 in itertools.product((0, 1), repeat=2):
        keep = (x0 == x1) * (1 - 1 / num_steps)
        forward = keep + (r if x1 else 1 - r) / num_steps
        backward = keep + (r if x0 else 1 - r) / num_steps
        cost += (BEATS if x0 else LENGTH - BEATS) * forward * -math.log2(backward)
    return cost


def _log_power(p, n):
    """log p^n (1-p)^(BEATS-n), with 0 log 0 = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(n > 0, n * np.log(p), 0.0) + np.where(n < BEATS, (BEATS - n) * np.log1p(-p), 0.0)


def _entropy(p):
    p = np.clip(p, 1e-300, 1 - 1e-16)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
