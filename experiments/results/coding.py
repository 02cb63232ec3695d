"""Sizes of the same images by a run's codec and by PNG, WebP, JPEG XL and zstd; and written prefixes of a diffusion.

    python -m experiments.results.coding table NUM train|test RUN [RUN ...]
    python -m experiments.results.coding progressive RUN NUM STEPS [FILE.png]

`table` codes the first NUM examples with each run, decodes them and compares, and prints bits/dim of whole files. The
other formats are given each image alone, and one sheet of all of them side by side: a tiny image is mostly head. Their
bytes are the levels themselves as grey values, and 2 levels one bit a pixel. It needs `pip install zstandard
pillow-jxl-plugin` for zstd and JPEG XL, and leaves out what is not installed.

`progressive` writes NUM held-out digits of a ddpm run as a progressive file, decodes every prefix, and prints its rate
and error beside the curves of `bounds.rate_distortion`: of the same merged steps, and of the whole chain.
"""

import io
import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from diffjax import bounds
from diffjax.coding import file, progressive
from diffjax.distributions import DiscretizedNormal
from diffjax.errors import InputError
from diffjax.evaluation.code import Code
from diffjax.mesh import here
from diffjax.zoo.diffusion.ddpm import schedule_of
from experiments.opened import open_saved
from experiments.parameters import restore_ema
from experiments.workdir import read_config

SHOWN = 6  # digits in the figure
Packer = Callable[[np.ndarray], bytes]


def _saved(image: np.ndarray, levels: int, **options: Any) -> bytes:
    out = io.BytesIO()
    picture = Image.fromarray(image.astype(np.uint8))
    if levels == 2 and options["format"] == "PNG":
        picture = Image.fromarray(image.astype(bool))
    picture.save(out, **options)
    return out.getvalue()


def packers(levels: int) -> dict[str, Packer]:
    """(H, W) levels -> the bytes of a file."""
    found: dict[str, Packer] = {
        "PNG": partial(_saved, levels=levels, format="PNG", optimize=True),
        "WebP lossless": partial(_saved, levels=levels, format="WEBP", lossless=True, quality=100, method=6),
    }
    try:
        import pillow_jxl  # type: ignore[import-untyped]  # noqa: F401

        found["JPEG XL"] = partial(_saved, levels=levels, format="JXL", lossless=True, effort=9)
    except ImportError:
        pass
    try:
        import zstandard

        squeeze = zstandard.ZstdCompressor(level=22).compress
        bits = (lambda x: np.packbits(x).tobytes()) if levels == 2 else (lambda x: x.astype(np.uint8).tobytes())
        found["zstd"] = lambda image: squeeze(bits(image))
    except ImportError:
        pass
    return found


def sheet(images: np.ndarray) -> np.ndarray:
    """(n, H, W) -> one picture, nearly square, filled up with 0."""
    n, height, width = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = -(-n // columns)
    full = np.concatenate([images, np.zeros((rows * columns - n, height, width), images.dtype)])
    return full.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)


