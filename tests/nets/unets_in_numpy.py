"""The U-Nets of diffusers and improved-diffusion in numpy and float64, written from their equations, channels first.

A variable is drawn at random when a layer asks for it, under their name and in PyTorch's shape.
"""

import numpy as np
from torch_in_numpy import windows


class Layers:
    def __init__(self, groups, epsilon):
        self.tensors, self.rng, self.groups, self.epsilon = {}, np.random.default_rng(0), groups, epsilon

    def variable(self, name, shape):
        assert name not in self.tensors
        scale = np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.3
        one = len(shape) == 1 and name.endswith("weight")
        self.tensors[name] = (one + scale * self.rng.standard_normal(shape)).astype("f4")
        return self.tensors[name].astype("f8")

    def linear(self, x, name, units, shape=()):
        weight = self.variable(f"{name}.weight", (units, x.shape[-1], *shape)).reshape(units, -1)
        return x @ weight.T + self.variable(f"{name}.bias", (units,))

    def pixelwise(self, x, name, units, shape=()):
        """A linear layer over channels."""
        return np.moveaxis(self.linear(np.moveaxis(x, 1, -1), name, units, shape), -1, 1)

    def conv(self, x, name, units, stride=1, padding=(1, 1)):
        weight = self.variable(f"{name}.weight", (units, x.shape[1], 3, 3))
        views = windows(np.pad(x, ((0, 0), (0, 0), padding, padding)), (3, 3), stride)
        return np.einsum("nchwij,ocij->nohw", views, weight) + self.variable(f"{name}.bias", (units,))[:, None, None]

    def norm(self, x, name):
        parts = x.reshape(len(x), self.groups, -1)
        mean, variance = parts.mean(2, keepdims=True), parts.var(2, keepdims=True)
        y = ((parts - mean) / np.sqrt(variance + self.epsilon)).reshape(x.shape)
        each = (x.shape[1], *[1] * (x.ndim - 2))
        weight, bias = (self.variable(f"{name}.{leaf}", x.shape[1:2]).reshape(each) for leaf in ("weight", "bias"))
        return y * weight + bias


def swish(x):
    return x / (1 + np.exp(-x))


def sinusoid(t, size, shift):
    """Sines and cosines."""
    half = size // 2
    angles = t[:, None] * np.exp(-np.log(10000) * np.arange(half) / (half - shift))
    return np.sin(angles), np.cos(angles)


def attend(q, k, v):
    """Of one head, (batch, positions, channels)."""
    weights = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[2]))
    return weights / weights.sum(2, keepdims=True) @ v


def residual(layers, x, temb, units, names, scale_shift, shape):
    """names: norm1, conv1, time's projection, norm2, conv2, shortcut."""
    norm1, conv1, proj, norm2, conv2, shortcut = names
    h = layers.conv(swish(layers.norm(x, norm1)), conv1, units)
    t = layers.linear(swish(temb), proj, 2 * units if scale_shift else units)[:, :, None, None]
    h = layers.norm(h, norm2) * (1 + t[:, :units]) + t[:, units:] if scale_shift else layers.norm(h + t, norm2)
    h = layers.conv(swish(h), conv2, units)
    return (x if x.shape[1] == units else layers.pixelwise(x, shortcut, units, shape)) + h


