"""The bound of a model on a data set: its terms, its gain over the prior alone, and tighter bounds by many samples.

The mean over examples is reported with its standard error s/√n. The error covers both the choice of test examples and
the draws of noise, because each example has its own draws. Undefined numbers are NaN, such as the standard error of one
example or the difference of two infinite numbers.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.bounds import bits_per_dim, importance_weighted

Report = dict[str, Any]
Batches = Iterable[dict[str, np.ndarray]]
AT_ONCE = 10  # draws of a log-weight that are computed together
UNDEFINED_IS_NAN = np.errstate(invalid="ignore")
TIGHTER = (5, 50)  # the k of L_k in a report, as in Burda et al. 2016


@UNDEFINED_IS_NAN
def evaluate_bound(
    terms: Callable[[Any, jax.Array, Any], dict[str, jax.Array]],
    params: Any,
    key: jax.Array,
    batches: Batches,
    event_shape: tuple[int, ...],
    null: Callable[[Any], jax.Array] | None = None,
) -> Report:
    """Bits per dimension over all examples.

    Args:
        terms: (params, key, batch) -> {name: (batch,)}, costs in nats whose sum is the cost of the example. The caller
            must jit it.
        batches: dicts as `terms` takes them, plus `mask` (batch,), which is 0 for examples that only fill up the batch.
        null: batch -> (batch,), the log-likelihood in nats of a model that has learnt nothing.

    Returns:
        `bits_per_dim`, `standard_error`, `terms` (each in bits per dimension), `bound` (see `bits`) and `num_examples`.
        With `null` also `K`, `L_null` and `K - L_null` in bits, for the data rescaled to unit variance.
    """
    columns: dict[str, list[np.ndarray]] = {}
    nulls: list[np.ndarray] = []
    for i, batch in enumerate(batches):
        inputs, real = _split(batch)
        for name, cost in jax.device_get(terms(params, jax.random.fold_in(key, i), inputs)).items():
            columns.setdefault(name, []).append(np.asarray(cost, np.float64)[real])
        if null is not None:
            nulls.append(np.asarray(null(inputs), np.float64)[real])
    costs = {name: np.concatenate(parts) for name, parts in columns.items()}
    total = np.sum(list(costs.values()), axis=0)
    report = {
        "bits_per_dim": float(bits_per_dim(total.mean(), event_shape)),
        "standard_error": float(bits_per_dim(_error(total), event_shape)),
        "terms": {name: float(bits_per_dim(cost.mean(), event_shape)) for name, cost in costs.items()},
        "bound": bits(-total, event_shape),
        "num_examples": len(total),
    }
    if null is None:
        return report
    prior_alone = np.concatenate(nulls)
    units = costs.get("units", 0.0)
    return report | {
        "K": bits(units - total, event_shape),
        "L_null": bits(prior_alone + units, event_shape),
        "K - L_null": bits(-total - prior_alone, event_shape),
    }


def draw_log_weights(
    log_weight: Callable[[Any, jax.Array, Any], jax.Array],
    params: Any,
    key: jax.Array,
    batches: Batches,
    num: int,
    jit: Callable[..., Any] = jax.jit,
) -> np.ndarray:
    """`num` draws of log w for every example, with E[w] = p(x): (num, examples) in nats.

    Args:
        log_weight: (params, key, batch) -> (batch,), one draw.
        jit: compiles the draw: `jax.jit`, or `diffjax.mesh.spread` over a mesh.
    """
    # Several at once: what does not depend on the draw, such as an encoder, is computed once for all of them.
    draw = jit(jax.vmap(log_weight, (None, 0, None)))
    parts = []
    for i, batch in enumerate(batches):
        inputs, real = _split(batch)
        keys = jax.random.split(jax.random.fold_in(key, i), num)
        rows = [draw(params, keys[first : first + AT_ONCE], inputs) for first in range(0, num, AT_ONCE)]
        parts.append(np.concatenate([np.asarray(row, np.float64) for row in rows])[:, real])
    return np.concatenate(parts, axis=1)


def draw_many(
    log_weights: Callable[[Any, jax.Array, Any, int], jax.Array],
    params: Any,
    key: jax.Array,
    batches: Batches,
    num: int,
    jit: Callable[..., Any] = jax.jit,
) -> np.ndarray:
    """`draw_log_weights` for a function that gives `num` draws at once: (params, key, batch, num) -> (num, batch)."""
    draw = jit(lambda params, key, batch: log_weights(params, key, batch, num))
    parts = []
    for i, batch in enumerate(batches):
        inputs, real = _split(batch)
        parts.append(np.asarray(draw(params, jax.random.fold_in(key, i), inputs), np.float64)[:, real])
    return np.concatenate(parts, axis=1)


def log_mean(log_w: np.ndarray) -> np.ndarray:
    """log of the mean weight of every example, (num, examples) -> (examples,) in nats.

    It is a lower bound on log p(x) in expectation, and rises to log p(x) with the number of weights.
    """
    return np.asarray(importance_weighted(jnp.asarray(log_w)), np.float64)


@UNDEFINED_IS_NAN
def weights_report(log_w: np.ndarray, event_shape: tuple[int, ...], bound: np.ndarray | None = None) -> Report:
    """The report on log-weights (num, examples) in nats.

    Args:
        bound: (examples,), the model's bound, if it is by another proposal than the weights; by default their mean.

    Returns:
        `log p` by all weights and `K`, the bound by one weight, both as `bits`; `gain`, their difference, which varies
        less between examples than either; L_k, the bound by k weights; `num_weights` and `num_examples`.
    """
    many, one = log_mean(log_w), log_w.mean(0) if bound is None else bound
    return {f"L_{k}": bits(_tighter(log_w, k), event_shape) for k in TIGHTER if k < len(log_w)} | {
        "K": bits(one, event_shape),
        "log p": bits(many, event_shape),
        "gain": bits(many - one, event_shape),
        "num_weights": log_w.shape[0],
        "num_examples": log_w.shape[1],
    }


def _tighter(log_w: np.ndarray, k: int) -> np.ndarray:
    """L_k of every example: the mean over all complete groups of k weights."""
    groups = log_w[: len(log_w) // k * k].reshape(-1, k, log_w.shape[1])
    return np.asarray(importance_weighted(jnp.asarray(groups), axis=1), np.float64).mean(0)


@UNDEFINED_IS_NAN
def bits(nats: np.ndarray, event_shape: tuple[int, ...]) -> dict[str, float]:
    """From nats (n,) of examples: their mean in bits per example and its standard error.

    The mean is also given in nats, in bits per dimension and, for images, in bits per pixel. A pixel is a position: in
    an image of three channels it has three dimensions.
    """
    values = np.asarray(nats) / math.log(2.0)
    mean = float(values.mean()) if len(values) else math.nan
    error = float(_error(values))
    report = {
        "per_example": mean,
        "standard_error": error,
        "per_dimension": mean / math.prod(event_shape),
        "nats": mean * math.log(2.0),
        "standard_error_nats": error * math.log(2.0),
    }
    if len(event_shape) == 3:
        pixels = event_shape[0] * event_shape[1]
        report |= {"per_pixel": mean / pixels, "standard_error_per_pixel": error / pixels}
    return report


def _split(batch: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    return {name: value for name, value in batch.items() if name != "mask"}, batch["mask"] > 0


def _error(values: np.ndarray) -> float:
    return values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
