"""The linear probe beside the best classifier there is, on Gaussians; what it must not see; what it refuses."""

import numpy as np
import pytest
from scipy.stats import norm

from diffjax.errors import InputError
from diffjax.evaluation import probe

SHIFT = np.array([1.2, 0.0, 0.5])


def gaussians(num, seed):
    """Classes 3 and 7 as N(±SHIFT, 1): the best classifier is linear and right with probability Φ(|SHIFT|)."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([3, 7], num)
    signs = np.where(labels == 3, 1.0, -1.0)[:, None]
    return signs * SHIFT + rng.normal(size=(num, 3)), labels


@pytest.mark.parametrize("kind", probe.KINDS)
def test_gaussians_are_told_apart_as_well_as_can_be(kind):
    found = probe.linear(kind, *gaussians(4000, 0), *gaussians(4000, 1))
    best = norm.cdf(np.linalg.norm(SHIFT))
    assert abs(found["accuracy"] - best) < 5 * found["standard_error"]
    np.testing.assert_allclose(found["standard_error"], np.sqrt(best * (1 - best) / 4000), rtol=0.1)
    assert (found["num_train"], found["num_test"]) == (4000, 4000)


@pytest.mark.parametrize(("kind", "matter"), [("logistic", False), ("svm", True)])
def test_units_matter_to_margins_alone_and_unlabelled_examples_to_nobody(kind, matter):
    (x, y), (test_x, test_y) = gaussians(60, 0), gaussians(500, 1)
    plain = probe.linear(kind, x, y, test_x, test_y)
    scale, shift = np.array([1e-3, 1.0, 1e4]), np.array([5.0, -1.0, 0.0])
    x = np.concatenate([x * scale + shift, np.full((40, 3), 1e6)])
    y = np.concatenate([y, np.full(40, -1)])
    scaled = probe.linear(kind, x, y, test_x * scale + shift, test_y)
    assert scaled["num_train"] == 60
    assert (abs(scaled["accuracy"] - plain["accuracy"]) > 1 / 500) == matter  # up to a tie


def test_the_order_of_the_support_vector_machine_is_the_seed_s(monkeypatch):
    seeds = []
    monkeypatch.setattr("sklearn.svm.LinearSVC.fit", lambda self, x, y: seeds.append(self.random_state) or self)
    monkeypatch.setattr("sklearn.svm.LinearSVC.predict", lambda self, x: np.full(len(x), 3))
    for seed in (0, 5, 2**32 + 7):
        probe.linear("svm", *gaussians(20, 0), *gaussians(20, 1), seed)
    assert seeds == [0, 5, 7]


@pytest.mark.parametrize("kind", probe.KINDS)
def test_test_examples_without_a_label_are_left_out(kind):
    (x, y), (test_x, test_y) = gaussians(200, 0), gaussians(300, 1)
    known = np.arange(300) < 100
    few = probe.linear(kind, x, y, test_x[known], test_y[known])
    assert few == probe.linear(kind, x, y, test_x, np.where(known, test_y, -1)) and few["num_test"] == 100
    none = probe.linear(kind, x, y, test_x, np.full(300, -1))
    assert none["num_test"] == 0 and np.isnan([none["accuracy"], none["standard_error"]]).all()


@pytest.mark.parametrize(
    ("kind", "labels", "says"),
    [
        ("logistics", [0, 1, 2], "evaluation.probe must be '' or one of logistic, svm, not 'logistics'"),
        ("svm", [4, 4, -1], "at least 2 classes, but there are 1"),
        ("logistic", [-1, -1, -1], "at least 2 classes, but there are 0"),
    ],
)
def test_bad_input(kind, labels, says):
    with pytest.raises(InputError, match=says):
        probe.linear(kind, np.eye(3), np.array(labels), np.eye(3), np.array([0, 1, 2]))


def test_features_that_are_not_finite():
    with pytest.raises(InputError, match="NaN"):
        probe.linear("svm", np.full((2, 1), np.nan), np.array([0, 1]), np.eye(1), np.array([0]))
