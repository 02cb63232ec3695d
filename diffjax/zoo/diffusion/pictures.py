"""The pictures that several systems draw: of the reverse process, of points of the plane, of conditioned samples."""

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import conditioning, predictions, samplers
from diffjax.predictions import Predict
from diffjax.processes import Gaussian, Variance
from diffjax.zoo.figures import Arrows, Decode, Figure, Grid, Panels, Points


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

    x0 (n, 2) are data, of which the first row shows the forward diffusion; times ascend from 0 to 1.
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
