"""Two sets as one: to each example of the one belongs an example of the other, from which a flow comes to it."""

import dataclasses

import numpy as np

from diffjax.data.dataset import Dataset
from diffjax.errors import InputError


def with_source(dataset: Dataset, source: Dataset) -> Dataset:
    """The set, with the example i mod n of `source`, which has n, as "source" beside example i.

    Sets of pairs are as long as one another and in the same order. Of two sets that have nothing to do with each other
    the order says nothing, and a coupling (`interpolants.couplings`) pairs the examples of a batch anew.

    Raises `InputError` if their examples differ in shape or levels.
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
