"""Writes figures to files: films as GIF, sounds as WAV, all others as PNG."""

import math
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.extras import needs_run
from diffjax.zoo import Arrows, Contours, Curves, Film, Grid, Panels, Paths, Points
from diffjax.zoo.figures import Figure, Mark, Sound

with needs_run():
    from PIL import Image


def write(path: Path, figure: Figure) -> Path:
    """Writes `path` + ".png", ".gif" or ".wav" and returns it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match figure:
        case Grid(images, columns):
            path = path.with_name(path.name + ".png")
            Image.fromarray(tile(pixels(images), columns)).save(path)
        case Film(frames):
            path = path.with_name(path.name + ".gif")
            tiles = (tile(pixels(frame), math.ceil(math.sqrt(len(frame))), least=256) for frame in np.asarray(frames))
            pictures = [Image.fromarray(picture) for picture in tiles]
            durations = [80] * (len(pictures) - 1) + [2000]  # ms; the last frame stays longer
            pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0)
        case Sound(waves, rate):
            path = path.with_name(path.name + ".wav")
            _wav(path, np.asarray(waves), rate)
        case Curves():
            path = path.with_name(path.name + ".png")
            _plot(path, figure)
        case Panels():
            path = path.with_name(path.name + ".png")
            _panels(path, figure)
    return path


def _wav(path: Path, waves: np.ndarray, rate: int) -> None:
    """16-bit mono, with a quarter of a second of silence after each wave."""
    quiet = np.zeros((len(waves), rate // 4))
    samples = np.concatenate([np.clip(waves, -1.0, 1.0), quiet], axis=1).ravel()
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, len(samples), "NONE", "not compressed"))
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())


def pixels(images: np.ndarray) -> np.ndarray:
    """Floats in [-1, 1] -> uint8."""
    return np.round((np.clip(np.asarray(images), -1, 1) + 1) * 127.5).astype(np.uint8)


def tile(images: np.ndarray, columns: int, border: int = 1, least: int = 512) -> np.ndarray:
    """uint8 (n, H, W, C) -> (height, width, 3) with lines between the images. Small ones are enlarged by an integer."""
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


def of_metrics(metrics: Mapping[str, tuple[np.ndarray, np.ndarray]], columns: int = 3) -> Any:
    """A matplotlib figure with a graph of each metric (steps (num,), values (num,)), named by its title."""
    with needs_run():
        from matplotlib.figure import Figure as Plot

    columns = min(columns, len(metrics)) or 1
    rows = -(-len(metrics) // columns) or 1
    plot = Plot(figsize=(3.6 * columns, 2.5 * rows), layout="constrained")
    places = plot.subplots(rows, columns, squeeze=False).ravel()
    for place, (name, (steps, values)) in zip(places, metrics.items(), strict=False):
        place.plot(steps, values, marker="." if len(steps) < 20 else "", linewidth=1.2)
        place.set_title(name, fontsize=9)
        place.tick_params(labelsize=7)
        place.grid(alpha=0.3)
    for place in places[len(metrics) :]:
        place.set_visible(False)
    plot.supxlabel("step", fontsize=9)
    return plot


def _plot(path: Path, curves: Curves) -> None:
    with needs_run():
        from matplotlib.figure import Figure as Plot  # takes half a second, so only if there is a curve

    plot = Plot(figsize=(5, 3.5), layout="constrained")
    axes = plot.subplots()
    for name, (x, y) in curves.lines.items():
        axes.plot(np.asarray(x), np.asarray(y), label=name)
    if len(curves.lines) > 1:
        axes.legend(fontsize=8)
    axes.set(xlabel=curves.x_label, ylabel=curves.y_label)
    axes.grid(alpha=0.3)
    plot.savefig(path, dpi=120)


def _panels(path: Path, panels: Panels) -> None:
    with needs_run():
        from matplotlib.figure import Figure as Plot

    rows = panels.rows
    columns = max(len(row) for row in rows)
    plot = Plot(figsize=(3 * columns, 3 * len(rows)), layout="constrained")
    axes = plot.subplots(len(rows), columns, squeeze=False, sharex=True, sharey=True)
    plot.supxlabel(panels.labels[0])
    plot.supylabel(panels.labels[1])
    for above, line, row in zip((axes[0], *axes), axes, rows, strict=False):
        for bare, place in zip(above[len(row) :], line[len(row) :], strict=True):
            place.set_visible(False)
            bare.tick_params(labelbottom=True)
        for place, panel in zip(line, row, strict=False):
            marks = panel if isinstance(panel, list) else [panel]
            place.set_title(marks[0].title, fontsize=10)
            for mark in marks:
                _mark(place, mark)
            if panels.extent:
                place.set(xlim=(-panels.extent, panels.extent), ylim=(-panels.extent, panels.extent))
    plot.savefig(path, dpi=120)


def _mark(place: Any, mark: Mark) -> None:
    match mark:
        case Points(_, xy):
            place.set_aspect("equal")
            place.plot(*np.asarray(xy).T, ".", markersize=1.5, alpha=0.6)
        case Arrows(_, xy, vectors):
            place.set_aspect("equal")
            place.quiver(*np.asarray(xy).T, *np.asarray(vectors).T, angles="xy", width=0.004)
        case Paths(_, xy):
            xy = np.asarray(xy)
            place.plot(*xy.transpose(2, 1, 0), linewidth=0.7, alpha=0.8)
            place.plot(*xy[:, 0].T, "k.", markersize=3)
        case Contours(_, x, y, density):
            density = np.asarray(density)
            place.contour(np.asarray(x), np.asarray(y), density, _levels(density, (0.9, 0.7, 0.5, 0.3, 0.1)))


def _levels(density: np.ndarray, masses: Sequence[float]) -> np.ndarray:
    """The contour levels, ascending, above which the given fractions of a density's mass lie. The grid is regular."""
    ordered = np.sort(density.ravel())[::-1]
    held = np.cumsum(ordered) / ordered.sum()
    return ordered[np.searchsorted(held, masses)]
