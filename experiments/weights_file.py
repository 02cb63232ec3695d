"""One safetensors file with a run's EMA weights. Its metadata hold the run's configuration.

    metadata    format: diffjax; system, config (JSON, as in config.json), step, ema_width
    tensors     named by their place in the system's parameters, such as down_0_block_0/conv1/kernel, with our axes

Fields that name places on one machine are empty in the file, and the mesh is the default. Reading executes nothing.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffjax.errors import InputError
from diffjax.extras import needs_weights
from diffjax.mesh import DATA_PARALLEL
from diffjax.nets.renaming import some
from diffjax.nets.torch_files import read_tensors
from diffjax.paths import local
from diffjax.training.checksum import names
from experiments.workdir import from_plain, plain

SUFFIX = ".safetensors"
FORMAT = "diffjax"
PLACES = ("init_from", "data.dir", "distillation.teacher", "evaluation.quality")


class WeightsFile(NamedTuple):
    """The content of a file. `field` is the file's name in error messages."""

    path: Path
    config: ConfigDict
    step: int
    tensors: dict[str, np.ndarray]
    field: str

    def params(self, like: Any) -> Any:
        """The weights as a tree like `like`, which is the system's parameters or their shapes.

        Raises:
            InputError: if the file has other parameters.
        """
        wanted = dict(zip(names(like), jax.tree.leaves(like), strict=True))
        if differ := sorted(wanted.keys() ^ self.tensors.keys()):
            raise InputError(f"{self.field}={self.path}: {some(differ)} fits not its own configuration; copy it again")
        for name, leaf in wanted.items():
            if (shape := self.tensors[name].shape) != leaf.shape:
                raise InputError(
                    f"{self.field}={self.path}: {name} has shape {shape}, and its configuration {leaf.shape}"
                )
        return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(self.tensors[name]) for name in wanted])


def write(path: Path, config: ConfigDict, params: Any, step: int, ema_width: float) -> None:
    """Writes the whole file or nothing."""
    with needs_weights():
        from safetensors.numpy import save_file
    saved = plain(portable(config))
    metadata = {"format": FORMAT, "system": config.system, "config": json.dumps(saved), "step": str(step)}
    arrays = [np.ascontiguousarray(leaf) for leaf in jax.tree.leaves(params)]
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        tensors = dict(zip(names(params), arrays, strict=True))
        save_file(tensors, part, metadata=metadata | {"ema_width": f"{ema_width:g}"})
        part.chmod(0o644)  # the library's 0o600 would hide it from other users
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read(path: str | Path, field: str) -> WeightsFile:
    """Reads a file that `write` wrote.

    Raises:
        InputError: if it is missing, damaged, or without a configuration.
    """
    file = local(path, field)
    if not file.is_file():
        raise InputError(f"{field}={file} does not exist; name a file of weights, or a workdir")
    metadata = metadata_of(file)
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{field}={file} says nothing of its network; give the file that `python -m diffjax.nets.published WORKDIR"
            " OUT.safetensors` wrote, or make a workdir of the folder that it is from by `... FOLDER WORKDIR`"
        )
    try:
        config, step = from_plain(json.loads(metadata["config"])), int(metadata["step"])
    except (KeyError, ValueError) as error:
        raise InputError(f"{field}={file} is damaged: its metadata have no usable {error}; copy it again") from None
    return WeightsFile(file, config, step, read_tensors(file), field)


def metadata_of(file: Path) -> dict[str, str]:
    """The metadata of a safetensors file. Raises `InputError` if the file is damaged."""
    with needs_weights():
        from safetensors import SafetensorError, safe_open
    try:
        with safe_open(file, "numpy") as opened:
            return opened.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{file} is truncated, or no safetensors file ({error}); copy it again") from None


def portable(config: ConfigDict) -> ConfigDict:
    """The configuration without the settings of one machine."""
    config = ConfigDict(config.to_dict())
    for place in PLACES:
        *sections, field = place.split(".")
        here = config
        for section in sections:
            here = here.get(section, {})
        if field in here:
            here[field] = ""
    config.mesh, config.parallel = DATA_PARALLEL, "jit"
    return config
