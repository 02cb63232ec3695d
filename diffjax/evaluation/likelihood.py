"""The bound of a model on a data set: bits per dimension, its terms, and their standard error.

The mean over examples of the cost -bound(x) is reported with the standard error s/√n of that mean, which covers both
the choice of test examples and the draws of noise, one set of draws an example.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from diffjax.bounds import bits_per_dim

Report = dict[str, Any]


def evaluate_bound(
    terms: Callable[[Any, jax.Array, Any], dict[str, jax.Array]],
    params: Any,
    key: jax.Array,
    batches: Iterable[dict[str, np.ndarray]],
    event_shape: tuple[int, ...],
) -> Report:
    """Bits per dimension over all examples.

    Args:
        terms: (params, key, batch) -> {name: (batch,)}, costs in nats whose sum is the cost of the example; jitted by
            the caller.
        batches: dicts as `terms` takes them, plus `mask` (batch,), 0 where an example only fills the batch up.

    Returns:
        `bits_per_dim`, `standard_error`, `terms` (each in bits per dimension) and `num_examples`.
    """
    columns: dict[str, list[np.ndarray]] = {}
    for i, batch in enumerate(batches):
        real = batch["mask"] > 0
        inputs = {name: value for name, value in batch.items() if name != "mask"}
        for name, cost in jax.device_get(terms(params, jax.random.fold_in(key, i), inputs)).items():
            columns.setdefault(name, []).append(np.asarray(cost, np.float64)[real])
    costs = {name: np.concatenate(parts) for name, parts in columns.items()}
    total = np.sum(list(costs.values()), axis=0)
    error = total.std(ddof=1) / np.sqrt(len(total)) if len(total) > 1 else np.nan
    return {
        "bits_per_dim": _bits(total.mean(), event_shape),
        "standard_error": _bits(error, event_shape),
        "terms": {name: _bits(cost.mean(), event_shape) for name, cost in costs.items()},
        "num_examples": len(total),
    }


def _bits(nats: float, event_shape: tuple[int, ...]) -> float:
    return float(bits_per_dim(nats, event_shape))
