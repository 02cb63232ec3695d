"""Converts Hugging Face diffusers' `UNet2DModel` to `diffjax.nets.unet.UNet` and back.

    theirs (out, in, height, width)                    ours (height, width, in, out)
    time_embedding.linear_1, linear_2                  temb_dense0, temb_dense1
    conv_in, conv_norm_out, conv_out                   conv_in, norm_out, conv_out
    down_blocks.1.resnets.0.norm1, conv1, norm2, conv2 down_1_block_0/norm1, conv1, norm2, conv2
      .time_emb_proj, .conv_shortcut (1x1)               temb_proj, nin_shortcut (dense)
    down_blocks.1.attentions.0.group_norm              down_1_attn_0/norm
      .to_q, to_k, to_v, to_out.0                        q, k, v, proj_out
      .query, key, value, proj_attn                      the same, in files before diffusers 0.17
    down_blocks.0.downsamplers.0.conv                  down_0_downsample
    mid_block.resnets.0, attentions.0, resnets.1       mid_block_1, mid_attn, mid_block_2
    up_blocks.0 (at the lowest resolution) ...         up_{levels - 1} ..., upsamplers.0.conv: upsample

Fields of their configuration, with diffusers' default and the value of google/ddpm-* (which is DDPM's), and ours:

    theirs                   default  google  ours
    norm_eps                 1e-5     1e-6    `Conventions.epsilon`
    norm_num_groups          32       32      `Conventions.groups`; from 128 channels up, ours are 32, too
    attention_head_dim       8        None    `Conventions.head_width`; None: one head. Scores are q k' / √(its width)
    downsample_padding       1        0       `Conventions.symmetric`; 0 pads below and to the right, as "SAME" does
    freq_shift               0        1       `Conventions.last_frequency`: w_i = 10000^(-i / (half - freq_shift))
    flip_sin_to_cos          True     False   True: [cos, sin], so the halves of temb_dense0's kernel rows are swapped
    resnet_time_scale_shift                   `Conventions.scale_shift`

Other blocks, embeddings and factors compute other functions, so they are refused. Networks of classes are refused, too:
their last class may or may not stand for "none", and the file does not say which.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from diffjax.errors import InputError
from diffjax.nets.layers import num_groups
from diffjax.nets.renaming import Path, as_dense, as_params, as_sines, channels_first, channels_last
from diffjax.nets.unet import Conventions, UNet

# UNet2DModel's values of fields that config.json lacks. For fields in FIXED, any other value is refused.
FIXED: dict[str, Any] = dict(
    center_input_sample=False,
    time_embedding_type="positional",
    mid_block_type="UNetMidBlock2D",
    mid_block_scale_factor=1,
    downsample_type="conv",
    upsample_type="conv",
    act_fn="silu",
    add_attention=True,
    class_embed_type=None,
    num_class_embeds=None,
)
DEFAULTS: dict[str, Any] = FIXED | dict(
    sample_size=None,
    in_channels=3,
    out_channels=3,
    time_embedding_dim=None,
    freq_shift=0,
    flip_sin_to_cos=True,
    down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    block_out_channels=(224, 448, 672, 896),
    layers_per_block=2,
    downsample_padding=1,
    dropout=0.0,
    attention_head_dim=8,
    norm_num_groups=32,
    attn_norm_num_groups=None,
    norm_eps=1e-5,
    resnet_time_scale_shift="default",
    num_train_timesteps=None,  # of learned embeddings
)
CLASS = "UNet2DModel"
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
LAYERS = {"temb_proj": "time_emb_proj", "nin_shortcut": "conv_shortcut"}
LAYERS_OF_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
ALONE = {
    "temb_dense0": "time_embedding.linear_1",
    "temb_dense1": "time_embedding.linear_2",
    "norm_out": "conv_norm_out",
    "mid_block_1": "mid_block.resnets.0",
    "mid_attn": "mid_block.attentions.0",
    "mid_block_2": "mid_block.resnets.1",
}


class Published(NamedTuple):
    """What a file says about a network.

    unet: the fields of `UNet` that the file determines, including `conventions`.
    size: height and width of its images.
    in_channels: channels of its images.
    """

    unet: dict[str, Any]
    size: tuple[int, int]
    in_channels: int


def network_of(config: Mapping[str, Any], file: str, size: int = 0) -> Published:
    """The network that a config.json of `UNet2DModel` describes.

    Args:
      file: the name of the file in error messages.
      size: height and width of images, used if the configuration has no sample_size.

    Raises:
      InputError: on another class, or on a field value that our network does not have.
    """
    if (found := config.get("_class_name")) != CLASS:
        raise InputError(
            f"{file}: _class_name is {found!r}, and only {CLASS!r} is read; give the folder of such a model"
        )
    given = {name: value for name, value in config.items() if not name.startswith("_")}
    if unknown := sorted(given.keys() - DEFAULTS.keys()):
        raise InputError(f"{file}: {unknown[0]}={given[unknown[0]]!r} is unknown; give a model without this field")
    whole = DEFAULTS | given
    whole["act_fn"] = "silu" if whole["act_fn"] == "swish" else whole["act_fn"]
    channels, down = _blocks(whole, file)
    time_embedding = whole["time_embedding_dim"] or 4 * channels[0]
    groups, of_mid = whole["norm_num_groups"], whole["attn_norm_num_groups"]
    scale_shift = whole["resnet_time_scale_shift"] == "scale_shift"
    wrong = [name for name, value in FIXED.items() if whole[name] != value]
    wrong += ["time_embedding_dim"] if time_embedding != 4 * channels[0] else []
    wrong += ["norm_num_groups"] if not isinstance(groups, int) else []
    wrong += ["freq_shift"] if whole["freq_shift"] not in (0, 1) else []
    wrong += ["downsample_padding"] if whole["downsample_padding"] not in (0, 1) else []
    wrong += ["resnet_time_scale_shift"] if not scale_shift and whole["resnet_time_scale_shift"] != "default" else []
    # With scale_shift, the attention in the middle has a norm only if attn_norm_num_groups is set.
    wrong += ["attn_norm_num_groups"] if of_mid != groups and (scale_shift or of_mid is not None) else []
    if wrong:
        raise InputError(f"{file}: {wrong[0]}={whole[wrong[0]]!r} is another network than diffjax.nets.unet computes")
    sides = whole["sample_size"] or size
    if not sides:
        raise InputError(f"{file}: sample_size is missing; add --size=N, the height and width of its images")
    height, width = (sides, sides) if isinstance(sides, int) else sides
    own = groups == 32 and all(num_groups(width) == groups for width in channels)  # then also for sums of widths
    unet = {
        "channels": channels[0],
        "multipliers": tuple(width // channels[0] for width in channels),
        "num_blocks": whole["layers_per_block"],
        "attention": tuple(height >> level for level, name in enumerate(down) if name.startswith("Attn")),
        "out_channels": whole["out_channels"],
        "dropout": whole["dropout"],
        "conventions": Conventions(
            groups=0 if own else groups,
            epsilon=whole["norm_eps"],
            head_width=whole["attention_head_dim"] or 0,
            symmetric=whole["downsample_padding"] == 1,
            last_frequency=whole["freq_shift"] == 1,
            scale_shift=scale_shift,
        ),
    }
    return Published(unet, (height, width), whole["in_channels"])


def _blocks(whole: Mapping[str, Any], file: str) -> tuple[list[int], list[str]]:
    """block_out_channels and down_block_types. Raises unless they and up_block_types fit our network."""
    channels, down, up = (list(whole[name]) for name in ("block_out_channels", "down_block_types", "up_block_types"))
    for kind, names in (("down", down), ("up", up)):
        allowed = tuple(f"{attention}{kind.title()}Block2D" for attention in ("", "Attn"))
        if unknown := [name for name in names if name not in allowed]:
            raise InputError(f"{file}: {kind}_block_types has {unknown[0]!r}; only {' and '.join(allowed)} are read")
    if [name.startswith("Attn") for name in down] != [name.startswith("Attn") for name in reversed(up)]:
        raise InputError(f"{file}: down_block_types and up_block_types have attention at different resolutions")
    if len(channels) != len(down) or any(width % channels[0] for width in channels):
        raise InputError(f"{file}: block_out_channels={channels} must be {len(down)} multiples of the first one")
    return channels, down


def diffusers_name(path: Path, levels: int) -> str:
    """Their name of the parameter at `path`, such as ("mid_attn", "q", "kernel")."""
    module, *layers, leaf = path
    leaf = "bias" if leaf == "bias" else "weight"
    scope = ALONE.get(module, module)
    if found := re.fullmatch(r"(down|up)_(\d+)_(block|attn|downsample|upsample)(?:_(\d+))?", module):
        way, level, what, index = found.groups()
        at = int(level) if way == "down" else levels - 1 - int(level)
        part = {"block": f"resnets.{index}", "attn": f"attentions.{index}"}.get(what, f"{what}rs.0.conv")
        scope = f"{way}_blocks.{at}.{part}"
    names = LAYERS_OF_ATTENTION if "attn" in module else LAYERS
    return ".".join([scope, *(names.get(layer, layer) for layer in layers), leaf])


def from_diffusers(
    tensors: Mapping[str, np.ndarray], params_like: Mapping[str, Any], levels: int, flip: bool
) -> dict[str, Any]:
    """Their tensors as parameters of our network.

    Args:
      params_like: `UNet(...).init(...)["params"]`, or its shapes.
      levels: the number of resolutions.
      flip: flip_sin_to_cos.

    Raises:
      InputError: a tensor is missing, left over or of another shape. The error gives their name and our shape.
    """
    found = {}
    for name, tensor in tensors.items():
        head, _, leaf = name.rpartition(".")
        head, _, layer = head.rpartition(".")
        of_attention = ".attentions." in name
        name = f"{head}.{OLD[layer]}.{leaf}" if of_attention and layer in OLD else name
        dense = of_attention or ".conv_shortcut." in name
        found[name] = channels_last(as_dense(np.asarray(tensor)) if dense else np.asarray(tensor))
    first = "time_embedding.linear_1.weight"
    if flip and first in found:
        found[first] = as_sines(found[first], 0.0, True)
    return as_params(found, params_like, lambda path: diffusers_name(path, levels))


def to_diffusers(params: Mapping[str, Any], levels: int) -> dict[str, np.ndarray]:
    """Our parameters as float32 tensors with diffusers' names, for the configuration of `config_of`."""
    tensors = {}
    for path, leaf in flatten_dict(params).items():
        name = diffusers_name(path, levels)
        value = channels_first(np.asarray(leaf, np.float32))
        tensors[name] = np.ascontiguousarray(value[..., None, None] if name.endswith("conv_shortcut.weight") else value)
    return tensors


