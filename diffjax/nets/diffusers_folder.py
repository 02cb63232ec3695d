"""Folders of Hugging Face diffusers: a `UNet2DModel`, and the scheduler that says how it was trained.

    FOLDER/config.json, diffusion_pytorch_model.safetensors (or .bin), scheduler_config.json    as google/ddpm-*
    FOLDER/unet/config.json, unet/diffusion_pytorch_model..., scheduler/scheduler_config.json   a pipeline

A scheduler's fields that say how the network was trained become fields of `config.diffusion`:

    beta_schedule      linear: linear; squaredcos_cap_v2: cosine
    prediction_type    epsilon: eps; sample: x0; v_prediction: v
    variance_type      fixed_small: posterior; fixed_large: forward; learned_range: learned
    clip_sample, rescale_betas_zero_snr

num_train_timesteps must be 1000. diffusers gives a network the index of a step, 0 .. T - 1. diffjax gives it 1000 t - 1
at time t = i/T. The two are equal only for T = 1000.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffjax.errors import InputError
from diffjax.extras import needs_weights
from diffjax.nets.diffusers import Published, network_of
from diffjax.nets.torch_files import read_tensors

WEIGHTS = "diffusion_pytorch_model"
SCHEDULES = {"linear": "linear", "squaredcos_cap_v2": "cosine"}
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
VARIANCES = {
    "fixed_small": "posterior",
    "fixed_small_log": "posterior",
    "fixed_large": "forward",
    "fixed_large_log": "forward",
    "learned_range": "learned",
}
# Fields of all schedulers for which our chain has only this value.
FIXED = {"trained_betas": None, "thresholding": False, "clip_sample_range": 1.0, "num_train_timesteps": 1000}


class Folder(NamedTuple):
    """What a folder holds.

    flip: flip_sin_to_cos of the network.
    tensors: by diffusers' names.
    chain: fields of `config.diffusion`; empty without a scheduler.
    """

    published: Published
    flip: bool
    tensors: dict[str, np.ndarray]
    chain: dict[str, Any]


def is_folder(path: Path) -> bool:
    """Whether the path is a folder of a diffusers model or pipeline."""
    own = path / "config.json"
    return (
        (path / "unet").is_dir()
        or (path / "model_index.json").is_file()
        or (own.is_file() and "_class_name" in _json(own))
    )


def read_folder(path: Path, size: int = 0) -> Folder:
    """Reads a folder. Nothing in it is executed.

    Args:
      size: height and width of images, used where the configuration does not say.

    Raises:
      InputError: a file is missing or damaged, or describes a network or chain that we do not have.
    """
    pipeline = (path / "unet").is_dir()
    home = path / "unet" if pipeline else path
    config = _json(home / "config.json")
    published = network_of(config, str(home / "config.json"), size)
    scheduler = path / "scheduler" / "scheduler_config.json" if pipeline else path / "scheduler_config.json"
    chain = chain_of(_json(scheduler), str(scheduler)) if scheduler.is_file() else {}
    files = [home / f"{WEIGHTS}.{suffix}" for suffix in ("safetensors", "bin")]
    there = [file for file in files if file.is_file()]
    if not there:
        raise InputError(f"{home} has no {files[0].name}; copy it there from the source of config.json")
    return Folder(published, config.get("flip_sin_to_cos", True), read_tensors(there[0]), chain)


def write_folder(path: Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], chain: Any) -> None:
    """Writes a folder like google/ddpm-*, which `UNet2DModel.from_pretrained` and `DDPMPipeline.from_pretrained` load.

    The folder appears whole or not at all.

    Args:
      chain: the section `config.diffusion`, or None for no scheduler.

    Raises:
      InputError: the folder exists, or diffusers has no such chain.
    """
    with needs_weights():
        from safetensors.numpy import save_file
    scheduler = None if chain is None else scheduler_of(chain)
    if path.exists():
        raise InputError(f"{path} exists; name a folder that does not, or move it away")
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f"{path.name}.", suffix=".part", dir=path.absolute().parent))
    try:
        _write(part / "config.json", config)
        weights = part / f"{WEIGHTS}.safetensors"
        save_file(dict(tensors), weights, metadata={"format": "pt"})
        weights.chmod(0o644)  # the library's 0o600, and mkdtemp's 0o700, would hide them from other users
        if scheduler is not None:
            _write(part / "scheduler_config.json", scheduler)
            classes = {"scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
            _write(part / "model_index.json", {"_class_name": "DDPMPipeline"} | classes)
        part.chmod(0o755)
        os.rename(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def chain_of(scheduler: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The fields of `config.diffusion` that a scheduler_config.json determines. Errors name it `file`.

    Raises:
      InputError: on a schedule or a prediction that `ddpm` does not have.
    """
    for name, value in FIXED.items():
        if name == "clip_sample_range" and not scheduler.get("clip_sample", True):
            continue
        if (found := scheduler.get(name, value)) != value:
            raise InputError(f"{file}: {name}={found!r} is not read; diffjax's chains have {name}={value!r}")
    chosen = {}
    for name, names, default in (
        ("beta_schedule", SCHEDULES, "linear"),
        ("prediction_type", PREDICTIONS, "epsilon"),
        ("variance_type", VARIANCES, "fixed_small"),
    ):
        chosen[name] = scheduler.get(name) or default  # the schedulers of DDIM and others have no variance
        if chosen[name] not in names:
            raise InputError(f"{file}: {name}={chosen[name]!r} is not read; it must be one of {', '.join(names)}")
    learned = chosen["variance_type"] == "learned_range"
    return {
        "schedule": SCHEDULES[chosen["beta_schedule"]],
        "betas": (scheduler.get("beta_start", 1e-4), scheduler.get("beta_end", 0.02)),
        "num_steps": 1000,
        "prediction": PREDICTIONS[chosen["prediction_type"]],
        "variance": VARIANCES[chosen["variance_type"]],
        "clip": scheduler.get("clip_sample", True),
        "zero_terminal_snr": scheduler.get("rescale_betas_zero_snr", False),
        "loss": "hybrid" if learned else "simple",
    }


def scheduler_of(chain: Any) -> dict[str, Any]:
    """scheduler_config.json for the section `config.diffusion`.

    Raises:
      InputError: diffusers' DDPMScheduler has no such chain.
    """
    inverse = [
        {ours: theirs for theirs, ours in reversed(names.items())} for names in (SCHEDULES, PREDICTIONS, VARIANCES)
    ]
    fields = ("schedule", "prediction", "variance")
    for name, names in zip(fields, inverse, strict=True):
        if chain[name] not in names:
            raise InputError(f"diffusion.{name}={chain[name]!r} is not in diffusers; it has only {', '.join(names)}")
    if chain["num_steps"] != 1000:
        raise InputError(
            f"diffusion.num_steps={chain['num_steps']}: only a chain of 1000 steps can be written for diffusers, which"
            " gives its networks the index of a step (our 1000 t - 1)"
        )
    schedule, prediction, variance = (names[chain[name]] for name, names in zip(fields, inverse, strict=True))
    return {
        "_class_name": "DDPMScheduler",
        "beta_start": chain["betas"][0],
        "beta_end": chain["betas"][1],
        "beta_schedule": schedule,
        "clip_sample": chain["clip"],
        "num_train_timesteps": 1000,
        "prediction_type": prediction,
        "rescale_betas_zero_snr": chain.get("zero_terminal_snr", False),
        "variance_type": variance,
    }


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); copy it again from its source") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} is no JSON object; copy it again from its source")
    return found


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
