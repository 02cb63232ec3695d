"""Converts U-Nets of improved-diffusion (Nichol & Dhariwal 2021, github.com/openai/improved-diffusion) to ours.

    theirs (out, in, height, width)                    ours (height, width, in, out)
    time_embed.0, .2                                   temb_dense0, temb_dense1
    input_blocks.0.0, out.0, out.2                     conv_in, norm_out, conv_out
    input_blocks.k.0.in_layers.0, in_layers.2          down_1_block_0/norm1, conv1   k counts blocks and ops
      .emb_layers.1, .out_layers.0, .out_layers.3        temb_proj, norm2, conv2
      .skip_connection (1x1)                             nin_shortcut (dense)
    input_blocks.k.1.norm, .qkv, .proj_out             down_1_attn_0/norm, q k v, proj_out
    input_blocks.k.0.op                                down_0_downsample
    middle_block.0, .1, .2                             mid_block_1, mid_attn, mid_block_2
    output_blocks.k.0, .1, the last of them .conv      up_1_block_0, up_1_attn_0, up_1_upsample

`qkv` has q, k and v of the first head, then those of the second, and so on. Ours has q of all heads together. The other
differences are `CONVENTIONS`, the number of heads, and the time. The file does not say the number of heads. At step i
of T, their sinusoid is [cos, sin] of 1000 (i - 1)/T (rescale_timesteps, their default), and ours is [sin, cos] of
1000 i/T - 1. Their time is 1 - 1000/T more than ours; `renaming.as_sines` changes the kernel to compensate.

The file holds only tensors, and `torch_files` reads it without executing it. It says nothing about the chain either
(noise_schedule, diffusion_steps). With learn_sigma the output has six channels: first those of the mean, then the
position of log σ² between its bounds, as ours.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.nets.diffusers import Published
from diffjax.nets.renaming import Path, as_dense, as_params, as_sines, channels_last
from diffjax.nets.unet import Conventions

CONVENTIONS = Conventions(groups=32, epsilon=1e-5, symmetric=True, last_frequency=False)
BLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "temb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "nin_shortcut": "skip_connection",
}
ALONE = {
    "temb_dense0": "time_embed.0",
    "temb_dense1": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "mid_block_1": "middle_block.0",
    "mid_attn": "middle_block.1",
    "mid_block_2": "middle_block.2",
    "norm_out": "out.0",
    "conv_out": "out.2",
}


def is_theirs(tensors: Mapping[str, Any]) -> bool:
    return {"time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.1.qkv.weight"} <= tensors.keys()


def network_of(tensors: Mapping[str, np.ndarray], size: int, heads: int, file: str) -> Published:
    """The network to which the tensors belong.

    Args:
      size: height and width of its images.
      heads: num_heads.
      file: the name of the file in error messages.

    Raises:
      InputError: if it is a network of classes, or has blocks that ours does not have.
    """
    if "label_emb.weight" in tensors:
        raise InputError(f"{file} is of a network of classes (label_emb), which is not read")
    in_channels = tensors["input_blocks.0.0.weight"].shape[1]
    widths, attended, counts = [], [], [0]
    k = 1
    while f"input_blocks.{k}.0.in_layers.0.weight" in tensors or f"input_blocks.{k}.0.op.weight" in tensors:
        if f"input_blocks.{k}.0.op.weight" in tensors:
            counts.append(0)
        else:
            if not counts[-1]:
                widths.append(tensors[f"input_blocks.{k}.0.out_layers.3.weight"].shape[0])
                attended.append(f"input_blocks.{k}.1.norm.weight" in tensors)
            counts[-1] += 1
        k += 1
    channels = tensors["input_blocks.0.0.weight"].shape[0]
    if len(set(counts)) != 1 or len(widths) != len(counts) or any(width % channels for width in widths):
        raise InputError(
            f"{file} has {counts} blocks of widths {widths} between down-samplings, which our network cannot have; give"
            " a file with equally many blocks everywhere, and widths that are multiples of the first layer's"
        )
    units = tensors["input_blocks.1.0.emb_layers.1.weight"].shape[0]
    unet = {
        "channels": channels,
        "multipliers": tuple(width // channels for width in widths),
        "num_blocks": counts[0],
        "attention": tuple(size >> level for level, has in enumerate(attended) if has),
        "out_channels": tensors["out.2.weight"].shape[0],
        "conventions": CONVENTIONS._replace(heads=heads, scale_shift=units == 2 * widths[0]),
    }
    return Published(unet, (size, size), in_channels)


def improved_name(path: Path, levels: int, num_blocks: int, attended: frozenset[int]) -> str:
    """Their name of the parameter at `path`, with q, k, v in place of qkv. `attended`: the levels with attention."""
    module, *layers, leaf = path
    leaf = "bias" if leaf == "bias" else "weight"
    scope = ALONE.get(module, module)
    if found := re.fullmatch(r"(down|up)_(\d+)_(block|attn|downsample|upsample)(?:_(\d+))?", module):
        way, level, what = found[1], int(found[2]), found[3]
        index = num_blocks if found[4] is None else int(found[4])
        first = 1 + level * (num_blocks + 1) if way == "down" else (levels - 1 - level) * (num_blocks + 1)
        part = {"block": "0", "attn": "1", "downsample": "0.op", "upsample": f"{1 + (level in attended)}.conv"}[what]
        scope = f"{'input' if way == 'down' else 'output'}_blocks.{first + index}.{part}"
    return ".".join([scope, *(layer if "attn" in module else BLOCK[layer] for layer in layers), leaf])


def from_improved(
    tensors: Mapping[str, np.ndarray], params_like: Mapping[str, Any], net: Mapping[str, Any], size: int, num_steps: int
) -> dict[str, Any]:
    """Their tensors as parameters of our network.

    Args:
      params_like: `UNet(...).init(...)["params"]`, or its shapes.
      net: the fields of `UNet` from `network_of`.
      size: height of its images.
      num_steps: T, the number of steps of the chain.

    Raises:
      InputError: a tensor is missing, left over or of another shape. The error gives their name and our shape.
    """
    found = {}
    for name, tensor in tensors.items():
        scope, _, leaf = name.rpartition(".")
        dense = scope.endswith((".qkv", ".proj_out", ".skip_connection"))
        value = as_dense(np.asarray(tensor)) if dense else np.asarray(tensor)
        if scope.endswith(".qkv"):
            if len(value) % (3 * net["conventions"].heads):
                raise InputError(
                    f"{name} has {len(value)} rows, not three for each of {net['conventions'].heads} heads"
                )
            parts = value.reshape(net["conventions"].heads, 3, -1, *value.shape[1:]).swapaxes(0, 1)
            separate = {part: rows.reshape(-1, *value.shape[1:]) for part, rows in zip("qkv", parts, strict=True)}
        else:
            separate = {"": value}
        for part, rows in separate.items():
            found[f"{scope.removesuffix('qkv')}{part}.{leaf}" if part else name] = channels_last(rows)
    first = "time_embed.0.weight"
    if first in found:
        found[first] = as_sines(found[first], 1 - 1000 / num_steps, net["conventions"].last_frequency)
    levels = len(net["multipliers"])
    attended = frozenset(level for level in range(levels) if size >> level in net["attention"])
    return as_params(found, params_like, lambda path: improved_name(path, levels, net["num_blocks"], attended))
