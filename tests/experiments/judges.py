"""What is asked of trained models of digits."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier


def these_are_digits(images, most):
    """They lie as near to real digits as other real digits do (independent pixels: twice as far); all ten occur."""
    samples = images.reshape(len(images), 64) / 255 * 16
    digits = load_digits()
    known, held_out = digits.data[:1500], digits.data[1500:]
    neighbours = KNeighborsClassifier(1).fit(known, digits.target[:1500])

    def distance(images):
        return neighbours.kneighbors(images)[0].mean()

    shuffled = np.random.default_rng(0).permuted(known, axis=0)[:256]  # each pixel from a digit of its own
    assert distance(shuffled) > 1.6 * distance(held_out)  # the measure can tell
    print("distance to the nearest digit, samples and real:", distance(samples), distance(held_out))
    assert 0.8 * distance(held_out) < distance(samples) < most * distance(held_out)
    assert set(neighbours.predict(samples)) == set(range(10))


def the_flow_is_above_the_bound(report, least):
    """Of the same examples, and both are of whole numbers: not below 0 bits, and better than `least` bits/dim."""
    flow = report["flow"]
    print("flow", flow["log p"], "above the bound", flow["above the bound"])
    gap = flow["above the bound"]
    assert gap["nats"] > -5 * gap["standard_error_nats"]
    assert -least < flow["log p"]["per_dimension"] < 0
