"""Published parameters for `diffjax.nets.unet.UNet`, and the command that imports and exports them.

    python -m diffjax.nets.published IN WORKDIR               others' weights -> a run to sample, measure or continue
    python -m diffjax.nets.published WORKDIR FOLDER           a run's EMA weights -> a folder of diffusers' UNet2DModel
    python -m diffjax.nets.published WORKDIR OUT.safetensors  the same in one file, with a model card README.md

    IN                   format                                                        read by
    a folder             diffusers, such as google/ddpm-cifar10-32 or -celebahq-256    `diffusers_folder`
    .pt, .pth, .bin      improved-diffusion: a state_dict, of which tensors are read   `improved_diffusion`
    .npz                 DDPM's own, of Ho et al. 2020, see below                      `from_ddpm`
    .safetensors         what the third command wrote                                  experiments/weights_file.py
    .pkl                 EDM's: refused

EDM's .pkl files (Karras et al. 2022) hold objects, not tensors. `torch_utils.persistence` puts the source code of their
classes into the pickle, and unpickling runs that code. Their networks also compute other functions: their residual
blocks are scaled by √½ and resample inside. If you trust such a file, unpickle it with EDM's code and use its network
as it is. `diffjax.predictions.x0` takes any function (xt, t), also one that calls PyTorch with `jax.pure_callback`, at
EDM's noise level `schedules.edm().sigma(t)`.

The authors' TensorFlow checkpoints of DDPM (github.com/hojonathanho/diffusion) name their variables by scopes:

    theirs                                 ours                             equal in
    model/temb/dense0/W                    temb_dense0/kernel               (in, out)
    model/down_1/block_0/conv1/W, b        down_1_block_0/conv1/kernel, bias   (height, width, in, out)
    model/down_1/block_0/norm1/gamma, beta down_1_block_0/norm1/scale, bias
    model/down_1/attn_0/q/W                down_1_attn_0/q/kernel           (in, out)
    model/down_0/downsample/conv/W         down_0_downsample/kernel
    model/mid/attn_1/proj_out/W            mid_attn/proj_out/kernel

The exponential moving average, from which samples are drawn, has the names `.../ExponentialMovingAverage`. Nothing is
transposed, because both are channels-last. The checkpoint also holds Adam's moments, so export the average by itself,
where TensorFlow is installed:

    reader = tf.train.load_checkpoint("model.ckpt-790000")
    names = [name for name in reader.get_variable_to_shape_map() if name.endswith("/ExponentialMovingAverage")]
    np.savez("ddpm.npz", **{name: reader.get_tensor(name) for name in names})

Read it back, without executing anything from the file, with

    like = jax.eval_shape(UNet().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)), jnp.zeros(1))
    params = from_ddpm(np.load("ddpm.npz", allow_pickle=False), like)
"""

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffjax.errors import InputError
from diffjax.extras import MissingExtra, missing
from diffjax.nets import improved_diffusion
from diffjax.nets.diffusers import Published, from_diffusers
from diffjax.nets.diffusers_folder import is_folder, read_folder
from diffjax.nets.renaming import as_params
from diffjax.nets.torch_files import read_tensors
from diffjax.paths import local

AVERAGE = "/ExponentialMovingAverage"
CHAIN = {
    "schedule": "linear",
    "betas": (1e-4, 0.02),
    "num_steps": 1000,
    "prediction": "eps",
    "loss": "simple",
}  # DDPM's


class Found(NamedTuple):
    """Weights that were found.

    what: the name of the format.
    published: the network.
    chain: the fields of `config.diffusion` that the file determines.
    params: (params_like, num_steps) -> the parameters; params_like is `UNet(...).init(...)["params"]` or its shapes,
        num_steps that of the chain. Raises `InputError` if a tensor is missing, left over or of another shape.
    """

    what: str
    published: Published
    chain: dict[str, Any]
    params: Callable[[Mapping[str, Any], int], dict[str, Any]]


def open_published(path: str | Path, size: int = 0, heads: int = 0) -> Found:
    """The network and the weights of a folder or a file. Nothing in it is executed.

    Args:
      path: the folder or file, IN of the module's docstring.
      size: height and width of images; 0 means the size that the file says.
      heads: of attention; improved-diffusion's files do not say it.

    Raises:
      InputError: it is missing, damaged, of an unknown format, or of a network that `UNet` does not compute.
    """
    place = local(path, "IN")
    if place.is_dir():
        return _of_folder(place, size)
    if not place.exists():
        raise InputError(f"IN={place} does not exist; name a folder or a file of weights")
    if place.suffix == ".pkl":
        raise InputError(
            f"IN={place}: a .pkl, such as EDM's, is a program that unpickling runs, so it is not read; the docstring of"
            " diffjax.nets.published says how to use its network"
        )
    tensors = read_tensors(place)
    if improved_diffusion.is_theirs(tensors):
        return _improved(place, tensors, size, heads)
    if any(name.startswith("model/conv_in/W") for name in tensors):
        return _ddpm(place, tensors, size)
    near = ", or the folder of this file" if "conv_in.weight" in tensors else ""
    raise InputError(f"IN={place} is of an unknown format; give DDPM's .npz or improved-diffusion's .pt{near}")


