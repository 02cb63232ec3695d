"""The library as a whole: what importing it costs, which networks it takes, and whether its annotations are true."""

import os
import subprocess
import sys
from pathlib import Path

import equinox
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax.dtypes import as_float

ROOT = Path(dj.__file__).parents[1]


def run(code, *paths):
    path = os.pathsep.join([str(ROOT), *map(str, paths)])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_import_pulls_in_no_machinery():
    heavy = [
        "tensorflow",
        "tensorflow_datasets",
        "orbax",
        "grain",
        "matplotlib",
        "flax",
        "optax",
        "ml_collections",
        "sklearn",
    ]
    code = f"import sys, diffjax; print([m for m in {heavy} if m in sys.modules])"
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_import_does_not_start_a_backend():
    # Who sets flags or calls jax.distributed.initialize after the import must not come too late.
    done = run("import diffjax; from jax._src import xla_bridge; print(xla_bridge.backends_are_initialized())")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


# Any network -----------------------------------------------------------------------------------------------------

SCHEDULE = dj.schedules.cosine(8)
PROCESS = dj.processes.gaussian(SCHEDULE)
KERNEL = 0.3 * jax.random.normal(jax.random.key(0), (3, 2))
BIAS = jnp.array([0.1, -0.2])


class Linen(nn.Module):
    @nn.compact
    def __call__(self, xt, t):
        return nn.Dense(2)(jnp.concatenate([xt, t[:, None]], -1))


def linen():
    return {
        "params": {"Dense_0": {"kernel": KERNEL, "bias": BIAS}}
    }, lambda params: lambda xt, t: Linen().apply(params, xt, t)


def eqx():
    layer = equinox.nn.Linear(3, 2, key=jax.random.key(0))
    layer = equinox.tree_at(lambda l: (l.weight, l.bias), layer, (KERNEL.T, BIAS))
    return layer, lambda layer: lambda xt, t: jax.vmap(lambda x, t: layer(jnp.append(x, t)))(xt, t)


def closed():
    return (KERNEL, BIAS), lambda p: lambda xt, t: xt @ p[0][:2] + t[:, None] * p[0][2] + p[1]


def everything(make):
    """Loss, bound and samples of one and the same affine network, under jit, vmap and grad: sorted numbers."""
    params, apply = make()
    x0 = jax.random.normal(jax.random.key(1), (5, 2))
    t, s = SCHEDULE.times[1:6], SCHEDULE.times[:5]

    @jax.jit
    def both(params, keys):
        predict = dj.predictions.eps(apply(params))

        def one(key):
            return (
                dj.losses.simple(PROCESS, predict, key, x0, t),
                dj.losses.vlb(PROCESS, predict, key, x0, s, t, 8),
                dj.bounds.diffusion(PROCESS, predict, key, x0, SCHEDULE.times).total,
                dj.samplers.sample(dj.samplers.ancestral(PROCESS), predict, key, SCHEDULE.times[::-1], (5, 2)),
            )

        return jax.vmap(one)(keys)

    def loss(params, key):
        return dj.losses.simple(PROCESS, dj.predictions.eps(apply(params)), key, x0, t).mean()

    grads = jax.jit(jax.grad(loss))(params, jax.random.key(2))
    leaves = sorted((np.asarray(g) for g in jax.tree.leaves(grads)), key=lambda g: g.size)
    return both(params, jax.random.split(jax.random.key(3), 2)), [np.sort(g.ravel()) for g in leaves]


@pytest.mark.slow
def test_flax_equinox_and_closed_forms_are_one():
    want = everything(closed)
    for make in (linen, eqx):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), everything(make), want)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(want))


# Annotations -----------------------------------------------------------------------------------------------------

