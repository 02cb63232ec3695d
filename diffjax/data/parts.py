"""A set in two parts, one to train on and one that is held out, chosen by a seed and the number of examples alone."""

import dataclasses

import numpy as np
from jaxtyping import Int64, Integer

from diffjax.data.dataset import Dataset
from diffjax.data.pipeline import permutation
from diffjax.errors import InputError
from diffjax.randomness import check_seed

HELD_OUT = 2**63 + 2  # an "epoch" of its own, as those of labels.py


def held_out(num: int, fraction: float, seed: int) -> tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " test"]]:
    """The numbers of the examples to train on and of those to test with, both in ascending order, at least one of each.

    Raises `InputError` unless 0 < fraction < 1, there are two examples and the seed is at least 0 and below 2^32.
    """
    if type(fraction) not in (int, float) or not 0 < fraction < 1:
        raise InputError(f"data.test_fraction={fraction!r} must be a number between 0 and 1, as 0.1, both excluded.")
    check_seed("data.split_seed", seed)
    if num < 2:
        raise InputError(
            f"data.test_fraction={fraction} holds examples out, but there is only {num}: add more, or name the two"
            " parts by data.train_split and data.test_split."
        )
    order = permutation(seed, HELD_OUT, num)
    num_test = min(max(round(fraction * num), 1), num - 1)
    return np.sort(order[num_test:]), np.sort(order[:num_test])


def split(dataset: Dataset, fraction: float = 0.1, seed: int = 0) -> tuple[Dataset, Dataset]:
    """The set without, and the set of the held-out examples.

    fraction: of the examples that are held out, rounded to at least one. seed: which ones.
    Raises `InputError` as `held_out` does.
    """

    def part(kept: Int64[np.ndarray, " kept"]) -> Dataset:
        def gather(indices: Integer[np.ndarray, " n"]) -> dict[str, np.ndarray]:
            return dataset.gather(kept[indices])

        return dataclasses.replace(dataset, size=len(kept), gather=gather)

    train, test = held_out(len(dataset), fraction, seed)
    return part(train), part(test)
