"""`python -m diffjax.nets.published IN OUT`: imports published weights to a workdir, and exports a run's weights.

    IN a workdir          OUT.safetensors    a file of its EMA weights, see `weights_file`, and README.md beside it
                          OUT                a folder of diffusers, of a run of `ddpm` with a U-Net
    IN others' weights    OUT                a workdir, whose checkpoint 0 holds them: for --mode=sample and eval,
                                             for init_from and teachers

What IN does not say about the chain comes from --config, --schedule and --steps. Without --config the data are unknown,
so nothing is measured or trained on the wrong data. OUT must not exist.
"""

import argparse
import runpy
import sys
from pathlib import Path
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from diffjax.errors import InputError
from diffjax.mesh import here
from diffjax.nets import published
from diffjax.nets.diffusers import config_of, to_diffusers
from diffjax.nets.diffusers_folder import write_folder
from diffjax.nets.published import Found, open_published
from diffjax.nets.unet import DDPM, UNet
from diffjax.paths import local
from diffjax.zoo.diffusion import networks
from experiments import weights_file
from experiments.model_card import model_card
from experiments.opened import Run, open_run, open_saved
from experiments.parameters import restore_ema, start
from experiments.workdir import read_config
from experiments.writer import claimed

CONFIGS = Path(__file__).parents[1] / "configs"
UNKNOWN = "unknown"  # the name of the data if IN does not say it


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m diffjax.nets.published",
        description=published.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("IN", help="a workdir, or others' folder or file of weights")
    parser.add_argument("OUT", help="a workdir, OUT.safetensors, or a folder of diffusers; it must not exist")
    parser.add_argument(
        "--config", help="of others' weights: a file of configs/, for data and all that IN does not say"
    )
    parser.add_argument("--size", type=int, default=0, help="of others' weights: height and width of the images")
    parser.add_argument("--heads", type=int, default=0, help="of improved-diffusion: its num_heads")
    parser.add_argument("--schedule", help="of others' weights without one: linear, cosine ...")
    parser.add_argument("--steps", type=int, help="of others' weights without them: steps of the chain")
    parser.add_argument("--step", type=int, help="of a workdir: the checkpoint; default the newest")
    options = parser.parse_args(argv)
    logging.set_verbosity(logging.FATAL)  # orbax tells of every file it writes
    try:
        source, target = local(options.IN, "IN"), local(options.OUT, "OUT")
        if target.exists():
            raise InputError(f"OUT={target} exists; name a place that does not, or move it away")
        for line in convert(source, target, options):
            print(line)
    except InputError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename or options.OUT} cannot be used: {error.strerror or error}")


def convert(source: Path, target: Path, options: argparse.Namespace) -> list[str]:
    """Converts `source` to `target`, each of the kind that its path shows. Returns lines for the screen."""
    if (source / "config.json").is_file() and "system" in read_config(source, "IN"):
        if target.suffix == weights_file.SUFFIX:
            return to_file(open_saved(source, "IN"), target, options.step)
        return to_folder(open_saved(source, "IN"), target, options.step)
    if target.suffix == weights_file.SUFFIX:
        raise InputError(
            f"IN={source} is no run, and OUT={target} is written of runs alone; make a workdir of it first"
        )
    if source.suffix == weights_file.SUFFIX:
        return of_file(source, target)
    return of_others(open_published(source, options.size, options.heads), source, target, options)


def to_file(run: Run, target: Path, step: int | None) -> list[str]:
    """Writes the EMA weights to one file, with a model card beside it."""
    card = target.with_name("README.md")
    if card.exists():
        raise InputError(f"{card} exists, where the model card goes; put OUT into a folder of its own")
    step, params = restore_ema(run, step)
    params = here(run.mesh, params)
    text = model_card(run, target.name, step, params)
    target.parent.mkdir(parents=True, exist_ok=True)
    weights_file.write(target, read_config(run.directory), params, step, run.ema_width)
    card.write_text(text)
    return [f"{target}: EMA weights of step {step}", f"{card}: what they are; its licence is yours to name"]


