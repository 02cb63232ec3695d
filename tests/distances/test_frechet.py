"""The Frechet distance against closed forms, its bias and its error against repetition."""

import numpy as np
import pytest
import scipy.linalg
import scipy.special

import diffjax as dj
from diffjax.distances import Moments, extrapolated, frechet, inception_score, score_terms
from diffjax.errors import InputError

MEAN, COV = np.array([1.0, 2.0]), np.array([[2.0, 0.5], [0.5, 1.0]])
CLOSED = 5.2478420  # of N(0, I) and N(MEAN, COV)


def root_by_schur(m1, c1, m2, c2):
    """The textbook's form, tr (C1 C2)^½ by scipy's square root of a matrix that is not symmetric."""
    return ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * scipy.linalg.sqrtm(c1 @ c2).real)


def test_closed_form_of_two_gaussians():
    found = dj.evaluation.frechet_distance_of_moments(np.zeros(2), np.eye(2), MEAN, COV)
    # In two dimensions tr √A = √(tr A + 2 √det A).
    exact = 5.0 + 2.0 + 3.0 - 2 * np.sqrt(np.trace(COV) + 2 * np.sqrt(np.linalg.det(COV)))
    np.testing.assert_allclose([found, exact], CLOSED, atol=5e-8)


def test_any_two_gaussians_either_way_round():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 30, 6))
    c1, c2 = a.T @ a, 0.1 * b.T @ b
    m1, m2 = rng.normal(size=(2, 6))
    found = frechet.frechet_distance_of_moments(m1, c1, m2, c2)
    np.testing.assert_allclose(found, root_by_schur(m1, c1, m2, c2), rtol=1e-10)
    np.testing.assert_allclose(found, frechet.frechet_distance_of_moments(m2, c2, m1, c1), rtol=1e-10)
    assert frechet.frechet_distance_of_moments(m1, c1, m1, c1) < 1e-10


def test_laws_without_a_density():
    # Two line segments of Gaussians at a right angle: nothing of the covariances is shared.
    line, across = np.diag([4.0, 0.0, 0.0]), np.diag([0.0, 9.0, 0.0])
    np.testing.assert_allclose(frechet.frechet_distance_of_moments(np.zeros(3), line, np.zeros(3), across), 13.0)
    # A point: the distance is the mean square.
    np.testing.assert_allclose(frechet.frechet_distance_of_moments(np.zeros(3), 0 * line, np.ones(3), line), 3.0 + 4.0)


def test_moments_do_not_depend_on_batches_or_order():
    x = 1e3 + np.random.default_rng(0).normal(size=(500, 5))
    want = x.mean(0), np.cov(x, rowvar=False)
    for order in (np.arange(500), np.random.default_rng(1).permutation(500)):
        for size in (1, 7, 500):
            moments = Moments()
            for first in range(0, 500, size):
                moments = moments.add(x[order[first : first + size]])
            assert moments.num == 500
            np.testing.assert_allclose(moments.mean, want[0], rtol=1e-13)
            np.testing.assert_allclose(moments.covariance, want[1], rtol=1e-9, atol=1e-11)


@pytest.fixture(scope="module")
def repeated():
    """Of 200 pairs of samples of N(0, I) (400) and N(MEAN, COV) (300): distance, extrapolated distance, error."""
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        a = rng.normal(size=(400, 2))
        b = rng.multivariate_normal(MEAN, COV, 300)
        halves = [(Moments().add(x[::2]), Moments().add(x[1::2])) for x in (a, b)]
        whole = [Moments().add(x) for x in (a, b)]
        found.append([frechet.frechet_distance(a, b), extrapolated(*halves), frechet.standard_error(*whole, a, b)])
    return np.array(found)


def test_the_standard_error_is_that_of_repetitions(repeated):
    deviation = repeated[:, 0].std(ddof=1)
    assert abs(repeated[:, 2].mean() / deviation - 1) < 5 / np.sqrt(2 * 200)
    assert repeated[:, 2].std() < 0.2 * deviation


def test_extrapolation_takes_the_bias_away():
    # Of equal laws the whole distance is bias. Near I it is |m1 - m2|² + |C1 - C2|² / 4, whose mean is known.
    rng, plain, better = np.random.default_rng(0), [], []
    for _ in range(40):
        a, b = rng.normal(size=(2, 400, 8))
        plain.append(frechet.frechet_distance(a, b))
        better.append(extrapolated(*((Moments().add(x[::2]), Moments().add(x[1::2])) for x in (a, b))))
    error = [np.std(x, ddof=1) / np.sqrt(40) for x in (plain, better)]
    first_order = (8 + 8 * 9 / 4) * (1 / 400 + 1 / 400)  # d / n of each mean, d (d + 1) / n of each |C - I|²
    assert abs(np.mean(plain) - first_order) < 5 * error[0] + 0.1 * first_order
    assert abs(np.mean(better)) < 5 * error[1] + 0.05 * first_order
    assert np.mean(plain) > 20 * error[0]


def test_the_mean_is_near_the_closed_form(repeated):
    for column in (0, 1):
        error = repeated[:, column].std(ddof=1) / np.sqrt(200)
        assert abs(repeated[:, column].mean() - CLOSED) < 5 * error + (0.02 if column == 0 else 0.0)


def test_bad_input():
    x = np.random.default_rng(0).normal(size=(10, 10))
    with pytest.raises(InputError, match=r"10 examples of 10 features: .* no full rank.* give more than 10 examples"):
        frechet.frechet_distance(x, x)
    with pytest.raises(InputError, match=r"one shape"):
        frechet.frechet_distance(x, x[:, :3])
    with pytest.raises(InputError, match=r"1 of 10 examples have features that are NaN or infinite"):
        frechet.frechet_distance(np.where(np.eye(10) * np.arange(10) == 3, np.nan, x), x)
    with pytest.raises(InputError, match=r"not symmetric or has eigenvalues below 0"):
        frechet.frechet_distance_of_moments(np.zeros(2), -np.eye(2), np.zeros(2), np.eye(2))
    with pytest.raises(InputError, match=r"give \(d,\), \(d, d\) twice"):
        frechet.frechet_distance_of_moments(np.zeros(2), np.eye(3), np.zeros(2), np.eye(2))


def test_inception_score_in_closed_form():
    # Certain and equally many: the number of classes. All alike: 1. Two classes at 1 : 3: exp of their entropy.
    def score(log_probs):
        moments = Moments()
        for part in np.array_split(log_probs, 7):
            moments = moments.add(score_terms(part))
        return inception_score(moments)

    certain = np.log(np.eye(5) + 1e-300)
    np.testing.assert_allclose(score(certain.repeat(20, 0)).value, 5.0, rtol=1e-9)
    np.testing.assert_allclose(score(np.full((50, 5), -np.log(5.0))), (1.0, 0.0), atol=1e-6)
    uneven = score(certain[np.repeat([0, 1], [50, 150])])
    np.testing.assert_allclose(uneven.value, np.exp(0.25 * np.log(4) + 0.75 * np.log(4 / 3)), rtol=1e-9)
    # Its error against repetitions.
    logits = np.random.default_rng(0).normal(size=(100, 500, 4)) * 2
    found = np.array([score(scipy.special.log_softmax(one, -1)) for one in logits])
    assert abs(found[:, 1].mean() / found[:, 0].std(ddof=1) - 1) < 5 / np.sqrt(200)
