"""Categorical diffusion against enumeration in float64: alphabets of two to four letters, two or three places."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2
from small_alphabets import TINY, beliefs, small

from diffjax import bounds, categorical_bound, conditioning, distributions, predictions, processes, samplers, schedules
from diffjax.errors import InputError
from diffjax.predictions import Prediction

KINDS = ["uniform", "masked", *(pytest.param(k, marks=pytest.mark.slow) for k in ("law", "gaussian", "stationary"))]
KINDS.append("matrix")
NUM = 20_000


@functools.cache
def model(kind):
    """A chain, a denoiser that is wrong, and the kernels from t = 1 down that they make."""
    chain = small(kind)
    table = chain.table(0)
    steps = list(itertools.pairwise(chain.times))[::-1]
    return chain, table, [chain.kernel_of_places(beliefs(table), s, t) for s, t in steps]


def chi_square_agrees(counts, law):
    """Whether counts are draws of a law, at 5 standard errors (p > 6e-7)."""
    expected = law * counts.sum()
    assert counts[law < 1e-12].sum() == 0
    there = expected > 1e-9
    statistic = ((counts - expected)[there] ** 2 / expected[there]).sum()
    assert statistic < chi2.isf(6e-7, there.sum() - 1), (counts, expected)


def drawn(stepper, chain, predict, times, seed=0):
    draw = jax.jit(lambda key: samplers.sample(stepper, predict, key, jnp.asarray(times), (NUM, chain.num_places)))
    x = draw(jax.random.key(seed))
    assert x.dtype == jnp.int32
    return np.bincount(chain.index(x), minlength=len(chain.arrays))


@pytest.mark.parametrize("kind", KINDS)
def test_conditionals_are_those_of_the_matrix_exponential(kind):
    chain, _, _ = model(kind)
    p, states = chain.process, np.arange(chain.num_states)
    np.testing.assert_allclose(p.prior((2,)).probs[0] @ jnp.asarray(chain.jumps), p.prior((2,)).probs[0], atol=1e-6)
    pairs = list(itertools.combinations(chain.times, 2))
    s, t = (jnp.repeat(jnp.array([pair[i] for pair in pairs]), 1) for i in (0, 1))
    everywhere = jnp.broadcast_to(states, (len(pairs), len(states)))
    rows = np.asarray(jax.jit(lambda x, s, t: p.transition(x, s, t).probs)(everywhere, s, t))
    x0, xt = (jnp.broadcast_to(a.ravel(), (len(pairs), states.size**2)) for a in np.meshgrid(states, states))
    back = np.asarray(jax.jit(lambda x0, xt, s, t: p.posterior(x0, xt, s, t).log_probs)(x0, xt, s, t))
    for n, (s, t) in enumerate(pairs):
        np.testing.assert_allclose(rows[n], chain.q(s, t), rtol=2e-5, atol=1e-7)
        for m, (a, b) in enumerate(zip(x0[n], xt[n], strict=True)):
            joint = chain.q(0, s)[a] * chain.q(s, t)[:, b]
            if joint.sum() > 1e-12:
                np.testing.assert_allclose(np.exp(back[n, m]), joint / joint.sum(), rtol=2e-5, atol=1e-7)


def enumerated_bound(chain, kernels, p_data):
    """E of `bounds.DiffusionTerms.total` over data and x_t."""
    total = 0.0
    pi, _ = chain.prior
    for weight, x0 in zip(p_data, chain.data, strict=True):
        ends = chain.q(0, 1)[x0]
        total += weight * np.sum(ends * np.log(np.maximum(ends, 1e-300) / np.maximum(pi, 1e-300)))
        for kernel, (s, t) in zip(kernels[::-1], itertools.pairwise(chain.times), strict=True):
            here = np.prod(chain.q(0, t)[x0[:, None], chain.arrays.T], axis=0)  # q(x_t | x_0), (states^D,)
            q = chain.q(0, s)[x0] * chain.q(s, t)[:, chain.arrays].transpose(1, 2, 0)
            q /= np.maximum(q.sum(-1, keepdims=True), TINY)
            ratio = np.log(np.maximum(q, TINY)) - np.log(np.maximum(kernel, TINY))
            total += weight * np.sum(here * np.where(q > 1e-12, q * ratio, 0).sum((1, 2)))
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_bound_weights_and_sampler_are_those_of_the_enumerated_chain(kind):
    """-E total is the enumerated bound, E w the enumerated probability of each array, and samples have that law."""
    chain, table, kernels = model(kind)
    predict, times = chain.predict(table), jnp.asarray(chain.times)
    p_data = np.random.default_rng(1).dirichlet(np.ones(len(chain.data)))
    x0 = jnp.asarray(np.random.default_rng(2).choice(len(chain.data), NUM, p=p_data))
    x0 = jnp.asarray(chain.data)[x0]
    every = jnp.repeat(jnp.asarray(chain.data), 4000, axis=0)

    @jax.jit
    def both(key):
        terms = bounds.diffusion(chain.process, predict, key, x0, times)
        return terms, bounds.trajectory_log_weight(chain.process, predict, key, every, times)

    terms, log_w = both(jax.random.key(3))
    total = np.asarray(terms.total, np.float64)
    assert abs(total.mean() - enumerated_bound(chain, kernels, p_data)) < 5 * total.std() / NUM**0.5
    law = chain.law(kernels)
    w = np.exp(np.asarray(log_w, np.float64)).reshape(len(chain.data), -1)
    error = w.std(1) / w.shape[1] ** 0.5
    assert (np.abs(w.mean(1) - law[chain.index(chain.data)]) < 5 * error + 1e-6).all()
    chi_square_agrees(drawn(samplers.ancestral(chain.process), chain, predict, chain.times[::-1]), law)


@pytest.mark.parametrize("kind", ["uniform", pytest.param("matrix", marks=pytest.mark.slow)])
def test_the_bound_of_continuous_time_is_the_limit_of_short_steps(kind):
    """The integrand against the KL of the enumerated kernels over a step of 1e-5, divided by it."""
    chain, table, _ = model(kind)
    t, step = 0.61, 1e-5  # between two points of the grid
    kernel = chain.kernel_of_places(beliefs(table), t - step, t)
    x0, xt = (np.repeat(chain.data, len(chain.data), 0), np.tile(chain.data, (len(chain.data), 1)))
    found = jax.jit(lambda x0, xt, t: categorical_bound.diffusion_cost(chain.process, chain.predict(table), x0, xt, t))(
        x0, xt, jnp.full(len(x0), t)
    )
    for m, (a, b) in enumerate(zip(x0, xt, strict=True)):
        cost = 0.0
        for i in range(len(a)):
            q = chain.q(0, t - step)[a[i]] * chain.q(t - step, t)[:, b[i]]
            q, p = q / q.sum(), kernel[chain.index(b), i]
            cost += np.sum(q[q > 0] * np.log(q[q > 0] / p[q > 0]))
        np.testing.assert_allclose(found[m], cost / step, rtol=2e-3)


def test_score_entropy_with_an_absorbing_state_is_the_masked_bound():
    """At every x_t that q can make of every x_0, for two schedules; and an unmasked array costs nothing."""
    process, chain = model("masked")[0].process, model("masked")[0]
    table = chain.table(4)
    x0, xt = (np.repeat(chain.data, len(chain.arrays), 0), np.tile(chain.arrays, (len(chain.data), 1)))
    possible = ((xt == x0) | (xt == 2)).all(1)
    x0, xt = x0[possible], xt[possible]
    t = jnp.full(len(x0), 0.37)
    for schedule in (process.schedule, schedules.log_linear()):
        p = processes.categorical(schedule, 2, "masked")
        prediction = chain.predict(table)(jnp.asarray(xt), t)
        long = categorical_bound.score_entropy(p, prediction, x0, xt, t)
        short = categorical_bound.masked_cost(p, chain.predict(table), x0, xt, t)
        np.testing.assert_allclose(long, short, rtol=1e-5, atol=1e-6)
        assert (np.asarray(short)[(xt != 2).all(1)] == 0).all()


@pytest.mark.parametrize("r", [0.5, 0.2])
def test_bits_are_the_two_class_case(r):
    """Posterior, reverse kernel and bound of `binomial`."""
    betas = np.linspace(0.1, 0.7, 5)
    bits, two = processes.binomial(betas, r), processes.categorical(betas, 2, [1 - r, r])
    x0, xt = jnp.array([[0.0, 0, 1, 1]]), jnp.array([[0.0, 1, 0, 1]])
    logits = jnp.array([[-1.0, 0.3, 2.0, 0.1]])
    ours = Prediction(jnp.stack([0 * logits, logits], -1), "logits")
    for s, t in ((0.0, 0.2), (0.2, 0.4), (0.4, 1.0)):
        if s:
            np.testing.assert_allclose(two.posterior(x0, xt, s, t).mean, bits.posterior(x0, xt, s, t).mean, rtol=1e-5)
        a, b = two.reverse(ours, xt, s, t), bits.reverse(Prediction(logits, "logits"), xt, s, t)
        np.testing.assert_allclose(a.mean, b.mean, rtol=1e-5)
        np.testing.assert_allclose(a.entropy(), b.entropy(), rtol=1e-5)
    s, t = 0.2, 0.6
    a = bounds.step_cost(two, lambda *_: ours, x0, xt, s, t, "posterior")
    b = bounds.step_cost(bits, lambda *_: Prediction(logits, "logits"), x0, xt, s, t, "posterior")
    np.testing.assert_allclose(a, b, rtol=1e-5)


def test_tau_leaping_is_the_enumerated_leap():
    chain, table, kernels = model("uniform")
    leaps = []
    for s, t in list(itertools.pairwise(chain.times))[::-1]:
        if s == 0:
            leaps.append(kernels[-1])
            continue
        at = 0.5 * (s + t) if t == 1 else t
        rate = (chain.rate(at + 1e-4) - chain.rate(at - 1e-4)) / 2e-4 if t == 1 else None
        rate = chain.rate(t) - chain.rate(s) if rate is None else rate * (t - s)
        # The rates of a small step, times how often it fits into this one: L is linear between points of the grid.
        small_step = 1e-6
        kernel = chain.kernel_of_places(beliefs(table), at - small_step, at)
        jumps = kernel.copy()
        jumps[np.arange(len(jumps))[:, None], np.arange(chain.num_places), chain.arrays] = 0
        jumps *= (t - s) / small_step
        total = jumps.sum(-1, keepdims=True)
        leap = jumps / total * -np.expm1(-total)
        leap[np.arange(len(jumps))[:, None], np.arange(chain.num_places), chain.arrays] = np.exp(-total)[..., 0]
        leaps.append(leap)
    counts = drawn(samplers.tau_leaping(chain.process), chain, chain.predict(table), chain.times[::-1])
    chi_square_agrees(counts, chain.law(leaps))


@pytest.mark.parametrize("eta", [0.6, pytest.param(0.0, marks=pytest.mark.slow)])
def test_remasking_is_the_enumerated_chain_and_keeps_the_marginals(eta):
    chain, table, kernels = model("masked")
    mine = []
    for n, (s, t) in enumerate(list(itertools.pairwise(chain.times))[::-1]):
        alpha_s, alpha_t = 1 - s, 1 - t
        rho = eta * min(1.0, (1 - alpha_s) / max(alpha_t, 1e-30))
        kernel = np.zeros_like(kernels[n])
        for m, x in enumerate(chain.arrays):
            for i, here in enumerate(x):
                if here == 2:
                    kernel[m, i, 2] = (1 - alpha_s - rho * alpha_t) / (1 - alpha_t)
                    kernel[m, i, :2] = (1 - kernel[m, i, 2]) * beliefs(table)[m, i]
                else:
                    kernel[m, i, here], kernel[m, i, 2] = 1 - rho, rho
        if not eta:
            np.testing.assert_allclose(kernel, kernels[n], atol=1e-12)
        # With x_0 in place of p̂ the marginal at t becomes that at s.
        stays = np.array([1 - rho, (alpha_s - (1 - rho) * alpha_t) / (1 - alpha_t)])
        np.testing.assert_allclose(alpha_t * stays[0] + (1 - alpha_t) * stays[1], alpha_s, atol=1e-12)
        mine.append(kernel)
    counts = drawn(samplers.remasking(chain.process, eta), chain, chain.predict(table), chain.times[::-1])
    chi_square_agrees(counts, chain.law(mine))


def test_guided_categories_are_drawn_from_the_chain_of_the_mixed_logits():
    chain, table, _ = model("masked")
    other, w = chain.table(7), 1.7
    guided = conditioning.classifier_free_categories(chain.predict(table), chain.predict(other), w)
    p = beliefs(table) ** w * beliefs(other) ** (1 - w)
    p /= p.sum(-1, keepdims=True)
    kernels = [chain.kernel_of_places(p, s, t) for s, t in list(itertools.pairwise(chain.times))[::-1]]
    counts = drawn(samplers.ancestral(chain.process), chain, guided, chain.times[::-1])
    chi_square_agrees(counts, chain.law(kernels))


def test_gradients_are_finite_next_to_impossible_classes():
    chain = model("masked")[0]
    x0, xt, t = jnp.array([[0, 1], [1, 1]]), jnp.array([[0, 2], [2, 2]]), jnp.array([0.5, 1.0])
    for s in (0.25, 0.0):

        def cost(value, s=s):
            def predict(xt, t):
                return Prediction(value, "logits")

            if s == 0:
                return bounds.reconstruction_cost(chain.process, predict, x0, xt, t, "posterior")[0].sum()
            return bounds.step_cost(chain.process, predict, x0, xt, s, t, "posterior")[0].sum()

        for size in (0.0, 60.0):
            value, slope = jax.value_and_grad(cost)(jnp.full((2, 2, 2), jnp.array([size, -size])))
            assert np.isfinite(value) and np.isfinite(slope).all()


def test_the_distribution_is_scipy_s():
    from scipy.stats import entropy

    logits = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    a, b = distributions.Categorical(jnp.asarray(logits)), distributions.Categorical(jnp.asarray(logits[::-1]))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(a.kl(b), entropy(p, p[::-1], axis=-1), rtol=1e-5)
    np.testing.assert_allclose(a.entropy(), entropy(p, axis=-1), rtol=1e-5)
    np.testing.assert_allclose(a.mean, p @ np.arange(5), rtol=1e-5)
    np.testing.assert_allclose(a.variance, p @ np.arange(5) ** 2 - (p @ np.arange(5)) ** 2, rtol=1e-4)
    np.testing.assert_allclose(a.log_prob(jnp.array([1, 4])), np.log(p[[0, 1], [1, 4]]), rtol=1e-5)
    assert (np.asarray(a.log_prob(jnp.array([-1.0, 0.5]))) == -np.inf).all()
    wide = distributions.Categorical(jnp.broadcast_to(jnp.asarray(logits), (NUM, 2, 5)))
    for key in (jax.random.key(0), jax.random.split(jax.random.key(1), NUM)):
        x = np.asarray(wide.sample(key))
        for i in (0, 1):
            chi_square_agrees(np.bincount(x[:, i], minlength=5), p[i].astype(float))
    sure = distributions.Categorical(jnp.array([[0.0, -jnp.inf]]))
    assert float(sure.entropy()[0]) == 0 and int(sure.sample(jax.random.key(0))[0]) == 0


def test_what_cannot_be_is_refused():
    make = processes.categorical
    for arguments, message in (
        ((schedules.cosine(10), 3, "masked"), "needs a schedule that masks everything"),
        ((schedules.vp(), 3, "masked"), "needs a schedule that masks everything"),
        ((schedules.vp(), 1), "num_classes=1 must be"),
        ((schedules.vp(), 3, "absorbing"), "kind must be"),
        ((schedules.vp(), 3, [0.5, 0.5]), "shape"),
        ((schedules.vp(), 2, [0.5, 0.6]), "whose sum is 1"),
        ((schedules.vp(), 2, np.ones((2, 2))), "each row"),
        ((schedules.vp(), 2, np.eye(2)), "one stationary law"),
        ((schedules.vp(), 2, "gaussian", 0.0), "width=0"),
    ):
        with pytest.raises(InputError, match=message):
            make(*arguments)
    chain, table, _ = model("uniform")
    x = jnp.zeros((1, 2), int)
    with pytest.raises(InputError, match="'forward'"):
        chain.process.reverse(chain.predict(table)(x, x[:, 0]), x, 0.0, 0.5, "forward")
    with pytest.raises(InputError, match="kind 'logits' and shape"):
        chain.process.reverse(predictions.Prediction(x, "x0"), x, 0.0, 0.5)
    for name in ("remasking", "first_hitting"):
        with pytest.raises(InputError, match="masked processes"):
            samplers.make(name, chain.process, {})
    with pytest.raises(InputError, match="categorical processes, not of Gaussian"):
        samplers.make("tau_leaping", processes.gaussian(schedules.vp()), {})
    with pytest.raises(InputError, match="classes have no score"):
        samplers.make("heun", chain.process, {})
    with pytest.raises(InputError, match="eta=2"):
        samplers.remasking(model("masked")[0].process, 2.0)
    with pytest.raises(InputError, match="masked_cost"):
        categorical_bound.masked_cost(chain.process, chain.predict(table), x, x, jnp.ones(1))
    with pytest.raises(InputError, match="symmetric"):
        processes.metropolis(np.array([[0.0, 1], [0.5, 0.5]]), [0.5, 0.5])
    with pytest.raises(InputError, match="'logits', not 'x0'"):
        eps = predictions.x0(lambda x, t: x)
        conditioning.classifier_free_categories(eps, eps, 1.0)(x, x[:, 0])
