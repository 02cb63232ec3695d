"""The classifier two-sample test (Lopez-Paz & Oquab 2017): can a network be trained to tell samples from data?"""

import math
import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from diffjax.distances.features import matrices
from diffjax.dtypes import AnyArray
from diffjax.extras import needs_run

HIDDEN = 64


class TwoSample(NamedTuple):
    """The result of the test. Its null hypothesis is that both sides have the same distribution.

    accuracy        on held-out examples, about 1/2 under the null hypothesis
    standard_error  of the accuracy under the null hypothesis (binomial)
    p_value         the probability of an accuracy at least as high under the null hypothesis
    """

    accuracy: float
    standard_error: float
    p_value: float


def two_sample_test(a: Float[AnyArray, "n *d"], b: Float[AnyArray, "m *d"], seed: int = 0) -> TwoSample:
    """Trains a network of one hidden layer (scikit-learn's, early stopping) on one half and tests it on the other.

    Both sides are cut to the same number of examples, so guessing is right half of the time. Features are standardised
    by the training half.

    Args:
        seed: of the choice of halves and of the network.

    Raises:
        InputError: as `features.matrices`; each side needs 20 examples.
    """
    with needs_run():
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

    a, b = matrices(a, b, least=20)
    rng, num = np.random.default_rng(seed), min(len(a), len(b))
    x = np.concatenate([side[rng.permutation(len(side))[:num]] for side in (a, b)])
    y = np.repeat([0, 1], num)
    train = np.concatenate([np.arange(num // 2), num + np.arange(num // 2)])
    test = np.setdiff1d(np.arange(2 * num), train)
    network = MLPClassifier((HIDDEN,), early_stopping=True, n_iter_no_change=20, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # any classifier gives a valid test, if a weaker one
        fitted = make_pipeline(StandardScaler(), network).fit(x[train], y[train])
    right = fitted.predict(x[test]) == y[test]
    accuracy, error = float(right.mean()), 0.5 / math.sqrt(len(test))
    return TwoSample(accuracy, error, 0.5 * math.erfc((accuracy - 0.5) / error / math.sqrt(2)))
