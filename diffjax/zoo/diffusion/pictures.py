"""Pictures of several systems: the reverse process, points of the plane, conditioned samples."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import bounds, conditioning, predictions, samplers, sde
from diffjax.predictions import Predict
from diffjax.processes import Gaussian, Variance
from diffjax.zoo.figures import Arrows, Curves, Decode, Figure, Film, Grid, Panels, Points


class Reverse(NamedTuple):
    """A reverse process to draw.

    predict(params, label) -> Predict; label (batch,), or None
    times: of the sampler, descending
    """

    process: Gaussian
    predict: Callable[[Any, Array | None], Predict]
    stepper: samplers.Stepper
    times: Array
    variance: Variance


def of_chain(
    reverse: Reverse,
    params: Any,
    key: Array,
    images: Array,
    label: Array | None,
    times: Array,
    decoder: bounds.Decoder,
    conditioned_too: bool,
) -> dict[str, Figure]:
    """The reverse process and its estimates of x_0, an interpolation, and the rate-distortion curve.

    images (n, H, W, C) are data, label (n,) their classes or None, and times all those of the chain, ascending.
    """
    process, shape = reverse.process, images.shape[1:]
    film_key, mix_key, curve_key = jax.random.split(key, 3)
    some = None if label is None else label[:16]

    def drawn(params: Any, key: Array) -> tuple[Array, Array]:
        num = 16 if some is None else len(some)
        return film(reverse.stepper, process, reverse.predict(params, some), key, reverse.times, (num, *shape))

    def costs(params: Any, key: Array, images: Array, label: Array | None) -> bounds.DiffusionTerms:
        return bounds.diffusion(process, reverse.predict(params, label), key, images, times, reverse.variance, decoder)

    x, x0 = jax.jit(drawn)(params, film_key)
    mixes = jax.jit(partial(interpolation, reverse))(params, mix_key, images, label)
    rate, distortion = bounds.rate_distortion(jax.jit(costs)(params, curve_key, images, label), shape)
    found: dict[str, Figure] = {}
    if conditioned_too:
        predict = reverse.predict(params, None if label is None else label[:8])
        found = conditioned(mix_key, process, predict, images[:8], reverse.times, reverse.variance, lambda x: x)
    every = max(1, len(x0) // 10)
    progress = x0[every - 1 :: every, :8].swapaxes(0, 1)
    return found | {
        "reverse_process": Film(x),
        "progressive_generation": Grid(progress.reshape(-1, *shape), progress.shape[1]),
        "interpolation": Grid(mixes.reshape(-1, *shape), mixes.shape[1]),
        "rate_distortion": Curves(
            {"rate and distortion": (rate, 127.5 * distortion)}, "rate (bits/dim)", "RMSE (pixels in [0, 255])"
        ),
    }


def interpolation(
    reverse: Reverse, params: Any, key: Array, images: Array, label: Array | None, rows: int = 4
) -> Array:
    """Rows: an image, seven mixtures of it and another image at half the chain (DDPM's t = 500), the other image."""
    half = reverse.times[(len(reverse.times) - 2) // 2 :]
    weights = jnp.linspace(0.1, 0.9, 7)

    def row(item: tuple[Array, Array]) -> Array:
        i, (a, b) = item[0], images[item[1]]
        # One class for the whole row, that of its first image: a mixture of classes is not a class.
        predict = reverse.predict(params, None if label is None else label[item[1][:1]])
        key_of_row = jax.random.fold_in(key, i)
        mixed = samplers.interpolate(reverse.process, reverse.stepper, predict, key_of_row, a, b, weights, half)
        return jnp.concatenate([a[None], mixed, b[None]])

    rows = min(rows, len(images) // 2)
    return jax.lax.map(row, (jnp.arange(rows), jnp.arange(2 * rows).reshape(rows, 2)))


def of_score(
    reverse: Reverse, params: Any, key: Array, draw: Callable[[Array], Array], conditioning_steps: int
) -> dict[str, Figure]:
    """The reverse process with its frames in rows, and images mixed in the latents of the probability flow. With
    `conditioning_steps` also denoising and inpainting.

    draw(key) -> (n, H, W, C), data.
    """
    film_key, latent_key, key = jax.random.split(key, 3)
    x0 = draw(latent_key)
    shape = x0.shape[1:]

    @jax.jit
    def frames(params: Any, key: Array) -> Array:
        predict = reverse.predict(params, None)
        return film(reverse.stepper, reverse.process, predict, key, reverse.times, (16, *shape))[0]

    x = frames(params, film_key)
    every = max(1, len(x) // 10)
    # What noise levels up to 50 make of pixels is looked at on a scale of its own.
    scale = jnp.sqrt((x[every - 1 :: every, :8] ** 2).mean((1, 2, 3, 4), keepdims=True)).clip(1.0)
    rows = jnp.concatenate([x[every - 1 :: every, :8] / scale, x[-1:, :8]]).swapaxes(0, 1)
    drawn: dict[str, Figure] = {
        "reverse_process": Film(x),
        "denoising_sequence": Grid(rows.reshape(-1, *shape), rows.shape[1]),
        "latent_interpolation": latent_interpolation(reverse, params, x0),
    }
    if conditioning_steps:
        some, times = draw(key)[:8], sde.times(reverse.process.schedule, conditioning_steps)
        # What leaves the data's range at high noise would be guided further out of it.
        predict = predictions.clip(reverse.predict(params, None), reverse.process)
        drawn |= conditioned(key, reverse.process, predict, some, times, "posterior", lambda x: x)
    return drawn


def latent_interpolation(reverse: Reverse, params: Any, x0: Array, rows: int = 4) -> Grid:
    """Rows: from one image to another, mixed in the latents of the probability flow."""
    process, shape, rows = reverse.process, x0.shape[1:], min(rows, len(x0) // 2)

    @jax.jit
    def mixed(params: Any, x0: Array) -> Array:
        predict = reverse.predict(params, None)
        latents = sde.encode(process, predict, x0)
        mix = jax.vmap(lambda a, b: sde.interpolate_latents(a, b, jnp.linspace(0.0, 1.0, 9)))
        between = mix(latents[0::2], latents[1::2]).reshape(-1, *shape)
        return sde.decode(process, predict, between, denoise=True).reshape(rows, -1, *shape)

    x0 = x0[: 2 * rows]
    images = jnp.concatenate([x0[0::2, None], mixed(params, x0), x0[1::2, None]], axis=1)
    return Grid(images.reshape(-1, *shape), images.shape[1])


def film(
    stepper: samplers.Stepper,
    process: Gaussian,
    predict: Predict,
    key: Array,
    times: Array,
    shape: tuple[int, ...],
    frames: int = 50,
) -> tuple[Array, Array]:
    """x and the estimate of x_0 at about `frames` moments of the reverse process, each (frames, *shape).

    times: the sampler's grid, descending; shape: (num, *event).
    """
    num_steps = len(times) - 1
    frames = min(frames, num_steps)
    stride = num_steps // frames
    times = samplers.spaced(times, frames * stride)
    prior_key, key = jax.random.split(key)
    start = stepper.prior(shape).sample(prior_key)

    def body(x: Array, frame: Array) -> tuple[Array, tuple[Array, Array]]:
        part = jax.lax.dynamic_slice_in_dim(times, frame * stride, stride + 1)
        t = jnp.full(shape[0], part[0])
        guess = predictions.convert(predict(x, t), "x0", process, x, t)
        x = samplers.denoise(stepper, predict, jax.random.fold_in(key, frame), x, part)
        return x, (x, guess)

    return jax.lax.scan(body, start, jnp.arange(frames))[1]


def trajectories(
    key: Array, process: Gaussian, predict: Predict, x0: Array, times: Array, variance: Variance, num: int = 2000
) -> Panels:
    """Figure 1 of Sohl-Dickstein et al. 2015: q(x_t), p(x_t) and the reverse drift E[x_{t-1} | x_t] - x_t, at three t.

    x0 (n, 2) are data. The first row shows their forward diffusion. Times ascend from 0 to 1.
    """
    forward_key, key = jax.random.split(key)
    num_steps = len(times) - 1
    stepper = samplers.ancestral(process, variance)
    prior_key, key = jax.random.split(key)
    start = process.prior((num, 2)).sample(prior_key)
    _, path = samplers.denoise(stepper, predict, key, start, times[::-1], lambda state: state.x)
    reverse = jnp.concatenate([start[None], path])[::-1]
    side = jnp.linspace(-2.5, 2.5, 21)
    lattice = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)
    rows: list[list[Points | Arrows]] = [[], [], []]
    for i in (0, num_steps // 2, num_steps):
        name = f"t = {i}"
        q = x0 if i == 0 else process.marginal(x0, times[i]).sample(jax.random.fold_in(forward_key, i))
        rows[0].append(Points(f"forward, {name}", q))
        rows[1].append(Points(f"reverse, {name}", reverse[i]))
        # The first step is fixed: the drift of the second shows what was learned there.
        step = max(i, 2)
        t = jnp.full(len(lattice), times[step])
        drift = process.reverse(predict(lattice, t), lattice, times[step - 1], times[step], variance).mean - lattice
        rows[2].append(Arrows(f"drift, t = {step}", lattice, drift))
    return Panels(rows)


def conditioned(
    key: Array, process: Gaussian, predict: Predict, x0: Array, times: Array, variance: Variance, decode: Decode
) -> dict[str, Figure]:
    """Denoising, inpainting and, of three channels, colourisation of images x0 (n, H, W, C). Columns are images; rows:

    denoising      x0, x0 + noise, a draw of p(x_0 | y) by the chain from there on, and by the paper's kernels
    inpainting     x0, its known pixels, a draw guided by E[r(x_0) | x_t], and by the paper's kernels
    colourisation  x0, its grey values, and a draw of p(x_0 | grey), guided likewise

    times: the sampler's grid, descending from 1 to 0. decode maps x to [-1, 1].
    """
    noise_key, denoise_key, guide_key, paper_key = jax.random.split(key, 4)
    log_snr = jax.vmap(process.schedule.log_snr)(times)
    first = int(jnp.argmax(log_snr > 1.0))  # the time of the grid at which the noise is about 0.6 of the data
    noise = float(jnp.exp(-0.5 * log_snr[first]))
    y = x0 + noise * jax.random.normal(noise_key, x0.shape)
    seen = conditioning.denoising(y, noise)
    start, later = conditioning.denoising_start(process, y, noise, times)
    stepper = samplers.ancestral(process, variance)

    def paper(observation: conditioning.Observation) -> Array:
        kernels = samplers.ancestral(conditioning.tilted(process, observation), variance)
        return samplers.sample(kernels, predict, paper_key, times, x0.shape)

    exact = samplers.denoise(stepper, predict, denoise_key, start, later)
    height, width = x0.shape[1:3]
    hole = (slice(height // 4, height - height // 4), slice(width // 4, width - width // 4))
    mask = jnp.ones((height, width, 1), bool).at[hole].set(False)
    known = conditioning.inpainting(x0, jnp.broadcast_to(mask, x0.shape[1:]))
    guided = conditioning.given(process, predict, known, "isotropic")
    filled = samplers.sample(stepper, guided, guide_key, times, x0.shape)
    grids = {
        "denoising": [x0, y, exact, paper(seen)],
        "inpainting": [x0, jnp.where(mask, x0, 0.0), filled, paper(known)],
    }
    if x0.shape[-1] == 3:
        grey = x0.mean(-1, keepdims=True)
        coloured = conditioning.colourisation(process, predict, grey, covariance="isotropic")
        drawn = samplers.sample(stepper, coloured, guide_key, times, x0.shape)
        grids["colourisation"] = [x0, jnp.broadcast_to(grey, x0.shape), drawn]
    return {name: Grid(decode(jnp.concatenate(rows)), len(x0)) for name, rows in grids.items()}
