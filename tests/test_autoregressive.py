"""Products of conditionals against tables that are enumerated, and every network's steps against its one pass."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import autoregressive as ar
from diffjax.errors import InputError
from diffjax.zoo.autoregressive import networks
from diffjax.zoo.autoregressive.networks import of_sets

KEY = jax.random.key(0)
ORDER = np.array([2, 0, 1])
TABLE = np.random.default_rng(0).normal(size=(3, 3, 3))  # place of the order, class before, class
ALL = np.array(list(itertools.product(range(3), repeat=3)))


def by_table():
    """A Markov chain along the order: place o(i) sees place o(i - 1)."""

    def logits(x):
        in_order = x[:, ORDER]
        before = jnp.concatenate([jnp.zeros_like(in_order[:, :1]), in_order[:, :-1]], 1)
        found = jnp.asarray(TABLE)[jnp.arange(3), before]
        return jnp.zeros_like(found).at[:, ORDER].set(found)

    def step(state, i, previous):
        return state, jnp.asarray(TABLE)[i, jnp.where(i == 0, 0, previous)]

    return ar.Conditionals(ORDER, 3, logits, lambda batch: (), step)


def probabilities():
    """Of all 27 arrays, in numpy."""
    soft = np.exp(TABLE) / np.exp(TABLE).sum(-1, keepdims=True)
    o = ALL[:, ORDER]
    return soft[0, 0, o[:, 0]] * soft[1, o[:, 0], o[:, 1]] * soft[2, o[:, 1], o[:, 2]]


def test_the_product_of_a_table():
    @jax.jit
    def each(x):
        return ar.log_prob(by_table(), x), ar.logits_by_steps(by_table(), x), by_table().logits(x)

    log_p, steps, logits = each(ALL)
    np.testing.assert_allclose(np.exp(log_p), probabilities(), rtol=1e-5)
    np.testing.assert_allclose(steps, logits, rtol=1e-6)


def test_samples_have_the_law_of_the_table_also_where_a_part_is_given():
    """Chi-square of 26 degrees of freedom, mean 26 and deviation √52; given o(1), of 8."""
    n, p = 20_000, probabilities()
    drawn = np.asarray(jax.jit(lambda key: ar.sample(by_table(), key, n))(KEY))
    counts = np.bincount(drawn @ [9, 3, 1], minlength=27)
    assert abs(((counts - n * p) ** 2 / (n * p)).sum() - 26) < 5 * np.sqrt(52)
    given = jnp.full((n, 3), 1)
    drawn = np.asarray(jax.jit(lambda key: ar.sample(by_table(), key, n, given, 1))(KEY))
    assert (drawn[:, 2] == 1).all()
    rest = p * (ALL[:, 2] == 1)
    rest = rest[rest > 0] / rest.sum()
    counts = np.bincount(drawn @ [9, 3, 1], minlength=27)[ALL[:, 2] == 1]
    assert abs(((counts - n * rest) ** 2 / (n * rest)).sum() - 8) < 5 * np.sqrt(16)


def test_orders_are_permutations():
    np.testing.assert_array_equal(ar.check_order([2, 0, 1], 3), ORDER)
    for order in ([0, 1, 1], [0, 1], [1, 2, 3], [[0, 1, 2]]):
        with pytest.raises(InputError, match=r"must have each of 0 \.\. 2 once"):
            ar.check_order(order, 3)


# Networks --------------------------------------------------------------------------------------------------------

SHAPE = (2, 2, 1)  # of images with 3 levels: 81 arrays
FEW = {  # two are fast
    "made": lambda shape, k: networks.made(shape, k, (24, 24)),
    "nade": lambda shape, k: networks.nade(shape, k, 8),
    "deep_nade": lambda shape, k: networks.deep_nade(shape, k, (16,)),
    "transformer": lambda shape, k: networks.transformer(shape, k, 8, 2, 2),
    "pixel_cnn": lambda shape, k: networks.pixel_cnn(shape, k, 4, 1, 2),
    "codes": lambda shape, k: networks.pixel_cnn(shape[:2], k, 4, 1, 0),
}
OF_81 = np.array(list(itertools.product(range(3), repeat=4)))


def shaken(init, *arguments):
    """Parameters that are nowhere zero: some layers begin at zero and would hide what they see."""
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(init, KEY, *arguments)
    return jax.tree.map(lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape), jnp.float32), shapes)


def uncached(conditionals):
    """The same conditionals, whose state is the array as far as it is known: each step is a whole pass."""
    order = jnp.asarray(conditionals.order)

    def step(x, i, previous):
        x = jnp.where(i > 0, x.at[:, order[i - 1]].set(previous), x)
        return x, conditionals.logits(x)[:, order[i]]

    return conditionals._replace(init=lambda batch: jnp.zeros((batch, len(order)), jnp.int32), step=step)


@pytest.mark.fast(2)
@pytest.mark.parametrize("name", list(FEW))
def test_a_network_is_normalised_strictly_causal_and_its_steps_are_its_pass(name):
    """The probabilities of all 81 arrays sum to 1; changing a place changes the logits of later places alone."""
    network = FEW[name](SHAPE, 3)
    order = np.array([2, 0, 3, 1]) if network.any_order else np.arange(4)
    conditionals = network.conditionals(shaken(network.init), order, 1)

    @jax.jit
    def both(x):
        return conditionals.logits(x), ar.logits_by_steps(conditionals, x)

    logits, steps = (np.float64(y) for y in both(jnp.asarray(OF_81)))
    np.testing.assert_allclose(steps, logits, atol=2e-4, rtol=1e-5)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    p = np.exp(np.take_along_axis(log_probs, OF_81[..., None], -1)[..., 0].sum(1))
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-5)
    rank = np.argsort(order)
    code = OF_81 @ [27, 9, 3, 1]
    for d in range(4):
        other = OF_81.copy()
        other[:, d] = (other[:, d] + 1) % 3
        moved = logits[np.argsort(code)[other @ [27, 9, 3, 1]]]
        seen = np.abs(moved - logits).max((0, 2)) > 1e-6
        np.testing.assert_array_equal(seen, rank > rank[d], err_msg=f"what sees place {d}")


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", ["nade", "made", "transformer", "pixel_cnn"])
def test_samples_with_a_state_are_those_without(name):
    """Two hundred arrays drawn with the same key, by whole passes over what is known, and by steps."""
    network = FEW[name](SHAPE, 3)
    conditionals = network.conditionals(shaken(network.init), np.array([2, 0, 3, 1]) if network.any_order else range(4))
    drawn, want = jax.jit(lambda key: [ar.sample(c, key, 200) for c in (conditionals, uncached(conditionals))])(KEY)
    np.testing.assert_array_equal(drawn, want)
    assert len(np.unique(drawn, axis=0)) > 10


@pytest.mark.slow
def test_colours_are_causal_and_normalised_channel_by_channel():
    """One pixel of three channels and two levels: eight arrays; and steps of a 2x3 image of two channels."""
    network = networks.pixel_cnn((1, 1, 3), 2, 4, 1, 3)
    x = np.array(list(itertools.product(range(2), repeat=3)))
    conditionals = network.conditionals(shaken(network.init), np.arange(3))
    p = np.exp(np.float64(jax.jit(lambda x: ar.log_prob(conditionals, x))(jnp.asarray(x))))
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-5)
    assert len(set(np.round(p, 6))) == 8
    network = networks.pixel_cnn((2, 3, 2), 5, 4, 2, 3)
    conditionals = network.conditionals(shaken(network.init), np.arange(12))
    x = jnp.asarray(np.random.default_rng(0).integers(0, 5, (3, 12)))
    steps, logits = jax.jit(lambda x: (ar.logits_by_steps(conditionals, x), conditionals.logits(x)))(x)
    np.testing.assert_allclose(steps, logits, atol=5e-4, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transformer", "codes"])
def test_a_condition_is_seen_by_all_places_and_by_steps(name):
    network = FEW[name](SHAPE, 3)
    rng = np.random.default_rng(0)
    given, x = rng.normal(size=(5, 2, 2, 3)).astype(np.float32), jnp.asarray(rng.integers(0, 3, (5, 4)))
    params = shaken(network.init, jnp.asarray(given[:1]))

    @jax.jit
    def both(given):
        conditionals = network.conditionals(params, np.arange(4), 0, given)
        return conditionals.logits(x), ar.logits_by_steps(conditionals, x)

    logits, steps = both(given)
    np.testing.assert_allclose(steps, logits, atol=2e-4)
    for place in range(4):
        other = given.copy()
        other[:, place // 2, place % 2] += 1.0
        moved, by_steps = both(other)
        np.testing.assert_allclose(by_steps, moved, atol=2e-4)
        assert np.abs(moved - logits).max((0, 2))[place] > 1e-6


@pytest.mark.slow
def test_the_log_likelihood_of_samples_is_minus_the_entropy():
    network = FEW["transformer"](SHAPE, 3)
    conditionals = network.conditionals(shaken(network.init), np.arange(4))
    log_p = np.float64(jax.jit(lambda x: ar.log_prob(conditionals, x))(OF_81))
    drawn = jax.jit(lambda key: ar.log_prob(conditionals, ar.sample(conditionals, key, 20_000)))(KEY)
    entropy = -(np.exp(log_p) * log_p).sum()
    assert abs(-np.mean(drawn) - entropy) < 5 * np.std(drawn) / np.sqrt(20_000)


def test_sets_of_places_are_conditionals_in_any_order():
    """A network of sets by hand, logits = the number of seen places times a row, and what is not seen has no effect."""
    row = jnp.asarray(TABLE[0])

    def network(x, seen):
        total = (seen[..., None] * jax.nn.one_hot(x, 3)).sum(1)
        return jnp.einsum("bk,kc->bc", total, row)[:, None] + jnp.zeros((1, 3, 1))

    conditionals = of_sets(network, jnp.asarray(ORDER), 3)
    logits, steps = jax.jit(lambda x: (conditionals.logits(x), ar.logits_by_steps(conditionals, x)))(ALL)
    in_order = np.eye(3)[ALL[:, ORDER]]
    for i, d in enumerate(ORDER):
        np.testing.assert_allclose(logits[:, d], in_order[:, :i].sum(1) @ TABLE[0], atol=1e-5)
    np.testing.assert_allclose(steps, logits, atol=1e-5)
