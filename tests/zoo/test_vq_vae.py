"""VQ-VAE: its bound against a sum over all codes, what is trained by what, and what is refused."""

import itertools

import jax
import numpy as np
import pytest

from configs import vqvae_audio, vqvae_digits, vqvae_mnist
from diffjax import zoo
from diffjax.errors import InputError
from diffjax.evaluation.codes import Codes
from diffjax.training.config import training_config
from diffjax.training.state import init_state, optimizer
from diffjax.training.step import make_step

KEY = jax.random.key(0)
BITS = np.array(list(itertools.product((0, 1), repeat=4)), np.uint8).reshape(16, 2, 2, 1)


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
    model, config = zoo.make(of_bits()), training_config({"batch_size": 16, "warmup": 0, "learning_rate": 0.01})
    tx = optimizer(config)
    step, state = jax.jit(make_step(model, tx, config)), init_state(KEY, model, tx)
    states = [state]
    for _ in range(4):
        state, metrics = step(state, KEY, {"image": BITS})
        assert np.isfinite(metrics["loss"])
        states.append(state)
    return model, states, jax.jit(jax.grad(lambda p: model.loss(p, KEY, {"image": BITS}).mean()))


def test_the_bound_is_below_the_sum_over_all_codes(steps):
    """p(x) = Σ_k p(k) p(x | k), from the parts of the parameters; and the probabilities of all 16 arrays sum to 1."""
    model, states, _ = steps
    params = states[-1].params
    bound = np.float64(jax.jit(model.bound)(params, KEY, {"image": BITS}))
    samples = np.asarray(jax.jit(model.sample, static_argnums=2)(params, KEY, 4000))
    means = np.unique(np.round((samples.reshape(4000, 4) + 1) / 2, 5), axis=0)
    assert 1 <= len(means) <= 3  # one for each code that has been drawn
    codes = np.asarray(model.measure(Codes).codes(params, {"image": BITS})[0]).ravel()
    shares, log_p = {}, np.zeros(16)
    for row in means:
        shares[tuple(row)] = (np.abs((samples.reshape(4000, 4) + 1) / 2 - row) < 1e-4).all(1).mean()
    for i, x in enumerate(BITS.reshape(16, 4)):
        log_p[i] = np.log(sum(share * np.prod(np.where(x, row, 1 - np.array(row))) for row, share in shares.items()))
    assert len(set(codes)) >= 1
    # Shares are of 4000 draws: their relative error is at most 5/√(4000 share).
    assert (bound < log_p + 5 / np.sqrt(4000 * min(shares.values()))).all()
    assert (bound > log_p - 5).all()


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