def _of_folder(place: Path, size: int) -> Found:
    if not is_folder(place):
        raise InputError(f"IN={place} is neither a run nor a folder of diffusers; give one of these, with config.json")
    folder = read_folder(place, size)

    def params(like: Mapping[str, Any], num_steps: int) -> dict[str, Any]:
        if num_steps != 1000:
            raise InputError(
                f"IN={place}: diffusers' networks take times 0 .. 999; use a chain of 1000 steps, not {num_steps}"
            )
        return from_diffusers(folder.tensors, like, len(folder.published.unet["multipliers"]), folder.flip)

    return Found("diffusers' UNet2DModel", folder.published, folder.chain, params)


def _improved(place: Path, tensors: Mapping[str, np.ndarray], size: int, heads: int) -> Found:
    if not size or not heads:
        raise InputError(
            f"IN={place} does not contain its training's --image_size and --num_heads: add --size=N and --heads=N"
            " (heads were 4 by default, 1 for LSUN)"
        )
    found = improved_diffusion.network_of(tensors, size, heads, str(place))
    learned = found.unet["out_channels"] == 2 * found.in_channels
    chain = {"variance": "learned", "loss": "hybrid"} if learned else {}
    return Found(
        "improved-diffusion's U-Net",
        found,
        chain,
        lambda like, num_steps: improved_diffusion.from_improved(tensors, like, found.unet, size, num_steps),
    )


def _ddpm(place: Path, tensors: Mapping[str, np.ndarray], size: int) -> Found:
    found = network_of_ddpm({name.removesuffix(AVERAGE): value for name, value in tensors.items()}, size, str(place))
    return Found("DDPM's U-Net", found, CHAIN, lambda like, num_steps: from_ddpm(tensors, {"params": like})["params"])


def network_of_ddpm(tensors: Mapping[str, np.ndarray], size: int, file: str) -> Published:
    """The network to which the tensors belong.

    Args:
      size: height and width of images; 0 assumes that the first attention is at 16x16, as in DDPM.
      file: the name of the file in error messages.

    Raises:
      InputError: if the tensors are not DDPM's, or if there is neither an attention nor a size.
    """
    widths, counts, attended = dict[int, int](), dict[int, int](), set[int]()
    for name, value in tensors.items():
        if found := re.fullmatch(r"model/down_(\d+)/block_(\d+)/conv1/W", name):
            level, index = int(found[1]), int(found[2])
            widths[level], counts[level] = value.shape[-1], max(counts.get(level, 0), index + 1)
        if found := re.fullmatch(r"model/down_(\d+)/attn_0/q/W", name):
            attended.add(int(found[1]))
    kernel = tensors.get("model/conv_in/W")
    if kernel is None or kernel.ndim != 4 or not widths or "model/conv_out/W" not in tensors:
        raise InputError(f"{file} lacks model/conv_in, model/conv_out or the blocks on the way down")
    if not size and not attended:
        raise InputError(f"{file} has no attention from which to infer the size of images; add --size=N")
    size = size or 16 << min(attended)
    unet = {
        "channels": kernel.shape[3],
        "multipliers": tuple(widths[level] // kernel.shape[3] for level in sorted(widths)),
        "num_blocks": counts.get(0, 0),
        "attention": tuple(size >> level for level in sorted(attended)),
        "out_channels": tensors["model/conv_out/W"].shape[3],
    }
    return Published(unet, (size, size), kernel.shape[2])


def ddpm_name(path: tuple[str, ...]) -> str:
    """The name in the checkpoint of the parameter at `path`, such as ("params", "mid_attn", "q", "kernel")."""
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
      a tree like `params_like`, all of whose values are from `tensors`.

    Raises:
      InputError: a tensor is missing, left over, present twice (average and raw) or of another shape.
    """
    theirs = {name.removesuffix(AVERAGE): name for name in tensors}
    if len(theirs) < len(tensors):
        raise InputError(f"tensors holds both parameters and their {AVERAGE[1:]}; give one of the two")
    renamed = {name: tensors[theirs[name]] for name in theirs}
    return as_params(renamed, params_like, ddpm_name)


def main() -> None:
    """The command. It imports `experiments` by name, because only that package writes a run's directory."""
    try:
        door = importlib.import_module("experiments.weights")
    except MissingExtra as error:
        sys.exit(f"error: {error}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "experiments":
            sys.exit(f"error: {missing(error)}")
        sys.exit(
            "error: this command needs a clone of the repository: run it there, with pip install -e '.[run,weights]'"
        )
    door.main()


if __name__ == "__main__":
    main()
