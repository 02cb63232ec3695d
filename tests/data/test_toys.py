"""Swiss roll, two moons and heartbeat against quadrature and scikit-learn, dead leaves against their correlation."""

import numpy as np
import pytest
from scipy import integrate, spatial, stats
from tiny_sets import embedded, everything

from diffjax.data import batches, load, toys
from diffjax.errors import InputError

FIRST, LAST = 1.5 * np.pi, 4.5 * np.pi


def rng(seed=0):
    return np.random.default_rng(seed)


def standardised_roll(angle):
    """The noiseless curve, its mean and deviation by quadrature."""

    def mean(f):
        return integrate.quad(f, FIRST, LAST, epsabs=1e-12)[0] / (LAST - FIRST)

    columns = []
    for f in (lambda a: a * np.cos(a), lambda a: a * np.sin(a)):
        m = mean(f)
        columns.append((f(angle) - m) / np.sqrt(mean(lambda a, f=f, m=m: (f(a) - m) ** 2)))
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("noise", [0.01, 0.7])
@pytest.mark.parametrize("draw", [toys.swiss_roll, toys.two_moons])
def test_curves_have_zero_mean_and_unit_variance(draw, noise):
    n = 100_000
    x = draw(rng(), n, noise).astype(np.float64)
    assert x.shape == (n, 2)
    for moment, expected in ((x, 0), (x**2, 1)):
        error = moment.std(axis=0) / np.sqrt(n)
        assert (np.abs(moment.mean(axis=0) - expected) < 5 * error).all() and (error < 0.01).all()


def test_swiss_roll_is_scikit_learns_curve():
    from sklearn.datasets import make_swiss_roll

    theirs, angle = make_swiss_roll(1000, noise=0.0, random_state=0)
    ours = toys.swiss_roll(rng(), 100_000, 1e-6)
    distance, _ = spatial.cKDTree(ours).query(standardised_roll(angle))
    assert distance.max() < 2e-2  # a curve of length 13: the widest of 100,000 gaps is about 2e-3
    scale = theirs[:, [0, 2]].std(axis=0) / standardised_roll(angle).std(axis=0)
    np.testing.assert_allclose(
        (theirs[:, [0, 2]] - theirs[0, [0, 2]]) / scale,
        standardised_roll(angle) - standardised_roll(angle[0]),
        atol=1e-9,
    )


def test_swiss_roll_is_uniform_in_angle_with_normal_noise_across():
    n, noise = 50_000, 0.01
    grid = np.linspace(FIRST, LAST, 200_001)
    curve = standardised_roll(grid) * np.sqrt(1 - noise**2)
    tangent = np.gradient(curve, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) / np.linalg.norm(tangent, axis=1, keepdims=True)
    x = toys.swiss_roll(rng(), n, noise)
    _, nearest = spatial.cKDTree(curve).query(x)
    inside = (nearest > 2000) & (nearest < 198_000)  # away from the ends, where the nearest point is the end
    across = ((x - curve[nearest]) * normal[nearest]).sum(axis=1)[inside] / noise
    # To first order in noise x curvature < 0.015. The bias of the mean is half of that, 0.007.
    assert abs(across.mean()) < 0.007 + 5 / np.sqrt(len(across))
    assert abs(across.std() - 1) < 5 / np.sqrt(2 * len(across))
    assert stats.kstest(across, "norm").pvalue > 1e-6
    assert stats.kstest(grid[nearest], stats.uniform(FIRST, LAST - FIRST).cdf).pvalue > 1e-6


def test_two_moons_are_scikit_learns_with_normal_noise():
    """Away from the ends, where the nearest point is the end, what lies across is one-dimensional noise."""
    from sklearn.datasets import make_moons

    n, noise = 40_000, 0.02
    theirs, which = make_moons(2 * n, noise=0.0, random_state=0)
    mean, std = theirs.mean(axis=0), theirs.std(axis=0)
    np.testing.assert_allclose([mean, std], [[0.5, 0.25], np.sqrt([0.75, 9 / 16 - 1 / np.pi])], atol=1e-4)
    x = toys.two_moons(rng(), n, noise)
    scaled = np.sqrt(1 - noise**2) * (theirs - mean) / std
    distance, nearest = spatial.cKDTree(scaled).query(x)
    angle = np.arccos(np.clip(np.where(which == 1, 1 - theirs[:, 0], theirs[:, 0]), -1, 1))[nearest]
    inside = (angle > 0.3) & (angle < np.pi - 0.3)
    across = distance[inside] / noise
    assert abs((across**2).mean() - 1) < 5 * np.sqrt(2 / inside.sum()) + 0.02
    assert abs(which[nearest].mean() - 0.5) < 5 * 0.5 / np.sqrt(n)
    assert stats.kstest(angle[inside], stats.uniform(0.3, np.pi - 0.6).cdf).pvalue > 1e-6


@pytest.mark.parametrize(("length", "period"), [(20, 5), (7, 3), (4, 4)])
def test_heartbeats_are_periodic_with_uniform_phase(length, period):
    n = 20_000
    bits = toys.heartbeat(rng(), n, length, period)
    assert bits.shape == (n, length) and bits.dtype == np.uint8
    words, counts = np.unique(bits, axis=0, return_counts=True)
    valid = {"".join("1" if i % period == k else "0" for i in range(length)) for k in range(period)}
    assert {"".join(map(str, word)) for word in words} == valid
    chi2 = ((counts - n / period) ** 2 / (n / period)).sum()
    assert abs(chi2 - (period - 1)) < 5 * np.sqrt(2 * (period - 1))  # chi-squared of period - 1


