"""Divides a set into a training and a held-out part. The division depends only on a seed and the number of examples."""

import dataclasses

import numpy as np
from jaxtyping import Int64, Integer

from diffjax.data.dataset import Dataset
from diffjax.data.pipeline import permutation
from diffjax.errors import InputError
from diffjax.randomness import check_seed

HELD_OUT = 2**63 + 2  # an "epoch" number that no training epoch uses, as in labels.py


def held_out(num: int, fraction: float, seed: int) -> tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " test"]]:
    """The indices of the training and of the test examples. Both are in ascending order and not empty.

    Raises `InputError` unless 0 < fraction < 1, there are at least two examples, and 0 <= seed < 2^32.
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
    """The training part and the held-out part of a set.

    fraction: the fraction of examples to hold out, rounded, but at least one example.
    seed: chooses which ones.
    Raises `InputError` as `held_out` does.
    """

    def part(kept: Int64[np.ndarray, " kept"]) -> Dataset:
        def gather(indices: Integer[np.ndarray, " n"]) -> dict[str, np.ndarray]:
            return dataset.gather(kept[indices])

        return dataclasses.replace(dataset, size=len(kept), gather=gather)

    train, test = held_out(len(dataset), fraction, seed)
    return part(train), part(test)
