"""A machine of 3 x 2 units, and all its states one by one, in numpy: what the tests of diffjax.energy compare with."""

import itertools

import numpy as np

WEIGHTS = np.array([[1.0, -1.0], [0.5, 2.0], [-1.5, 0.3]])
VISIBLE = np.array([0.2, -0.3, 0.1])
HIDDEN = np.array([-0.4, 0.6])
VARIANCE = np.array([0.5, 1.0, 2.0])


def states(num):
    return np.array(list(itertools.product((0.0, 1.0), repeat=num)))


V, H = states(3), states(2)
# exp(-E) of every pair (v, h), of the definition.
ENERGY = -np.array([[v @ VISIBLE + h @ HIDDEN + v @ WEIGHTS @ h for h in H] for v in V])
LOG_Z = np.log(np.exp(-ENERGY).sum())
JOINT = np.exp(-ENERGY - LOG_Z)
P = JOINT.sum(1)


def params(dtype=np.float32, real=False):
    found = {"weights": WEIGHTS, "visible": VISIBLE, "hidden": HIDDEN}
    found |= {"log_variance": np.log(VARIANCE)} if real else {}
    return {name: value.astype(dtype) for name, value in found.items()}


def gradient_of_free_energy():
    """∂F/∂(W, b, c) at each of the 8 v: -(v E[h | v], v, E[h | v]), of the table of the joint, (8, 6 + 3 + 2)."""
    h = JOINT @ H / P[:, None]
    return -np.concatenate([(V[:, :, None] * h[:, None]).reshape(8, 6), V, h], 1)


def transition():
    """(8, 8), of a step of block Gibbs from v to v', of the tables of both conditionals."""
    return (JOINT / P[:, None]) @ (JOINT / JOINT.sum(0)).T
