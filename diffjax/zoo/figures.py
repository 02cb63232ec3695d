"""Figures as values: what a system shows of itself. How they become files is the affair of who draws them."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

Decode = Callable[[Array], Array]  # from what the chain runs on to what is looked at, images in [-1, 1]


class Grid(NamedTuple):
    """Images (n, H, W, C) in [-1, 1], laid out in rows of `columns`."""

    images: Array | np.ndarray
    columns: int


class Film(NamedTuple):
    """Frames (frames, n, H, W, C) in [-1, 1]: n images that move together."""

    frames: Array | np.ndarray


class Curves(NamedTuple):
    """Graphs of y (n,) against x (n,): lines maps a name to (x, y); a legend is drawn where there are several."""

    lines: Mapping[str, tuple[Array | np.ndarray, Array | np.ndarray]]
    x_label: str
    y_label: str


class Points(NamedTuple):
    """Points of the plane: xy (n, 2)."""

    title: str
    xy: Array | np.ndarray


class Arrows(NamedTuple):
    """A vector field on the plane: vectors (n, 2) at xy (n, 2)."""

    title: str
    xy: Array | np.ndarray
    vectors: Array | np.ndarray


class Paths(NamedTuple):
    """Curves in the plane, each from a dot at its start: xy (n, num, 2)."""

    title: str
    xy: Array | np.ndarray


class Contours(NamedTuple):
    """Level lines of a density (ny, nx) over x (nx,) and y (ny,), those that hold 10, 30, 50, 70 and 90 per cent."""

    title: str
    x: Array | np.ndarray
    y: Array | np.ndarray
    density: Array | np.ndarray


Mark = Points | Arrows | Paths | Contours


class Panels(NamedTuple):
    """Rows of pictures of the plane, all with the same axes, whose names `labels` are.

    A picture is one mark or a list of several, drawn over one another under the title of the first. `extent`, if not 0,
    is how far the axes reach to either side of the origin.
    """

    rows: Sequence[Sequence[Mark | list[Mark]]]
    labels: tuple[str, str] = ("", "")
    extent: float = 0.0


Figure = Grid | Film | Curves | Panels


def grid(images: Array) -> Grid:
    """Images (n, H, W, C) in [-1, 1] in the squarest grid."""
    return Grid(images, math.ceil(math.sqrt(len(images))))


def columns(num: int) -> Callable[[Array], Figure]:
    """A grid of that many columns, as of classes in turn; with 0 `picture`."""
    return (lambda images: Grid(images, num)) if num else picture


def plane(xy: Array) -> Panels:
    """Samples of the plane (n, 2)."""
    return Panels([[Points("samples", xy)]])


def picture(samples: Array) -> Figure:
    """Images in a grid; other samples as points in the plane of their first two numbers, a missing one being 0."""
    if samples.ndim == 4:
        return grid(samples)
    xy = samples.reshape(len(samples), -1)[:, :2]
    return plane(jnp.pad(xy, ((0, 0), (0, 2 - xy.shape[1]))))


def none(params: Any, key: Array, batch: Any) -> dict[str, Figure]:
    """No figures."""
    return {}


class Figures(NamedTuple):
    """How a system is looked at.

    samples(samples) -> Figure, of what `Model.sample` returns; unless given, by its shape
    own(params, key, batch) -> {name: Figure}, the system's own pictures, made once at the end of a run
    """

    samples: Callable[[Array], Figure] = picture
    own: Callable[[Any, Array, Any], dict[str, Figure]] = none
