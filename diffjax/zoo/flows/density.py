"""Flows as density models: NICE, RealNVP (Dinh et al. 2015, 2017), MAF (Papamakarios et al. 2017), FFJORD (2019).

Trained by maximum likelihood,

    log p(x) = log N(f⁻¹(x); 0, I) + log |det ∂f⁻¹/∂x|

For real numbers this is log p(x) itself. Levels 0 .. k-1 become v = (level + u)/k, u uniform on [0, 1). So a density
of v bounds the probability of a level:

    log P(x) = log ∫ p(v) dv over the bin of x ≥ E log p(v) - D log k

One draw of the right side is a log-weight, because u is drawn from its own prior. With `flow.margin` above 0, the flow
models logit(margin + (1 - 2 margin) v), and its density includes the logit's Jacobian. Mass of v outside [0, 1] is
lost, and the bound accounts for it.

For a continuous flow, the loss may add kinetic ∫|v|² dt + jacobian ∫‖∂v/∂z‖² dt (Finlay et al. 2020), which keep steps
long. The bound does not include them. If the divergence is estimated, the log-weights are unbiased estimates, too.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import flows, randomness
from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.many_samples import ManySamples
from diffjax.evaluation.measure import Measure
from diffjax.evaluation.table import Table
from diffjax.zoo.figures import Contours, Figure, Figures, Grid, Panels, Points
from diffjax.zoo.flows.layers import Stack, Way, of_config
from diffjax.zoo.model import Batch, Model, bound_of, image_of

POINTS = 241  # grid points per side in the picture of a density on the plane
PROBES = 2  # folded into a key to get the key of the probes


def flow_density(
    layers: Stack,
    shape: tuple[int, ...],
    levels: int = 0,
    *,
    margin: float = 0.0,
    kinetic: float = 0.0,
    jacobian: float = 0.0,
) -> Model:
    """A flow as the density of examples of `shape`.

    Args:
        layers: from N(0, I) to raveled examples, see `layers.stack`.
        levels: number of levels of the data; 0 for real numbers.
        margin: of the logit, between 0 and 1/2; 0 means no logit.
        kinetic, jacobian: weights of a continuous flow's costs in the loss, in nats.

    Raises:
        InputError: on a negative weight, or on a weight of costs that the layers do not have.
    """
    for name, weight in {"kinetic": kinetic, "jacobian": jacobian}.items():
        if not weight >= 0 or (weight and layers.path is None):
            raise InputError(f"flow.{name} must be at least 0, and 0 unless flow.name is continuous, not {weight!r}")
    dim = math.prod(shape)
    units = dim * math.log(levels) if levels else 0.0
    outer = flows.invert(flows.logit(margin)) if margin else None

    def law(params: Any, num: int, key: randomness.Keys) -> flows.Transformed:
        """The distribution of num vectors: v for levels, or the data themselves. key: for an estimated divergence."""
        flow = layers.flow(params, randomness.fold_in(key, PROBES))
        if outer:
            flow = flows.chain([flow, outer])
        return flows.Transformed(Normal(jnp.zeros((num, dim)), jnp.ones((num, dim))), flow)

    encode, decode = partial(_encode, levels), partial(_decode, shape, levels)

    def terms(params: Any, key: randomness.Keys, batch: Batch) -> dict[str, Array]:
        x = encode(key, batch)
        parts = {"density": -law(params, len(x), key).log_prob(x)}
        return parts | ({"units": jnp.full(len(x), units)} if units else {})

    bound = bound_of(terms)

    def to_latents(path: Way, params: Any, key: randomness.Keys, batch: Batch) -> tuple[flows.Path, Array]:
        """The path to the latents, and -log p(x) or its upper bound in nats."""
        x = encode(key, batch)
        y, log_det = outer.inverse_and_log_det(x) if outer else (x, jnp.zeros(len(x), x.dtype))
        way = path(params, y, randomness.fold_in(key, PROBES))
        return way, units - (Normal(jnp.zeros(()), jnp.ones(())).log_prob(way.z).sum(-1) + way.log_det + log_det)

    def loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        if layers.path is None or not (kinetic or jacobian):
            return -bound(params, key, batch)
        way, cost = to_latents(layers.path, params, key, batch)
        return cost + kinetic * way.costs[0] + jacobian * way.costs[1]

    def sample(params: Any, key: Array, num: int) -> Array:
        return decode(law(params, num, key).sample(key))

    mixed = jax.jit(lambda params, key, x: _mixed(law(params, len(x), key).flow, x))

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        """For images: interpolations in the latent space. For points of the plane: data, samples and the density."""
        data_key, key = jax.random.split(key)
        x = encode(data_key, batch)
        if len(shape) == 3:
            x = x[: 2 * min(4, len(x) // 2)]
            return {"latent_interpolation": Grid(decode(mixed(params, key, x)), 9)}
        if shape != (2,) or levels:
            return {}
        drawn = sample(params, key, len(x))
        return {"density": _plane(lambda points: law(params, 1, key).log_prob(points), x, drawn)}

    measures: list[Measure] = [Bound(terms), ManySamples(bound)]
    if layers.path is not None:
        measures.append(Table(_table(partial(to_latents, layers.path))))
    return Model(layers.init, loss, bound, sample, measures=measures, figures=Figures(own=figures))


def _table(to_latents: Callable[..., tuple[flows.Path, Array]]) -> Callable[..., dict[str, dict[str, float]]]:
    """The costs of a continuous flow: calls of its velocity for a batch, and means of the two integrals."""
    jitted = jax.jit(lambda params, key, image: to_latents(params, key, image)[0])

    def table(params: Any, key: Array, batch: Batch) -> dict[str, dict[str, float]]:
        way = jitted(params, key, image_of(batch))
        costs = {name: float(cost.mean()) for name, cost in zip(("kinetic", "jacobian"), way.costs, strict=True)}
        return {"the way to the latents": {"calls of the velocity": float(way.num_evaluations)} | costs}

    return table


def _encode(levels: int, key: randomness.Keys, batch: Batch) -> Array:
    """Raveled examples: levels become v in [0, 1), real numbers stay as they are."""
    x = jnp.asarray(image_of(batch))
    x = x.reshape(len(x), -1)
    if not levels:
        return x
    level = x.astype(float) if x.dtype == jnp.uint8 else (x + 1.0) * 0.5 * (levels - 1)
    return (level + randomness.uniform(key, x.shape, level.dtype)) / levels


def _decode(shape: tuple[int, ...], levels: int, v: Array) -> Array:
    """From v to the levels of its bins, scaled to [-1, 1]; real numbers stay as they are."""
    if levels:
        v = jnp.clip(jnp.floor(v * levels), 0, levels - 1) * (2 / (levels - 1)) - 1.0
    return v.reshape(-1, *shape)


def _mixed(flow: flows.Flow, x: Array) -> Array:
    """Nine points from x_0 to x_1, x_2 to x_3, ..., along the ellipse that joins them in the latent space."""
    latents, _ = flow.inverse_and_log_det(x)
    angle = jnp.linspace(0.0, 0.5 * jnp.pi, 9)[:, None]
    between = jnp.cos(angle) * latents[0::2, None] + jnp.sin(angle) * latents[1::2, None]
    return flow.forward_and_log_det(between)[0]


def _plane(log_prob: Callable[[Array], Array], data: Array, samples: Array) -> Panels:
    """Data, samples and the density, as panels of the plane."""
    side = 1.1 * float(jnp.abs(data).max())
    axis = np.linspace(-side, side, POINTS)
    points = jnp.stack(jnp.meshgrid(jnp.asarray(axis, float), jnp.asarray(axis, float)), -1)
    density = jax.jit(lambda points: log_prob(points))(points.reshape(-1, 2))
    density = np.exp(np.asarray(density, np.float64)).reshape(POINTS, POINTS)
    learned = Contours("p(x)", axis, axis, density)
    return Panels([[Points("data", data), Points("samples", samples), learned]], extent=side)


def make(config: Any) -> Model:
    """The Model of `config.{data, flow}`, see configs/flow_swiss_roll.py and configs/flow_digits.py.

    Raises:
        InputError: on an invalid flow, or on a margin for data without levels.
    """
    setting, shape, levels = config.flow, tuple(config.data.shape), config.data.levels
    if not 0 <= setting.margin < 0.5 or (setting.margin and not levels):
        raise InputError(
            f"flow.margin must be at least 0 and below 1/2, and 0 for data without levels, not {setting.margin!r} with "
            f"data.levels={levels}"
        )
    weights = {name: setting.get(name, 0.0) for name in ("kinetic", "jacobian")}
    layers = of_config(setting, shape, setting.num_layers)
    return flow_density(layers, shape, levels, margin=setting.margin, **weights)
