"""PyTorch's layers in numpy and float64, for images (batch, channels, height, width) and tests of published networks.

A variable is drawn at random when a layer asks for it, under PyTorch's name and in PyTorch's shape; each layer's output
is kept under the layer's name.
"""

import numpy as np


class Network:
    gain = 2.0  # sum of squares of a weight: 2 keeps the size of what relu halves

    def __init__(self):
        self.tensors, self.outputs, self.rng = {}, {}, np.random.default_rng(0)

    def variable(self, name, values):
        assert name not in self.tensors
        self.tensors[name] = values.astype("f4")
        return self.tensors[name].astype("f8")

    def conv(self, x, name, channels, kernel, stride=1, padding=((0, 0), (0, 0)), groups=1):
        """Padding is (above, below), (left, right), of zeros."""
        shape = (channels, x.shape[1] // groups, *kernel)
        scale = np.sqrt(self.gain / np.prod(shape[1:]))
        weight = self.variable(f"{name}.weight", scale * self.rng.standard_normal(shape, dtype="f4"))
        views = windows(np.pad(x, ((0, 0), (0, 0), *padding)), kernel, stride)
        if groups == 1:
            h = np.moveaxis(np.tensordot(views, weight, ((1, 4, 5), (1, 2, 3))), -1, 1)
        else:
            assert groups == channels == x.shape[1]
            h = np.einsum("nchwij,cij->nchw", views, weight[:, 0], optimize=True)
        return self.keep(name, h)

    def norm(self, x, name):
        channels = x.shape[1]
        weight = self.variable(f"{name}.weight", self.rng.uniform(0.5, 1.5, channels))
        bias = self.variable(f"{name}.bias", 0.3 * self.rng.standard_normal(channels))
        mean = self.variable(f"{name}.running_mean", 0.3 * self.rng.standard_normal(channels))
        variance = self.variable(f"{name}.running_var", self.rng.uniform(0.1, 1.5, channels))
        self.tensors[f"{name}.num_batches_tracked"] = np.array(7)
        each = (channels, 1, 1)
        h = (x - mean.reshape(each)) / np.sqrt(variance.reshape(each) + 1e-3)
        return self.keep(name, h * weight.reshape(each) + bias.reshape(each))

    def linear(self, x, name, size):
        weight = self.variable(f"{name}.weight", self.rng.standard_normal((size, x.shape[1])) / np.sqrt(x.shape[1]))
        return x @ weight.T, self.variable(f"{name}.bias", self.rng.standard_normal(size))

    def keep(self, name, h):
        self.outputs[name] = h.transpose(0, 2, 3, 1)
        return h


def windows(x, kernel, stride=1):
    """(batch, channels, height, width, *kernel)"""
    return np.lib.stride_tricks.sliding_window_view(x, kernel, (2, 3))[:, :, ::stride, ::stride]


def max_pool(x, stride, padding=0):
    sides = (padding, padding)
    return windows(np.pad(x, ((0, 0), (0, 0), sides, sides), constant_values=-np.inf), (3, 3), stride).max((4, 5))


def average_pool(x):
    """The mean of those of the 3 x 3 neighbours that exist."""
    out = np.empty_like(x)
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            out[:, :, i, j] = x[:, :, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].mean((2, 3))
    return out


def resize(image, height, width, half_pixel):
    """Each pixel of (height, width, channels) by itself, from the four around its place in the source."""
    shift, image = 0.5 if half_pixel else 0.0, image.astype("f8")
    out = np.empty((height, width, image.shape[2]))
    for i in range(height):
        for j in range(width):
            y = max((i + shift) * image.shape[0] / height - shift, 0)
            x = max((j + shift) * image.shape[1] / width - shift, 0)
            above, left = int(y), int(x)
            below, right = min(above + 1, image.shape[0] - 1), min(left + 1, image.shape[1] - 1)
            top = image[above, left] + (x - left) * (image[above, right] - image[above, left])
            bottom = image[below, left] + (x - left) * (image[below, right] - image[below, left])
            out[i, j] = top + (y - above) * (bottom - top)
    return out


def assert_layers_agree(found, want):
    """All outputs of a flax network, by `capture_intermediates`, and of one in numpy, each relative to its largest."""
    named = {}

    def collect(tree, path):
        for name, value in tree.items():
            if name == "__call__":
                named[".".join(path)] = value[0]
            else:
                collect(value, (*path, name))

    collect(found, ())
    for name, output in want.items():
        difference = np.abs(np.asarray(named[name]) - output).max()
        assert difference < 1e-4 * np.abs(output).max(), (name, difference)