def unet2d(layers, x, t, config):
    """diffusers' UNet2DModel with a config.json."""
    widths, last = config["block_out_channels"], len(config["block_out_channels"]) - 1
    scale_shift = config["resnet_time_scale_shift"] == "scale_shift"

    def block(h, name, units):
        names = ("norm1", "conv1", "time_emb_proj", "norm2", "conv2", "conv_shortcut")
        return residual(layers, h, temb, units, [f"{name}.{part}" for part in names], scale_shift, (1, 1))

    def attention(h, name):
        channels = h.shape[1]
        y = layers.norm(h, f"{name}.group_norm").reshape(*h.shape[:2], -1).swapaxes(1, 2)
        q, k, v = (layers.linear(y, f"{name}.to_{part}", channels) for part in "qkv")
        width = config["attention_head_dim"] or channels
        heads = [slice(start, start + width) for start in range(0, channels, width)]
        y = np.concatenate([attend(q[..., head], k[..., head], v[..., head]) for head in heads], 2)
        return h + layers.linear(y, f"{name}.to_out.0", channels).swapaxes(1, 2).reshape(h.shape)

    sines, cosines = sinusoid(t, widths[0], config["freq_shift"])
    temb = np.concatenate([cosines, sines] if config["flip_sin_to_cos"] else [sines, cosines], 1)
    temb = swish(layers.linear(temb, "time_embedding.linear_1", 4 * widths[0]))
    temb = layers.linear(temb, "time_embedding.linear_2", 4 * widths[0])
    skips = [layers.conv(x, "conv_in", widths[0])]
    for i, (kind, units) in enumerate(zip(config["down_block_types"], widths, strict=True)):
        for j in range(config["layers_per_block"]):
            h = block(skips[-1], f"down_blocks.{i}.resnets.{j}", units)
            skips.append(attention(h, f"down_blocks.{i}.attentions.{j}") if kind == "AttnDownBlock2D" else h)
        if i < last:
            padding = (1, 1) if config["downsample_padding"] else (0, 1)
            skips.append(layers.conv(skips[-1], f"down_blocks.{i}.downsamplers.0.conv", units, 2, padding))
    h = block(skips[-1], "mid_block.resnets.0", widths[-1])
    h = block(attention(h, "mid_block.attentions.0"), "mid_block.resnets.1", widths[-1])
    for i, (kind, units) in enumerate(zip(config["up_block_types"], reversed(widths), strict=True)):
        for j in range(config["layers_per_block"] + 1):
            h = block(np.concatenate([h, skips.pop()], 1), f"up_blocks.{i}.resnets.{j}", units)
            h = attention(h, f"up_blocks.{i}.attentions.{j}") if kind == "AttnUpBlock2D" else h
        if i < last:
            h = layers.conv(h.repeat(2, 2).repeat(2, 3), f"up_blocks.{i}.upsamplers.0.conv", units)
    return layers.conv(swish(layers.norm(h, "conv_norm_out")), "conv_out", config["out_channels"])


def improved(layers, x, t, channels, multipliers, num_blocks, attended, heads, scale_shift, out):
    """improved-diffusion's UNetModel; `attended` are down-sampling factors, t what its sinusoid is told."""

    def block(h, name, units):
        names = ("in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3", "skip_connection")
        return residual(layers, h, temb, units, [f"{name}.{part}" for part in names], scale_shift, (1, 1))

    def attention(h, name):
        batch, units = h.shape[:2]
        y = layers.pixelwise(layers.norm(h.reshape(batch, units, -1), f"{name}.norm"), f"{name}.qkv", 3 * units, (1,))
        y = y.reshape(batch * heads, 3 * units // heads, -1)
        q, k, v = (part.swapaxes(1, 2) for part in np.split(y, 3, axis=1))
        y = attend(q, k, v).swapaxes(1, 2).reshape(batch, units, -1)
        return h + layers.pixelwise(y, f"{name}.proj_out", units, (1,)).reshape(h.shape)

    temb = np.concatenate(sinusoid(t, channels, 0)[::-1], 1)
    temb = layers.linear(swish(layers.linear(temb, "time_embed.0", 4 * channels)), "time_embed.2", 4 * channels)
    skips, factor = [layers.conv(x, "input_blocks.0.0", channels)], 1
    for level, multiplier in enumerate(multipliers):
        for _ in range(num_blocks):
            name = f"input_blocks.{len(skips)}"
            h = block(skips[-1], f"{name}.0", channels * multiplier)
            skips.append(attention(h, f"{name}.1") if factor in attended else h)
        if level < len(multipliers) - 1:
            skips.append(layers.conv(skips[-1], f"input_blocks.{len(skips)}.0.op", channels * multiplier, 2))
            factor *= 2
    units = skips[-1].shape[1]
    h = block(attention(block(skips[-1], "middle_block.0", units), "middle_block.1"), "middle_block.2", units)
    index = 0
    for level, multiplier in reversed(list(enumerate(multipliers))):
        for i in range(num_blocks + 1):
            h = block(np.concatenate([h, skips.pop()], 1), f"output_blocks.{index}.0", channels * multiplier)
            part = 1
            if factor in attended:
                h, part = attention(h, f"output_blocks.{index}.1"), 2
            if level and i == num_blocks:
                h = layers.conv(h.repeat(2, 2).repeat(2, 3), f"output_blocks.{index}.{part}.conv", h.shape[1])
                factor //= 2
            index += 1
    return layers.conv(swish(layers.norm(h, "out.0")), "out.2", out)
