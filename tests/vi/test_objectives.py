"""The estimators of the gradient of L_K, against the gradient itself, which quadrature gives for any K.

z ~ N(μ, 1), x | z ~ N(z, 1/2), q = N(m, exp(2 l)). With φ(t) = E exp(-t w) and log s = ∫ (e^{-t} - e^{-ts}) dt/t,

    L_K = E log (1/K) Σ w_k = ∫_0^∞ (e^{-t} - φ(t/K)^K) dt/t.
"""

import functools

import gaussian
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from diffjax import vi
from diffjax.distributions import Normal
from diffjax.errors import InputError

X = 0.8
THETA = np.array([0.3])  # μ
PHI = np.array([0.2, -0.3])  # m, l; the exact posterior has variance 1/3
PHI_EXACT = np.array([(0.3 + 2 * X) / 3, -0.5 * np.log(3)])
ESTIMATORS = ("reparameterized", "sticking_the_landing", "doubly_reparameterized")
LANDS = ESTIMATORS[1:]


def log_joint(theta, z):
    return Normal(theta[0], jnp.array(1.0)).log_prob(z) + Normal(z, jnp.array(0.5)).log_prob(X)


def law(phi):
    return Normal(phi[0], jnp.exp(2 * phi[1]))


def log_weights(key, num):
    """K draws of (theta, phi, density_phi) -> log w, by way of a chain without steps."""

    def of(theta, phi, density_phi):
        def one(key):
            densities = (law(density_phi), [])
            return vi.markov_chain_log_weight(key, None, lambda x, z: log_joint(theta, z), law(phi), [], [], densities)

        return jax.vmap(one)(jax.random.split(key, num))

    return of


@functools.cache
def compiled(num):
    """((draws,), (draws, 3)) values and gradients in (μ, m, l), of every estimator."""

    def one(phi, key):
        def value(both, estimator):
            return vi.objective(log_weights(key, num), both[:1], both[1:], estimator)

        both = jnp.concatenate([THETA, phi])
        return [jax.value_and_grad(value)(both, estimator) for estimator in ESTIMATORS]

    keys = jax.random.split(jax.random.key(num), 20_000)
    return jax.jit(lambda phi: jax.vmap(functools.partial(one, phi))(keys))


def gradients(estimator, num, phi):
    values, grads = compiled(num)(phi)[ESTIMATORS.index(estimator)]
    return np.asarray(values, np.float64), np.asarray(grads, np.float64)


def l_k(both, num):
    """L_K by quadrature, t = exp(s)."""
    mu, m, l = both
    z = m + np.exp(l) * np.linspace(-9, 9, 1501)
    q = stats.norm.pdf(z, m, np.exp(l)) * (z[1] - z[0])
    log_w = stats.norm.logpdf(z, mu) + stats.norm.logpdf(X, z, 0.5**0.5) - stats.norm.logpdf(z, m, np.exp(l))
    s = np.linspace(-30, 60, 1801)
    phi = np.exp(-np.exp(np.minimum(s[:, None] - np.log(num) + log_w, 700))) @ q
    return (np.exp(-np.exp(s)) - phi**num).sum() * (s[1] - s[0])


@functools.cache
def exact(num):
    both = np.concatenate([THETA, PHI])
    h = 1e-4
    slope = [(l_k(both + h * e, num) - l_k(both - h * e, num)) / (2 * h) for e in np.eye(3)]
    return l_k(both, num), np.array(slope)


def z_scores(draws, want):
    return (draws.mean(0) - want) / (draws.std(0) / len(draws) ** 0.5)


@pytest.mark.slow
def test_the_quadrature_knows_the_evidence_lower_bound():
    (mu,), (m, l) = THETA, PHI
    var = np.exp(2 * l)
    elbo = stats.norm.logpdf(m, mu) + stats.norm.logpdf(X, m, 0.5**0.5) - 1.5 * var + l + 0.5 * np.log(2 * np.pi) + 0.5
    slope = [m - mu, mu - m + 2 * (X - m), 1 - 3 * var]
    np.testing.assert_allclose(exact(1)[0], elbo, rtol=1e-5)
    np.testing.assert_allclose(exact(1)[1], slope, rtol=1e-4)
    assert exact(1)[0] < exact(5)[0] < stats.norm.logpdf(X, mu, 1.5**0.5)


@pytest.mark.fast(1)
@pytest.mark.parametrize("num", [1, 5])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_mean_is_the_gradient_but_for_the_landing_at_many_draws(estimator, num):
    values, grads = gradients(estimator, num, PHI)
    value, gradient = exact(num)
    assert abs(z_scores(values, value)) < 5
    z = np.abs(z_scores(grads, gradient))
    assert z[0] < 5
    if estimator == "sticking_the_landing" and num > 1:
        assert (z[1:] > 5).all()
    else:
        assert (z < 5).all()
    assert (grads.std(0) / len(grads) ** 0.5 < 0.02).all()


@pytest.mark.fast(1)
@pytest.mark.parametrize("num", [1, 5])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_gradient_in_q_is_still_where_q_is_the_posterior(estimator, num):
    values, grads = gradients(estimator, num, PHI_EXACT)
    np.testing.assert_allclose(values, stats.norm.logpdf(X, THETA[0], 1.5**0.5), rtol=1e-4)
    if estimator in LANDS:
        np.testing.assert_allclose(grads[:, 1:], 0.0, atol=2e-5)
    else:
        assert (grads[:, 1:].std(0) > 0.3).all()


