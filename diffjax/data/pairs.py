"""Two sets as one: each example comes with an example of a second set, the starting point of a flow that ends in it."""

import dataclasses

import numpy as np

from diffjax.data.dataset import Dataset
from diffjax.errors import InputError


def with_source(dataset: Dataset, source: Dataset) -> Dataset:
    """The set, with "source" added to its batches: example i gets example i mod n of `source`, n being its size.

    For sets of pairs, give both the same length and the same order. If the two sets are unrelated, their order has no
    meaning, and a coupling (`interpolants.couplings`) pairs the examples of each batch anew.

    Raises `InputError` if the examples of the two sets differ in shape or levels.
    """
    for name, ours, theirs in (("shape", dataset.shape, source.shape), ("levels", dataset.levels, source.levels)):
        if ours != theirs:
            raise InputError(
                f"data.source={source.name!r} has {name} {theirs}, but {dataset.name!r} has {ours}: a flow leads"
                " between sets of one kind."
            )

    def gather(indices: np.ndarray) -> dict[str, np.ndarray]:
        return dataset.gather(indices) | {"source": source.gather(indices % len(source))["image"]}

    return dataclasses.replace(dataset, gather=gather)
