"""Continuous flows: linear fields in closed form, determinants by differences, mass by quadrature, both adjoints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.stats

from diffjax import flows
from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.sde.divergence import probes

A = np.array([[0.3, -0.8, 0.1], [0.5, -0.4, 0.6], [-0.2, 0.7, 0.5]])
TIGHT = flows.Integration(rtol=1e-9, atol=1e-9)
W = 1.5 * np.random.default_rng(0).normal(size=(2, 6, 2))


def linear(z, t):
    return jnp.matmul(z, A.T.astype(z.dtype))


def bent(w):
    """A network's field, which turns with time."""
    return lambda z, t: jnp.matmul(jnp.tanh(jnp.matmul(z, w[0].T) + 2 * t - 1), w[1])


def test_a_linear_field_is_the_matrix_exponential():
    """y = e^A x, log det = tr A, the law of y is N(0, e^A e^Aᵀ), and the costs are integrals of e^{tA}."""
    with jax.enable_x64(True):
        x = np.random.default_rng(0).normal(size=(2, 4, 3))

        @jax.jit
        def everything(x):
            law = flows.Transformed(Normal(jnp.zeros((2, 4, 3)), 1.0), flows.continuous(linear, TIGHT))
            return flows.carry(linear, x, integration=TIGHT, costs=True), law.log_prob(x)

        path, log_prob = everything(x)
        whole = scipy.linalg.expm(A)
        np.testing.assert_allclose(path.z, np.matmul(x, whole.T), atol=1e-7)
        np.testing.assert_allclose(path.log_det, np.full((2, 4), np.trace(A)), atol=1e-8)
        law = scipy.stats.multivariate_normal(np.zeros(3), np.matmul(whole, whole.T))
        np.testing.assert_allclose(log_prob, law.logpdf(x), atol=1e-7)
        speed = scipy.integrate.quad_vec(lambda t: np.matmul(x, np.matmul(A, scipy.linalg.expm(t * A)).T) ** 2, 0, 1)
        np.testing.assert_allclose(path.costs[0], speed[0].sum(-1), rtol=1e-6)
        np.testing.assert_allclose(path.costs[1], np.full((2, 4), (A**2).sum()), rtol=1e-7)
        assert 13 <= path.num_evaluations < 400 and (path.num_evaluations - 1) % 6 == 0


def test_a_field_of_time_has_the_determinant_of_its_map_and_keeps_mass():
    """The determinant by central differences of the whole map; p integrates to 1; one lost row leaves the others."""
    step, axis = 1e-4, np.linspace(-9, 9, 91)
    with jax.enable_x64(True):
        points = np.random.default_rng(1).normal(size=(20, 2))
        ends = [points + sign * step * np.eye(2)[i] for i in range(2) for sign in (1, -1)]
        x = np.concatenate([points, *ends, [[np.nan, 0.0]]])
        grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)

        @jax.jit
        def everything(w, x, grid):
            flow = flows.continuous(bent(w), flows.Integration(rtol=1e-7, atol=1e-7))
            y, log_det = flow.forward_and_log_det(x)
            return y, log_det, *flow.inverse_and_log_det(jnp.concatenate([y, grid]))

        y, log_det, back, inverse_log_det = (np.asarray(a) for a in everything(W, x, grid))
        assert np.isnan(y[-1]).all() and np.isnan(log_det[-1])
        np.testing.assert_allclose(back[: len(x) - 1], x[:-1], atol=1e-5)
        np.testing.assert_allclose(inverse_log_det[: len(x) - 1], -log_det[:-1], atol=1e-5)
        columns = y[20:100].reshape(2, 2, 20, 2)
        jacobian = (columns[:, 0] - columns[:, 1]).transpose(1, 2, 0) / (2 * step)
        np.testing.assert_allclose(log_det[:20], np.linalg.slogdet(jacobian)[1], atol=1e-5)
        assert np.ptp(log_det[:20]) > 1
        log_prob = scipy.stats.norm.logpdf(back[len(x) :]).sum(1) + inverse_log_det[len(x) :]
        np.testing.assert_allclose(np.exp(log_prob).sum() * (axis[1] - axis[0]) ** 2, 1, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("adjoint", "inverse"), [("checkpoint", True), ("backsolve", False)])