def to_folder(run: Run, target: Path, step: int | None) -> list[str]:
    """Writes the EMA weights as a folder of diffusers.

    Raises:
        InputError: if it is not a run of `ddpm` with a U-Net, or if diffusers has no such network.
    """
    config = read_config(run.directory)
    if run.system != "ddpm" or config.net.get("name", "unet") != "unet":
        raise InputError(
            f"IN={run.directory} is a run of {run.system!r} with net.name={config.net.get('name', 'unet')!r}: diffusers"
            " has the like of 'ddpm' with 'unet' alone; give OUT.safetensors instead"
        )
    step, params = restore_ema(run, step)
    params = here(run.mesh, params)
    net = networks.of_images(config.net, params["conv_out"]["bias"].shape[0])
    assert isinstance(net, UNet)
    theirs = config_of(net, params, tuple(config.data.shape))
    write_folder(target, theirs, to_diffusers(params, len(net.multipliers)), config.diffusion)
    return [f"{target}: EMA weights of step {step}; UNet2DModel.from_pretrained({str(target)!r}) loads them"]


def of_file(source: Path, target: Path) -> list[str]:
    """Makes a workdir from a file that `to_file` wrote."""
    found = weights_file.read(source, "IN")
    return _begun(open_run(found.config, target), found.params, f"the weights of step {found.step}")


def of_others(found: Found, source: Path, target: Path, options: argparse.Namespace) -> list[str]:
    """Makes a workdir from others' weights."""
    config = config_for(found, source, options)
    num_steps = config.diffusion.num_steps
    return _begun(open_run(config, target), lambda like: found.params(like, num_steps), found.what)


def config_for(found: Found, source: Path, options: argparse.Namespace) -> ConfigDict:
    """The configuration of a run with these weights.

    Raises:
        InputError: if --config does not fit the weights, or if it is not known for which chain the network was trained.
    """
    height, width = found.published.size
    config = _config(options.config) if options.config else _default(height)
    if config.system != "ddpm" or config.net.get("name", "unet") != "unet":
        raise InputError(
            f"--config={options.config} is of {config.system!r}; others' weights are of 'ddpm' with 'unet'"
        )
    given = {"schedule": options.schedule, "num_steps": options.steps}
    chain = found.chain | {name: value for name, value in given.items() if value is not None}
    if "schedule" not in chain and not options.config:
        raise InputError(
            f"IN={source} does not say which chain it was trained for: add --schedule=linear or cosine and --steps=N,"
            " or --config=FILE"
        )
    config.diffusion.update(chain)
    config.sampling.steps = min(config.sampling.steps, config.diffusion.num_steps)
    unet, conventions = dict(found.published.unet), found.published.unet.get("conventions", DDPM)
    learned = unet.pop("out_channels") != found.published.in_channels
    if learned != (config.diffusion.variance == "learned"):
        raise InputError(
            f"IN={source} has {'twice as many' if learned else 'as many'} output channels as input channels, but"
            f" diffusion.variance={config.diffusion.variance!r}; give another --config"
        )
    differ = {name: value for name, value in conventions._asdict().items() if value != getattr(DDPM, name)}
    config.net.update({**unet, "conventions": differ} if differ else unet)
    if not differ and "conventions" in config.net:
        del config.net["conventions"]
    config.data.shape = (height, width, found.published.in_channels)
    return config


def _begun(run: Run, params_of: Any, what: str) -> list[str]:
    """Makes the workdir of a run that starts with these parameters. Nothing is written if they do not fit."""
    like = jax.eval_shape(run.model.init, jax.random.key(0))
    params = params_of(like)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    with claimed(run.directory, run.saved):
        start(run, params)
    return [
        f"{run.directory}: {what}, {count:,} parameters",
        f"python -m experiments.main --mode=sample --workdir={run.directory}",
    ]


def _default(height: int) -> ConfigDict:
    """DDPM's configuration for small or for large images, with unknown data."""
    config = _config(str(CONFIGS / ("cifar10.py" if height <= 32 else "celebahq256.py")))
    config.data.name = UNKNOWN
    return config


def _config(file: str) -> ConfigDict:
    try:
        config = runpy.run_path(file)["get_config"]()
    except Exception as error:  # the file is the user's, and can fail in any way
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"--config={file} cannot be used ({reason}); name a file such as configs/cifar10.py") from None
    if not isinstance(config, ConfigDict):
        raise InputError(f"--config={file}: get_config() returns no ConfigDict; name a file such as configs/cifar10.py")
    return config
