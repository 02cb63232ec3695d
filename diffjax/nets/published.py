"""Parameters published with DDPM (Ho et al. 2020), for `diffjax.nets.unet.UNet`.

The authors' TensorFlow checkpoints (github.com/hojonathanho/diffusion) name their variables by scopes:

    theirs                                 ours                             equal in
    model/temb/dense0/W                    temb_dense0/kernel               (in, out)
    model/down_1/block_0/conv1/W, b        down_1_block_0/conv1/kernel, bias   (height, width, in, out)
    model/down_1/block_0/norm1/gamma, beta down_1_block_0/norm1/scale, bias
    model/down_1/attn_0/q/W                down_1_attn_0/q/kernel           (in, out)
    model/down_0/downsample/conv/W         down_0_downsample/kernel
    model/mid/attn_1/proj_out/W            mid_attn/proj_out/kernel

and the exponential moving average, which is what one samples from, as `.../ExponentialMovingAverage`. Nothing is
transposed, because both are channels-last. The checkpoint also holds Adam's moments, so write the average out by
itself, where TensorFlow is installed:

    reader = tf.train.load_checkpoint("model.ckpt-790000")
    names = [name for name in reader.get_variable_to_shape_map() if name.endswith("/ExponentialMovingAverage")]
    np.savez("ddpm.npz", **{name: reader.get_tensor(name) for name in names})

and read it back, executing nothing from the file, with

    like = jax.eval_shape(UNet().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)), jnp.zeros(1))
    params = from_ddpm(np.load("ddpm.npz", allow_pickle=False), like)
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.nets.renaming import as_params

AVERAGE = "/ExponentialMovingAverage"


def ddpm_name(path: tuple[str, ...]) -> str:
    """The checkpoint's name of the parameter at `path`, such as ("params", "mid_attn", "q", "kernel")."""
    _, module, *layers, leaf = path
    scope = re.sub(r"^(temb|mid|down_\d+|up_\d+)_", r"\1/", module)
    scope = scope.replace("mid/attn", "mid/attn_1").replace("sample", "sample/conv")
    is_norm = (layers or [module])[-1].startswith("norm")
    name = {"kernel": "W", "bias": "beta" if is_norm else "b", "scale": "gamma"}.get(leaf, leaf)
    return "/".join(["model", scope, *layers, name])


def from_ddpm(tensors: Mapping[str, np.ndarray], params_like: Mapping[str, Any]) -> dict[str, Any]:
    """The published tensors as parameters of our network.

    Args:
      tensors: arrays by the checkpoint's names, either all averages or all raw parameters.
      params_like: what `UNet(...).init` returns, or its shapes from `jax.eval_shape`.

    Returns:
      a tree like `params_like` with the values, and nothing but the values, of `tensors`.

    Raises:
      InputError: a tensor is missing, left over, there twice (average and raw) or of another shape.
    """
    theirs = {name.removesuffix(AVERAGE): name for name in tensors}
    if len(theirs) < len(tensors):
        raise InputError(f"tensors holds parameters and their {AVERAGE[1:]} at once; give one of the two")
    renamed = {name: tensors[theirs[name]] for name in theirs}
    return as_params(renamed, params_like, ddpm_name)
