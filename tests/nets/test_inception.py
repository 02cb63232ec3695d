"""InceptionV3 layer for layer against numpy on random weights; resizing pixel by pixel; errors of other weights."""

import jax
import numpy as np
import pytest
from torch_in_numpy import Network, assert_layers_agree, average_pool, max_pool, resize

from diffjax.errors import InputError
from diffjax.nets import resizing
from diffjax.nets.inception import InceptionV3, from_torch

SIZE = 107  # the smallest of which the last blocks see more than one position, 2 x 2


class Original(Network):
    """The PyTorch port."""

    def basic(self, x, name, channels, kernel=(1, 1), stride=1, padding=(0, 0)):
        sides = tuple((p, p) for p in padding)
        h = self.norm(self.conv(x, f"{name}.conv", channels, kernel, stride, sides), f"{name}.bn")
        return self.keep(name, np.maximum(h, 0))

    def chain(self, x, block, *layers):
        for name, *settings in layers:
            x = self.basic(x, f"{block}.{name}", *settings)
        return x

    def a(self, x, block, pooled):
        return [
            self.chain(x, block, ("branch1x1", 64)),
            self.chain(x, block, ("branch5x5_1", 48), ("branch5x5_2", 64, (5, 5), 1, (2, 2))),
            self.chain(
                x,
                block,
                ("branch3x3dbl_1", 64),
                ("branch3x3dbl_2", 96, (3, 3), 1, (1, 1)),
                ("branch3x3dbl_3", 96, (3, 3), 1, (1, 1)),
            ),
            self.chain(average_pool(x), block, ("branch_pool", pooled)),
        ]

    def b(self, x, block):
        return [
            self.chain(x, block, ("branch3x3", 384, (3, 3), 2)),
            self.chain(
                x,
                block,
                ("branch3x3dbl_1", 64),
                ("branch3x3dbl_2", 96, (3, 3), 1, (1, 1)),
                ("branch3x3dbl_3", 96, (3, 3), 2),
            ),
            max_pool(x, 2),
        ]

    def c(self, x, block, inner):
        row, column = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
        return [
            self.chain(x, block, ("branch1x1", 192)),
            self.chain(x, block, ("branch7x7_1", inner), ("branch7x7_2", inner, *row), ("branch7x7_3", 192, *column)),
            self.chain(
                x,
                block,
                ("branch7x7dbl_1", inner),
                ("branch7x7dbl_2", inner, *column),
                ("branch7x7dbl_3", inner, *row),
                ("branch7x7dbl_4", inner, *column),
                ("branch7x7dbl_5", 192, *row),
            ),
            self.chain(average_pool(x), block, ("branch_pool", 192)),
        ]

    def d(self, x, block):
        return [
            self.chain(x, block, ("branch3x3_1", 192), ("branch3x3_2", 320, (3, 3), 2)),
            self.chain(
                x,
                block,
                ("branch7x7x3_1", 192),
                ("branch7x7x3_2", 192, (1, 7), 1, (0, 3)),
                ("branch7x7x3_3", 192, (7, 1), 1, (3, 0)),
                ("branch7x7x3_4", 192, (3, 3), 2),
            ),
            max_pool(x, 2),
        ]

    def e(self, x, block, pooled):
        row, column = ((1, 3), 1, (0, 1)), ((3, 1), 1, (1, 0))
        three = self.chain(x, block, ("branch3x3_1", 384))
        double = self.chain(x, block, ("branch3x3dbl_1", 448), ("branch3x3dbl_2", 384, (3, 3), 1, (1, 1)))
        return [
            self.chain(x, block, ("branch1x1", 320)),
            self.chain(three, block, ("branch3x3_2a", 384, *row)),
            self.chain(three, block, ("branch3x3_2b", 384, *column)),
            self.chain(double, block, ("branch3x3dbl_3a", 384, *row)),
            self.chain(double, block, ("branch3x3dbl_3b", 384, *column)),
            self.chain(pooled, block, ("branch_pool", 192)),
        ]

    def __call__(self, x):
        """Of pixels that are resized and scaled: features, logits without bias, and the bias."""
        x = self.basic(x, "Conv2d_1a_3x3", 32, (3, 3), 2)
        x = self.basic(x, "Conv2d_2a_3x3", 32, (3, 3))
        x = max_pool(self.basic(x, "Conv2d_2b_3x3", 64, (3, 3), 1, (1, 1)), 2)
        x = self.basic(x, "Conv2d_3b_1x1", 80)
        x = max_pool(self.basic(x, "Conv2d_4a_3x3", 192, (3, 3)), 2)
        for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = np.concatenate(self.a(x, name, pooled), 1)
        x = np.concatenate(self.b(x, "Mixed_6a"), 1)
        for name, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            x = np.concatenate(self.c(x, name, inner), 1)
        x = np.concatenate(self.d(x, "Mixed_7a"), 1)
        x = np.concatenate(self.e(x, "Mixed_7b", average_pool(x)), 1)
        x = np.concatenate(self.e(x, "Mixed_7c", max_pool(x, 1, padding=1)), 1)
        assert x.shape[1:] == (2048, 2, 2)
        features = x.mean((2, 3))
        return features, *self.linear(features, "fc", 1008)


