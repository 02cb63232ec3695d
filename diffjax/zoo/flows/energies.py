"""Flows fitted to the four energies of Rezende & Mohamed 2015 (section 6.1, figure 3), several lengths side by side.

    log w = -U(z) - log q(z),  z ~ q:    E log w = log Z - KL(q ‖ p),   p = exp(-U)/Z

There are no data: each example of a batch asks for one draw of every flow. Quadrature gives log Z, and so the KL.

A flow that has left a mode does not find it again, because KL(q ‖ p) only requires that all draws of q are good. So
training begins with a small part of the energy, as in the paper: it minimises E[β U + log q] with β from 0.01 to 1. A
further parameter with a constant gradient sets β: Adam moves it by the learning rate at every step.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import randomness
from diffjax.bounds import importance_weighted
from diffjax.distributions import LOG_2PI
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.many_samples import ManySamples
from diffjax.evaluation.table import Table
from diffjax.zoo.figures import Contours, Curves, Figure, Figures, Mark, Panels, Points
from diffjax.zoo.flows import targets
from diffjax.zoo.flows.layers import Stack, of_config
from diffjax.zoo.model import Batch, Model, image_of

LABELS = ("z_1", "z_2")
POINTS, EXTENT = 121, 4.8  # of the grids in the figures
FIRST_BETA = 0.01
K = 100  # weights in the importance-weighted bound of the table


class Fitted(NamedTuple):
    """Flows of several lengths, each fitted to all four energies: parameters of a length have a leading axis of 4."""

    stacks: dict[int, Stack]

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(self.stacks)

    def init(self, key: Array) -> dict[str, Any]:
        keys = jax.random.split(key, (len(self.stacks), 4))
        flows = {str(n): jax.vmap(stack.init)(keys[i]) for i, (n, stack) in enumerate(self.stacks.items())}
        return {"pulled": jnp.zeros(())} | flows

    def push(self, params: Any, n: int, eps: Array) -> tuple[Array, Array]:
        """z (batch, 4, 2) and log q(z) (batch, 4), from eps (batch, 4, 2) by the flows of n layers."""

        def one(p: Any, eps: Array) -> tuple[Array, Array]:
            z, log_det = self.stacks[n].flow(p).forward_and_log_det(eps)
            return z, -0.5 * (eps**2 + LOG_2PI).sum(-1) - log_det

        return jax.vmap(one, (0, 1), 1)(params[str(n)], eps)

    def draws(self, params: Any, key: randomness.Keys, num: int, beta: Array | float = 1.0) -> tuple[Array, Array]:
        """z (num, lengths, 4, 2) and -βU - log q (num, lengths, 4). At β = 1 the latter is log w."""
        eps = randomness.normal(key, (num, len(self.lengths), 4, 2))
        z, log_q = zip(*(self.push(params, n, eps[:, i]) for i, n in enumerate(self.lengths)), strict=True)
        every = jnp.stack(z, 1)
        return every, -beta * targets.energies(every) - jnp.stack(log_q, 1)

    def log_densities(self, params: Any, grid: Array) -> Array:
        """log q on a grid (n, n, 4, 2), by the flows' inverses: (lengths, n, n, 4)."""

        def one(n: int) -> Array:
            def of(p: Any, z: Array) -> Array:
                eps, log_det = self.stacks[n].flow(p).inverse_and_log_det(z)
                return -0.5 * (eps**2 + LOG_2PI).sum(-1) + log_det

            return jax.vmap(of, (0, 2), 2)(params[str(n)], grid)

        return jnp.stack([one(n) for n in self.lengths])


