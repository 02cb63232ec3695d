"""The binomial process against enumeration: bits are few enough to list every path of a chain."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import bounds, distributions, predictions, processes, samplers, schedules
from diffjax.errors import InputError
from diffjax.predictions import Prediction

T = 6
PRIORS = [0.5, 0.2]


def keeps(betas):
    return np.concatenate([[1.0], np.cumprod(1 - betas)])


def paper_betas(num_steps=T):
    return 1 / np.arange(num_steps, 0, -1)


def kernel(beta, r):
    """[from, to], the transition matrix of one step."""
    return (1 - beta) * np.eye(2) + beta * np.array([[1 - r, r], [1 - r, r]])


@pytest.mark.slow
@pytest.mark.parametrize("r", PRIORS)
@pytest.mark.parametrize("betas", [paper_betas(), np.linspace(0.01, 0.6, T)], ids=["paper", "linear"])
def test_conditionals_are_those_of_the_matrix_product(betas, r):
    process = processes.binomial(betas, r)
    for i, j in itertools.combinations(range(T + 1), 2):
        to_s = np.linalg.multi_dot([np.eye(2), np.eye(2), *(kernel(b, r) for b in betas[:i])])
        s_to_t = np.linalg.multi_dot([np.eye(2), np.eye(2), *(kernel(b, r) for b in betas[i:j])])
        s, t = i / T, j / T
        for a, b in itertools.product((0, 1), repeat=2):
            x0, xt = jnp.array([float(a)]), jnp.array([float(b)])
            np.testing.assert_allclose(process.marginal(x0, s).mean, to_s[a, 1], rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(process.transition(x0, s, t).mean, s_to_t[a, 1], rtol=1e-5, atol=1e-7)
            if i:
                joint = to_s[a] * s_to_t[:, b]
                expected = joint[1] / joint.sum()
                np.testing.assert_allclose(process.posterior(x0, xt, s, t).mean, expected, rtol=1e-5)


@pytest.mark.slow
def test_the_paper_s_betas_leave_nothing_of_the_data():
    process = processes.binomial(paper_betas(), 0.2)
    np.testing.assert_allclose(process.schedule.alpha(process.schedule.times) ** 2, 1 - np.arange(T + 1) / T, atol=1e-6)
    for x0 in (0.0, 1.0):
        np.testing.assert_allclose(process.marginal(jnp.array([x0]), 1.0).kl(process.prior((1,))), 0, atol=1e-6)


def exact_logits(process, p):
    """The log-odds of x_0 = 1 given one bit of x_t, when the data is B(p)."""

    def fn(xt, t):
        rate = process.schedule.integrated_rate(t)[:, None]
        keep, r = jnp.exp(-rate), process.prob

        def likelihood(x0):
            one = keep * x0 + (1 - keep) * r
            return xt * jnp.log(one) + (1 - xt) * jnp.log1p(-one)

        return jnp.log(p) - jnp.log1p(-p) + likelihood(1.0) - likelihood(0.0)

    return predictions.logits(fn)


@pytest.mark.slow
def test_one_bit_has_no_gap_but_the_prior_s():
    """With exact p(x_0 | x_t) the reverse chain of one bit is the exact reverse of q: what is left of the gap is
    KL(q(x_T) ‖ p(x_T))."""
    r, p, num_steps = 0.3, 0.8, 12
    betas = np.linspace(0.02, 0.3, num_steps)
    process = processes.binomial(betas, r)
    predict = exact_logits(process, p)
    # Exact expectations: weight every value of (x_0, x_t) by its probability.
    grid = process.schedule.times
    pairs = jnp.array(list(itertools.product((0.0, 1.0), repeat=2)))
    x0, xt = pairs[:, :1], pairs[:, 1:]
    data = jnp.where(x0 == 1, p, 1 - p)[:, 0]

    def weight(t):
        return data * jnp.exp(process.marginal(x0, t).log_prob(xt))[:, 0]

    total = float((data * process.marginal(x0, 1.0).kl(process.prior(x0.shape))[:, 0]).sum() / 2)
    for s, t in itertools.pairwise(grid[1:]):
        total += float((weight(t) * bounds.step_cost(process, predict, x0, xt, s, t, "posterior")[0]).sum())
    t = grid[1]
    total += float((weight(t) * bounds.reconstruction_cost(process, predict, x0, xt, t, "posterior")[0]).sum())
    keep = keeps(betas)[-1]
    end = keep * p + (1 - keep) * r
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    gap = end * np.log(end / r) + (1 - end) * np.log((1 - end) / (1 - r))
    np.testing.assert_allclose(total, entropy + gap, rtol=1e-5)


@pytest.mark.slow
def test_the_bound_of_the_library_estimates_that_sum():
    process = processes.binomial(paper_betas(8), 0.5)
    p, n = 0.7, 4000
    x0 = jax.random.bernoulli(jax.random.key(0), p, (n, 5)).astype(jnp.float32)
    times = process.schedule.times
    terms = jax.jit(lambda key: bounds.diffusion(process, exact_logits(process, p), key, x0, times))(jax.random.key(1))
    # Five independent bits, no gap with the paper's betas: the mean cost is five entropies.
    expected = -5 * (p * np.log(p) + (1 - p) * np.log(1 - p))
    total = np.asarray(terms.total, np.float64)
    assert abs(total.mean() - expected) < 5 * total.std() / np.sqrt(n)


def test_ancestral_sampling_draws_bits_of_the_data_s_probability():
    process = processes.binomial(paper_betas(8), 0.2)
    n = 20_000
    draw = jax.jit(
        lambda key: samplers.sample(
            samplers.ancestral(process), exact_logits(process, 0.7), key, process.schedule.times[::-1], (n, 1)
        )
    )
    x = np.asarray(draw(jax.random.key(0)))
    assert set(np.unique(x)) == {0.0, 1.0}
    assert abs(x.mean() - 0.7) < 5 * np.sqrt(0.7 * 0.3 / n)


@pytest.mark.slow
def test_probabilities_next_to_0_and_1_keep_finite_costs_and_gradients():
    process = processes.binomial(np.full(4, 1e-6), 0.5)
    x0, xt = jnp.array([[0.0], [1.0]]), jnp.array([[0.0], [1.0]])
    times = process.schedule.times

    def cost(logit):
        def predict(xt, t):
            return Prediction(logit * (2 * xt - 1), "logits")

        inner, _ = bounds.step_cost(process, predict, x0, xt, times[1], times[2], "posterior")
        first, _ = bounds.reconstruction_cost(process, predict, x0, xt, times[1], "posterior")
        return (inner + first).sum()

    for logit in (0.0, 30.0, -30.0):
        value, slope = jax.value_and_grad(cost)(logit)
        assert np.isfinite(value)
        assert np.isfinite(slope)
    np.testing.assert_allclose(
        cost(-30.0), 60 + float(cost(30.0)), rtol=0.1
    )  # 30 nats for each wrong bit, at the least


def test_the_two_kinds_of_prediction_agree():
    process = processes.binomial(paper_betas(), 0.4)
    xt = jnp.array([[0.0, 1.0, 1.0]])
    logits = jnp.array([[-2.0, 0.3, 4.0]])
    for s, t in ((0.0, 1 / T), (2 / T, 5 / T)):
        a = process.reverse(Prediction(logits, "logits"), xt, s, t)
        b = process.reverse(Prediction(jax.nn.sigmoid(logits), "x0"), xt, s, t)
        np.testing.assert_allclose(a.mean, b.mean, rtol=1e-5)
        np.testing.assert_allclose(
            predictions.convert(Prediction(logits, "logits"), "x0", process, xt, t), jax.nn.sigmoid(logits), rtol=1e-6
        )


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"prior probability.*1\.5"):
        processes.binomial(paper_betas(), 1.5)
    with pytest.raises(InputError, match="betas"):
        processes.binomial([0.5, 1.0, 0.5])
    with pytest.raises(InputError, match="betas"):
        schedules.from_betas([0.5, 1.5])
    process = processes.binomial(paper_betas())
    xt = jnp.zeros((1, 1))
    with pytest.raises(InputError, match="'eps'"):
        process.reverse(Prediction(xt, "eps"), xt, 0.0, 0.5)
    with pytest.raises(InputError, match="'forward'"):
        process.reverse(Prediction(xt, "logits"), xt, 0.0, 0.5, "forward")
    gaussian = processes.gaussian(schedules.linear(10))
    with pytest.raises(InputError, match="logits"):
        predictions.convert(Prediction(xt, "logits"), "eps", gaussian, xt, 0.5)
    assert isinstance(process.prior((2,)), distributions.Bernoulli)
