import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from stationarity import score as mixture_score

from diffjax.errors import InputError
from diffjax.mcmc import LEAPFROG, MCLACHLAN, YOSHIDA, hmc, integrate, langevin, leapfrog

INTEGRATORS = {"leapfrog": (LEAPFROG, 2), "mclachlan": (MCLACHLAN, 2), "yoshida": (YOSHIDA, 4)}
DENSE = jnp.array([[2.0, -0.3], [-0.3, 0.9]])
Q, P = jnp.array([0.8, -0.4]), jnp.array([-0.5, 1.1])


def euler(score, q, p, eps, num_steps):
    """A leapfrog broken on purpose: its drift uses the momentum from before the kick."""
    for _ in range(num_steps):
        q, p = q + eps * p, p + eps * score(q)
    return q, p


def symplectic_euler(score, q, p, eps, num_steps):
    """Keeps volume, but kick and drift are no palindrome."""
    for _ in range(num_steps):
        p = p + eps * score(q)
        q = q + eps * p
    return q, p


def there_and_back(step):
    q, p = step(mixture_score, Q, P)
    assert jnp.abs(q - Q).max() > 0.3
    q, p = step(mixture_score, q, -p)
    return max(jnp.abs(q - Q).max(), jnp.abs(p + P).max())


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", INTEGRATORS)
@pytest.mark.parametrize("inverse_mass", [0.7, jnp.array([2.0, 0.5]), DENSE], ids=["scalar", "diagonal", "dense"])
def test_turning_the_momentum_round_goes_back(name, inverse_mass):
    coefficients, _ = INTEGRATORS[name]

    def step(score, q, p):
        return integrate(coefficients, score, q, p, 0.15, 20, inverse_mass)

    assert there_and_back(step) < 1e-5


def test_without_a_palindrome_it_does_not():
    assert there_and_back(functools.partial(symplectic_euler, eps=0.15, num_steps=20)) > 1e-2


def determinant(step):
    def flat(z):
        return jnp.concatenate(step(mixture_score, z[:2], z[2:]))

    return jnp.linalg.det(jax.jit(jax.jacfwd(flat))(jnp.concatenate([Q, P])))


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", INTEGRATORS)
def test_volume_is_kept(name):
    coefficients, _ = INTEGRATORS[name]

    def step(score, q, p):
        return integrate(coefficients, score, q, p, 0.4, 5, DENSE)

    assert abs(determinant(step) - 1) < 1e-4


def test_a_drift_by_the_old_momentum_does_not_keep_volume():
    assert abs(determinant(functools.partial(euler, eps=0.4, num_steps=5)) - 1) > 0.1


@pytest.mark.parametrize("eps", [0.3, 1.0, 1.9])
def test_the_leapfrog_conserves_its_shadow_energy(eps):
    """On N(0, 1) that is p² + (1 - ε²/4) q², exactly, up to the limit of stability at ε = 2."""
    q, p = jnp.array(0.3), jnp.array(1.1)
    energy, shadow = [], []
    step = jax.jit(lambda q, p: leapfrog(jnp.negative, q, p, eps, 1))
    for _ in range(40):
        energy.append(p**2 + q**2)
        shadow.append(p**2 + (1 - eps**2 / 4) * q**2)
        q, p = step(q, p)
    assert np.ptp(shadow) < 1e-5 * shadow[0]
    assert np.ptp(energy) > 0.01 * energy[0]


@pytest.mark.parametrize("name", INTEGRATORS)
def test_order_of_convergence(name):
    """On the well ½q² + ¼q⁴, against scipy's integrator of order 8."""
    coefficients, order = INTEGRATORS[name]
    exact = solve_ivp(lambda t, z: [z[1], -z[0] - z[0] ** 3], (0, 2), [1.0, 0.5], "DOP853", rtol=1e-12, atol=1e-12)
    with jax.enable_x64(True):
        errors = []
        for num_steps in (16, 32, 64):
            start = jnp.asarray(1.0), jnp.asarray(0.5)
            end = integrate(coefficients, lambda q: -q - q**3, *start, 2.0 / num_steps, num_steps)
            errors.append(np.abs(np.array(end) - exact.y[:, -1]).max())
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.abs(slopes - order).max() < 0.3, slopes