def test_gradients_are_the_slopes_of_the_flow(adjoint, inverse):
    """In the vectors and in the parameters, against central differences; in directions drawn at random."""
    how = TIGHT._replace(adjoint=adjoint)
    with jax.enable_x64(True):
        rng = np.random.default_rng(2)
        at = rng.normal(size=(5, 2)), W
        weight, log_det_weight = rng.normal(size=(5, 2)), rng.normal(size=5)

        def value(x, w):
            path = flows.carry(bent(w), x, inverse, how)
            return (weight * path.z).sum() + (log_det_weight * path.log_det).sum()

        slopes = jax.jit(jax.value_and_grad(value, (0, 1)))
        _, found = slopes(*at)
        for i in range(2):
            along, h = rng.normal(size=at[i].shape), 1e-4
            above, below = (slopes(*at[:i], at[i] + h * sign * along, *at[i + 1 :])[0] for sign in (1, -1))
            np.testing.assert_allclose((found[i] * along).sum(), (above - below) / (2 * h), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_hutchinson_s_estimate_is_unbiased_with_the_known_variance():
    """Of a linear field the log-determinant is uᵀAu: the variance of Rademacher's is Σ_{i<j} (A_ij + A_ji)²."""
    n = 20_000
    how = flows.Integration(divergence="hutchinson")
    x = jnp.ones((n, 3))
    keys = jax.random.split(jax.random.key(0), n)
    log_det = jax.jit(lambda x, keys: flows.continuous(linear, how, keys).forward_and_log_det(x)[1])(x, keys)
    log_det = np.asarray(log_det, float)
    variance = np.sum(np.triu(A + A.T, 1) ** 2)
    assert abs(log_det.mean() - np.trace(A)) < 5 * (variance / n) ** 0.5
    fourth = ((log_det - log_det.mean()) ** 4).mean() - variance**2
    assert abs(log_det.var() - variance) < 5 * (fourth / n) ** 0.5


def test_each_vector_s_probes_are_of_its_own_key():
    x, keys = jnp.zeros((4, 20)), jax.random.split(jax.random.key(0), 4)
    every = probes(keys, x, num_probes=3)
    np.testing.assert_array_equal(every[:, 2:3], probes(keys[2:3], x[2:3], num_probes=3))
    assert every.shape == (3, 4, 20) and set(np.unique(every)) == {-1.0, 1.0}
    assert abs(np.corrcoef(np.asarray(every).reshape(12, 20))[~np.eye(12, dtype=bool)]).max() < 0.999


@pytest.mark.parametrize(
    ("field", "x", "how", "key", "words"),
    [
        (linear, jnp.ones((2, 3)), {"adjoint": "direct"}, None, "adjoint must be one of checkpoint, backsolve"),
        (linear, jnp.ones((2, 3)), {"divergence": "trace"}, None, "divergence must be one of exact, hutchinson"),
        (linear, jnp.ones((2, 3)), {"probe": "uniform"}, None, "probe must be one of rademacher, gaussian"),
        (linear, jnp.ones((2, 3)), {"rtol": 0.0}, None, "rtol must be a positive finite number, not 0.0"),
        (linear, jnp.ones((2, 3)), {"max_steps": 0}, None, "max_steps"),
        (linear, jnp.ones((2, 3)), {"num_probes": 0}, None, "num_probes"),
        (linear, jnp.ones((2, 3)), {"divergence": "hutchinson"}, None, "key is None"),
        (lambda z, t: z, jnp.ones((2, 17)), {}, None, "key is None, .* in 17 dimensions"),
        (lambda z, t: z, jnp.ones((2, 17)), {}, jax.random.split(jax.random.key(0), 3), "3 keys for 2 vectors"),
        (lambda z, t: z[..., :2], jnp.ones((2, 3)), {}, None, r"shape \(2, 3\), not of \(2, 2\)"),
        (lambda z, t: z.sum(-1), jnp.ones((2, 3)), {}, None, r"shape \(2, 3\), not of \(2,\)"),
        (lambda z, t: z, jnp.ones(()), {}, None, r"shape \(\)"),
    ],
)
def test_what_cannot_be_is_named(field, x, how, key, words):
    flow = flows.continuous(field, flows.Integration(**how), key)
    with pytest.raises(InputError, match=words):
        flow.forward_and_log_det(x)


@pytest.mark.slow
def test_too_few_steps_are_said():
    flow = flows.continuous(lambda z, t: 50 * jnp.cos(50 * t) * z, flows.Integration(max_steps=3))
    with pytest.raises(InputError, match=r"max_steps=3 did not bring the flow from 1\.0 to 0\.0"):
        flow.inverse_and_log_det(jnp.ones((2, 3)))


@pytest.mark.slow
def test_parameters_with_batch_axes_give_the_result_theirs():
    scale = jnp.array([0.0, 0.5, -1.0])[:, None]
    y, log_det = flows.continuous(lambda z, t: scale * z).forward_and_log_det(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(y, np.exp(scale) * np.array([1.0, 2.0]), rtol=1e-5)
    np.testing.assert_allclose(log_det, 2 * scale[:, 0], atol=1e-5)
