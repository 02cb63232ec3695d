"""VQ-VAE: its bound against a sum over all codes, what is trained by what, and what is refused."""

import itertools

import jax
import numpy as np
import pytest

from configs import vqvae_audio, vqvae_digits, vqvae_mnist
from diffjax import zoo
from diffjax.errors import InputError
from diffjax.evaluation.codes import Codes
from diffjax.nets.quantised import Levels
from diffjax.training.checkpoint import Checkpointer
from diffjax.training.config import training_config
from diffjax.training.loop import abstract_state
from diffjax.training.sharding import parallelize
from diffjax.training.state import init_state, optimizer
from diffjax.training.step import make_step
from diffjax.zoo.autoregressive import networks

KEY = jax.random.key(0)
BITS = np.array(list(itertools.product((0, 1), repeat=4)), np.uint8).reshape(16, 2, 2, 1)
TRAINING = {"batch_size": 16, "warmup": 0, "learning_rate": 0.01}


def of_bits(**fields):
    """2x2 bits with one code out of three: everything can be enumerated."""
    config = vqvae_digits.get_config()
    config.data.update(shape=(2, 2, 1), levels=2)
    config.vq.update(num_codes=3, dim=2, halvings=1, decay=0.8, least=0.0)
    config.net.update(
        features=8, blocks=1, likelihood="bernoulli", prior="transformer", prior_features=4, prior_depth=1
    )
    with config.ignore_type():
        config.update_from_flattened_dict(fields)
    return config


@pytest.fixture(scope="module")
def steps():
    """A model, its states before and after four steps, and the gradient of its loss."""
    model, config = zoo.make(of_bits()), training_config(TRAINING)
    tx = optimizer(config)
    step, state = jax.jit(make_step(model, tx, config)), init_state(KEY, model, tx)
    states = [state]
    for _ in range(4):
        state, metrics = step(state, KEY, {"image": BITS})
        assert np.isfinite(metrics["loss"])
        states.append(state)
    return model, states, jax.jit(jax.grad(lambda p: model.loss(p, KEY, {"image": BITS}).mean()))


