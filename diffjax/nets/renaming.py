"""Turns tensors with other code's names into parameters of our networks, and PyTorch's axes into ours.

theirs    (out, in, height, width)    (out, in, 1, 1), (out, in, 1), (out, in)
ours      (height, width, in, out)    (in, out)
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from diffjax.errors import InputError

Path = tuple[str, ...]


def as_params(
    tensors: Mapping[str, np.ndarray], params_like: Mapping[str, Any], name: Callable[[Path], str]
) -> dict[str, Any]:
    """A tree like `params_like`, all of whose values are from `tensors`.

    Args:
      tensors: arrays in our axes, by other code's names.
      params_like: nested parameters, or their shapes.
      name: gives the name in `tensors` of the parameter at a path, such as ("mid_attn", "q", "kernel").

    Raises:
      InputError: a tensor is missing, left over or of another shape.
    """
    ours = {name(path): (path, leaf) for path, leaf in flatten_dict(params_like).items()}
    if missing := sorted(set(ours) - set(tensors)):
        raise InputError(f"tensors lacks {some(missing)}; choose the network's settings as in the checkpoint")
    if extra := sorted(set(tensors) - set(ours)):
        raise InputError(
            f"tensors has {some(extra)}, unknown to this network; choose the network's settings as in the checkpoint"
        )
    params = {}
    for called, (path, leaf) in ours.items():
        value = np.asarray(tensors[called])
        if value.shape != leaf.shape:
            raise InputError(
                f"{called} has shape {value.shape}, but this network needs {leaf.shape}; change its settings"
            )
        params[path] = jnp.asarray(value, leaf.dtype)
    return unflatten_dict(params)


def some(names: list[str]) -> str:
    """The first names, for error messages."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def channels_last(tensor: np.ndarray) -> np.ndarray:
    """A weight of PyTorch in our axes; arrays that are no weights stay as they are."""
    return np.moveaxis(tensor, (1, 0), (-2, -1)) if tensor.ndim in (2, 4) else tensor


def channels_first(array: np.ndarray) -> np.ndarray:
    """The inverse of `channels_last`."""
    return np.moveaxis(array, (-2, -1), (1, 0)) if array.ndim in (2, 4) else array


def as_dense(tensor: np.ndarray) -> np.ndarray:
    """The weight of a convolution of width 1, (out, in, 1) or (out, in, 1, 1), as that of a dense layer, (out, in)."""
    return tensor.reshape(tensor.shape[:2]) if tensor.ndim > 2 and set(tensor.shape[2:]) == {1} else tensor


def as_sines(kernel: np.ndarray, shift: float, last_frequency: bool) -> np.ndarray:
    """The kernel of the first time layer in our convention, [sin, cos] of t, from a kernel for [cos, sin] of t + shift.

    Let A, B be the rows of the given kernel (size, out) for cosines and for sines, u = w (t + shift), c = cos(w shift)
    and s = sin(w shift). Then

        cos(u) A + sin(u) B = sin(w t) (c B - s A) + cos(w t) (c A + s B).
    """
    half = len(kernel) // 2
    angles = shift * 10000.0 ** (-np.arange(half) / (half - 1 if last_frequency else half))
    c, s = np.cos(angles)[:, None], np.sin(angles)[:, None]
    of_cos, of_sin = np.split(kernel.astype(np.float64), 2)
    return np.concatenate([c * of_sin - s * of_cos, c * of_cos + s * of_sin]).astype(kernel.dtype)
