"""Colourisation against conditioning Gaussians, and their mixtures, on sums of their entries by the textbook."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from diffjax import conditioning, predictions, processes, reference, samplers, schedules
from diffjax.errors import InputError
from diffjax.predictions import Prediction

SHAPE = (2, 1, 3)  # two pixels of three channels
WEIGHTS = (0.299, 0.587, 0.114)
GREY = np.array([0.4, -1.0]).reshape(2, 1, 1)
PROCESSES = {
    "vp": processes.gaussian(schedules.vp(0.1, 40.0)),
    "ve": processes.gaussian(schedules.ve(1e-3, 3000.0)),
}


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def laws():
    """Weights, means and covariances of two correlated Gaussians over six entries."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(2, 6, 6))
    return np.array([0.3, 0.7]), rng.normal(size=(2, 6)), 0.1 * a @ np.swapaxes(a, 1, 2) + 0.1 * np.eye(6)


def conditional(weights, means, covs, grey=GREY):
    """The mixture given A x = grey, A the weights of either pixel."""
    a, y = np.kron(np.eye(2), WEIGHTS), np.ravel(grey)
    evidence, new = [], []
    for mean, cov in zip(means, covs, strict=True):
        gain = cov @ a.T @ np.linalg.inv(a @ cov @ a.T)
        evidence.append(scipy.stats.multivariate_normal.pdf(y, a @ mean, a @ cov @ a.T))
        new.append((mean + gain @ (y - a @ mean), cov - gain @ a @ cov))
    weights = weights * np.array(evidence)
    return weights / weights.sum(), np.array([mean for mean, _ in new]), np.array([cov for _, cov in new])


def images(law, process):
    """The exact Predict of a mixture over flattened images."""
    mixture = reference.GaussianMixture(*(jnp.asarray(part) for part in law))

    def predict(xt, t):
        prediction = mixture.predict(process.schedule)(xt.reshape(len(xt), -1), t)
        return Prediction(prediction.value.reshape(xt.shape), "eps")

    return predict


def one(law):
    _, means, covs = law
    return np.ones(1), means[:1], covs[:1]


@pytest.mark.slow
@pytest.mark.parametrize("name", PROCESSES)
def test_the_prediction_is_that_of_the_conditional_gaussian(name, x64):
    process, law = PROCESSES[name], one(laws())
    t = jnp.array([0.0 if name == "ve" else 1e-3, 0.1, 0.3, 0.6, 1.0])
    x0 = np.random.default_rng(1).normal(size=(5, *SHAPE))
    xt = process.marginal(jnp.asarray(x0), t).sample(jax.random.key(0))
    predict = conditioning.colourisation(process, images(law, process), GREY, WEIGHTS)
    got, want = (jax.jit(f)(xt, t).value for f in (predict, images(conditional(*law), process)))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_the_probability_flow_of_ve_reaches_the_conditional_gaussian(x64):
    # No sampling: the flow is affine, so the images of 0 and of the unit vectors have the law of all its draws.
    process, law = PROCESSES["ve"], one(laws())
    predict = conditioning.colourisation(process, images(law, process), GREY, WEIGHTS)
    points = jnp.concatenate([jnp.zeros((1, 6)), jnp.eye(6)]).reshape(7, *SHAPE)
    times = np.linspace(1, 0, 201)
    run = jax.jit(lambda x: samplers.denoise(samplers.heun(process), predict, jax.random.key(0), x, times))
    out = np.asarray(run(points)).reshape(7, 6)
    slope = (out[1:] - out[0]) * process.schedule.prior_std
    _, means, covs = conditional(*law)
    np.testing.assert_allclose(out[0], means[0], atol=3e-3)
    np.testing.assert_allclose(slope.T @ slope, covs[0], atol=3e-3)


@pytest.mark.slow
def test_ancestral_sampling_reaches_the_conditional_gaussian(x64):
    # Every kernel is affine in x_t: all of DDPM's in one batch, then the moments step by step.
    process, law, num = processes.gaussian(schedules.linear(1000, 1e-4, 0.02)), one(laws()), 1000
    predict = conditioning.colourisation(process, images(law, process), GREY, WEIGHTS)
    s, t = process.schedule.times[:-1], process.schedule.times[1:]

    @jax.jit
    @jax.vmap
    def kernels(x):
        x = jnp.broadcast_to(x.reshape(SHAPE), (num, *SHAPE))
        return process.reverse(predict(x, t), x, s, t, "forward").mean.reshape(num, 6)

    out = np.asarray(kernels(jnp.concatenate([jnp.zeros((1, 6)), jnp.eye(6)])))
    mean, cov = np.zeros(6), np.eye(6)
    for i in range(num)[::-1]:
        slope = (out[1:, i] - out[0, i]).T
        mean, cov = slope @ mean + out[0, i], slope @ cov @ slope.T
        if i:
            cov += np.linspace(1e-4, 0.02, num)[i] * np.eye(6)
    _, means, covs = conditional(*law)
    np.testing.assert_allclose(mean, means[0], atol=3e-3)
    np.testing.assert_allclose(cov, covs[0], atol=3e-3)


