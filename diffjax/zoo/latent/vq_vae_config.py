"""From a configuration to a VQ-VAE, of images or of sounds."""

import math
from typing import Any

import jax.numpy as jnp
from jax import Array

from diffjax import registry
from diffjax.errors import InputError
from diffjax.evaluation.reconstruction import Reconstruction
from diffjax.nets.quantised import Levels
from diffjax.zoo.autoregressive import networks
from diffjax.zoo.figures import Figure, Figures, Grid, Sound
from diffjax.zoo.latent import likelihoods
from diffjax.zoo.latent.vq_vae import Quantiser, vq_vae
from diffjax.zoo.model import Batch, Model, image_of, scaled

MU = 255  # of the μ-law in which sounds come, see `data.sounds`
WINDOW, HOP = 256, 64  # samples of a spectrogram's window, and from one to the next


def make(config: Any) -> Model:
    """The Model of `config.{data, vq, net}`, see configs/vqvae_digits.py and configs/vqvae_audio.py.

    Raises:
        InputError: on a number out of range, a prior that does not exist, or data whose axes cannot be halved.
    """
    setting, net, shape = config.vq, config.net, tuple(config.data.shape)
    _check(setting, shape)
    likelihood = likelihoods.make(net.likelihood, shape, config.data.levels)
    grids = [tuple(side >> (setting.halvings + level) for side in shape[:-1]) for level in range(setting.levels)]
    network = Levels(net.features, setting.dim, setting.halvings, setting.levels, likelihood.out[-1], net.blocks)
    quantiser = Quantiser(setting.num_codes, setting.dim, setting.commitment, setting.decay, setting.least)
    priors = [_prior(net, grid, setting.num_codes) for grid in grids]
    model = vq_vae(network, likelihood, priors, shape, config.data.levels, quantiser)
    if len(shape) == 2:
        model = model._replace(figures=_of_sounds(model, config.data.rate, config.data.levels))
    return model


def _check(setting: Any, shape: tuple[int, ...]) -> None:
    if len(shape) not in (2, 3):
        raise InputError(f"a VQ-VAE is of images (H, W, C) or sounds (samples, 1), not of data.shape={shape}")
    for name, least in (("num_codes", 2), ("dim", 1), ("halvings", 1)):
        if type(setting[name]) is not int or setting[name] < least:
            says = "; a codebook of one says nothing" if name == "num_codes" else ""
            raise InputError(f"vq.{name} = {setting[name]!r} must be an integer of at least {least}{says}")
    if setting.levels not in (1, 2):
        raise InputError(f"vq.levels = {setting.levels!r} must be 1, or 2 for VQ-VAE-2")
    if not 0 <= setting.decay < 1:
        raise InputError(
            f"vq.decay = {setting.decay!r} must be at least 0 and below 1; 0 learns the codebook by its gradient"
        )
    for name in ("commitment", "least"):
        if not 0 <= setting[name] < math.inf:
            raise InputError(f"vq.{name} = {setting[name]!r} must be a number of at least 0")
    factor = 2 ** (setting.halvings + setting.levels - 1)
    if any(side % factor for side in shape[:-1]):
        raise InputError(
            f"data.shape={shape} cannot be halved {setting.halvings + setting.levels - 1} times, as vq.halvings ="
            f" {setting.halvings} and vq.levels = {setting.levels} ask for: give fewer"
        )


def _prior(net: Any, grid: tuple[int, ...], num_codes: int) -> networks.Causal:
    registry.choose("net.prior", net.prior, ("pixel_cnn", "transformer"))
    if net.prior == "pixel_cnn" and len(grid) != 2:
        raise InputError("net.prior='pixel_cnn' is of images: choose net.prior='transformer' for sounds")
    if net.prior == "pixel_cnn":
        return networks.pixel_cnn(grid, num_codes, net.prior_features, net.prior_depth, 0)
    return networks.transformer(grid, num_codes, net.prior_features, net.prior_depth, 4)


def waves(v: Array) -> Array:
    """What the μ-law made of samples, in [-1, 1], as the samples: y = sign(v) ((1 + μ)^|v| - 1)/μ."""
    return jnp.sign(v) * jnp.expm1(jnp.abs(v) * math.log1p(MU)) / MU


def spectrogram(y: Array) -> Array:
    """Pictures (n, frequencies, times, 1) in [-1, 1] of waves (n, T): the logarithm of the power, 80 dB deep."""
    count = (y.shape[1] - WINDOW) // HOP + 1
    frames = jnp.stack([y[:, i * HOP : i * HOP + WINDOW] for i in range(count)], axis=-1)
    power = jnp.abs(jnp.fft.rfft(frames * jnp.hanning(WINDOW)[None, :, None], axis=1)) ** 2
    decibel = 10 * jnp.log10(jnp.maximum(power, 1e-12))
    return jnp.clip(2 * (decibel[:, ::-1, :, None] - decibel.max()) / 80 + 1, -1.0, 1.0)


def _of_sounds(model: Model, rate: int, levels: int) -> Figures:
    """Spectrograms of samples; sounds of samples, of examples and of their reconstructions."""
    reconstruct = model.measure(Reconstruction).reconstruct

    def samples(v: Array) -> Figure:
        return Grid(spectrogram(waves(v[:16, :, 0])), 4)

    def own(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        x = scaled(image_of(batch), levels)[:8]
        back, drawn = reconstruct(params, key, batch)[:8], model.sample(params, key, 8) if model.sample else x
        y, again, new = (waves(v[..., 0]) for v in (x, back, drawn))
        return {
            "spectrograms": Grid(spectrogram(jnp.concatenate([y[:4], again[:4], new[:4]])), 4),
            "data": Sound(y, rate),
            "reconstructions": Sound(again, rate),
            "samples": Sound(new, rate),
        }

    return Figures(samples, own)
