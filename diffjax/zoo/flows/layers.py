"""Stacks of flow layers and their parameters, as the section `flow` of a configuration names them.

From N(0, I) to the data: a scale and a shift of each entry (the last layer of NICE, which starts from the data), then
layers of one kind:

    planar, radial    without a network
    additive, affine  coupling layers; their masks alternate between checkerboards and halves (NICE, RealNVP)
    autoregressive    MAF and a reversal of the order: one pass for a density, one pass per entry for samples
    continuous        the solution of dz/dt = v(z, t), v a network of z and t (FFJORD)

Each direction is one `lax.scan`, so a long stack compiles as fast as a short one.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import flows, randomness, registry
from diffjax.errors import InputError
from diffjax.flows import Flow
from diffjax.nets.autoencoders import Dense
from diffjax.nets.masked import MADE

NAMES = ("planar", "radial", "additive", "affine", "autoregressive", "continuous")


Way = Callable[[Any, Array, randomness.Keys | None], flows.Path]


class Stack(NamedTuple):
    """Layers and their parameters.

    init: key -> params
    flow: (params, key=None) -> Flow, whose forward direction leads from N(0, I) to the data. The key, one or one for
        each vector, draws Hutchinson's probes: continuous layers in more than 16 dimensions need it
    path: for continuous layers, (params, y, key) -> the `flows.Path` of the inverse from data y: the latents and log
        det, the costs, and the number of calls of the velocity. None for other layers
    """

    init: Callable[[Array], Any]
    flow: Callable[..., Flow]
    path: Way | None = None


class Layer(NamedTuple):
    """One layer and its parameters. `flow` takes its parameters, its row of the stack's `masks`, and a key."""

    init: Callable[[Array], Any]
    flow: Callable[[Any, Array, randomness.Keys | None], Flow]
    velocity: Callable[[Any], flows.Velocity] | None = None


def stack(
    name: str,
    shape: Sequence[int],
    num: int,
    *,
    base_scale: float = 1.0,
    features: Sequence[int] = (64, 64),
    limit: float = 2.0,
    integration: flows.Integration | None = None,
) -> Stack:
    """`num` layers of the kind `name` over raveled arrays of this shape.

    Args:
        name: of `NAMES`.
        base_scale: initial standard deviation.
        features: units of the hidden layers of conditioners and velocities.
        limit: largest log-scale that a layer's conditioner can give.
        integration: settings of continuous layers.

    Raises:
        InputError: on an unknown kind, a base_scale or a limit that is not positive, a number of layers below 1,
            coupling layers for one entry, or an invalid integration.
    """
    dim = math.prod(shape)
    registry.choose("flow.name", name, NAMES)
    if not base_scale > 0:
        raise InputError(f"flow.base_scale must be positive, not {base_scale!r}")
    if not isinstance(num, int) or num < 1:
        raise InputError(f"flow.num_layers must be integers of at least 1, not {num!r}")
    how = (integration or flows.Integration()).check()
    layer = _layer(name, dim, base_scale, tuple(features), flows.bounded(limit), how)
    kinds = [np.ones(dim, bool)]
    if name in ("additive", "affine"):
        kinds = [flows.checkerboard(shape, 0), flows.checkerboard(shape, 1), flows.halves(dim, 0), flows.halves(dim, 1)]
    masks = jnp.asarray(np.stack([kinds[i % len(kinds)] for i in range(num)]))

    def init(key: Array) -> Any:
        return {
            "shift": jnp.zeros(dim),
            "log_scale": jnp.full(dim, math.log(base_scale)),
            "layers": jax.vmap(layer.init)(jax.random.split(key, num)),
        }

    def base(params: Any) -> Flow:
        return flows.affine(params["shift"], jnp.exp(params["log_scale"]))

    def keys(key: randomness.Keys | None) -> Any:
        return None if key is None or layer.velocity is None else jnp.stack(randomness.split(key, num))

    def flow(params: Any, key: randomness.Keys | None = None) -> Flow:
        layers = flows.stacked(lambda p: layer.flow(*p), (params["layers"], masks, keys(key)))
        return flows.chain([base(params), layers])

    def path(velocity: Callable[[Any], flows.Velocity], params: Any, y: Array, key: Any) -> flows.Path:
        def step(path: flows.Path, p: Any) -> tuple[flows.Path, None]:
            part, own_key = p
            last = flows.carry(velocity(part), path.z, True, how, own_key, costs=True)
            return flows.Path(last.z, *jax.tree.map(jnp.add, path[1:], last[1:])), None

        zeros = jnp.zeros(y.shape[:-1], y.dtype)
        start = flows.Path(y, zeros, jnp.zeros((), int), (zeros, zeros))
        end, _ = jax.lax.scan(step, start, (params["layers"], keys(key)), reverse=True)
        z, log_det = base(params).inverse_and_log_det(end.z)
        return end._replace(z=z, log_det=end.log_det + log_det)

    return Stack(init, flow, None if layer.velocity is None else partial(path, layer.velocity))