def table(num: int, split: str, directories: list[str]) -> Iterator[list[str]]:
    yield ["code", "bytes", "bits/dim", "reported bits/dim", "borrowed bits/dim"]
    for i, directory in enumerate(directories):
        run = open_saved(directory, "RUN")
        dataset = run.train_set() if split == "train" else run.test_set()
        levels = np.asarray(dataset.gather(np.arange(min(num, len(dataset))))["image"]).astype(np.uint8)
        if i == 0:
            images = levels[..., 0]
            for name, pack in packers(run.saved["data"]["levels"]).items():
                alone = sum(len(pack(image)) for image in images)
                whole = len(pack(sheet(images)))
                for how, size in (("each alone", alone), ("one sheet", whole)):
                    yield [f"{name}, {how}", str(size), f"{8 * size / images.size:.3f}", "", ""]
        params = here(run.mesh, restore_ema(run, None)[1])
        codec = run.model.measure(Code).codec(params)
        stack = codec.encode(levels)
        data = file.pack(file.Head(len(levels), file.digest(params), "npy"), stack.words(), levels)
        head, words, check = file.unpack(data)
        file.check_decoded(codec.decode(file.stack_of(words), head.num), check)
        bound = jax.jit(run.model.bound)  # type: ignore[arg-type]
        parts = np.array_split(np.arange(len(levels)), -(-len(levels) // 100))
        key = jax.random.key(0)
        nats = np.concatenate(
            [bound(params, jax.random.fold_in(key, j), {"image": levels[p]}) for j, p in enumerate(parts)]
        )
        reported = -float(np.mean(nats, dtype=float)) / (math.log(2) * levels[0].size)
        rate = 8 * len(data) / levels.size
        name = f"{run.system}, {run.directory.name}"
        yield [name, str(len(data)), f"{rate:.3f}", f"{reported:.3f}", f"{stack.bits_borrowed() / levels.size:.4f}"]


def written(directory: str, num: int, steps: int, path: str = "") -> Iterator[list[str]]:
    """A row for each prefix."""
    run, config = open_saved(directory, "RUN"), read_config(open_saved(directory, "RUN").directory, "RUN")
    if run.system != "ddpm" or run.model.kernels is None:
        raise InputError(f"{directory} is no run of ddpm")
    params, shape = here(run.mesh, restore_ema(run, None)[1]), tuple(run.saved["data"]["shape"])
    levels, variance = run.saved["data"]["levels"], run.saved["diffusion"]["variance"]
    chain, kernels = np.asarray(schedule_of(config.diffusion).times), run.model.kernels
    process, decoder = kernels(params)[0], partial(DiscretizedNormal, num_bins=levels)

    @jax.jit
    def curve(params: Any, key: jax.Array, x0: jax.Array, times: jax.Array) -> bounds.DiffusionTerms:
        return bounds.diffusion(process, kernels(params)[1], key, x0, times, variance, decoder)

    def scaled(split: Any) -> jax.Array:
        return jnp.asarray(split.gather(np.arange(num))["image"] * (2.0 / (levels - 1)) - 1.0, jnp.float32)

    # Merged steps that share the rate of the whole chain equally, on training examples.
    rate = np.asarray(
        bounds.rate_distortion(curve(params, jax.random.key(1), scaled(run.train_set()), chain), shape)[0]
    )
    wanted = np.linspace(rate.max(), rate.min(), steps + 1)[1:]
    at = sorted({0, len(chain) - 1, *(int(np.abs(rate - w).argmin()) + 1 for w in wanted)})
    times = chain[at]
    x0 = scaled(run.test_set())
    merged, whole = (
        [np.asarray(a) for a in bounds.rate_distortion(curve(params, jax.random.key(2), x0, grid), shape)]
        for grid in (times, chain)
    )
    codec = progressive.Progressive(
        process, lambda params: kernels(params)[1], params, times, variance, decoder, shape, levels
    )
    images = np.asarray(run.test_set().gather(np.arange(num))["image"]).astype(np.uint8)
    points, shown = [], []
    yield ["t", "bytes", "written bits/dim", "promised, these steps", "rms error", "promised", "promised, whole chain"]
    for prefix in progressive.prefixes(codec.encode(images)):
        found = codec.decode(prefix)
        error = float(np.sqrt(((found.image - np.asarray(x0)) ** 2).mean()))
        bits = 8 * len(prefix) / images.size
        points.append((bits, error))
        shown.append(found.image[:SHOWN, ..., 0])
        place = codec.num_segments - found.steps - 1
        if found.whole:
            yield ["0", str(len(prefix)), f"{bits:.3f}", "", f"{error:.4f}", "", ""]
            continue
        fine = at[place + 1] - 1
        numbers = (bits, merged[0][place], error, merged[1][place])
        yield [f"{times[place + 1]:.3f}", str(len(prefix)), *(f"{x:.3f}" for x in numbers), f"{whole[0][fine]:.3f}"]
    if path:
        _draw(path, np.array(points), np.array(shown), merged, whole)


def _draw(path: str, points: np.ndarray, shown: np.ndarray, merged: list[np.ndarray], whole: list[np.ndarray]) -> None:
    """Above the rates and errors; below a column for each prefix, its bits/dim on top: what is decoded of it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6.5), layout="constrained")
    above, below = figure.subplots(2, height_ratios=(3, 2))
    above.plot(*whole, color="grey", label="promised, whole chain")
    above.plot(*merged, "--", color="black", label="promised, merged steps")
    above.plot(*points.T, "o-", color="tab:red", label="written prefixes")
    above.set(xlabel="rate, bits/dim", ylabel="root-mean-square error, of [-1, 1]")
    above.legend()
    width = shown.shape[-1]
    below.imshow(
        np.clip(shown, -1, 1).transpose(1, 2, 0, 3).reshape(SHOWN * shown.shape[2], len(shown) * width), cmap="gray"
    )
    below.set_xticks(width * np.arange(len(shown)) + width / 2 - 0.5, [f"{bits:.2f}" for bits, _ in points])
    below.set(yticks=[], xlabel="decoded from so many bits/dim")
    figure.savefig(path, dpi=80)


def main(arguments: list[str]) -> None:
    try:
        if len(arguments) >= 4 and arguments[0] == "table" and arguments[2] in ("train", "test"):
            rows = table(int(arguments[1]), arguments[2], arguments[3:])
        elif len(arguments) in (4, 5) and arguments[0] == "progressive":
            rows = written(arguments[1], int(arguments[2]), int(arguments[3]), *arguments[4:])
        else:
            sys.exit(__doc__)
        for i, cells in enumerate(rows):
            print(f"| {' | '.join(cells)} |" + ("\n|" + " --- |" * len(cells) if i == 0 else ""), flush=True)
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