def test_the_bound_is_one_term_of_the_sum_over_all_codes(steps):
    """Σ_k p(k) p(x | k) sums to 1 over the 16 arrays, and the bound is the log of the term of the nearest code."""
    model, states, _ = steps
    params = states[-1].params
    found = {"bound": jax.jit(model.bound)(params, KEY, {"image": BITS})}
    found["codes"] = model.measure(Codes).codes(params, {"image": BITS})[0]
    # With a single place the prior is one softmax. The decoder is called for each of the three vectors.
    prior = networks.transformer((1, 1), 3, 4, 1, 4).conditionals(params["prior"][0], np.arange(1))
    found["prior"] = prior.logits(np.zeros((1, 1), int))[0, 0]
    vectors = params["codebook"][0][:, None, None]
    found["decoder"] = Levels(8, 2, 1, 1, 1, 1).apply(params["network"], [vectors], method="decode")
    bound, codes, logits, out = (np.float64(found[name]) for name in ("bound", "codes", "prior", "decoder"))
    p_one = 1 / (1 + np.exp(-out.reshape(3, 4)))
    p_x = np.where(BITS.reshape(16, 1, 4), p_one, 1 - p_one).prod(-1)  # (16, 3)
    terms = p_x * np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(terms.sum(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(bound, np.log(terms[np.arange(16), codes.astype(int).ravel()]), rtol=1e-4)
    assert (bound < np.log(terms.sum(1))).all()


@pytest.mark.slow
@pytest.mark.parametrize("layout", [("jit", 8), ("pmap", 2)], ids=str)
def test_every_layout_learns_the_same_codebook_and_a_checkpoint_keeps_it(layout, steps, tmp_path):
    """Four steps on several devices, stopped after the second, give the codebook of one device."""
    model, states, _ = steps
    config = training_config(TRAINING)
    tx = optimizer(config)
    mode, devices = layout
    laid = parallelize(make_step(model, tx, config), mode, jax.devices()[:devices])
    state = laid.place_state(jax.device_get(states[0]))
    for n in range(4):
        state, _ = laid.run(state, KEY, laid.place_batch({"image": BITS}))
        if n == 1:
            with Checkpointer(tmp_path) as checkpointer:
                checkpointer.save(2, laid.fetch_state(state), {})
                restored, _ = checkpointer.restore(abstract_state(laid, model, config))
            state = laid.place_state(restored)
    got = jax.device_get(laid.fetch_state(state))
    for mine, other in zip(got.memory[0], states[4].memory[0], strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(got.params["codebook"][0], got.memory[0].vectors)


def test_the_memory_determines_the_codebook_and_the_optimiser_does_not_move_it(steps):
    _, states, slope = steps
    for state in states[1:]:
        np.testing.assert_array_equal(state.params["codebook"][0], state.memory[0].vectors)
    assert np.abs(states[4].params["codebook"][0] - states[0].params["codebook"][0]).max() > 1e-3
    grads = slope(states[0].params)
    assert not np.any(grads["codebook"][0])
    for part in ("network", "prior"):
        assert any(np.abs(x).max() > 0 for x in jax.tree.leaves(grads[part]))


def test_the_prior_gives_no_gradient_to_the_encoder(steps):
    """Without a decoder's signal: two priors, equal gradients of the network."""
    _, states, slope = steps
    params = states[0].params
    other = params | {"prior": jax.tree.map(lambda x: x + 0.3, params["prior"])}
    first, second = (slope(p)["network"] for p in (params, other))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), first, second)


@pytest.mark.slow
def test_a_codebook_by_its_gradient_moves_to_the_mean_of_its_vectors():
    model = zoo.make(of_bits(**{"vq.decay": 0.0, "vq.num_codes": 2}))
    params = model.init(KEY)
    assert model.memory is None
    grads = jax.grad(lambda p: model.loss(p, KEY, {"image": BITS}).mean())(params)["codebook"][0]
    codes = np.asarray(model.measure(Codes).codes(params, {"image": BITS})[0]).ravel()
    used = np.bincount(codes, minlength=2) > 0
    assert (np.abs(grads).max(1) > 0)[used].all() and not np.any(np.asarray(grads)[~used])


@pytest.mark.slow
@pytest.mark.parametrize("module", [vqvae_mnist, vqvae_audio])
def test_two_levels_and_sounds(module):
    """The bound is finite, samples are in the data's range, and each level has a grid of its own."""
    config = module.get_config()
    config.net.update(features=8, prior_features=8, prior_depth=1)
    config.vq.update(num_codes=8, dim=4)
    if module is vqvae_audio:
        config.data.update(shape=(256, 1))
    else:
        config.data.update(shape=(8, 8, 1))
    model = zoo.make(config)
    params = model.init(KEY)
    high = config.data.levels
    x = np.random.default_rng(0).integers(0, high, (3, *config.data.shape)).astype(np.uint8)
    assert np.isfinite(model.bound(params, KEY, {"image": x})).all()
    samples = model.sample(params, KEY, 2)
    assert samples.shape == (2, *config.data.shape) and np.abs(samples).max() <= 1
    codes = model.measure(Codes).codes(params, {"image": x})
    grids = [(4, 4), (2, 2)] if module is vqvae_mnist else [(16,)]
    assert [c.shape[1:] for c in codes] == grids


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"vq.num_codes": 1}, "vq.num_codes = 1 must be an integer of at least 2; a codebook of one says nothing"),
        ({"vq.levels": 3}, "vq.levels = 3 must be 1, or 2 for VQ-VAE-2"),
        ({"vq.decay": 1.0}, "vq.decay = 1.0 must be at least 0 and below 1"),
        ({"vq.halvings": 2}, "cannot be halved 2 times"),
        ({"vq.commitment": -1.0}, "vq.commitment = -1.0 must be a number of at least 0"),
        ({"net.prior": "flow"}, "net.prior must be one of pixel_cnn, transformer, not 'flow'"),
        ({"data.shape": (4,)}, r"images \(H, W, C\) or sounds \(samples, 1\)"),
    ],
)
def test_what_is_refused(fields, words):
    with pytest.raises(InputError, match=words):
        zoo.make(of_bits(**fields))