@pytest.fixture(scope="module")
def original():
    """An image, the random network, its outputs for the image, and our parameters."""
    image, network = np.random.default_rng(1).integers(0, 256, (9, 40, 3)), Original()
    pixels = (resize(image, SIZE, SIZE, half_pixel=False) - 128) / 128
    outputs = network(pixels.transpose(2, 0, 1)[None])
    return image, network, outputs, from_torch({**network.tensors, "AuxLogits.fc.bias": np.zeros(3)})


def test_each_layer_has_the_outputs_of_the_original(original):
    image, network, (features, logits, bias), params = original
    net = InceptionV3(size=SIZE)
    found, state = jax.jit(lambda p, x: net.apply(p, x, capture_intermediates=True))(params, image[None].astype("f4"))
    assert len(network.outputs) == 3 * 94
    assert_layers_agree(state["intermediates"], network.outputs)
    for ours, want in zip(found, (features, logits + bias, logits), strict=True):
        assert np.abs(ours - want).max() < 1e-4 * np.abs(want).max()


@pytest.mark.slow
def test_pytorchs_convention_has_its_own_resizing_and_scaling(original):
    image, network, _, params = original
    net, name = InceptionV3("pytorch", SIZE), "Conv2d_1a_3x3"
    grey = image[..., :1]

    @jax.jit
    def first(params, x):  # the others are not computed
        return net.apply(params, x, capture_intermediates=lambda module, _: module.name == name)[1]["intermediates"]

    network = Original()
    network.rng = np.random.default_rng(0)  # the same first weights
    pixels = np.repeat(resize(grey, SIZE, SIZE, half_pixel=True) / 255 * 2 - 1, 3, axis=2)
    network.basic(pixels.transpose(2, 0, 1)[None], name, 32, (3, 3), 2)
    assert_layers_agree({name: first(params, grey[None].astype("f4"))[name]}, {name: network.outputs[name]})


@pytest.mark.parametrize("shape", [(5, 8), (31, 12), (16, 16), (1, 2)])
def test_resizing_is_that_of_each_pixel_by_itself(shape):
    image = np.random.default_rng(0).uniform(0, 255, (*shape, 3)).astype("f4")
    for convention, half_pixel in (("tensorflow", False), ("pytorch", True)):
        found = resizing.resize(image[None], 16, convention)[0]
        np.testing.assert_allclose(found, resize(image, 16, 16, half_pixel), atol=1e-3)
    if shape == (16, 16):
        np.testing.assert_array_equal(found, image)


def test_the_first_tensor_of_another_network_is_named(original):
    _, network, _, _ = original
    tensors = network.tensors
    other = "the file holds the weights of another network than InceptionV3, which needs pytorch-fid's"
    for change, says in (
        ({"fc.bias": np.zeros(1000), "fc.weight": np.zeros((1000, 2048))}, r"fc\.bias has shape \(1000,\)"),
        ({"Mixed_7b.branch3x3_2a.conv.weight": np.zeros((384, 384, 3, 1))}, r"2a.* shape \(384, 384, 3, 1\)"),
        ({"Mixed_6b.extra": np.zeros(2)}, r"tensors has Mixed_6b\.extra too"),
    ):
        with pytest.raises(InputError, match=f"{says}.*: {other}"):
            from_torch({**tensors, **change})
    missing = {name: value for name, value in tensors.items() if not name.startswith("Mixed_5c.branch5x5_2.bn")}
    with pytest.raises(InputError, match=rf"tensors has no Mixed_5c\.branch5x5_2\.bn\.bias: {other}"):
        from_torch(missing)


def test_images_that_do_not_fit_are_named():
    key = jax.random.key(0)
    for net, shape, says in (
        (InceptionV3(), (2, 8, 8, 4), r"images has shape \(2, 8, 8, 4\)"),
        (InceptionV3(), (8, 8, 3), r"images has shape \(8, 8, 3\)"),
        (InceptionV3("torch"), (1, 8, 8, 3), "resizing must be one of tensorflow, pytorch, not 'torch'"),
        (InceptionV3(size=74), (1, 8, 8, 3), "size is 74.*75"),
    ):
        with pytest.raises(InputError, match=says):
            net.init(key, np.zeros(shape, "f4"))
    with pytest.raises(InputError, match=r"images has shape \(8, 8, 3\)"):
        resizing.resize(np.zeros((8, 8, 3)), 16, "pytorch")