@pytest.mark.slow
def test_double_reparameterisation_goes_through_momenta_and_leapfrog():
    """Two iterations, so that what theta moves is what the second momentum is drawn from. Paired with the plain one."""
    x = jnp.asarray(gaussian.X[0], jnp.float32)
    step = vi.linear_hamiltonian(2, 0.3)
    slope = jnp.array([[0.4, -0.2], [0.1, 0.3]])
    momentum = vi.LinearNormal(slope, jnp.array([0.2, 0.0]), jnp.array([-0.2, 0.1]))
    phi = {"initial": (jnp.zeros(2), jnp.full(2, -0.4)), "momenta": [momentum, momentum]}
    theta = {"steps": [(step.log_step_size, step.log_inverse_mass)] * 2, "inverses": [step.inverse_momentum] * 2}

    def one(estimator, key):
        def of(theta, phi, density_phi):
            def law(phi):
                return Normal(phi["initial"][0], jnp.exp(phi["initial"][1]))

            params = [
                vi.Hamiltonian(*scales, *models)
                for scales, *models in zip(theta["steps"], phi["momenta"], theta["inverses"], strict=True)
            ]
            densities = (law(density_phi), density_phi["momenta"])

            def draw(key):
                return vi.hamiltonian_log_weight(key, x, gaussian.log_joint, law(phi), params, 1, densities)

            return jax.vmap(draw)(jax.random.split(key, 3))

        grads = jax.grad(lambda both: vi.objective(of, *both, estimator))((theta, phi))
        return jax.flatten_util.ravel_pytree(grads)[0]

    keys = jax.random.split(jax.random.key(0), 5000)
    plain, double = (np.asarray(jax.jit(jax.vmap(functools.partial(one, e)))(keys), float) for e in ESTIMATORS[::2])
    num_theta = sum(leaf.size for leaf in jax.tree.leaves(theta))
    np.testing.assert_allclose(plain[:, :num_theta], double[:, :num_theta], rtol=1e-3, atol=1e-3)
    difference = (plain - double)[:, num_theta:]
    assert (difference.std(0) > 1e-2).all()  # another estimator, draw by draw
    assert (np.abs(z_scores(difference, 0.0)) < 5).all()


@pytest.mark.slow
def test_ascent_trains_transitions_and_inverse_models_together():
    """Algorithm 2. A linear transition and its linear inverse can be exact: the bound rises to log p(x)."""
    x = jnp.asarray(gaussian.X[0], jnp.float32)
    law = vi.LinearNormal(0.5 * jnp.eye(2), jnp.zeros(2), jnp.zeros(2))
    params = {"inverse": law, "initial": (jnp.zeros(2), jnp.zeros(2)), "transition": law}

    def bound(params, key, num):
        def of(theta, phi, density_phi):
            def split(phi):
                mean, log_variance = phi["initial"]
                return Normal(mean, jnp.exp(log_variance)), [phi["transition"]]

            def draw(key):
                given = (*split(phi), [theta["inverse"]], split(density_phi))
                return vi.markov_chain_log_weight(key, x, gaussian.log_joint, *given)

            return jax.vmap(draw)(jax.random.split(key, num))[None]

        return vi.objective(of, params, params, "sticking_the_landing")

    @jax.jit
    def train(params):
        tx = optax.adam(optax.cosine_decay_schedule(0.03, 1500))

        def step(carry, key):
            params, state = carry
            updates, state = tx.update(jax.grad(lambda p: -bound(p, key, 32).mean())(params), state)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(jax.random.key(0), 1500)
        return jax.lax.scan(step, (params, tx.init(params)), keys)[0][0]

    values = jax.jit(functools.partial(bound, num=5000))
    before, after = (np.asarray(values(p, jax.random.key(1))) for p in (params, train(params)))
    evidence = gaussian.log_evidence(gaussian.X[0])
    assert before.mean() < evidence - 1
    error = after.std() / len(after) ** 0.5
    assert evidence - 0.01 - 5 * error < after.mean() < evidence + 5 * error
    assert error < 0.002


@pytest.mark.fast(1)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_weight_of_zero_takes_no_part(estimator):
    """log w = θ a + φ b, of one draw -inf. Its gradient is Σ w̃ a and Σ w̃ b, or Σ w̃² b (Tucker et al. 2019, eq. 8).

    The plain estimator has 1 more in φ, by another term whose derivative is 1.
    """
    a, b = np.array([0.5, 2.0, -1.0, 0.3]), np.array([1.0, -3.0, 0.4, 0.2])
    theta, phi, inside = 0.7, -0.2, np.array([True, False, True, True])

    def log_weights(theta, phi, density_phi):
        shift = density_phi if estimator == "reparameterized" else 0.0
        return jnp.where(inside, theta * a + phi * b + shift - jax.lax.stop_gradient(shift), -jnp.inf)

    value, slopes = jax.value_and_grad(lambda both: vi.objective(log_weights, *both, estimator))((theta, phi))
    w = np.exp(theta * a + phi * b) * inside
    share = w / w.sum()
    np.testing.assert_allclose(value, np.log(w.sum() / 4), rtol=1e-6)
    in_phi = share**2 @ b if estimator == "doubly_reparameterized" else share @ b + (estimator == "reparameterized")
    np.testing.assert_allclose(slopes, [share @ a, in_phi], rtol=1e-5)

    value, slopes = jax.value_and_grad(
        lambda both: vi.objective(lambda *params: log_weights(*params) - jnp.inf, *both, estimator)
    )((theta, phi))
    assert value == -jnp.inf and np.isnan(slopes).all()  # as the docstring says


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="estimator must be"):
        vi.objective(log_weights(jax.random.key(0), 2), THETA, PHI, "score")
    with pytest.raises(InputError, match="one for each of K draws"):
        vi.objective(lambda theta, phi, density: jnp.array(0.0), THETA, PHI)