CHECKER = """
import typing

typing.Protocol._is_runtime_protocol = True  # beartype asks isinstance of Protocols

from beartype import beartype
from beartype.roar import BeartypeDecorHintPep673Exception


def check(f):
    try:
        return beartype(f)
    except BeartypeDecorHintPep673Exception:  # Self in a Protocol's method, which nobody calls
        return f
"""

CALLS = """
from jaxtyping import install_import_hook

with install_import_hook("diffjax", "runtime_checker.check"):
    import diffjax as dj

import jax
import jax.numpy as jnp
import numpy as np

key, x, t = jax.random.key(0), jnp.ones((5, 2)), jnp.full(5, 0.5)


def call_everything():
    schedule = dj.schedules.linear(20)
    process = dj.processes.gaussian(schedule)
    mix = dj.reference.GaussianMixture(jnp.array([0.3, 0.7]), jnp.eye(2), jnp.stack([jnp.eye(2)] * 2))
    predict = mix.predict(schedule)
    learned = dj.predictions.eps(lambda x, t: jnp.concatenate([x, x], -1), learned_variance=True)

    for make in (dj.schedules.linear, dj.schedules.cosine, dj.schedules.sigmoid, lambda n: dj.schedules.vp()):
        for at in (0.3, t, jnp.ones((2, 2))):
            s = make(9)
            s.alpha(at), s.sigma(at), s.log_snr(at)
    schedule.times, schedule.num_steps
    operators = dj.conditioning.operators
    image = jnp.ones((4, 4, 3))
    for apply in (operators.blur(jnp.ones((3, 3))), operators.downsample(2), operators.mask(np.ones((4, 4, 3), bool))):
        apply(image)
    operators.grey()(image), operators.project(key, (4, 4, 3), 2)(image)
    seen = dj.conditioning.linear_operator(lambda x: x[:1], jnp.ones(1), 0.5, (2,))
    seen.log_r(x), seen.event(seen.coordinates(x)), seen.residual(x)
    mix.linear_posterior(jnp.ones((1, 2)), jnp.ones(1), 0.5)
    dj.conditioning.given(process, predict, seen)(x, t)
    down = schedule.times[::-1]
    dj.conditioning.twisted(process, predict, key, down, (5, 2), seen.log_r)
    pulled = dj.conditioning.dps(dj.samplers.ancestral(process), process, seen.residual)
    dj.samplers.sample(pulled, predict, key, down, (5, 2))
    jax.vmap(lambda b: dj.schedules.from_betas(b).alpha(0.5))(jnp.full((3, 4), 0.1))

    D = dj.distributions
    mean, var = jnp.zeros((5, 2)), jnp.ones((5, 1))  # they broadcast, as a process makes them
    for p in (D.Normal(mean, var), D.Bernoulli(mean), D.DiscretizedNormal(mean, var, 17)):
        p.mean, p.variance, p.sample(key), p.log_prob(x), p.kl(p), p.entropy()

    process.prior((5, 2)), process.marginal(x, t), process.transition(x, 0.2, t), process.posterior(x, x, 0.2, t)
    for variance in ("posterior", "forward", "learned"):
        process.reverse(learned(x, t), x, 0.2, 0.5, variance)
        dj.losses.vlb(process, learned, key, x, t - 0.05, t, 20, variance)
        dj.bounds.diffusion(process, learned, key, x, schedule.times, variance, D.DiscretizedNormal)
    dj.bounds.diffusion(process, predict, key, x, schedule.times, num_terms=3).total
    dj.bounds.rate_distortion(dj.bounds.diffusion(process, predict, key, x, schedule.times), (2,))
    gamma = dj.learned_schedule.learned(-9.0, 5.0, dj.learned_schedule.interior(3))
    dj.learned_schedule.least_variance(gamma, t, lambda gamma, rate: gamma * rate)
    dj.continuous_bound.diffusion_cost(lambda z, _: z, x, x, *gamma.rate(t))
    dj.continuous_bound.prior_cost(x, 5.0) + dj.continuous_bound.reconstruction_cost(x, x, -9.0, 17)
    dj.bounds.bits_per_dim(3.0, (2,)), dj.bounds.importance_weighted(x)
    for kind in dj.predictions.KINDS:
        dj.predictions.convert(dj.predictions.Prediction(x, kind), "x0", process, x, t)
        dj.losses.simple(process, predict, key, x, t, kind)
    dj.predictions.clip(predict, process)(x, t)
    dj.losses.weighted(process, predict, key, x, t, dj.losses.min_snr()), dj.losses.p2()(t)
    for keys in (key, jax.random.split(key, 5)):
        dj.losses.hybrid(process, learned, keys, x, t - 0.05, t, 20)
    for make in (dj.time_sampling.uniform, dj.time_sampling.low_discrepancy, dj.time_sampling.loss_aware):
        sampler = make(20)
        sampler.sample(sampler.update(sampler.init(), t, t), key, 8)
    times = dj.samplers.spaced(schedule.times, 5)
    for make in (dj.samplers.ancestral, dj.samplers.ddim, dj.samplers.heun, dj.samplers.dpmpp_2m):
        stepper = make(process)
        dj.samplers.sample(stepper, predict, key, times, (3, 2), save=lambda state: state.x)
    dj.samplers.interpolate(process, stepper, predict, key, x[0], x[1], t[:3], times)
    mix.log_prob(x), mix.score(x), mix.at(0.3, 0.2), mix.sample(key, 3)
    jax.jit(lambda process, mix: (process.marginal(x, t), mix.score(x)))(process, mix)
    call_chains(mix.log_prob)


def call_chains(log_density):
    mcmc, vi, Normal = dj.mcmc, dj.vi, dj.distributions.Normal
    q = x[0]
    for inverse_mass in (1.0, jnp.ones(2), jnp.eye(2)):
        kernel = mcmc.hmc(log_density, 0.1, 2, inverse_mass, persistence=0.5)
        mcmc.run(kernel, key, q, 3)
    mcmc.run(mcmc.hmc(lambda z: log_density(z["a"]), 0.1, 2, {"a": q}), key, {"a": q}, 3)
    mcmc.run(mcmc.langevin(None, jnp.full((), 0.1), score=lambda z: -z), key, q, 3)
    mcmc.leapfrog(lambda z: -z, x, x, 0.1, 3, jnp.ones(2)), mcmc.integrate(mcmc.YOSHIDA, lambda z: -z, q, q, 0.1, 3)
    mcmc.warmup(lambda eps, mass: mcmc.hmc(log_density, eps, 2, mass), key, q, 20)
    for scan in ("systematic", "random"):
        mcmc.run(mcmc.gibbs(lambda i, z: dj.distributions.Bernoulli(z.sum()), scan), key, jnp.zeros(3, int), 2)
        mcmc.run(mcmc.over_relaxed_gibbs(lambda i, z: (0.5 * z[1 - i], 1.0), -0.76, scan), key, q, 2)
    relaxed = lambda a: mcmc.over_relaxed_gibbs(lambda i, z: (z[1 - i], 1.0), a)
    jax.grad(lambda a: mcmc.run(relaxed(a), key, q, 2)[0].position.sum())(0.2)
    mcmc.ais(key, Normal(q, q), log_density, [0.0, 0.5, 1.0], lambda f, beta: mcmc.hmc(f, 0.1 / (1 + beta), 2))
    for draws in (jnp.ones((2, 8)), jnp.ones((1, 4, 3, 2))):
        mcmc.ess(draws), mcmc.ess_tail(draws), mcmc.rhat(draws)

    def log_joint(data, z):
        return -(z**2).sum(-1)

    def forward(data, z):
        return vi.Coordinate(z, 0, mcmc.over_relaxed(Normal(z[..., 1], jnp.ones(5)), z[..., 0], 0.3))

    def inverse(data, z):
        return vi.Coordinate(z, 0, Normal(z[..., 0], jnp.ones(5)))

    vi.markov_chain_log_weight(key, None, log_joint, Normal(x, x), [forward, forward], [inverse, inverse])
    params = vi.linear_hamiltonian(2)

    def log_weights(theta, phi, density):
        return vi.hamiltonian_log_weight(key, None, log_joint, Normal(phi, x), theta, 2)[None]

    for estimator in ("reparameterized", "sticking_the_landing", "doubly_reparameterized"):
        vi.objective(log_weights, (params, params), x, estimator)

    family = lambda q: Normal(q["mean"], jnp.exp(2 * q["log_std"]))
    start = {"mean": jnp.zeros(2), "log_std": jnp.zeros(2)}
    prior = Normal(jnp.zeros(2), jnp.ones(2))
    for own in (None, vi.sampled_entropy, vi.analytic_entropy, vi.negative_kl(prior)):
        for estimator in ("score", "score_leave_one_out", "reparameterized"):
            vi.value_and_gradient(lambda z: -(z**2).sum(), family, start, key, 4, estimator, own, 0.5)
    vi.MovingAverage().update(jnp.ones(4)).value
    both = vi.mean_field.normal(vi.mean_field.start({"a": 0.0, "b": jnp.ones(2)}))
    both.log_prob(both.sample(key)), both.entropy(), both.kl(both)
    dj.distributions.Gamma(jnp.ones(2), jnp.ones(2)).kl(dj.distributions.Gamma(jnp.ones(2), jnp.ones(2)))
    dj.distributions.DiscretizedLogistic(jnp.zeros(2), jnp.ones(2)).log_prob(jnp.zeros(2))

    flows = dj.flows
    layers = [
        flows.planar(x, x, jnp.ones(5)),
        flows.radial(jnp.zeros(2), jnp.ones(()), jnp.zeros(())),
        flows.additive_coupling(flows.halves(2, 0), lambda h: h),
        flows.affine_coupling(flows.halves(2, 1), lambda h: (h, h)),
        flows.autoregressive(lambda h: (0 * h, 0 * h), flows.bounded()),
        flows.affine(jnp.zeros(2), jnp.ones(2)),
        flows.reverse,
        flows.continuous(lambda h, t: -t * h),
    ]
    law = flows.Transformed(Normal(x, jnp.ones((5, 2))), flows.chain(layers))
    law.log_prob(law.sample_and_log_prob(key)[0]), flows.invert(law.flow).forward_and_log_det(x)


jax.eval_shape(call_everything)  # tracing meets every annotation and compiles nothing

# and the checks are on: a wrong rank must not pass
try:
    process = dj.processes.gaussian(dj.schedules.vp())
    dj.losses.simple(process, dj.predictions.eps(lambda x, t: x), key, x, jnp.ones((5, 2)))
except Exception as error:
    assert "batch" in str(error), error
    print("checked")
"""


