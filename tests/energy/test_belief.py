"""Deep belief networks of 3-2-2-2 units against all their states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import energy
from diffjax.energy import belief
from diffjax.errors import InputError
from tests.energy.machines import states

KEY = jax.random.key(7)
UNITS = (3, 2, 2, 2)


def log_bits(x, logits):
    return (x * logits - np.logaddexp(0, logits)).sum(-1)


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(5)
    shapes = jax.eval_shape(lambda key: belief.belief_init(key, UNITS), KEY)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def tables(params):
    """log p(v, h_1, h_2) + log Z_top and log q(h_1, h_2 | v), (8, 16), from the definitions in numpy."""
    v, h1, h2 = np.split(states(7), [3, 5], axis=1)
    top = params["machines"][-1]
    log_f = h2 @ top["visible"] + np.logaddexp(0, top["hidden"] + h2 @ top["weights"].astype(float)).sum(1)
    log_q = 0.0
    for layer, (low, high) in enumerate(((v, h1), (h1, h2))):
        tied, up, down = params["machines"][layer], params["up"][layer], params["down"][layer]
        log_q += log_bits(high, tied["hidden"] + up["bias"] + low @ (tied["weights"] + up["weights"]).astype(float))
        given = tied["visible"] + down["bias"] + high @ (tied["weights"] + down["weights"]).T.astype(float)
        log_f += log_bits(low, given)
    return log_f.reshape(8, 16), log_q.reshape(8, 16)


@pytest.mark.slow
def test_weights_are_those_of_the_table_and_dreams_have_the_model_s_law(params):
    log_f, log_q = tables(params)
    num, v = 4000, states(3).astype(np.float32)

    @jax.jit
    def draw(key):
        keys = jax.random.split(key, num)
        log_w = jax.vmap(lambda key: belief.log_weight(params, key, v))(keys)
        top, _ = energy.run_chains(params["machines"][-1], key, jnp.zeros((num, 2)), 40)
        return log_w, belief.dream(params, key, top)[0][0]

    log_w, dreams = (np.asarray(value, float) for value in draw(KEY))
    w, exact = np.exp(log_w), np.exp(log_f).sum(1)
    assert (np.abs(w.mean(0) - exact) < 5 * w.std(0) / num**0.5).all()
    bound = (np.exp(log_q) * (log_f - log_q)).sum(1)
    assert (np.abs(log_w.mean(0) - bound) < 5 * log_w.std(0) / num**0.5).all()
    p = exact / exact.sum()
    found = (dreams[:, None] == states(3)).all(-1).mean(0)
    assert (np.abs(found - p) < 5 * np.sqrt(p * (1 - p) / num)).all()


def test_a_stacked_machine_learns_as_if_there_were_none_above_and_fine_tuning_leaves_the_tied_ones(params):
    """The gradient of the lowest machine is its own, and moves neither direction's part; then the other way round."""
    v = states(3).astype(np.float32)
    chains = [states(num)[:3].astype(np.float32) for num in UNITS[:-1]]
    dreams = [np.ones((5, num), np.float32) for num in UNITS[:-1]]

    @jax.jit
    def gradients(params):
        stacked = jax.grad(lambda p: belief.stacking_loss(p, KEY, v, chains).mean())(params)
        tuned = jax.grad(lambda p: belief.up_down_loss(p, KEY, v, chains[-1], dreams).mean())(params)
        alone = jax.grad(lambda m: energy.persistent_divergence(m, chains[0], v).mean())(params["machines"][0])
        return stacked, tuned, alone, belief.ascend(params, KEY, v)

    stacked, tuned, alone, layers = jax.tree.map(np.asarray, gradients(params))
    for name, leaf in alone.items():
        np.testing.assert_allclose(stacked["machines"][0][name], leaf, atol=1e-6)
    assert not any(leaf.any() for part in ("up", "down") for leaf in jax.tree.leaves(stacked[part]))
    assert all(leaf.any() for machine in stacked["machines"] for leaf in jax.tree.leaves(machine))
    assert not any(leaf.any() for machine in tuned["machines"][:-1] for leaf in jax.tree.leaves(machine))

    # The delta rules of wake-sleep: -(bit - its probability), of v given h_1 while awake, of h_2 given h_1 in dreams.
    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    tied, down = params["machines"][0], params["down"][0]
    mean = sigmoid(tied["visible"] + down["bias"] + layers[1] @ (tied["weights"] + down["weights"]).T)
    np.testing.assert_allclose(tuned["down"][0]["bias"], -(v - mean).mean(0), atol=1e-5)
    tied, up = params["machines"][1], params["up"][1]
    mean = sigmoid(tied["hidden"] + up["bias"] + dreams[1] @ (tied["weights"] + up["weights"]))
    np.testing.assert_allclose(tuned["up"][1]["bias"], -(dreams[2] - mean).mean(0), atol=1e-5)


def test_two_layers_are_too_few():
    with pytest.raises(InputError, match=r"units must be those of v and of at least two hidden layers, not \(3, 2\)"):
        belief.belief_init(KEY, (3, 2))