@pytest.mark.parametrize("inverse_mass", [0.7, jnp.array([2.0, 0.5]), DENSE], ids=["scalar", "diagonal", "dense"])
def test_a_mass_is_a_change_of_coordinates(inverse_mass):
    """With M⁻¹ = L Lᵀ, q = L x and x's momentum Lᵀ p, this is a leapfrog of unit mass in x."""
    matrix = DENSE if inverse_mass is DENSE else inverse_mass * jnp.eye(2)
    lower = jnp.linalg.cholesky(matrix)
    q, p = leapfrog(mixture_score, Q, P, 0.3, 6, inverse_mass)
    x, momentum = leapfrog(
        lambda x: lower.T @ mixture_score(lower @ x), jnp.linalg.solve(lower, Q), lower.T @ P, 0.3, 6
    )
    np.testing.assert_allclose(q, lower @ x, atol=1e-5)
    np.testing.assert_allclose(lower.T @ p, momentum, atol=1e-5)


def test_a_pytree_moves_as_its_ravelled_vector_does():
    def score(tree):
        s = mixture_score(jnp.stack([tree["a"], tree["b"][0]]))
        return {"a": s[0], "b": s[1:]}

    def tree(x):
        return {"a": x[0], "b": x[1:]}

    for mass, flat in [(DENSE, DENSE), ({"a": 2.0, "b": jnp.array([0.5])}, jnp.array([2.0, 0.5]))]:
        q, p = leapfrog(score, tree(Q), tree(P), 0.2, 5, mass)
        expected = leapfrog(mixture_score, Q, P, 0.2, 5, flat)
        np.testing.assert_allclose([q["a"], q["b"][0]], expected[0], rtol=1e-6)
        np.testing.assert_allclose([p["a"], p["b"][0]], expected[1], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("num", [1, 2, 3])
def test_a_batch_is_not_multiplied_elementwise_by_a_matrix(num):
    """Of two examples in two dimensions the shapes would allow it."""
    q, p = jnp.stack([Q, -Q, 2 * Q])[:num], jnp.stack([P, Q, P])[:num]
    each = jax.vmap(lambda q, p: leapfrog(mixture_score, q, p, 0.2, 3, DENSE))(q, p)
    for i in range(num):
        np.testing.assert_allclose([part[i] for part in each], leapfrog(mixture_score, q[i], p[i], 0.2, 3, DENSE))
    if num == 1:  # the matrix is over all of it
        np.testing.assert_allclose(leapfrog(jax.vmap(mixture_score), q, p, 0.2, 3, DENSE), each, rtol=1e-6)
        return
    for score_only in (
        lambda: leapfrog(jax.vmap(mixture_score), q, p, 0.2, 3, DENSE),
        lambda: langevin(None, 0.1, inverse_mass=DENSE, score=jax.vmap(mixture_score)).init(q),
    ):
        with pytest.raises(InputError, match="vmap over the examples"):
            score_only()


def test_a_diagonal_may_be_a_square_of_numbers():
    """Of a matrix q each entry moves by itself, here by as many leapfrogs in one dimension."""
    diagonal, q, p = jnp.array([[1.0, 0.3], [0.5, 2.0]]), jnp.stack([Q, P]), jnp.stack([P, Q])
    (got,), _ = leapfrog(lambda q: (-q[0],), (q,), (p,), 0.3, 4, (diagonal,))
    entries = zip(q.ravel(), p.ravel(), diagonal.ravel(), strict=True)
    want = [leapfrog(jnp.negative, *one, 0.3, 4, m)[0] for *one, m in entries]
    np.testing.assert_allclose(got.ravel(), want, rtol=1e-6)
    kernel = hmc(lambda q: -0.5 * jnp.sum(q**2), 0.3, 4, diagonal)  # one chain, as its scalar density says
    momentum = jax.random.normal(jax.random.split(jax.random.key(0))[0], (4,)).reshape(2, 2) / jnp.sqrt(diagonal)
    (want,), _ = leapfrog(lambda q: (-q[0],), (q,), (momentum,), 0.3, 4, (diagonal,))
    state, info = kernel.step(jax.random.key(0), kernel.init(q))
    assert info.accepted
    np.testing.assert_allclose(state.position, want, rtol=1e-5)


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"step_size of shape \(3, 1\) does not broadcast"):
        leapfrog(mixture_score, Q, P, jnp.full((3, 1), 0.1), 1)
    with pytest.raises(InputError, match=r"not of shape \(3,\) for a position of shape \(2,\)"):
        leapfrog(mixture_score, Q, P, 0.1, 1, jnp.ones(3))
    with pytest.raises(InputError, match="position must be floating-point, not int32"):
        leapfrog(mixture_score, Q.astype(int), P, 0.1, 1)
    with pytest.raises(InputError, match="num_steps must be a positive integer"):
        leapfrog(mixture_score, Q, P, 0.1, 0)
    for coefficients in [(0.5, 1.0, 0.4), (0.5, 1.0), (1.0, 0.7, 0.0, 0.3, 0.0)]:
        with pytest.raises(InputError, match="palindrome"):
            integrate(coefficients, mixture_score, Q, P, 0.1, 1)