@pytest.mark.slow
def test_annotations_hold_at_run_time(tmp_path):
    pytest.importorskip("beartype")
    (tmp_path / "runtime_checker.py").write_text(CHECKER)
    done = run(CALLS, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "checked"


# Types -----------------------------------------------------------------------------------------------------------

MIXTURE = dj.reference.GaussianMixture(
    jnp.array([0.3, 0.7]), jnp.array([[1.0, -0.5], [-1.0, 0.5]]), jnp.stack([jnp.eye(2), 0.5 * jnp.eye(2)])
)


def one_of_each_module(x, mixture):
    """Of data x (2, 2) and a density: name -> a function of nothing. Those named "drawn ..." are for types alone."""
    key, t = jax.random.key(0), 0.6  # a number, a time in x's type and one in jax's default type must all do
    schedule, times = dj.schedules.vp(), jnp.linspace(1.0, 0.2, 4)
    process, predict = dj.processes.gaussian(schedule), mixture.predict(schedule)
    bits, bit_process = (x > 0.5).astype(x.dtype), dj.processes.binomial(schedule, 0.3)
    xt = 0.5 * x
    kernel = dj.mcmc.hmc(mixture.log_prob, 0.1, 2)
    w = as_float(x)

    def family(params):
        return dj.vi.mean_field.normal(params)

    return {
        "schedules": lambda: (schedule.alpha(w[:, 0]), schedule.sigma(w[:, 0]), schedule.log_snr(w[:, 0])),
        "processes": lambda: (process.posterior(x, xt, 0.2, t), bit_process.posterior(bits, bits, 0.2, t)),
        "predictions": lambda: dj.predictions.convert(predict(xt, jnp.full(2, t)), "x0", process, xt, t),
        "distributions": lambda: dj.distributions.Normal(x, w**2 + 1).kl(dj.distributions.Normal(0 * x, 0 * x + 1)),
        "reference": lambda: (mixture.score(x), mixture.predict(schedule)(x, jnp.full(2, t)).value),
        "losses": lambda: dj.losses.exact_score_matching(mixture.score, x),
        "bounds": lambda: dj.bounds.step_cost(process, predict, x, xt, 0.2, t, "posterior"),
        "samplers": lambda: dj.samplers.denoise(dj.samplers.dpmpp_2m(process), predict, key, x, times),
        "sde": lambda: dj.sde.velocity(process, predict)(x, jnp.full(2, t)),
        "conditioning": lambda: mixture.posterior(x[0], jnp.ones(2)).mean,
        "mcmc": lambda: dj.mcmc.leapfrog(mixture.score, x[0], x[1], 0.1, 2),
        "vi": lambda: family(dj.vi.mean_field.start(w[0])).log_prob(w[1]),
        "flows": lambda: dj.flows.planar(x, x + 1, x[:, 0]).inverse_and_log_det(x),
        "drawn losses": lambda: dj.losses.simple(process, predict, key, x, jnp.full(2, t)),
        "drawn bounds": lambda: dj.bounds.diffusion(process, predict, key, x, times[::-1]).total,
        "drawn samples": lambda: dj.samplers.denoise(dj.samplers.ancestral(process), predict, key, x, times),
        "drawn flow": lambda: dj.sde.encode(process, predict, x),  # not drawn, but slow to compile
        "drawn sde": lambda: dj.samplers.denoise(dj.samplers.euler_maruyama(process), predict, key, x, times),
        "drawn chains": lambda: dj.mcmc.run(kernel, key, x[0], 2)[0].position,
        "drawn gradients": lambda: dj.vi.value_and_gradient(
            mixture.log_prob, family, dj.vi.mean_field.start(w[0]), key, 4, "score_leave_one_out"
        ),
    }


def floats(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


@pytest.mark.parametrize("name", list(one_of_each_module(jnp.ones((2, 2)), MIXTURE)))
def test_types_come_out_as_they_went_in(name):
    """float32 stays float32 though x64 is on, 16 bits become float32, and nothing is promoted by chance (strict).

    What is not drawn equals what comes of the same numbers in float64.
    """
    with jax.enable_x64(True):
        for promotion in ("standard", "strict"):
            with jax.numpy_dtype_promotion(promotion):
                for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
                    x = jnp.asarray([[0.5, 0.75], [0.25, 1.0]], dtype)
                    out = jax.eval_shape(lambda x: one_of_each_module(x, MIXTURE)[name](), x)
                    assert {leaf.dtype for leaf in floats(out)} == {jnp.dtype(jnp.float32)}, (dtype, promotion)
        if not name.startswith("drawn"):
            of = jax.jit(lambda x, mixture: one_of_each_module(x, mixture)[name]())
            wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (x, MIXTURE))
            for got, want in zip(floats(of(x, MIXTURE)), floats(of(*wide)), strict=True):
                assert want.dtype == jnp.float64
                np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)