def same_leaf(distance, low, high):
    """The probability γ(d) / (2γ(0) - γ(d)) that two pixels show one leaf, by quadrature over the radius."""

    def overlap(r, d):  # of two discs of radius r at distance d
        return 2 * r**2 * np.arccos(d / (2 * r)) - d / 2 * np.sqrt(4 * r**2 - d**2) if d < 2 * r else 0.0

    def gamma(d):
        kinks = [d / 2] if low < d / 2 < high else None
        return integrate.quad(lambda r: overlap(r, d) * r**-3, low, high, points=kinks)[0]

    return gamma(distance) / (2 * gamma(0.0) - gamma(distance))


def pairs(images, dy, dx):
    """Pixels at (y, x) and (y + dy, x + dx), dy >= 0."""
    _, h, w = images.shape
    a, b = (slice(max(0, -dx), w - max(0, dx)), slice(max(0, dx), w - max(0, -dx)))
    return images[:, : h - dy, a], images[:, dy:, b]


@pytest.fixture(scope="module", params=[(32, 1.5, 16.0), (20, 3.0, 30.0), (24, 0.5, 4.0)])
def leaves(request):
    size, low, high = request.param
    return toys.dead_leaves(rng(), 3000, size, low, high)[..., 0], low, high


STEPS = [(0, 1), (1, 0), (1, 1), (1, -1), (0, 3), (3, 0), (4, 4), (4, -4), (0, 9), (9, 0), (12, 12), (12, -12)]


@pytest.mark.parametrize(("dy", "dx"), STEPS)
def test_dead_leaves_have_the_exact_correlation(leaves, dy, dx):
    images, low, high = leaves
    p = same_leaf(np.hypot(dy, dx), low, high)
    n = len(images)
    a, b = pairs(images, dy, dx)
    # Greys are independent and uniform, so two leaves have equal greys with probability 1/256 and no correlation. The
    # standard errors are over images, which are independent.
    equal = (a == b).mean(axis=(1, 2))
    error = equal.std() / np.sqrt(n)
    assert abs(equal.mean() - (p + (1 - p) / 256)) < 5 * error and error < 0.006
    variance = (256**2 - 1) / 12
    product = ((a - 127.5) * (b - 127.5)).mean(axis=(1, 2)) / variance
    error = product.std() / np.sqrt(n)
    assert abs(product.mean() - p) < 5 * error and error < 0.025


@pytest.mark.parametrize("turns", range(4))
def test_dead_leaves_are_no_different_at_the_borders(leaves, turns):
    images, low, high = leaves
    images = np.rot90(images, turns, axes=(1, 2))
    for d in (1, 4):  # from the border straight in: centres missing beyond it would leave fewer leaves that cover both
        p = same_leaf(d, low, high)
        equal = (images[:, 0] == images[:, d]).mean(axis=1)
        assert abs(equal.mean() - (p + (1 - p) / 256)) < 5 * equal.std() / np.sqrt(len(images))


@pytest.mark.parametrize("where", [np.s_[0, 0], np.s_[-1, -1], np.s_[10, 9]])
def test_dead_leaves_cover_every_pixel_with_uniform_grey(leaves, where):
    images, _, _ = leaves
    counts = np.bincount(images[:, *where], minlength=256)
    expected = len(images) / 256
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi2 - 255) < 5 * np.sqrt(2 * 255)  # one pixel an image, so independent
    assert len(np.unique(images)) == 256


ROLL = embedded("swiss_roll", shape=(2,), num_train=4000, num_test=1000, noise=0.05)
BEAT = embedded("heartbeat", shape=(20,), num_train=4000, num_test=1000)
LEAVES = embedded("dead_leaves", shape=(16, 16, 1), num_train=200, num_test=100, radii=(1.5, 8.0))


@pytest.mark.parametrize(("fields", "levels"), [(ROLL, 0), (BEAT, 2), (LEAVES, 256)])
def test_loaded_sets_are_fixed_and_their_parts_are_different_draws(fields, levels):
    train, test = load(fields, "train"), load(fields, "test")
    assert (len(train), len(test)) == (fields.num_train, fields.num_test)
    assert train.shape == test.shape == fields.shape and train.levels == test.levels == levels
    x, y = everything(train)["image"], everything(test)["image"]
    np.testing.assert_array_equal(everything(load(fields, "train"))["image"], x)
    # The test part is not the beginning of the training part, nor one draw of it all.
    assert (x[: len(y)] != y).any(axis=tuple(range(1, x.ndim))).mean() > 0.75
    batch = next(batches(train, 10, seed=0))
    assert batch["image"].shape == (10, *fields.shape)
    assert batch["image"].dtype == (np.uint8 if levels else np.float32) and (batch["label"] == 0).all()


def test_dead_leaves_are_generated_once_for_each_configuration(monkeypatch, cache):
    first = everything(load(LEAVES, "train"))["image"]
    assert len(list(cache.iterdir())) == 1
    calls = []

    def generator(*args):
        calls.append(args[1:])
        return np.zeros((args[1], args[2], args[2], 1), np.uint8)

    monkeypatch.setattr(toys, "dead_leaves", generator)
    np.testing.assert_array_equal(everything(load(LEAVES, "train"))["image"], first)
    assert calls == []
    load(LEAVES, "test")
    for change in (dict(radii=(1.5, 7.0)), dict(num_train=150), dict(shape=(8, 8, 1))):
        load(embedded(**{**LEAVES.to_dict(), **change}), "train")
    assert calls == [(100, 16, 1.5, 8.0), (200, 16, 1.5, 7.0), (150, 16, 1.5, 8.0), (200, 8, 1.5, 8.0)]


def test_bad_periods_are_refused():
    for length, period in ((4, 5), (4, 0)):
        with pytest.raises(InputError, match=f"period={period} "):
            toys.heartbeat(rng(), 3, length, period)