def of_config(setting: Any, shape: Sequence[int], num: int) -> Stack:
    """The `stack` that the section `flow` of a configuration describes."""
    scale, features, limit = setting.base_scale, setting.features, setting.limit
    how = registry.build(flows.Integration, settings=setting.get("integration", {}))
    return stack(setting.name, shape, num, base_scale=scale, features=features, limit=limit, integration=how)


def _layer(
    name: str, dim: int, base_scale: float, features: tuple[int, ...], form: flows.Form, how: flows.Integration
) -> Layer:
    def normals(key: Array) -> tuple[Array, Array, Array]:
        first, second, third = jax.random.split(key, 3)
        return jax.random.normal(first, (dim,)), jax.random.normal(second, (dim,)), jax.random.normal(third, ())

    def planar(key: Array) -> Any:
        u, w, b = normals(key)
        return 0.1 * u, w, b

    def radial(key: Array) -> Any:
        centre, raw, _ = normals(key)
        return base_scale * centre, jnp.zeros(()), 0.1 * raw[0]

    match name:
        case "planar":
            return Layer(planar, lambda p, *_: flows.planar(*p))
        case "radial":
            return Layer(radial, lambda p, *_: flows.radial(*p))
        case "autoregressive":
            made = MADE(features)

            def masked(p: Any, *_: Any) -> Flow:
                iaf = flows.autoregressive(lambda x: _pair(made.apply({"params": p}, x)), form)
                return flows.chain([flows.invert(iaf), flows.reverse])

            return Layer(lambda key: made.init(key, jnp.zeros(dim))["params"], masked)
        case "continuous":
            return _continuous(dim, features, how)
    outputs = 1 if name == "additive" else 2
    net = Dense(features, outputs * dim, zero=True)

    def apply(p: Any, x: Array) -> Array:
        return jnp.asarray(net.apply({"params": p}, x))

    def coupling(p: Any, mask: Array, _: Any) -> Flow:
        if name == "additive":
            return flows.additive_coupling(mask, lambda x: apply(p, x))
        return flows.affine_coupling(mask, lambda x: _pair(jnp.split(apply(p, x), 2, -1)), form)

    return Layer(lambda key: net.init(key, jnp.zeros(dim))["params"], coupling)


def _continuous(dim: int, features: tuple[int, ...], how: flows.Integration) -> Layer:
    """A continuous layer. Its velocity starts at 0, so the layer starts as the identity."""
    net = Dense(features, dim, zero=True)

    def velocity(p: Any) -> flows.Velocity:
        def at(z: Array, t: Array) -> Array:
            time = jnp.broadcast_to(t, (*z.shape[:-1], 1)).astype(z.dtype)
            return jnp.asarray(net.apply({"params": p}, jnp.concatenate([z, time], -1)))

        return at

    def flow(p: Any, _: Array, key: randomness.Keys | None) -> Flow:
        return flows.continuous(velocity(p), how, key)

    return Layer(lambda key: net.init(key, jnp.zeros(dim + 1))["params"], flow, velocity)


def _pair(parts: Any) -> tuple[Array, Array]:
    m, s = parts
    return m, s