def flow_energies(
    stacks: dict[int, Stack],
    *,
    annealing: float = 0.0,
    shown: int = 1,
    num_weights: int = 10_000,
    num_points: int = 1000,
) -> Model:
    """Flows fitted to the four energies.

    The params are those of one flow for each length, with a leading axis of the four energies, and "pulled". The latter
    is the sum of learning rates until now and sets β. `loss` is the mean of βU + log q in nats. `bound` and `sample`
    use the energy `shown` and the longest flow.

    Args:
        stacks: {number of layers: flow}, in increasing order.
        annealing: the value of "pulled" (steps times learning rate) at which β reaches 1; 0 means β = 1 always.
        shown: the number of an energy, 1 to 4.
        num_weights: draws for every number of the table.
        num_points: draws in the figures.
    """
    fitted, longest = Fitted(stacks), list(stacks)[-1]
    draw = jax.jit(fitted.draws, static_argnums=2)
    log_densities = jax.jit(fitted.log_densities)

    def loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        pulled = jax.lax.stop_gradient(params["pulled"])
        beta = jnp.minimum(FIRST_BETA + (1 - FIRST_BETA) * pulled / annealing, 1.0) if annealing else 1.0
        force = pulled - params["pulled"]  # 0, with gradient -1
        return -fitted.draws(params, key, len(image_of(batch)), beta)[1].mean((1, 2)) + force

    def bound(params: Any, key: Array, batch: Batch) -> Array:
        return fitted.draws(params, key, len(image_of(batch)))[1][:, -1, shown - 1]

    def terms(params: Any, key: Array, batch: Batch) -> dict[str, Array]:
        return {"free energy": -bound(params, key, batch)}

    def sample(params: Any, key: Array, num: int) -> Array:
        return fitted.draws(params, key, num)[0][:, -1, shown - 1]

    def table(params: Any, key: Array, batch: Batch) -> dict[str, dict[str, float]]:
        num = max(num_weights // K, 2) * K
        return _table(fitted.lengths, np.asarray(draw(params, key, num)[1], np.float64))

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        axis = np.linspace(-EXTENT, EXTENT, POINTS)
        learned = np.exp(np.asarray(log_densities(params, targets.on_grid(axis)), np.float64))
        z, _ = draw(params, key, num_points)
        kl = {name: row["KL"] for name, row in table(params, key, batch).items()}
        return _figures(fitted.lengths, axis, learned, z, kl)

    def picture(samples: Array) -> Panels:
        return Panels([[Points(f"U{shown}, K = {longest}", samples)]], LABELS, EXTENT)

    measures = (Bound(terms, unit="nats"), ManySamples(bound), Table(table))
    return Model(fitted.init, loss, bound, sample, measures=measures, figures=Figures(picture, figures))


def _table(lengths: Sequence[int], log_w: np.ndarray) -> dict[str, dict[str, float]]:
    """The table, in nats: KL(q ‖ p) = log Z - bound and its standard error; L_K, which is between the bound and log Z.

    log_w: (num, lengths, 4).
    """
    rows, num = {}, len(log_w)
    for energy, log_z in enumerate(targets.log_z()):
        for i, n in enumerate(lengths):
            bounds = log_w[:, i, energy]
            tighter = np.asarray(importance_weighted(jnp.asarray(bounds.reshape(K, -1))), np.float64)
            rows[f"U{energy + 1}, {n} layers"] = {
                "KL": float(log_z - bounds.mean()),
                "standard error": float(bounds.std(ddof=1) / num**0.5),
                "bound": float(bounds.mean()),
                f"L_{K}": float(tighter.mean()),
                "its error": float(tighter.std(ddof=1) / len(tighter) ** 0.5),
                "log Z": float(log_z),
            }
    return rows


def _figures(
    lengths: Sequence[int], axis: np.ndarray, learned: np.ndarray, z: Array, kl: dict[str, float]
) -> dict[str, Figure]:
    """Figures of densities (lengths, n, n, 4) on the grid of an axis (n,), draws z (num, lengths, 4, 2), and KL."""
    exact = np.exp(-np.asarray(targets.energies(targets.on_grid(axis)), np.float64))
    contours: list[list[Mark | list[Mark]]] = []
    points: list[list[Mark | list[Mark]]] = []
    names = [f"K = {n}" for n in lengths]
    for energy in range(4):
        truth = Contours(f"exp(-U{energy + 1})", axis, axis, exact[..., energy])
        found = [Contours(name, axis, axis, q[..., energy]) for name, q in zip(names, learned, strict=True)]
        contours.append([truth, *found])
        points.append([truth, *(Points(name, z[:, i, energy]) for i, name in enumerate(names))])
    lines = {f"U{i}": (np.array(lengths), np.array([kl[f"U{i}, {n} layers"] for n in lengths])) for i in range(1, 5)}
    return {
        "densities": Panels(contours, LABELS, EXTENT),
        "draws": Panels(points, LABELS, EXTENT),
        "kl": Curves(lines, "layers", "KL(q ‖ p) [nats]"),
    }


def make(config: Any) -> Model:
    """The Model of `config.{data, flow, evaluation}`, see configs/flow_energies.py.

    Raises:
        InputError: on data that are not in the plane, or on invalid flows.
    """
    _check(config)
    setting = config.flow
    return flow_energies(
        {n: of_config(setting, (2,), n) for n in setting.num_layers},
        annealing=setting.annealing,
        shown=setting.shown,
        num_weights=config.evaluation.batch_size,
        num_points=config.evaluation.grid,
    )


def _check(config: Any) -> None:
    if tuple(config.data.shape) != (2,) or config.data.levels != 0:
        shape, levels = tuple(config.data.shape), config.data.levels
        raise InputError(f"the energies need data.shape=(2,) and data.levels=0, not {shape} and {levels}")
    lengths = config.flow.num_layers
    whole = isinstance(lengths, tuple | list) and all(isinstance(n, int) and n > 0 for n in lengths)
    if not whole or not lengths or list(lengths) != sorted(set(lengths)):
        raise InputError(f"flow.num_layers must be positive integers in increasing order, not {lengths!r}")
    if not config.flow.annealing >= 0:
        raise InputError(f"flow.annealing must be at least 0, not {config.flow.annealing!r}")
    if config.flow.shown not in (1, 2, 3, 4):
        raise InputError(f"flow.shown must be 1, 2, 3 or 4, the number of an energy, not {config.flow.shown!r}")
