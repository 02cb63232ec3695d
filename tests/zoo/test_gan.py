"""Generator and discriminator in one step: gradients of each side alone, keys, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import gan_digits, gan_toy
from diffjax import zoo
from diffjax.errors import InputError
from diffjax.training.config import training_config
from diffjax.training.state import check_parts
from diffjax.zoo.adversarial.gan import Player, gan

KEY = jax.random.key(0)
# y = a z + b and D(x) = c·x: all gradients by hand.
MAKES = Player(lambda key, z: {"a": jnp.float32(0.5), "b": jnp.array([0.3, -0.1])}, lambda p, z: p["a"] * z + p["b"])
JUDGES = Player(lambda key, x: {"c": jnp.array([0.7, -0.4])}, lambda p, x: jnp.einsum("ni,i->n", x, p["c"]))


def test_each_side_gets_the_gradient_of_its_own_loss():
    model = gan(MAKES, JUDGES, (2,), 0, latents=2, game="wasserstein", penalty=10.0, r1_weight=0.5)
    params, x = model.init(KEY), jnp.array([[1.0, 2.0], [0.5, -1.0], [0.0, 0.3]])
    slope = jax.grad(lambda p: model.loss(p, KEY, {"image": x}).mean())(params)
    c = np.array([0.7, -0.4])
    size = np.linalg.norm(c)
    z = np.asarray((model.sample(params, KEY, 3) - jnp.array([0.3, -0.1])) / 0.5)
    np.testing.assert_allclose(slope["generator"]["b"], -c, rtol=1e-5)  # of -E D(y), and of nothing else
    mean_y = np.mean(0.5 * _latents(model, params) + [0.3, -0.1], 0)
    want = mean_y - np.mean(np.asarray(x), 0) + 10 * 2 * (size - 1) * c / size + 0.5 * c
    np.testing.assert_allclose(slope["discriminator"]["c"], want, rtol=1e-4)
    assert z.shape == (3, 2) and np.abs(z).max() < 5


def _latents(model, params):
    """The z of the loss at KEY, from the slope of each example's -D(y) = -c·(a z + b) in a, -c·z, for two c."""
    found = []
    for c in np.eye(2):
        there = params | {"discriminator": {"c": jnp.asarray(c, jnp.float32)}}
        slopes = jax.jacobian(lambda p: model.loss(p, KEY, jnp.zeros((3, 2))))(there)
        found.append(-slopes["generator"]["a"])
    return np.stack(found, 1)


@pytest.mark.slow
def test_an_example_s_loss_depends_on_its_own_key_alone():
    config = gan_digits.get_config()
    config.net.channels = (8, 4)
    config.gan.update(penalty=10.0, r1=0.1)
    model = zoo.make(config)
    params, keys = model.init(KEY), jax.random.split(KEY, 4)
    images = np.random.default_rng(0).integers(0, 17, (4, 8, 8, 1)).astype(np.uint8)
    loss = jax.jit(model.loss)
    whole = loss(params, keys, {"image": images})
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(loss(params, keys[order], {"image": images[order]}), whole[order], rtol=1e-4)
    samples = np.asarray(model.sample(params, KEY, 5))
    assert samples.shape == (5, 8, 8, 1) and np.abs(samples).max() <= 1


def test_both_sides_are_parts_of_the_parameters():
    for module in (gan_digits, gan_toy):
        config = module.get_config()
        shapes = jax.eval_shape(zoo.make(config).init, KEY)
        check_parts(training_config(config.training), shapes)
        assert set(config.training.parts) == set(shapes)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"gan.game": "chess"}, "gan.game must be one of non_saturating, hinge, wasserstein, not 'chess'"),
        ({"gan.r1": -1.0}, "gan.r1 = -1.0 must be a number of at least 0"),
        ({"gan.penalty": float("nan")}, "gan.penalty = nan must be a number of at least 0"),
        ({"gan.latents": 0}, "gan.latents = 0 must be an integer of at least 1"),
        ({"net.channels": (8, 8, 8, 8, 8)}, "halves an image 4 times, which data.shape=.* does not allow"),
        ({"data.shape": (8, 8)}, r"neither \(H, W, C\) nor \(n,\)"),
    ],
)
def test_what_is_refused(fields, words):
    config = gan_digits.get_config()
    with config.ignore_type():
        config.update_from_flattened_dict(fields)
    with pytest.raises(InputError, match=words):
        zoo.make(config)


def test_a_discriminator_of_another_shape_is_refused():
    model = gan(MAKES, JUDGES, (3,), 0, latents=2)
    with pytest.raises(InputError, match=r"makes samples of shape \(2,\), the discriminator sees data of \(3,\)"):
        model.init(KEY)
