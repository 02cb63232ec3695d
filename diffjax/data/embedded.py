"""Sets that need no download: scikit-learn's digits and the toys of toys.py.

The generated ones are drawn with fixed seeds, one for the training part and one for the test part, so the same
configuration always gives the same arrays.
"""

from collections.abc import Callable

import ml_collections
import numpy as np

from diffjax.data import toys
from diffjax.data.dataset import Dataset, from_arrays
from diffjax.data.pipeline import permutation
from diffjax.errors import InputError


def load_embedded(config: ml_collections.ConfigDict, split: str) -> Dataset:
    """The "train" or "test" part of the embedded set `config.name`, one of `EMBEDDED`.

    config.shape: of one example; it must be what the set has.
    config.train_split, config.test_split: "".
    config.num_train, config.num_test: how many examples to generate.
    config.noise: of "swiss_roll", as in `toys.swiss_roll`.

    Raises `InputError` if a field that the set needs is missing or wrong.
    """
    if config.train_split or config.test_split:
        raise InputError(f"data.train_split and data.test_split must be '' for the embedded set {config.name!r}.")
    dataset = _SETS[config.name](config, split)
    if dataset.shape != (shape := tuple(config.shape)):
        raise InputError(f"data.shape={shape} disagrees with {config.name!r}: set data.shape={dataset.shape}.")
    return dataset


def _digits(config: ml_collections.ConfigDict, split: str) -> Dataset:
    """1797 handwritten digits of 8 x 8 with values 0 .. 16: a fixed random 1500 to train on, the other 297 to test."""
    from sklearn.datasets import load_digits  # a second, for this set only

    bunch = load_digits()
    order = permutation(0, 0, len(bunch.target))
    part = order[:1500] if split == "train" else order[1500:]
    return from_arrays("digits", bunch.images[part, :, :, None].astype(np.uint8), bunch.target[part], levels=17)


def _swiss_roll(config: ml_collections.ConfigDict, split: str) -> Dataset:
    noise = config.get("noise")
    if not isinstance(noise, int | float):
        raise InputError(f"data.noise={noise!r} must be a number between 0 and 1: 'swiss_roll' needs it.")
    return from_arrays("swiss_roll", toys.swiss_roll(_rng(split), _num(config, split), noise), levels=0)


def _heartbeat(config: ml_collections.ConfigDict, split: str) -> Dataset:
    return from_arrays("heartbeat", toys.heartbeat(_rng(split), _num(config, split)), levels=2)


def _num(config: ml_collections.ConfigDict, split: str) -> int:
    num = config.get(f"num_{split}")
    if not isinstance(num, int) or num < 1:
        raise InputError(
            f"data.num_{split}={num!r} must be a whole number, at least 1: {config.name!r} draws that many examples."
        )
    return num


def _rng(split: str) -> np.random.Generator:
    return np.random.default_rng(("train", "test").index(split))


_SETS: dict[str, Callable[[ml_collections.ConfigDict, str], Dataset]] = {
    "digits": _digits,
    "swiss_roll": _swiss_roll,
    "heartbeat": _heartbeat,
}
EMBEDDED = tuple(_SETS)
