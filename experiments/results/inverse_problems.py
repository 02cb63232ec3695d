"""Compares methods for in-painting, super-resolution and deblurring of test images by a trained diffusion chain.

    python -m experiments.results.inverse_problems RUN [--images=8 --steps=100 --particles=16 --noise=0.1 --zeta=1]

RUN is a workdir of system "ddpm". Prints a Markdown table and writes RUN/samples/inverse_problems.png. In the picture,
the columns are images, repeated for each problem. The rows are the image, the measurement, and a draw by each method.
"""

import argparse
import sys
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import conditioning, samplers
from diffjax.conditioning import operators
from diffjax.errors import InputError
from diffjax.mesh import here
from diffjax.zoo.figures import Grid
from diffjax.zoo.model import scaled
from experiments import pictures
from experiments.opened import Run, open_saved
from experiments.parameters import restore_ema

SHOWN = 6  # images of each problem in the picture


class Draws(NamedTuple):
    """One draw of each image by each method, (images, H, W, C)."""

    guided: Array
    dps: Array
    twisted: Array


METHODS = ("pseudoinverse-guided", "DPS", "twisted")  # the names of its fields


def problems(shape: tuple[int, ...]) -> dict[str, tuple[operators.Operator, Any]]:
    """The operators A of the problems, and how to show A x as an image of this shape."""
    height, width, _ = shape
    known = np.ones(shape, bool)
    known[height // 4 : height - height // 4, width // 4 : width - width // 4] = False
    factor = 2 if height < 16 else 4
    reach = height // 4
    bell = np.exp(-0.5 * (2 * np.arange(-reach, reach + 1) / reach) ** 2)
    where = np.flatnonzero(known)
    return {
        "in-painting": (operators.mask(known), lambda y: jnp.zeros(known.size).at[where].set(y).reshape(shape)),
        "super-resolution": (operators.downsample(factor), lambda y: y.repeat(factor, 0).repeat(factor, 1)),
        "deblurring": (operators.blur(np.outer(bell, bell) / bell.sum() ** 2, "zero"), lambda y: y),
    }


def draws(key: Array, run: Run, params: Any, apply: operators.Operator, y: Array, options: argparse.Namespace) -> Draws:
    """Draws of the images by each method, given their measurements y (images, ...)."""
    process, predict = run.model.kernels(params)
    variance, shape = run.saved["diffusion"]["variance"], run.test_set().shape
    times = samplers.spaced(process.schedule.times, options.steps)
    chain = samplers.ancestral(process, variance)
    seen = conditioning.linear_operator(apply, y, options.noise, shape)

    def filtered(item: tuple[Array, Array]) -> Array:
        """One of the particles, drawn by their weights."""
        filter_key, choice_key = jax.random.split(item[0])
        one = conditioning.linear_operator(apply, item[1], options.noise, shape)
        twist = conditioning.expected(process, predict, one, "isotropic")
        size = (options.particles, *shape)
        drawn = conditioning.twisted(process, predict, filter_key, times, size, one.log_r, twist, variance)
        return drawn.x[jax.random.categorical(choice_key, drawn.log_weights)]

    guided = conditioning.given(process, predict, seen, "isotropic")
    pulled = conditioning.dps(chain, process, seen.residual, options.zeta)
    return Draws(
        samplers.sample(chain, guided, key, times, (len(y), *shape)),
        samplers.sample(pulled, predict, key, times, (len(y), *shape)),
        jax.lax.map(filtered, (jax.random.split(key, len(y)), y)),
    )


def solved(run: Run, options: argparse.Namespace) -> tuple[list[str], Grid]:
    """The lines of the table, and the picture."""
    params, test_set = here(run.mesh, restore_ema(run, None)[1]), run.test_set()
    if not 1 <= options.images <= len(test_set):
        raise InputError(f"--images={options.images} must be from 1 to the {len(test_set)} test images")
    x0 = scaled(test_set.gather(np.arange(options.images))["image"], test_set.levels)
    shown = min(SHOWN, options.images)

    lines = ["| problem | method | mean squared error | residual/noise |", "| --- | --- | --- | --- |"]
    columns = []
    for i, (name, (apply, show)) in enumerate(problems(test_set.shape).items()):
        measure_key, key = jax.random.split(jax.random.fold_in(run.key, i))
        clean = jax.vmap(apply)(x0)
        y = clean + options.noise * jax.random.normal(measure_key, clean.shape)

        found = jax.jit(partial(draws, key, run, apply=apply, options=options))(params, y=y)
        for method, x in zip(("truth", *METHODS), (x0, *found), strict=True):
            error = ((x - x0) ** 2).mean((1, 2, 3))
            off = jnp.sqrt(((y - jax.vmap(apply)(x)) ** 2).mean()) / options.noise
            bars = f"{error.mean():.3f} ± {error.std() / np.sqrt(len(error)):.3f}"
            lines.append(f"| {name} | {method} | {bars} | {off:.2f} |")
        columns.append([x0[:shown], jax.vmap(show)(y)[:shown], *(x[:shown] for x in found)])
    rows = [jnp.concatenate(parts) for parts in zip(*columns, strict=True)]
    return lines, Grid(jnp.concatenate(rows), len(rows[0]))


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="the workdir of a trained run")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--particles", type=int, default=16)
    parser.add_argument("--noise", type=float, default=0.1, help="tau, of pixels in [-1, 1]")
    parser.add_argument("--zeta", type=float, default=1.0, help="of DPS")
    options = parser.parse_args(arguments)
    try:
        run = open_saved(options.run)
        if run.system != "ddpm":
            raise InputError(f"{options.run} is a run of {run.system!r}: name one of system 'ddpm'")
        lines, picture = solved(run, options)
    except InputError as error:
        sys.exit(f"error: {error}")
    print("\n".join(lines))
    print(pictures.write(run.directory / "samples" / "inverse_problems", picture))


if __name__ == "__main__":
    main(sys.argv[1:])
