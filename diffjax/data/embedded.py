"""Sets that need no download: scikit-learn's digits, the toys of toys.py and the textures of textures.py.

Random sets use fixed seeds, one for the training part and one for the test part. So the same configuration always gives
the same arrays.
"""

import inspect
from collections.abc import Callable
from importlib.metadata import distribution
from typing import Any

import numpy as np
from jaxtyping import Float64

from diffjax.data import chorales, textures, toys
from diffjax.data.cache import Arrays, cached
from diffjax.data.dataset import Dataset, from_arrays
from diffjax.data.pipeline import permutation
from diffjax.errors import InputError
from diffjax.extras import needs_run


def load_embedded(config: Any, split: str) -> Dataset:
    """The "train" or "test" part of the embedded set `config.name`, one of `EMBEDDED`.

    config.shape: the shape of one example: (2,) for "swiss_roll", "two_moons" and "correlated", (len(means[0]),) for
        "mixture", (20,) for "heartbeat", (20, 2) for "stomach_cancer", (size, size, 1) for "dead_leaves",
        (height, width, 1) for "gravel", "grass" and "brick".
    config.train_split, config.test_split: "", or absent.
    config.num_train, config.num_test: how many examples to draw. Needed by all sets except "digits" and "chorales".
    config.noise: for "swiss_roll" and "two_moons", see `toys.swiss_roll`.
    config.sigmas: for "correlated", see `toys.correlated`.
    config.weights, config.means, config.std: for "mixture", see `toys.mixture`.
    config.example: for "given", the example. All examples are copies of it. In the same way all examples of
        "stomach_cancer" are the same table. So a batch of n asks for n draws from a posterior given that example.
    config.radii: for "dead_leaves", the smallest and the largest radius in pixels.

    Raises `InputError` if a field that the set needs is missing or wrong.
    """
    if config.get("train_split") or config.get("test_split"):
        raise InputError(f"data.train_split and data.test_split must be '' for the embedded set {config.name!r}.")
    dataset = EMBEDDED[config.name](config, split)
    if dataset.shape != (shape := tuple(config.shape)):
        raise InputError(f"data.shape={shape} disagrees with {config.name!r}: set data.shape={dataset.shape}.")
    return dataset


def _digits(config: Any, split: str) -> Dataset:
    """1797 handwritten digits of 8 x 8 with values 0 .. 16: a fixed random 1500 to train on, the other 297 to test."""
    with needs_run():
        # `sklearn.datasets.load_digits` reads the same file, but importing it would add two seconds to every start.
        file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(str(file), delimiter=",", dtype=np.uint8)
    order = permutation(0, 0, len(table))
    part = table[order[:1500] if split == "train" else order[1500:]]
    return from_arrays("digits", part[:, :64].reshape(-1, 8, 8, 1), part[:, 64].astype(np.int64), levels=17)


def _curve(config: Any, split: str) -> Dataset:
    noise, draw = config.get("noise"), {"swiss_roll": toys.swiss_roll, "two_moons": toys.two_moons}[config.name]
    if type(noise) not in (int, float):
        raise InputError(f"data.noise={noise!r} must be a number between 0 and 1: {config.name!r} needs it.")
    return from_arrays(config.name, draw(_rng(split), _num(config, split), noise), levels=0)


def _heartbeat(config: Any, split: str) -> Dataset:
    return from_arrays("heartbeat", toys.heartbeat(_rng(split), _num(config, split)), levels=2)


def _stomach_cancer(config: Any, split: str) -> Dataset:
    table = toys.stomach_cancer()
    return from_arrays("stomach_cancer", np.repeat(table[None], _num(config, split), axis=0), levels=0)


def _given(config: Any, split: str) -> Dataset:
    example = _floats(config, "example").astype(np.float32)
    if not example.ndim:
        raise InputError(f"data.example={config.example!r} must be a list of numbers: 'given' is made of it.")
    return from_arrays("given", np.repeat(example[None], _num(config, split), axis=0), levels=0)


def _correlated(config: Any, split: str) -> Dataset:
    sigmas = _floats(config, "sigmas")
    if sigmas.shape != (2,) or not (sigmas > 0).all():
        raise InputError(
            f"data.sigmas={config.sigmas!r} must be two positive numbers, of the difference and of the sum."
        )
    difference, total = sigmas.tolist()
    return from_arrays("correlated", toys.correlated(_rng(split), _num(config, split), (difference, total)), levels=0)


def _mixture(config: Any, split: str) -> Dataset:
    weights, means, std = (_floats(config, name) for name in ("weights", "means", "std"))
    if std.ndim:
        raise InputError(f"data.std={config.std!r} must be one number.")
    points = toys.mixture(_rng(split), _num(config, split), weights, means, float(std))
    return from_arrays("mixture", points, levels=0)


def _dead_leaves(config: Any, split: str) -> Dataset:
    size, _, _ = _image_shape(config)
    num, radii = _num(config, split), config.get("radii")
    if not isinstance(radii, tuple | list) or len(radii) != 2 or not all(type(r) in (int, float) for r in radii):
        raise InputError(f"data.radii={radii!r} must be two numbers, the smallest and the largest radius in pixels.")
    # The generator's source is part of the key: a changed generator makes other images and needs another cache entry.
    facts = {"set": [size, num, split, *radii], "made_by": [inspect.getsource(toys), np.__version__]}

    def make() -> Arrays:
        return toys.dead_leaves(_rng(split), num, size, *radii), np.zeros(num, np.int32)

    return from_arrays("dead_leaves", *cached(f"dead_leaves-{split}", facts, make))


def _photograph(config: Any, split: str) -> Dataset:
    height, width, _ = _image_shape(config)
    image = textures.photograph(config.name)
    return from_arrays(config.name, textures.crops(_rng(split), [image], (height, width), _num(config, split), split))


def _image_shape(config: Any) -> tuple[int, int, int]:
    shape = tuple(config.shape)
    if len(shape) != 3 or shape[2] != 1:
        raise InputError(f"data.shape={shape} must be (height, width, 1) for the set {config.name!r}.")
    return shape


def _floats(config: Any, name: str) -> Float64[np.ndarray, "..."]:
    """The numbers in a field. Raises `InputError` if it is missing or has anything but finite numbers."""
    if name not in config:
        raise InputError(f"data.{name} is missing: {config.name!r} needs it.")
    try:
        values = np.asarray(config[name], np.float64)
        finite = values.size > 0 and np.isfinite(values).all()
    except (TypeError, ValueError):  # text, or rows of several lengths
        finite = False
    if not finite:
        raise InputError(f"data.{name}={config[name]!r} must be finite numbers: {config.name!r} needs them.")
    return values


def _num(config: Any, split: str) -> int:
    num = config.get(f"num_{split}")
    if type(num) is not int or num < 1:
        raise InputError(
            f"data.num_{split}={num!r} must be a whole number, at least 1: {config.name!r} draws that many examples."
        )
    return num


def _rng(split: str) -> np.random.Generator:
    return np.random.default_rng(("train", "test").index(split))


EMBEDDED: dict[str, Callable[[Any, str], Dataset]] = {
    "digits": _digits,
    "chorales": chorales.chorales,
    **dict.fromkeys(("swiss_roll", "two_moons"), _curve),
    "heartbeat": _heartbeat,
    "dead_leaves": _dead_leaves,
    "correlated": _correlated,
    "mixture": _mixture,
    "stomach_cancer": _stomach_cancer,
    "given": _given,
    **dict.fromkeys(textures.PHOTOGRAPHS, _photograph),
}
