"""EfficientNet-Lite0 layer for layer against numpy on random weights; with the published ones it sees what is there."""

import sys

import jax
import numpy as np
import pytest
from skimage import data
from torch_in_numpy import Network, assert_layers_agree, resize

from diffjax.errors import InputError
from diffjax.nets.efficientnet import PACKAGE, EfficientNetLite0, from_torch, installed

# Kernel, stride, how many times as wide inside, channels.
BLOCKS = (
    (3, 1, 1, 16),
    *((3, 2, 6, 24), (3, 1, 6, 24)),
    *((5, 2, 6, 40), (5, 1, 6, 40)),
    *((3, 2, 6, 80), (3, 1, 6, 80), (3, 1, 6, 80)),
    *((5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112)),
    *((5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192)),
    (3, 1, 6, 320),
)


class Original(Network):
    """The PyTorch port."""

    gain = 1.0  # with more, most values are cut at 6, and each layer doubles the rounding errors of the one before

    def same(self, x, name, channels, side=1, stride=1, groups=1):
        """As TensorFlow pads: the larger half below and on the right."""
        pads = [max((-(-n // stride) - 1) * stride + side - n, 0) for n in x.shape[2:]]
        padding = tuple((pad // 2, pad - pad // 2) for pad in pads)
        return self.conv(x, name, channels, (side, side), stride, padding, groups)

    def block(self, x, name, side, stride, widen, channels):
        h, inner = x, widen * x.shape[1]
        if widen > 1:
            h = self.norm(self.same(h, f"{name}._expand_conv", inner), f"{name}._bn0").clip(0, 6)
        h = self.same(h, f"{name}._depthwise_conv", inner, side, stride, groups=inner)
        h = self.norm(h, f"{name}._bn1").clip(0, 6)
        h = self.norm(self.same(h, f"{name}._project_conv", channels), f"{name}._bn2")
        return h + x if stride == 1 and x.shape[1] == channels else h

    def __call__(self, x):
        x = self.norm(self.same(x, "_conv_stem", 32, 3, 2), "_bn0").clip(0, 6)
        for index, settings in enumerate(BLOCKS):
            x = self.block(x, f"_blocks.{index}", *settings)
        x = self.norm(self.same(x, "_conv_head", 1280), "_bn1").clip(0, 6)
        features = x.mean((2, 3))
        return features, *self.linear(features, "_fc", 1000)


@pytest.fixture(scope="module")
def apply():
    """One program for all tests."""
    net = EfficientNetLite0()
    return jax.jit(lambda params, images: net.apply(params, images, capture_intermediates=True))


@pytest.fixture(scope="module")
def images():
    """A cat, a cup of coffee, and a tripod with a man behind his camera, 300 x 300."""
    grey = np.repeat(data.camera()[..., None], 3, axis=2)
    return np.stack([data.chelsea()[:300, 60:360], data.coffee()[50:350, 100:400], grey[60:360, 150:450]]).astype("f4")


@pytest.mark.slow
def test_each_layer_has_the_outputs_of_the_original(apply, images):
    network = Original()
    pixels = (resize(images[0], 224, 224, half_pixel=True) - 127) / 128
    features, logits, bias = network(pixels.transpose(2, 0, 1)[None])
    found, state = apply(from_torch(network.tensors), images)
    assert len(network.outputs) == 2 * 49
    assert_layers_agree(jax.tree.map(lambda h: h[:1], state["intermediates"]), network.outputs)
    for ours, want in zip(found, (features, logits + bias, logits), strict=True):
        assert np.abs(ours[:1] - want).max() < 1e-4 * np.abs(want).max()


def test_the_published_weights_see_a_cat_a_cup_and_a_tripod(apply, images):
    pytest.importorskip(PACKAGE)
    logits = np.asarray(apply(installed(), images)[0].logits)
    probabilities = np.asarray(jax.nn.softmax(logits))
    for p, classes in zip(probabilities, ((281, 282, 285), (967, 968), (872,)), strict=True):
        assert p.argmax() in classes and p[list(classes)].sum() > 0.5, (p.argmax(), p.max())


def test_grey_images_are_those_of_three_equal_channels_and_a_size_is_an_argument():
    net = EfficientNetLite0(size=32)
    grey = np.random.default_rng(0).uniform(0, 255, (1, 8, 8, 1)).astype("f4")
    stem = jax.jit(lambda params, x: net.apply(params, x, capture_intermediates=True)[1]["intermediates"]["_conv_stem"])
    weight = np.random.default_rng(1).standard_normal((3, 3, 3, 32)).astype("f4")
    like = jax.eval_shape(net.init, jax.random.key(0), grey)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, "f4"), like)
    params["params"]["_conv_stem"]["weight"] = weight
    one, three = (stem(params, x)["__call__"][0] for x in (grey, np.repeat(grey, 3, axis=3)))
    assert one.shape == (1, 16, 16, 32)
    np.testing.assert_array_equal(one, three)


def test_what_does_not_fit_is_named(monkeypatch):
    with pytest.raises(
        InputError, match=r"no _blocks\.0\._bn1\.bias: .* another network than EfficientNetLite0, which needs"
    ):
        from_torch({"conv1.weight": np.zeros((64, 3, 7, 7))})
    with pytest.raises(InputError, match=r"images has shape \(1, 8, 8, 2\)"):
        EfficientNetLite0().init(jax.random.key(0), np.zeros((1, 8, 8, 2)))
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(InputError, match=rf"{PACKAGE} is not installed.*pip install 'diffjax\[features\]'"):
        installed()
