"""Energy models: log Z against closed forms, Hyvarinen's three answers, samples of bits, and what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from configs import ebm_bits, ebm_gaussian, ebm_ica, ebm_toy
from diffjax import losses, zoo
from diffjax.data import mixed
from diffjax.errors import InputError
from diffjax.zoo.energy import hyvarinen
from diffjax.zoo.energy.objectives import OBJECTIVES
from diffjax.zoo.energy.partition import log_partition, support

KEY = jax.random.key(0)


def test_log_z_of_gaussians_and_of_bits():
    for dim in (1, 2):
        found = log_partition(lambda x: (x**2).sum(-1) / 0.5, support((dim,), 0, 6.0))
        np.testing.assert_allclose(found, dim * 0.5 * np.log(2 * np.pi * 0.25), atol=1e-4)
    h = np.linspace(-1, 1, 15)
    found = log_partition(lambda x: -jnp.einsum("nd,d->n", x, h), support((15,), 2, 6.0))  # of independent bits
    np.testing.assert_allclose(found, np.log1p(np.exp(h)).sum(), rtol=1e-5)
    assert support((30,), 2, 6.0) is None and support((3,), 0, 6.0) is None and support((8, 8, 1), 17, 6.0) is None


def fitted(network, params, x):
    """The minimum of exact score matching over all examples, by scipy."""
    flat, back = jax.flatten_util.ravel_pytree(params)

    @jax.jit
    @jax.value_and_grad
    def loss(flat):
        return losses.exact_score_matching(network.score(back(flat)), x).mean()

    found = scipy.optimize.minimize(lambda v: [np.float64(y) for y in loss(jnp.asarray(v))], flat, jac=True, tol=1e-9)
    return back(jnp.asarray(found.x))


def test_the_precision_of_a_gaussian():
    """Score matching finds the inverse of the sample covariance exactly (Hyvärinen 2005, section 3.1)."""
    x = np.random.default_rng(0).normal(size=(500, 3)) @ np.array([[1.0, 0.4, 0.0], [0.0, 0.7, -0.5], [0.2, 0.0, 1.3]])
    network = hyvarinen.gaussian(3)
    with jax.enable_x64(True):
        params = fitted(network, {"mean": jnp.zeros(3), "matrix": jnp.eye(3)}, jnp.asarray(x))
        found = np.asarray(hyvarinen.precision(params))
    np.testing.assert_allclose(found, np.linalg.inv(np.cov(x.T, bias=True)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(params["mean"], x.mean(0), atol=1e-4)


@pytest.mark.slow
def test_the_sources_of_a_mixture_come_back_with_their_scales():
    matrix = np.asarray(ebm_ica.get_config().data.matrix)
    x = jnp.asarray(mixed.mixed_sources(np.random.default_rng(0), 20_000, matrix))
    network = hyvarinen.ica(4)
    params = fitted(network, network.init(KEY, x), x)
    row = hyvarinen.unmixing_error(params, matrix)["unmixing"]
    assert row["Amari distance"] < 0.02 and row["largest error of a scale"] < 0.03, row
    assert hyvarinen.amari_distance(np.diag([2.0, -1.0, 3.0])[[2, 0, 1]]) == 0
    assert hyvarinen.amari_distance(np.ones((3, 3))) == pytest.approx(1.0)


def test_the_energy_of_a_logistic_source():
    s = np.linspace(-20, 20, 9)
    want = 2 * np.log(np.cosh(np.pi * s / (2 * np.sqrt(3))))
    np.testing.assert_allclose(hyvarinen.logistic_energy(jnp.asarray(s)), want, rtol=1e-5)
    assert np.isfinite(hyvarinen.logistic_energy(jnp.array([1e4]))).all()


def test_couplings_by_enumeration():
    arrays, p = mixed.coupled_law(4)
    assert sorted(map(tuple, arrays)) == sorted(itertools.product((0, 1), repeat=4))
    n = 20_000
    drawn = mixed.coupled_bits(np.random.default_rng(0), n, 4) @ [1, 2, 4, 8]
    counts = np.bincount(drawn, minlength=16)
    assert abs(((counts - n * p) ** 2 / (n * p)).sum() - 15) < 5 * np.sqrt(30)


@pytest.mark.slow
def test_gibbs_sampling_of_bits_has_the_model_s_law():
    """Chi-square against the probabilities of all eight arrays, from the bound, which sums to 1."""
    config = ebm_bits.get_config()
    config.data.shape = (3,)
    config.net.features = (8,)
    config.sampling.steps = 20
    model = zoo.make(config)
    params = jax.tree.map(lambda x: 2.0 * x, model.init(KEY))
    arrays = np.array(list(itertools.product((0, 1), repeat=3)), np.uint8)
    p = np.exp(np.float64(model.bound(params, KEY, {"image": arrays})))
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-5)
    n = 8000
    drawn = np.asarray(jax.jit(model.sample, static_argnums=2)(params, KEY, n))
    counts = np.bincount((drawn @ [4, 2, 1]).astype(int), minlength=8)
    assert abs(((counts - n * p) ** 2 / (n * p)).sum() - 7) < 5 * np.sqrt(14)


@pytest.mark.slow
@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "minimum_probability_flow"])
def test_every_objective_has_a_slope(objective):
    config = ebm_toy.get_config()
    config.ebm.update(objective=objective, chain_steps=2)
    config.net.features = (8,)
    model = zoo.make(config)
    params, x = model.init(KEY), np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    batch = {"image": x}
    if model.memory is not None:
        memory = model.memory.init(params)
        batch |= model.memory.draw(memory, KEY, 6)
        moved = model.memory.update(memory, KEY, params, batch, jnp.zeros(6))
        changed = np.abs(np.asarray(moved - memory)).max(1) > 0
        assert set(np.flatnonzero(changed)) == set(np.asarray(batch["chain_index"]))
    slopes = jax.grad(lambda p: model.loss(p, KEY, batch).mean())(params)
    assert any(np.abs(g).max() > 0 for g in jax.tree.leaves(slopes["network"]))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"ebm.objective": "guess"}, "ebm.objective must be one of exact, sliced"),
        (
            {"ebm.objective": "minimum_probability_flow"},
            "does not fit data of real numbers",
        ),
        ({"ebm.model": "score"}, "ebm.objective='noise_contrastive' needs an energy: set ebm.model='energy'"),
        ({"ebm.chain_steps": 0}, "ebm.chain_steps = 0 must be an integer of at least 1"),
        ({"ebm.chains": 0}, "ebm.chains = 0 must be an integer of at least 1"),
        ({"ebm.sigma": 0.0}, "ebm.sigma = 0.0 must be a positive number"),
        ({"net.name": "conv"}, "conv is of images, others of vectors"),
        ({"sampling.step_size": -1.0}, "sampling.step_size = -1.0 must be a positive number"),
    ],
)
def test_what_is_refused(fields, words):
    config = ebm_toy.get_config()
    with config.ignore_type():
        config.update_from_flattened_dict(fields)
    with pytest.raises(InputError, match=words):
        zoo.make(config)


def test_bits_need_a_loss_of_bits_and_matrices_an_inverse():
    config = ebm_bits.get_config()
    config.ebm.objective = "exact"
    with pytest.raises(InputError, match="does not fit data of bits: choose minimum_probability_flow"):
        zoo.make(config)
    with pytest.raises(InputError, match="must be a square matrix that can be inverted"):
        mixed.mixed_sources(np.random.default_rng(0), 2, np.ones((2, 2)))
    assert zoo.make(ebm_gaussian.get_config()).bound is not None