@pytest.mark.slow
def test_a_mixture_is_guided_in_rotated_channels(x64):
    """There a mixture is a mixture, and E[r(x_0) | x_t] is its own: back in x the prediction is the posterior's."""
    process, law = PROCESSES["ve"], laws()
    basis = conditioning.basis_along(WEIGHTS)
    turn = np.kron(np.eye(2), basis)
    weights, means, covs = law
    mixture = reference.GaussianMixture(*(jnp.asarray(a) for a in (weights, means @ turn.T, turn @ covs @ turn.T)))
    y = jnp.asarray(GREY * np.eye(3)[0] / np.linalg.norm(WEIGHTS)).reshape(-1)
    log_r = mixture.log_expected(process.schedule, y, jnp.where(jnp.arange(6) % 3 == 0, jnp.inf, 0.0))
    inner = conditioning.rotated(images(law, process), basis)
    predict = conditioning.rotated(
        conditioning.guided(process, inner, lambda u, t: log_r(u.reshape(len(u), 6), t)), basis.T
    )
    t = jnp.array([0.2, 0.4, 0.5, 0.6, 0.8])
    xt = process.marginal(jax.random.normal(jax.random.key(0), (5, *SHAPE)), t).sample(jax.random.key(1))
    got, want = (jax.jit(f)(xt, t).value for f in (predict, images(conditional(*law), process)))
    np.testing.assert_allclose(got, want, atol=1e-8)


@pytest.mark.slow
def test_images_keep_their_grey_and_the_kind_of_their_network():
    process = processes.gaussian(schedules.cosine(20))
    grey = jax.random.uniform(jax.random.key(0), (4, 2, 2, 1), minval=-1.0)
    t = jnp.linspace(0.1, 0.9, 4)

    def network(x, t):
        return jnp.concatenate([jnp.tanh(x[..., ::-1]), jnp.broadcast_to(jnp.array([-0.8, 0.2, 0.6]), x.shape)], -1)

    predict = predictions.v(network, learned_variance=True)
    coloured = conditioning.colourisation(process, predict, grey, WEIGHTS, "isotropic")
    xt = jax.random.normal(jax.random.key(1), (4, 2, 2, 3))

    @jax.jit
    def both(xt):
        prediction = coloured(xt, t)
        return prediction, predictions.convert(prediction, "x0", process, xt, t)

    prediction, x0 = both(xt)
    assert prediction.kind == "v"
    np.testing.assert_allclose(prediction.log_var, 0.5, atol=1e-6)  # the mean of 0.1, 0.6 and 0.8
    np.testing.assert_allclose(x0 @ jnp.array(WEIGHTS), grey[..., 0], atol=1e-5)

    # the paper's kernels, too: in rotated channels, and back
    basis = conditioning.basis_along(WEIGHTS)
    u = grey / np.linalg.norm(WEIGHTS) * jnp.eye(3)[0]
    known = conditioning.inpainting(u, jnp.broadcast_to(jnp.arange(3) == 0, u.shape))
    stepper, times = samplers.ancestral(conditioning.tilted(process, known)), process.schedule.times[::-1]
    inner = conditioning.rotated(predict, basis)
    x = jax.jit(lambda key: samplers.sample(stepper, inner, key, times, u.shape))(jax.random.key(2)) @ basis
    np.testing.assert_allclose(x @ jnp.array(WEIGHTS), grey[..., 0], atol=1e-5)
    assert float(jnp.std(x - x.mean(-1, keepdims=True))) > 0.1  # they have colours


@pytest.mark.parametrize("direction", [(1.0, 0.0), (0.0, -2.0), (0.3, 0.6, 0.1), (-1.0, 1.0, 0.0, 5.0)])
def test_a_basis_along_a_direction(direction):
    basis = np.asarray(conditioning.basis_along(direction), np.float64)
    np.testing.assert_allclose(basis @ basis.T, np.eye(len(direction)), atol=1e-6)
    np.testing.assert_allclose(basis @ direction, np.eye(len(direction))[0] * np.linalg.norm(direction), atol=1e-5)


def test_what_cannot_be_is_named():
    process = PROCESSES["vp"]
    xt, t = jnp.zeros((2, 4, 4, 3)), jnp.full(2, 0.5)
    predict = predictions.eps(lambda x, t: x)
    with pytest.raises(InputError, match=r"\(4, 4, 3\).*size 1"):
        conditioning.colourisation(process, predict, jnp.zeros((4, 4, 3)))
    for weights in ((0.0, 0.0, 0.0), (1.0,), (1.0, jnp.nan, 0.0)):
        with pytest.raises(InputError, match="not all 0"):
            conditioning.colourisation(process, predict, jnp.zeros((4, 4, 1)), weights)
    with pytest.raises(InputError, match="3 channels, the basis 2"):
        jax.eval_shape(conditioning.colourisation(process, predict, jnp.zeros((4, 4, 1)), (0.5, 0.5)), xt, t)
    with pytest.raises(InputError, match=r"observation has shape \(5, 4, 3\)"):
        jax.eval_shape(conditioning.colourisation(process, predict, jnp.zeros((5, 4, 1))), xt, t)
    with pytest.raises(InputError, match="square"):
        conditioning.rotated(predict, jnp.eye(3)[:2])
    with pytest.raises(InputError, match="orthonormal"):
        conditioning.rotated(predict, jnp.ones((3, 3)))
    with pytest.raises(InputError, match="logits"):
        jax.eval_shape(conditioning.rotated(predictions.logits(lambda x, t: x), jnp.eye(3)), xt, t)
