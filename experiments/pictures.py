"""Figures to files: films as GIF, all others as PNG."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from diffjax.zoo import Arrows, Curve, Film, Grid, Panels, Points
from diffjax.zoo.model import Figure


def write(path: Path, figure: Figure) -> Path:
    """Writes `path` + ".png" or ".gif" and returns it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match figure:
        case Grid(images, columns):
            path = path.with_suffix(".png")
            Image.fromarray(tile(pixels(images), columns)).save(path)
        case Film(frames):
            path = path.with_suffix(".gif")
            tiles = (tile(pixels(frame), math.ceil(math.sqrt(len(frame))), least=256) for frame in np.asarray(frames))
            pictures = [Image.fromarray(picture) for picture in tiles]
            durations = [80] * (len(pictures) - 1) + [2000]  # ms: rest on the result
            pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0)
        case Curve(x, y, x_label, y_label):
            path = path.with_suffix(".png")
            _plot(path, np.asarray(x), np.asarray(y), x_label, y_label)
        case Panels(rows):
            path = path.with_suffix(".png")
            _panels(path, rows)
    return path


def pixels(images: np.ndarray) -> np.ndarray:
    """Floats in [-1, 1] -> uint8."""
    return np.round((np.clip(np.asarray(images), -1, 1) + 1) * 127.5).astype(np.uint8)


def tile(images: np.ndarray, columns: int, border: int = 1, least: int = 512) -> np.ndarray:
    """uint8 (n, H, W, C) -> (height, width, 3) with lines between the images, small ones enlarged by whole pixels."""
    n, height, width, _ = images.shape
    rows = -(-n // columns)
    enlarge = max(1, least // (rows * height))
    images = images.repeat(enlarge, 1).repeat(enlarge, 2)
    height, width = height * enlarge + border, width * enlarge + border
    canvas = np.full((rows * height + border, columns * width + border, 3), 128, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * height + border, i % columns * width + border
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image  # grey broadcasts over colours
    return canvas


def _plot(path: Path, x: np.ndarray, y: np.ndarray, x_label: str, y_label: str) -> None:
    from matplotlib.figure import Figure as Plot  # half a second, for the one curve

    plot = Plot(figsize=(5, 3.5), layout="constrained")
    axes = plot.subplots()
    axes.plot(x, y)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    plot.savefig(path, dpi=120)


def _panels(path: Path, rows: Sequence[Sequence[Points | Arrows]]) -> None:
    from matplotlib.figure import Figure as Plot

    columns = max(len(row) for row in rows)
    plot = Plot(figsize=(3 * columns, 3 * len(rows)), layout="constrained")
    axes = plot.subplots(len(rows), columns, squeeze=False, sharex=True, sharey=True)
    for line, row in zip(axes, rows, strict=True):
        for place, panel in zip(line, row, strict=True):
            xy = np.asarray(panel.xy)
            place.set_title(panel.title, fontsize=10)
            place.set_aspect("equal")
            match panel:
                case Points():
                    place.plot(*xy.T, ".", markersize=1.5, alpha=0.6)
                case Arrows(_, _, vectors):
                    place.quiver(*xy.T, *np.asarray(vectors).T, angles="xy", width=0.004)
    plot.savefig(path, dpi=120)