def config_of(net: UNet, params: Mapping[str, Any], shape: tuple[int, int, int]) -> dict[str, Any]:
    """config.json of a `UNet2DModel` that computes the same function as `net`.

    Args:
      shape: (height, width, channels) of the images.

    Raises:
      InputError: diffusers has no such network.
    """
    given, widths = net.conventions, [net.channels * multiplier for multiplier in net.multipliers]
    leaves = flatten_dict(params)
    norms = {leaf.shape[0] for path, leaf in leaves.items() if path[-1] == "scale"}
    attended = {leaf.shape[0] for path, leaf in leaves.items() if path[-2] == "q" and path[-1] == "bias"}
    groups = sorted({given.groups or num_groups(width) for width in norms})
    heads = sorted({given.head_width or width // given.heads for width in attended})
    one_head = given.heads == 1 and not given.head_width
    if net.num_classes is not None:
        raise InputError(f"net.num_classes={net.num_classes}: networks of classes are not written for diffusers")
    if net.multipliers[0] != 1:
        raise InputError(f"net.multipliers={tuple(net.multipliers)}: diffusers' networks begin with multiplier 1")
    if len(groups) > 1:
        raise InputError(
            f"net.channels={net.channels}: the norms have {' or '.join(map(str, groups))} groups, but diffusers has"
            " one number for all norms; use a multiple of 128 channels, which has 32 groups everywhere"
        )
    if len(heads) > 1 and not one_head:
        raise InputError(f"net.conventions.heads={given.heads} have widths {heads}, but diffusers has only one")
    height, width, channels = shape
    attention = ["Attn" if height >> level in net.attention else "" for level in range(len(widths))]
    return {"_class_name": CLASS} | DEFAULTS | {
        "sample_size": height if height == width else [height, width],
        "in_channels": channels,
        "out_channels": net.out_channels,
        "freq_shift": int(given.last_frequency),
        "flip_sin_to_cos": False,
        "down_block_types": [f"{name}DownBlock2D" for name in attention],
        "up_block_types": [f"{name}UpBlock2D" for name in reversed(attention)],
        "block_out_channels": widths,
        "layers_per_block": net.num_blocks,
        "downsample_padding": int(given.symmetric),
        "dropout": net.dropout,
        "attention_head_dim": None if one_head else heads[0],
        "norm_num_groups": groups[0],
        "attn_norm_num_groups": groups[0] if given.scale_shift else None,
        "norm_eps": given.epsilon,
        "resnet_time_scale_shift": "scale_shift" if given.scale_shift else "default",
    }  # fmt: skip
