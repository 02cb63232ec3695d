"""Figures as values. A system returns them; other code draws them and writes the files."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

Decode = Callable[[Array], Array]  # from the states of the chain to images in [-1, 1]


class Grid(NamedTuple):
    """Images (n, H, W, C) in [-1, 1], laid out in rows of `columns`."""

    images: Array | np.ndarray
    columns: int


class Film(NamedTuple):
    """Frames (frames, n, H, W, C) in [-1, 1]: n images that move together."""

    frames: Array | np.ndarray


class Curves(NamedTuple):
    """Graphs of y (n,) against x (n,). `lines` maps a name to (x, y). Several lines get a legend."""

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
    """Curves in the plane, with a dot at the start of each: xy (n, num, 2)."""

    title: str
    xy: Array | np.ndarray


class Contours(NamedTuple):
    """Level lines of a density (ny, nx) over x (nx,) and y (ny,). They enclose 10, 30, 50, 70, 90% of it."""

    title: str
    x: Array | np.ndarray
    y: Array | np.ndarray
    density: Array | np.ndarray


Mark = Points | Arrows | Paths | Contours


class Panels(NamedTuple):
    """Rows of pictures of the plane. All have the same axes; `labels` are the names of the axes.

    A picture is one mark, or a list of marks that are drawn over one another with the title of the first. If `extent`
    is not 0, the axes reach from -extent to extent.
    """

    rows: Sequence[Sequence[Mark | list[Mark]]]
    labels: tuple[str, str] = ("", "")
    extent: float = 0.0


Figure = Grid | Film | Curves | Panels


def grid(images: Array) -> Grid:
    """Images (n, H, W, C) in [-1, 1] in the squarest grid."""
    return Grid(images, math.ceil(math.sqrt(len(images))))


def columns(num: int) -> Callable[[Array], Figure]:
    """Makes a grid of `num` columns, e.g. one for each class. With 0 it is `picture`."""
    return (lambda images: Grid(images, num)) if num else picture


def plane(xy: Array) -> Panels:
    """Samples of the plane (n, 2)."""
    return Panels([[Points("samples", xy)]])


def picture(samples: Array) -> Figure:
    """Images in a grid. Other samples are points in the plane of their first two numbers; a missing number is 0."""
    if samples.ndim == 4:
        return grid(samples)
    xy = samples.reshape(len(samples), -1)[:, :2]
    return plane(jnp.pad(xy, ((0, 0), (0, 2 - xy.shape[1]))))


def none(params: Any, key: Array, batch: Any) -> dict[str, Figure]:
    """No figures."""
    return {}


class Figures(NamedTuple):
    """The figures of a system.

    samples(samples) -> Figure of what `Model.sample` returns; by default `picture`
    own(params, key, batch) -> {name: Figure}, the system's own figures, made once at the end of a run
    """

    samples: Callable[[Array], Figure] = picture
    own: Callable[[Any, Array, Any], dict[str, Figure]] = none
