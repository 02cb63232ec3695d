"""Persistent chains, running statistics and a second mean of the parameters: a small Boltzmann machine trained by
persistent contrastive divergence (Tieleman 2008), centred by the running mean of its data (Montavon & Müller 2012)."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import System

from diffjax.memory import Memory
from diffjax.training import plan
from diffjax.training.checkpoint import Checkpointer
from diffjax.training.config import training_config
from diffjax.training.loop import abstract_state
from diffjax.training.sharding import parallelize
from diffjax.training.state import init_state, optimizer
from diffjax.training.step import make_step

VISIBLE, HIDDEN, BATCH, STEPS = 64, 16, 16, 6
FSDP = (("data", 1), ("model", -1))
RATE = 0.01


def inputs(params, v, mean):
    return params["hidden"] + (v - mean) @ params["weights"]


def free_energy(params, v, mean):
    """-log sum_h exp(a v + b h + (v - mean) W h), for binary v and h."""
    return -(v @ params["visible"] + jnp.sum(jax.nn.softplus(inputs(params, v, mean)), axis=-1))


def init(key):
    weights = 0.1 * jax.random.normal(key, (VISIBLE, HIDDEN))
    return {"weights": weights, "visible": jnp.zeros(VISIBLE), "hidden": jnp.zeros(HIDDEN)}


def loss(params, keys, batch):
    mean = batch["memory"]["mean"]
    return free_energy(params, batch["image"], mean) - free_energy(params, batch["chain"], mean)


def begin(params):
    chains = (np.arange(BATCH * VISIBLE).reshape(BATCH, VISIBLE) % 3 == 0).astype(np.float32)
    return {"chains": jnp.array(chains), "mean": jnp.full(VISIBLE, 0.5), "slow": params}


def update(memory, key, params, batch, losses):
    mean = 0.9 * memory["mean"] + 0.1 * batch["image"].mean(0)
    up, down = jax.random.split(key)
    h = jax.random.uniform(up, (BATCH, HIDDEN)) < jax.nn.sigmoid(inputs(params, batch["chain"], mean))
    v = jax.random.uniform(down, (BATCH, VISIBLE)) < jax.nn.sigmoid(params["visible"] + h @ params["weights"].T)
    slow = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, memory["slow"], params)
    return {"chains": v.astype(float), "mean": mean, "slow": slow}


machine = System(init, loss, Memory(begin, lambda memory, key, num: {"chain": memory["chains"]}, update))


PATTERNS = np.random.default_rng(0).integers(0, 2, (2, VISIBLE))


def draw(rng, num):
    """One of two patterns, of which a tenth of the pixels are turned."""
    return PATTERNS[rng.integers(0, 2, num)] ^ (rng.random((num, VISIBLE)) < 0.1)


def batch_of_step(n):
    return {"image": draw(np.random.default_rng([3, n]), BATCH).astype(np.float32)}


@functools.cache
def first_state():
    return jax.device_get(
        jax.jit(lambda key: init_state(key, machine, optimizer(training_config({}))))(jax.random.key(0))
    )


@functools.cache
def layout_of(mode, devices, axes=(("data", -1),), accumulate=1):
    fields = {"batch_size": BATCH, "learning_rate": RATE, "warmup": 0, "grad_clip": 0.0, "accumulate": accumulate}
    config = training_config(fields)
    tx = optimizer(config)
    layout = parallelize(make_step(machine, tx, config), mode, jax.devices()[:devices], axes)
    return layout, config, lambda: layout.place_state(first_state())


def run(layout, state, first=1, last=STEPS, seen=None):
    for n in range(first, last + 1):
        state, metrics = layout.run(state, jax.random.key(1), layout.place_batch(batch_of_step(n)))
        if seen is not None:
            seen.append(jax.device_get((state, metrics)))
    return layout.fetch_state(state)


@pytest.fixture(scope="module")
def one_device():
    """The states and metrics of each step."""
    layout, _, start = layout_of("jit", 1)
    seen = []
    run(layout, start(), seen=seen)
    return seen


def test_what_is_remembered_by_hand(one_device):
    start = first_state()
    x, memory = batch_of_step(1)["image"], start.memory
    weights, mean, chains = start.params["weights"], memory["mean"], memory["chains"]

    def energy(v):
        return -np.sum(np.log1p(np.exp((v - mean) @ weights)), axis=1)

    state, metrics = one_device[0]
    np.testing.assert_allclose(metrics["loss"], np.mean(energy(x) - energy(chains)), rtol=1e-4, atol=1e-5)
    # The statistics of the data less those of the chains; Adam's first step is their sign.
    h, h_chain = (1 / (1 + np.exp(-(v - mean) @ weights)) for v in (x, chains))
    gradient = {
        "weights": -((x - mean).T @ h - (chains - mean).T @ h_chain) / BATCH,
        "visible": -(x - chains).mean(0),
        "hidden": -(h - h_chain).mean(0),
    }
    for name, g in gradient.items():
        clear = np.abs(g) > 1e-3
        assert clear.mean() > 0.8
        np.testing.assert_allclose(
            (state.params[name] - start.params[name])[clear], -RATE * np.sign(g)[clear], rtol=1e-3
        )

    slow = start.params
    for n, (state, _) in enumerate(one_device, 1):
        mean = 0.9 * mean + 0.1 * batch_of_step(n)["image"].mean(0)
        slow = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, slow, state.params)
        np.testing.assert_allclose(state.memory["mean"], mean, rtol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.memory["slow"], slow)


@pytest.mark.fast(1)
@pytest.mark.parametrize(
    "layout", [("jit", 8, (("data", -1),), 2), ("jit", 8, FSDP), ("pmap", 2, (("data", -1),), 2)], ids=str
)
def test_every_layout_remembers_the_same(layout, one_device):
    layout, _, start = layout_of(*layout)
    state, expected = run(layout, start()), one_device[-1][0]
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    for got, want in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        assert got.sharding.is_equivalent_to(layout.shardings(got), got.ndim)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_it_comes_back_from_a_checkpoint_bit_for_bit(tmp_path):
    layout, config, start = layout_of("jit", 8, FSDP)
    once = run(layout, start())
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(3, run(layout, start(), last=3), {})
        restored, _ = checkpointer.restore(abstract_state(layout, machine, config))
    assert {s.data.size for s in restored.memory["chains"].addressable_shards} == {BATCH * VISIBLE // 8}
    resumed = run(layout, layout.place_state(restored), first=4)
    for got, want in zip(jax.tree.leaves(resumed), jax.tree.leaves(once), strict=True):
        np.testing.assert_array_equal(got, want)


def test_the_chains_lead_to_the_density_of_the_data(one_device):
    """log p by the sum over all hidden states, against the entropy of what the data are drawn from."""
    layout, _, start = layout_of("jit", 1)
    state = jax.device_get(run(layout, start(), last=300))
    hidden = np.array(list(itertools.product([0, 1], repeat=HIDDEN)), np.float32)

    def log_likelihood(params, mean, x):
        up = hidden @ params["weights"].T
        terms = hidden @ params["hidden"] - up @ mean + np.logaddexp(0, params["visible"] + up).sum(1)
        return -np.mean(free_energy(params, x, mean)) - np.logaddexp.reduce(terms)

    x = draw(np.random.default_rng(9), 2000)
    away = np.sum(x[:, None] != PATTERNS, axis=2)
    best = np.mean(np.logaddexp.reduce(away * np.log(0.1) + (VISIBLE - away) * np.log(0.9) - np.log(2), axis=1))
    x = x.astype(np.float32)
    early, late = (log_likelihood(s.params, s.memory["mean"], x) for s in (one_device[0][0], state))
    # With chains that stand still it falls without end, to -300 by now.
    assert early < best - 15 and best - 4 < late < best + 0.5


def test_the_plan_counts_it():
    layout, config, _ = layout_of("jit", 8, FSDP)
    state = abstract_state(layout, machine, config)
    batch = plan.abstract_batch(layout.mesh, (VISIBLE,), 0, BATCH)
    costs = plan.costs(layout.mesh, machine, config, state, batch)
    params = VISIBLE * HIDDEN // 8 + VISIBLE + HIDDEN
    chains = BATCH * VISIBLE // 8
    assert costs.optimizer == 4 * (2 * params + params + VISIBLE + chains + 3)
