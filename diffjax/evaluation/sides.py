"""The two sides of a comparison, samples and data: the sources of their examples, and the statistics of their features.

Both sides go through the same steps: values are clipped to the data's range and rounded to the data's levels, and an
image becomes 8-bit pixels, as in a file. Memory does not grow with the number of examples: moments are accumulated, and
only the first `quality_kept` vectors of features stay, for distances that need pairs of examples.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from diffjax.distances import Moments, score_terms
from diffjax.distances.neighbours import Nearest
from diffjax.errors import InputError
from diffjax.evaluation.features import Features
from diffjax.evaluation.measure import Trained
from diffjax.mesh import share, whole

SHOWN = 12  # samples in the picture of nearest neighbours


class Source(NamedTuple):
    """A source of examples: images (n, H, W, C) as uint8, other examples as float32.

    name     of the source, in the names of numbers
    num      number of examples
    batches  size -> all examples, once, in batches of at most that size
    gather   indices -> examples; None if examples cannot be read again
    """

    name: str
    num: int
    batches: Callable[[int], Iterator[np.ndarray]]
    gather: Callable[[np.ndarray], np.ndarray] | None = None


@dataclass
class Side:
    """Statistics of a source, in the features of one network.

    watch    other objects that receive all features
    seen     number of examples until now
    halves   moments of the features of the even and of the odd examples
    classes  moments of `score_terms`, if the features give classes
    counts   number of examples of each class; None if the features give no classes
    shown    the first examples themselves
    """

    source: Source
    watch: Sequence[Nearest] = ()
    seen: int = 0
    halves: tuple[Moments, Moments] = field(default_factory=lambda: (Moments(), Moments()))
    classes: Moments = field(default_factory=Moments)
    counts: np.ndarray | None = None
    _kept: list[np.ndarray] = field(default_factory=list)
    _kept_class: list[np.ndarray] = field(default_factory=list)
    _shown: list[np.ndarray] = field(default_factory=list)

    @property
    def moments(self) -> Moments:
        return self.halves[0].join(self.halves[1])

    @functools.cached_property
    def kept(self) -> np.ndarray:
        """(k, d), the features of the first examples."""
        return np.concatenate(self._kept)

    @functools.cached_property
    def kept_class(self) -> np.ndarray:
        """(k,), their classes."""
        return np.concatenate(self._kept_class)

    @functools.cached_property
    def shown(self) -> np.ndarray:
        return np.concatenate(self._shown)

    def add(self, batch: np.ndarray, x: np.ndarray, log_probs: np.ndarray | None, keep: int) -> None:
        """Adds a batch of examples, their features x and log p(class | example). The first `keep` features stay."""
        room, even = max(keep - self.seen, 0), self.seen % 2
        self.halves = (self.halves[0].add(x[even::2]), self.halves[1].add(x[1 - even :: 2]))
        if log_probs is not None:
            self.classes = self.classes.add(score_terms(log_probs))
            labels = log_probs.argmax(1)
            counts = np.bincount(labels, minlength=log_probs.shape[1])
            self.counts = counts if self.counts is None else self.counts + counts
            self._kept_class.append(labels[:room].copy())
        # Copies, because a slice, even an empty one, would keep the whole batch in memory.
        self._kept.append(x[:room].copy())
        self._shown.append(batch[: max(SHOWN - self.seen, 0)].copy())
        self.seen += len(batch)
        for watcher in self.watch:
            watcher.add(x)

    def split(self) -> "list[Side]":
        """The even and the odd examples, without their classes: two samples of one distribution."""
        return [
            Side(self.source, halves=(half, Moments()), _kept=[self.kept[i::2]]) for i, half in enumerate(self.halves)
        ]


def gathered(
    trained: Trained,
    features: Sequence[Features],
    source: Source,
    keep: int,
    watch: Sequence[Sequence[Nearest]] = (),
) -> list[Side]:
    """A `Side` of the source for each of the features, computed on all devices. The source is read or drawn once.

    Args:
        keep: number of feature vectors to keep.
        watch: for each of the features, the objects that also receive them.

    Raises:
        InputError: if a feature is not finite.
    """
    sides = [Side(source, watchers) for _, watchers in itertools.zip_longest(features, watch, fillvalue=())]
    size = share(trained.mesh, min(trained.options["batch_size"], source.num))
    computes = [trained.spread(one.compute, batch_at=1) for one in features]
    params = [jax.device_put(one.params, whole(trained.mesh)) for one in features]
    for batch in source.batches(size):
        filled = np.resize(batch, (size, *batch.shape[1:]))  # one program for all batches
        for side, one, compute, weights in zip(sides, features, computes, params, strict=True):
            x, log_probs = (
                None if found is None else np.asarray(found, np.float64)[: len(batch)]
                for found in compute(weights, filled)
            )
            assert x is not None
            if not np.isfinite(x).all():
                raise InputError(f"evaluation.quality: {one.name} of {source.name} has features that are not finite")
            side.add(batch, x, log_probs, keep)
    return sides


def of_dataset(dataset: Any, name: str, num: int = 0) -> Source:
    """The first `num` examples of a `data.Dataset` (all if 0). Images are uint8."""
    num = min(num or len(dataset), len(dataset))

    def gather(indices: np.ndarray) -> np.ndarray:
        x = dataset.gather(indices)["image"]
        if len(dataset.shape) != 3:
            return x.astype(np.float32)
        return to_bytes(x / (0.5 * (dataset.levels - 1)) - 1 if dataset.levels else x, dataset.levels)

    def batches(size: int) -> Iterator[np.ndarray]:
        for first in range(0, num, size):
            yield gather(np.arange(first, min(first + size, num)))

    return Source(f"{name}{num}", num, batches, gather)


def of_model(trained: Trained, num: int) -> Source:
    """`num` samples of the model."""
    images, levels = len(trained.test_set.shape) == 3, trained.test_set.levels

    def batches(size: int) -> Iterator[np.ndarray]:
        left = np.zeros((0, *trained.test_set.shape), np.uint8 if images else np.float32)
        for samples in trained.sample_batches(num):
            if samples.shape[1:] != trained.test_set.shape:
                raise InputError(
                    f"evaluation.quality={trained.options['quality']!r}: {trained.system!r} has samples of shape"
                    f" {samples.shape[1:]}, its data have {trained.test_set.shape}; set it to ''"
                )
            left = np.concatenate([left, to_bytes(np.clip(samples, -1, 1), levels) if images else samples])
            while len(left) >= size:
                yield left[:size]
                left = left[size:]
        if len(left):
            yield left

    return Source(f"n{num}", num, batches)


def of_arrays(images: np.ndarray, levels: int, name: str = "n") -> Source:
    """Images (n, H, W, C) in memory, as uint8 or as floats in [-1, 1]."""
    x = to_bytes(images, levels)
    return Source(
        f"{name}{len(x)}", len(x), lambda size: (x[i : i + size] for i in range(0, len(x), size)), x.__getitem__
    )


def of_path(path: Path, shape: tuple[int, ...], levels: int) -> Source:
    """The images of a folder, in files of any image format, or the `images` of an .npz file written by --mode=sample.

    Raises:
        InputError: if there are none, or if one has another shape than the data.
    """
    from diffjax.data.image_files import listed, read

    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            if "images" not in file or file["images"].shape[1:] != shape:
                raise InputError(f"--against={path} has no array `images` of shape (n, {', '.join(map(str, shape))})")
            return of_arrays(file["images"], levels)
    files = listed(path)
    if len(files) < 2:
        raise InputError(
            f"--against={path} holds {len(files)} image files and no run: name a workdir or a folder of images"
        )

    def gather(indices: np.ndarray) -> np.ndarray:
        images = []
        for i in indices:
            image = np.asarray(read(files[i], str(files[i]), shape[-1]))
            image = image.reshape(*image.shape[:2], shape[-1])
            if image.shape != shape:
                raise InputError(
                    f"{files[i]} has the shape {image.shape}, the data are {shape}: give images of that size"
                )
            images.append(image)
        return to_bytes(np.stack(images), levels)

    def batches(size: int) -> Iterator[np.ndarray]:
        for first in range(0, len(files), size):
            yield gather(np.arange(first, min(first + size, len(files))))

    return Source(f"n{len(files)}", len(files), batches, gather)


def to_bytes(images: np.ndarray, levels: int = 256) -> np.ndarray:
    """Images as uint8, rounded to the data's levels, as a file of 8 bits per channel would hold them.

    Args:
        images: uint8, or floats in [-1, 1].
        levels: number of values that an element of the data can take; 0 means 256.

    Raises:
        InputError: if images are floats outside of [-1, 1], not finite, or of another type.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        if images.dtype.kind != "f":
            raise InputError(f"images are {images.dtype}: give uint8, or floats in [-1, 1]")
        low, high = float(images.min()), float(images.max())
        if not -1.001 <= low <= high <= 1.001:  # also if one is NaN
            raise InputError(f"images have values from {low:g} to {high:g}: give floats in [-1, 1], or uint8")
        images = 127.5 * (np.clip(images, -1.0, 1.0) + 1.0)
    top = (levels or 256) - 1
    # Rounded twice: to the data's levels, then to bytes.
    return np.round(np.round(images * (top / 255.0)) * (255.0 / top)).astype(np.uint8)
