"""Products of the mathematics are asked for in full precision, those of a user's network left as they are.

An accelerator rounds the factors of any other product to 8 or 11 bits. On a CPU no number shows it: the traced program
does.
"""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from diffjax import (
    bounds,
    conditioning,
    flows,
    losses,
    mcmc,
    predictions,
    processes,
    reference,
    samplers,
    schedules,
    sde,
    vi,
)
from diffjax.distributions import Normal

ROOT = Path(__file__).parents[1]
KEY = jax.random.key(0)
X, HALF = jnp.ones((2, 3)), jnp.full(2, 0.5)
MARK = 11  # an axis of this size is a network's
INSIDE = jnp.ones((3, MARK))

VP = processes.gaussian(schedules.vp())
CHAIN = schedules.linear(4, 0.1, 0.5)
MIXTURE = reference.GaussianMixture(jnp.ones(2) / 2, jnp.ones((2, 3)), jnp.stack([jnp.eye(3), 2 * jnp.eye(3)]))


def network(x, t=None):
    """A network with a marked product."""
    return jnp.tanh(x @ INSIDE) @ INSIDE.T


PREDICT = predictions.x0(network)


def log_density(x):
    return -0.5 * (network(x) ** 2).sum() - 0.5 * (x**2).sum()


def products(jaxpr):
    """(shapes, precision) of every product, in the sub-programs of scans, conditions and linear solvers, too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated", "ragged_dot_general"):
            yield [v.aval.shape for v in equation.invars], equation.params["precision"]
        for leaf in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(leaf, "jaxpr", leaf)
            if hasattr(inner, "eqns"):
                yield from products(inner)


OBSERVATION = conditioning.denoising(jnp.ones(3), 0.5)
MASK = conditioning.inpainting(jnp.ones(3), jnp.array([True, False, True]))


def sampled(stepper, predict=PREDICT, times=(1.0, 0.5, 0.0)):
    return lambda x: samplers.denoise(stepper, predict, KEY, x, jnp.array(times))


def chains(kernel):
    return lambda x: mcmc.run(kernel(x[0]), KEY, x[0], 2)[0].position


# Each takes X. Those marked True have products of the mathematics' own.
PROGRAMS = {
    "mixture": (lambda x: (MIXTURE.mean, MIXTURE.cov, MIXTURE.sample(KEY, 4), MIXTURE.score(x)), True),
    "mixture, posterior": (lambda x: MIXTURE.posterior(x[0], x[1]).mean, True),
    "mixture, expected": (
        lambda x: jax.grad(lambda x: MIXTURE.log_expected(VP.schedule, x[0], x[1])(x, 0.5).sum())(x),
        True,
    ),
    "colourisation": (
        lambda x: conditioning.colourisation(VP, PREDICT, jnp.ones((2, 1)))(x, jnp.full(2, 0.5)).value,
        True,
    ),
    "given, full": (lambda x: conditioning.given(VP, PREDICT, MASK)(x, jnp.full(2, 0.5)).value, False),
    "given, isotropic": (
        lambda x: conditioning.given(VP, PREDICT, MASK, "isotropic")(x, jnp.full(2, 0.5)).value,
        False,
    ),
    "tilted": (lambda x: sampled(samplers.ancestral(conditioning.tilted(VP, OBSERVATION)))(x), False),
    "likelihood": (lambda x: sde.log_prob(VP, PREDICT, KEY, x, max_steps=4), True),
    "hutchinson": (lambda x: sde.log_prob(VP, PREDICT, KEY, x, "hutchinson", max_steps=4), True),
    "discrete": (lambda x: sde.discrete_log_prob(VP, PREDICT, KEY, x.astype(int), 3, "forward", max_steps=4), True),
    "saved": (lambda x: sde.transport(VP, PREDICT, x, 1.0, 0.1, max_steps=4, save=jnp.array([0.5, 0.2])).saved, True),
    "latents": (lambda x: sde.interpolate_latents(sde.encode(VP, PREDICT, x, max_steps=4)[0], x[0], x[0]), True),
    "corrector": (sampled(samplers.predictor_corrector(VP, samplers.reverse_diffusion(VP))), False),
    "bound": (lambda x: bounds.diffusion(VP, PREDICT, KEY, x, CHAIN.times).total, False),
    "score matching": (lambda x: losses.exact_score_matching(network, x), False),
    "sliced": (lambda x: losses.sliced_score_matching(network, KEY, x), False),
    "hmc, dense mass": (
        chains(lambda x: mcmc.hmc(log_density, 0.1, 2, inverse_mass=jnp.eye(3) + 0.1 * x * x[:, None])),
        True,
    ),
    "langevin, dense": (
        chains(lambda x: mcmc.langevin(log_density, 0.1, True, jnp.eye(3) + 0.1 * x * x[:, None])),
        True,
    ),
    "fitted proposal": (
        lambda x: mcmc.fit_gaussian(KEY, log_density, Normal(x[0], jnp.ones(3)), 2, 20, 1),
        True,
    ),
    "hamiltonian": (
        lambda x: jax.grad(
            lambda x: vi.hamiltonian_log_weight(
                KEY, None, lambda _, z: log_density(z), Normal(x[0], jnp.ones(3)), vi.linear_hamiltonian(3), 2
            )
        )(x),
        True,
    ),
    "planar": (
        lambda x: jax.grad(lambda x: flows.planar(x[0], x[1], 0.1).forward_and_log_det(x)[1].sum())(x),
        False,
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_product_is_in_full_precision_but_the_network_s(name):
    program, own = PROGRAMS[name]
    found = list(products(jax.make_jaxpr(program)(X).jaxpr))
    seen = {True: 0, False: 0}
    for shapes, precision in found:
        network_s = any(MARK in shape for shape in shapes)
        seen[network_s] += 1
        want = None if network_s else (jax.lax.Precision.HIGHEST,) * 2
        assert precision == want, shapes
    assert (seen[False] > 0) == own
    assert (seen[False] > 0) == own
    print(seen)


FORBIDDEN = {"dot", "matmul", "einsum", "tensordot", "vdot", "inner", "cov", "corrcoef", "convolve", "correlate"}
ROOMS = ("conditioning", "energy", "flows", "losses", "mcmc", "sde", "vi")
MATHEMATICS = [
    *(ROOT / "diffjax").glob("*.py"),
    *(path for room in ROOMS for path in (ROOT / "diffjax" / room).glob("*.py")),
]


def test_no_product_of_the_mathematics_leaves_the_precision_to_the_accelerator():
    """Also in the functions that no program above calls. numpy's products are exact, as is `np.matmul`."""
    assert len(MATHEMATICS) > 40
    for path in MATHEMATICS:
        if path.name == "linear_algebra.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            assert not isinstance(getattr(node, "op", None), ast.MatMult), place
            if isinstance(node, ast.Attribute) and node.attr in FORBIDDEN:
                assert isinstance(node.value, ast.Name) and node.value.id == "np", place
