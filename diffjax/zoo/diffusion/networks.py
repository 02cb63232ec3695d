"""The networks of noisy data that `config.net.name` chooses from. Each has fields of its own in the section `net`.

A network of images is called as (x (batch, H, W, C), time (batch,), label (batch,) or None, dropout keys) -> (batch, H,
W, out), one of vectors as (x (batch, dim), time) -> (batch, dim). With a fifth argument (batch,) a network of images
takes two times, see `nets.unet`.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from diffjax import registry
from diffjax.errors import InputError
from diffjax.nets.dit import DiT
from diffjax.nets.unet import Conventions, UNet
from diffjax.nets.vectors import TimeMLP


def unet(net: Any, out_channels: int) -> nn.Module:
    """The U-Net, see configs/cifar10.py for its fields. A section `conventions` has those of `Conventions` that differ.

    Raises:
        InputError: on a field that it lacks, or an unknown convention.
    """
    _check(net, "unet", ("channels", "multipliers", "num_blocks", "attention"), "configs/cifar10.py")
    given = dict(net.get("conventions") or {})
    if unknown := sorted(given.keys() - set(Conventions._fields)):
        raise InputError(f"net.conventions.{unknown[0]} is not a convention; they are {', '.join(Conventions._fields)}")
    return UNet(
        channels=net.channels,
        multipliers=tuple(net.multipliers),
        num_blocks=net.num_blocks,
        attention=tuple(net.attention),
        out_channels=out_channels,
        conventions=Conventions(**given),
        **_common(net),
    )


def dit(net: Any, out_channels: int) -> nn.Module:
    """The diffusion transformer, see configs/dit_digits.py for its fields."""
    _check(net, "dit", ("patch_size", "width", "depth", "heads", "mlp_ratio"), "configs/dit_digits.py")
    return DiT(
        patch_size=net.patch_size,
        width=net.width,
        depth=net.depth,
        heads=net.heads,
        mlp_ratio=net.mlp_ratio,
        out_channels=out_channels,
        **_common(net),
    )


OF_IMAGES: dict[str, Callable[[Any, int], nn.Module]] = {"unet": unet, "dit": dit}


def of_images(net: Any, out_channels: int) -> nn.Module:
    """The network of `config.net`. Old runs, from before there was a choice, have no name.

    Raises:
        InputError: on an unknown name, or another network's section.
    """
    return registry.choose("net.name", net.get("name", "unet"), OF_IMAGES)(net, out_channels)


def of_data(net: Any, shape: tuple[int, ...]) -> nn.Module:
    """The network of `config.net` from data of `shape` to the same shape. For vectors it is the MLP with times.

    Raises:
        InputError: on a network for other data, or as `of_images`.
    """
    name, names = net.get("name", "unet"), OF_IMAGES if len(shape) == 3 else ("mlp",)
    if name not in names:
        raise InputError(f"net.name must be {' or '.join(map(repr, names))} for data of shape {shape}: {name!r}")
    return of_images(net, shape[-1]) if len(shape) == 3 else TimeMLP(tuple(net.features), shape[-1])


def _common(net: Any) -> dict[str, Any]:
    num_classes = net.get("num_classes") or None
    return {"dropout": net.dropout, "num_classes": num_classes, "dtype": jnp.dtype(net.dtype), "remat": net.remat}


def _check(net: Any, name: str, fields: tuple[str, ...], config: str) -> None:
    if missing := [field for field in fields if field not in net]:
        raise InputError(
            f"net.name={name!r} needs net.{', net.'.join(missing)}: take the section net of a config such as {config}"
        )
