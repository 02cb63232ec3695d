"""The evaluation is a mean over examples with its standard error: checked on costs whose distribution is known."""

import jax
import numpy as np
import pytest

from diffjax import data
from diffjax.evaluation.likelihood import bits, draw_log_weights, evaluate_bound, weights_report


def dataset(n):
    images = (np.arange(n) % 17).astype(np.uint8).reshape(n, 1, 1, 1)
    return data.from_arrays("ramp", images, np.arange(n), levels=17)


def terms(params, key, batch):
    value = batch["image"].reshape(-1).astype(float)
    return {"a": params * value, "b": np.ones_like(value)}


def test_every_example_counts_once_whatever_the_batch_size():
    n = 50
    costs = 2.0 * (np.arange(n) % 17) + 1
    for batch_size in (7, 10, 50):
        report = evaluate_bound(terms, 2.0, jax.random.key(0), data.epoch(dataset(n), batch_size), (1, 1, 1))
        assert report["num_examples"] == n
        np.testing.assert_allclose(report["bits_per_dim"], costs.mean() / np.log(2), rtol=1e-6)
        np.testing.assert_allclose(report["standard_error"], costs.std(ddof=1) / np.sqrt(n) / np.log(2), rtol=1e-6)
        np.testing.assert_allclose(report["terms"]["b"], 1 / np.log(2), rtol=1e-6)


def test_bits_are_per_dimension():
    one = evaluate_bound(terms, 2.0, jax.random.key(0), data.epoch(dataset(20), 20), (1, 1, 1))
    six = evaluate_bound(terms, 2.0, jax.random.key(0), data.epoch(dataset(20), 20), (1, 2, 3))
    np.testing.assert_allclose(one["bits_per_dim"], 6 * six["bits_per_dim"], rtol=1e-6)


def test_batches_are_given_different_noise():
    def noise(params, key, batch):
        return {"noise": jax.random.normal(key, batch["label"].shape)}

    report = evaluate_bound(noise, None, jax.random.key(0), data.epoch(dataset(4000), 100), (1, 1, 1))
    nats = report["bits_per_dim"] * np.log(2)
    # With one key for all forty batches the mean would vary like that of 100 draws, not of 4000.
    assert abs(nats) < 5 / np.sqrt(4000)


def test_the_gain_on_the_prior_is_paired_and_free_of_units():
    """K and L_null are of rescaled data, so the units leave them; K - L_null has the error of the differences."""

    def with_units(params, key, batch):
        return {"a": 3.0 * batch["image"].reshape(-1), "units": np.full(len(batch["image"]), 7.0)}

    def null(batch):
        return -2.0 * batch["image"].reshape(-1).astype(float) - 7.0

    n = 50
    value = np.arange(n) % 17
    batches = data.epoch(dataset(n), 7)
    report = evaluate_bound(with_units, None, jax.random.key(0), batches, (5, 2, 1), null)
    bits = 1 / np.log(2)
    for name, want in (("K", -3.0 * value), ("L_null", -2.0 * value), ("K - L_null", -1.0 * value)):
        np.testing.assert_allclose(report[name]["per_example"], want.mean() * bits, rtol=1e-6)
        np.testing.assert_allclose(report[name]["standard_error"], want.std(ddof=1) / n**0.5 * bits, rtol=1e-6)
        np.testing.assert_allclose(report[name]["per_dimension"], want.mean() * bits / 10, rtol=1e-6)
        np.testing.assert_allclose(report[name]["per_pixel"], want.mean() * bits / 10, rtol=1e-6)
    np.testing.assert_allclose(report["bits_per_dim"], (3.0 * value + 7).mean() * bits / 10, rtol=1e-6)


@pytest.mark.slow
def test_many_weights_tighten_the_bound_to_the_likelihood():
    """log w ~ N(-v/2, v): E w = 1, so log p = 0 and the bound is -v/2; with m weights about -(e^v - 1)/2m is left."""
    v, m = 0.5, 200

    def log_weight(params, key, batch):
        return -v / 2 + np.sqrt(v) * jax.random.normal(key, batch["label"].shape)

    batches = data.epoch(dataset(300), 64)
    report = weights_report(draw_log_weights(log_weight, None, jax.random.key(0), batches, m), (1, 1, 1))
    assert (report["num_examples"], report["num_weights"]) == (300, m)
    nats = {name: report[name]["per_example"] * np.log(2) for name in ("K", "log p")}
    assert abs(nats["K"] + v / 2) < 5 * np.sqrt(v / (300 * m))
    np.testing.assert_allclose(report["gain"]["nats"], nats["log p"] - nats["K"], rtol=1e-6)
    assert abs(nats["log p"] + (np.exp(v) - 1) / (2 * m)) < 5 * np.sqrt((np.exp(v) - 1) / (300 * m))


def test_what_does_not_exist_is_nan():
    """A mean of infinities of one sign is infinite; all else that they or a single example leave undefined is NaN."""
    inf, nan = np.inf, np.nan
    for nats, mean in (([1.0], 1.0), ([], nan), ([1.0, -inf], -inf), ([inf, -inf], nan), ([1.0, nan], nan)):
        report = bits(np.array(nats), (2, 2, 1))
        np.testing.assert_equal([report["nats"], report["standard_error_nats"]], [mean, nan])
        np.testing.assert_equal(report["per_pixel"], mean / 4 / np.log(2))
    # Example 0 has no weight at all; of example 1 the log of the mean weight is 0.
    report = weights_report(np.array([[-inf, 0.0]] * 7), (2,))
    found = [report[name][of] for name in ("K", "log p", "L_5", "gain") for of in ("nats", "standard_error_nats")]
    np.testing.assert_equal(found, [-inf, nan] * 3 + [nan, nan])

    def broken(params, key, batch):
        return {"a": np.array([inf, 1.0]), "b": np.array([-inf, 1.0])}

    batch = {"image": np.zeros((2, 1)), "mask": np.array([1.0, 1.0])}
    report = evaluate_bound(broken, None, jax.random.key(0), [batch], (1,), lambda batch: np.array([-inf, 0.0]))
    found = [report["bits_per_dim"], report["standard_error"], report["terms"]["a"], report["K - L_null"]["nats"]]
    np.testing.assert_equal(found, [nan, nan, inf, nan])
    report = evaluate_bound(broken, None, jax.random.key(0), [batch | {"mask": np.array([0.0, 1.0])}], (1,))
    np.testing.assert_allclose([report["bits_per_dim"], report["standard_error"]], [2 / np.log(2), nan], rtol=1e-6)
