"""Auto-encoders without a likelihood: y = decode(encode(x)), x in [0, 1], with the loss ‖x - y‖² unless said otherwise.

linear       h = (x - c) W, y = c + h V: at the minimum V spans PCA's subspace (Baldi and Hornik 1989)
kmeans       h = one-hot of the nearest centre, y = h C: the loss is k-means' inertia, one gradient step of size
             1/(2 n_k) on the sum of the losses a step of Lloyd; the centres are scikit-learn's
sparse       h = LISTA(x - c), y = c + h D, see nets/lista.py: D is scikit-learn's and stays; the loss is
             ½ ‖h - z*‖², z* the codes of the lasso
mlp          tied weights and sigmoids, see nets/tied.py
denoising    the same network: ‖x - y(x̃)‖², x̃ by Gaussian noise of a standard deviation `noise`, or with a part
             `noise` of the elements masked (0)                                             (Vincent et al. 2008)
contractive  the same: + `penalty` ‖∂h/∂x‖²_F, for one layer Σ_j (h_j (1 - h_j))² Σ_i W_ij²   (Rifai et al. 2011)
stacked_contractive  contractive ones of one layer, each of the code below; samples by `mcmc.tangent_walk`
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

SEEDS = 2**32  # that scikit-learn takes
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
        parts: of the kind, e.g. `kinds.kmeans(code, dim)`, dim the product of the shape.
        seed: of what is random in `fit`.
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
        """Rows of the reconstructions: x, the x̃ of denoising, and what comes out."""
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

    What is random in `fit` has the seed `config.training.seed`, 0 if there is none.

    Raises:
        InputError: on data that have no levels, or a choice or a number that does not exist.
    """
    setting, shape, levels = config.autoencoder, tuple(config.data.shape), config.data.levels
    if levels < 2:
        raise InputError(f"data.levels={levels}: auto-encoders take data of at least 2 levels, scaled to [0, 1]")
    kind = registry.choose("autoencoder.kind", setting.kind, KINDS)
    whole("code", setting.code)
    seed = config.get("training", {}).get("seed", 0) % SEEDS
    parts = registry.build(kind, math.prod(shape), settings=setting)
    return autoencoder(parts, shape, levels, seed=seed)
