"""Auto-encoders without a likelihood: y = decode(encode(x)), x in [0, 1]. The loss is ‖x - y‖² unless stated otherwise.

linear       h = (x - c) W, y = c + h V; at the minimum V spans PCA's subspace (Baldi and Hornik 1989)
kmeans       h = one-hot of the nearest centre, y = h C. The loss is k-means' inertia; one gradient step of size
             1/(2 n_k) on the sum of the losses is one step of Lloyd. The centres are scikit-learn's
sparse       h = LISTA(x - c), y = c + h D, see nets/lista.py. D is scikit-learn's and fixed. The loss is
             ½ ‖h - z*‖², z* the codes of the lasso
mlp          tied weights and sigmoids, see nets/tied.py
denoising    mlp with the loss ‖x - y(x̃)‖². x̃ is x plus Gaussian noise of standard deviation `noise`, or x with a
             fraction `noise` of its elements masked (0)                                    (Vincent et al. 2008)
contractive  mlp with the loss ‖x - y‖² + `penalty` ‖∂h/∂x‖²_F;
             for one layer ‖∂h/∂x‖²_F = Σ_j (h_j (1 - h_j))² Σ_i W_ij²                      (Rifai et al. 2011)
stacked_contractive  contractive ones of one layer, each of the code below. Samples are by `mcmc.tangent_walk`
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import randomness, registry
from diffjax.errors import InputError
from diffjax.evaluation.measure import Measure
from diffjax.evaluation.probe import Probe
from diffjax.evaluation.reconstruction import Reconstruction
from diffjax.evaluation.table import Table
from diffjax.zoo.autoencoders.kinds import (
    Autoencoder,
    Params,
    contractive,
    denoising,
    kmeans,
    linear,
    mlp,
    sparse,
    square,
    stacked_contractive,
    whole,
)
from diffjax.zoo.figures import Figure, Figures, Grid, grid
from diffjax.zoo.model import Batch, Examples, Model, image_of

SEEDS = 2**32  # the number of seeds that scikit-learn takes
KINDS: dict[str, Callable[..., Autoencoder]] = {
    "linear": linear,
    "kmeans": kmeans,
    "sparse": sparse,
    "mlp": mlp,
    "denoising": denoising,
    "contractive": contractive,
    "stacked_contractive": stacked_contractive,
}


def autoencoder(parts: Autoencoder, shape: tuple[int, ...], levels: int, *, seed: int = 0) -> Model:
    """The Model of one kind of auto-encoder, on examples of `shape` and `levels` levels, scaled to [0, 1].

    Args:
        parts: the functions of the kind, e.g. `kinds.kmeans(dim, code)`, dim the product of the shape.
        seed: for the randomness of `fit`.
    """
    own_fit, own_table, own_loss, own_sample = parts.fit, parts.table, parts.loss, parts.sample

    def unit(batch: Batch) -> Array:
        x = jnp.asarray(image_of(batch), float)
        return x.reshape(len(x), -1) / (levels - 1)

    def image(x: Array) -> Array:
        return 2.0 * x.reshape(-1, *shape) - 1.0

    def reconstructed(params: Params, x: Array) -> Array:
        return parts.decode(params, parts.encode(params, x))

    def loss(params: Params, key: randomness.Keys, batch: Batch) -> Array:
        x = unit(batch)
        return square(x - reconstructed(params, x)) if own_loss is None else own_loss(params, key, x)

    def fit(params: Params, examples: Batch) -> Params:
        assert own_fit is not None
        return own_fit(params, np.asarray(unit(examples)), seed)

    def figures(params: Params, key: Array, batch: Batch) -> dict[str, Figure]:
        """The reconstructions and the filters. Rows of the former: x, for denoising x̃, and the reconstruction."""
        if len(shape) != 3:
            return {}
        x = unit(batch)[:16]
        seen = x if parts.seen is None else parts.seen(key, x)
        rows = [x, *([] if parts.seen is None else [seen]), reconstructed(params, seen)]
        return {
            "reconstructions": Grid(image(jnp.concatenate(rows)), len(x)),
            "filters": grid(parts.filters(params).reshape(-1, *shape)),
        }

    def sample(params: Params, key: Array, num: int) -> Array:
        assert own_sample is not None
        return image(own_sample(params, key, num))

    measures: list[Measure] = [
        Reconstruction(lambda params, key, batch: image(reconstructed(params, unit(batch)))),
        Probe(lambda params, batch: parts.encode(params, unit(batch))),
    ]
    if own_table is not None:
        measures.append(Table(lambda params, key, batch: own_table(params, unit(batch))))
    examples = Examples(None if own_fit is None else fit)
    drawn = None if own_sample is None else sample
    return Model(parts.init, loss, None, drawn, examples=examples, measures=measures, figures=Figures(own=figures))


def make(config: Any) -> Model:
    """The Model of `config.{data, autoencoder}`, see configs/ae_*_digits.py.

    The seed of `fit` is `config.training.seed`, or 0 if there is none.

    Raises:
        InputError: on data without levels, or on an invalid name or number in the configuration.
    """
    setting, shape, levels = config.autoencoder, tuple(config.data.shape), config.data.levels
    if levels < 2:
        raise InputError(f"data.levels={levels}: auto-encoders take data of at least 2 levels, scaled to [0, 1]")
    kind = registry.choose("autoencoder.kind", setting.kind, KINDS)
    whole("code", setting.code)
    seed = config.get("training", {}).get("seed", 0) % SEEDS
    parts = registry.build(kind, math.prod(shape), settings=setting)
    return autoencoder(parts, shape, levels, seed=seed)
