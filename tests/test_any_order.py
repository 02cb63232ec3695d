"""Masked models as autoregressive ones, of two classes at three places: all arrays, masks and orders are enumerated."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2
from small_alphabets import Small, beliefs

from diffjax import any_order, autoregressive, categorical_bound, processes, samplers, schedules
from diffjax.errors import InputError

ORDERS = list(itertools.permutations(range(3)))
JUMPS = np.zeros((3, 3))
JUMPS[:, 2] = 1


def chain(schedule):
    return Small(processes.categorical(schedule, 2, "masked"), JUMPS, 2, 3, np.linspace(0, 1, 4))


LINEAR = chain(schedules.log_linear())
P = np.random.default_rng(0).dirichlet(np.ones(8))  # of the arrays `LINEAR.data`


def exact():
    """Logits of p(x_0^i | the places of x_t that are not masked), of the law P, by summing over arrays."""
    logits = np.zeros((27, 3, 2))
    for n, x in enumerate(LINEAR.arrays):
        fits = ((x == 2) | (LINEAR.data == x)).all(1)
        for i, k in itertools.product(range(3), range(2)):
            with np.errstate(divide="ignore"):
                logits[n, i, k] = np.log(P[fits & (LINEAR.data[:, i] == k)].sum())
    return np.maximum(logits, -50)


def log_p_of_orders(table):
    """(orders, arrays), log p_o(x) by numpy."""
    log_p = np.zeros((len(ORDERS), 8))
    for o, order in enumerate(ORDERS):
        for n, x in enumerate(LINEAR.data):
            seen = np.full(3, 2)
            for place in order:
                log_p[o, n] += np.log(beliefs(table)[LINEAR.index(seen), place, x[place]])
                seen[place] = x[place]
    return log_p


def masked_bound(small, table):
    """-log p(x) of every array up to the bound's gap: masks are enumerated, time is integrated by Gauss-Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    t, weights = (nodes + 1) / 2, weights / 2
    alpha = np.exp(-small.rate(t))
    masks = np.array(list(itertools.product((0, 1), repeat=3)))
    parts = [(n, m, i) for n in range(8) for m in range(8) for i in range(len(t))]
    x0 = np.array([small.data[n] for n, _, _ in parts])
    xt = np.array([np.where(masks[m], 2, small.data[n]) for n, m, _ in parts])
    time = np.array([t[i] for _, _, i in parts], np.float32)
    cost = np.asarray(
        jax.jit(lambda a, b, c: categorical_bound.diffusion_cost(small.process, small.predict(table), a, b, c))(
            x0, xt, time
        )
    )
    total = np.zeros(8)
    for (n, m, i), c in zip(parts, cost, strict=True):
        total[n] += weights[i] * np.prod(np.where(masks[m], 1 - alpha[i], alpha[i])) * c
    return total


@pytest.mark.parametrize("denoiser", ["exact", "wrong"])
def test_the_masked_bound_is_the_mean_over_orders_for_every_schedule(denoiser):
    """With the exact conditionals both are log p, in every order; with others they are equal and below log p."""
    table = exact() if denoiser == "exact" else LINEAR.table(3)
    log_p = log_p_of_orders(table)
    found = -masked_bound(LINEAR, table)
    np.testing.assert_allclose(found, log_p.mean(0), rtol=2e-5)
    if denoiser == "exact":
        np.testing.assert_allclose(log_p, np.tile(np.log(P), (6, 1)), rtol=1e-10)
        np.testing.assert_allclose(found, np.log(P), rtol=2e-5)
    else:
        other = chain(Quadratic())
        np.testing.assert_allclose(-masked_bound(other, table), found, rtol=2e-5)
        assert log_p.std(0).min() > 0.01  # the orders differ, so that the mean is of something


class Quadratic(schedules.VariancePreserving):
    """alpha_bar = 1 - t²."""

    no_signal_at_end = True

    def integrated_rate(self, t):
        return -schedules.log(1 - jnp.asarray(t) ** 2)


@pytest.mark.parametrize("order", [ORDERS[3], ORDERS[5]])
def test_conditionals_are_those_of_the_denoiser_in_this_order(order):
    """log p(x) in one pass, by steps with a state, and by numpy; the probabilities of all arrays sum to 1."""
    table = LINEAR.table(4)
    found = any_order.masked_conditionals(LINEAR.process, LINEAR.predict(table), (3,), order)
    x = jnp.asarray(LINEAR.data)
    log_p = autoregressive.log_prob(found, x)
    np.testing.assert_allclose(log_p, log_p_of_orders(table)[ORDERS.index(order)], rtol=1e-5)
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(autoregressive.logits_by_steps(found, x), found.logits(x), rtol=1e-5, atol=1e-6)


def test_first_hitting_draws_the_mean_over_orders():
    """Its three steps are exact in continuous time: chi-square against the mean of p_o over all orders."""
    table, num = LINEAR.table(5), 20_000
    stepper = samplers.first_hitting(LINEAR.process)
    times = jnp.linspace(1.0, 0.0, 4)
    draw = jax.jit(lambda key: samplers.sample(stepper, LINEAR.predict(table), key, times, (num, 3)))
    x = np.asarray(draw(jax.random.key(0)))
    assert x.max() < 2
    counts = np.bincount(x @ [4, 2, 1], minlength=8)
    expected = num * np.exp(log_p_of_orders(table)).mean(0)
    assert ((counts - expected) ** 2 / expected).sum() < chi2.isf(6e-7, 7)


def test_the_network_is_told_the_time_of_the_share_that_is_masked():
    """With n of D places masked, 1 - alpha = n/D: of log_linear t = n/D, of 1 - t² its root."""
    x = jnp.asarray(LINEAR.data)
    for small, times in ((LINEAR, [1, 2 / 3, 1 / 3]), (chain(Quadratic()), np.sqrt([1, 2 / 3, 1 / 3]))):
        told = []

        def predict(xt, t, small=small, told=told):
            jax.debug.callback(lambda t: told.append(float(t[0])), t)
            return small.predict(LINEAR.table(0))(xt, t)

        found = any_order.masked_conditionals(small.process, predict, (3,), (0, 1, 2))
        jax.block_until_ready(found.logits(x))
        jax.effects_barrier()
        np.testing.assert_allclose(sorted(told, reverse=True), times, rtol=1e-5)


def test_what_cannot_be_is_refused():
    predict = LINEAR.predict(LINEAR.table(0))
    for order in ((0, 1), (0, 1, 1), (0, 1, 3)):
        with pytest.raises(InputError, match=r"order must be a permutation of 0 \.\. 2"):
            any_order.masked_conditionals(LINEAR.process, predict, (3,), order)
    uniform = processes.categorical(schedules.log_linear(), 2)
    with pytest.raises(InputError, match="needs a masked process"):
        any_order.masked_conditionals(uniform, predict, (3,), (0, 1, 2))
