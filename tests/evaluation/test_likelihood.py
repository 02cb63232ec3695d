"""The evaluation is a mean over examples with its standard error: checked on costs whose distribution is known."""

import jax
import numpy as np

from diffjax import data
from diffjax.evaluation.likelihood import evaluate_bound


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
