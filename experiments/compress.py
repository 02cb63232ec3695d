"""--mode=compress and --mode=decompress: examples as bits, by the codec that a run's system declares.

What is coded: an array of levels (num, *shape) in .npy, or in .npz (alone, or named "images"), or one image of the
run's size. Decompression writes the same kind: arrays as uint8, an image as PNG. No file is overwritten unless asked.
"""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from diffjax.coding import Codec, file
from diffjax.coding.codec import check_levels
from diffjax.errors import InputError
from diffjax.evaluation.code import Code
from diffjax.extras import needs_run
from diffjax.mesh import here
from diffjax.paths import local
from experiments.opened import Run, open_run
from experiments.parameters import restore_ema
from experiments.workdir import FREE
from experiments.writer import writer_of

with needs_run():
    from PIL import Image

SUFFIX = ".djx"
ARRAYS = (".npy", ".npz")
IMAGES = (".png", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
LOSSY = (".jpg", ".jpeg")


def compress(config: ConfigDict, workdir: Path, step: int | None, given: str, output: str, overwrite: bool) -> Path:
    """Writes the coded levels of the file `given`, to FILE.djx unless `output` says where. Returns the path."""
    path = _existing(given)
    target = _target(output or f"{path}{SUFFIX}", overwrite)
    run = _run(config, workdir)
    levels, kind = read(path, tuple(run.saved["data"]["shape"]), run.saved["data"]["levels"])
    codec, model = _codec(run, step)
    words = codec.encode(levels).words()
    data = file.pack(file.Head(len(levels), model, kind), words, levels)
    _write(target, data)
    writer_of(run.directory).say(
        f"{target}: {len(levels)} examples in {len(data)} bytes, {8 * len(data) / levels.size:.4f} bits/dim"
    )
    return target


def decompress(config: ConfigDict, workdir: Path, step: int | None, given: str, output: str, overwrite: bool) -> Path:
    """Writes what `compress` coded in the file `given`. Returns the path.

    Without `output` it is the file's name without .djx, with the suffix of what was coded.
    """
    path = _existing(given)
    data = path.read_bytes()
    head, words, check = file.unpack(data, str(path))
    name = path.with_suffix("") if path.suffix == SUFFIX else path
    target = _target(output or str(name.with_suffix(f".{head.kind}")), overwrite)
    if target.suffix.lower() != f".{head.kind}":
        raise InputError(f"--output={target}: {path} holds {head.kind}, so the name must end with .{head.kind}")
    run = _run(config, workdir)
    codec, model = _codec(run, step)
    if head.model != model:
        raise InputError(
            f"{path} was coded by another model: give the --workdir and --step of the run that it was compressed by"
        )
    levels = codec.decode(file.stack_of(words), head.num)
    file.check_decoded(levels, check, str(path))
    _save(target, levels, run.saved["data"]["levels"])
    writer_of(run.directory).say(f"{target}: {head.num} examples")
    return target


def read(path: Path, shape: tuple[int, ...], num_levels: int) -> tuple[np.ndarray, str]:
    """The levels (num, *shape) of a file, as uint8, and its kind.

    Raises:
        InputError: if it cannot be read, or does not hold levels of the run's examples without loss.
    """
    if num_levels < 2 or num_levels > 256:
        raise InputError(f"the run's examples have data.levels={num_levels}: only 2 to 256 levels can be coded")
    kind = path.suffix.lower()
    if kind in ARRAYS:
        levels = _array(path)
        check_levels(levels, shape, num_levels, str(path))
        return levels.astype(np.uint8), kind[1:]
    if kind in IMAGES:
        return _levels_of(_pixels(path, shape), num_levels, path)[None], "png"
    why = "JPEG has lost what it was made of" if kind in LOSSY else f"{kind or 'no suffix'!r} is not known"
    raise InputError(f"--file={path}: {why}; give levels in .npy or .npz, or an image in .png")


def _array(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as data:
            found = np.load(data, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return found
            if "images" not in found.files and len(found.files) != 1:
                raise InputError(f"{path} holds {', '.join(found.files)}: give one array, or name one 'images'")
            return np.asarray(found["images" if "images" in found.files else found.files[0]])
    except InputError:
        raise
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as an array: {' '.join(str(error).split())}") from None


def _pixels(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The bytes (H, W, C) of an image of the run's size."""
    if len(shape) != 3:
        raise InputError(f"--file={path}: the run's examples of shape {shape} are no images; give an .npy file")
    try:
        with Image.open(path) as image:
            image.load()
            mode, pixels = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path} cannot be read as an image: {' '.join(str(error).split())}") from None
    wanted = {1: "L", 3: "RGB"}.get(shape[-1])
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if mode != wanted or pixels.shape != shape:
        raise InputError(
            f"{path} is an image of mode {mode} and shape {pixels.shape}: the run's are of mode {wanted} and {shape}"
        )
    return pixels


def _levels_of(pixels: np.ndarray, num_levels: int, path: Path) -> np.ndarray:
    """Levels of bytes, where each byte is that of a level, see `_bytes_of`."""
    levels = np.rint(pixels * ((num_levels - 1) / 255)).astype(np.uint8)
    if (other := pixels[_bytes_of(levels, num_levels) != pixels]).size:
        raise InputError(
            f"{path} has the grey value {other[0]}, which is none of the run's {num_levels} levels: to code it would"
            " lose something; give levels in an .npy file"
        )
    return levels


def _bytes_of(levels: np.ndarray, num_levels: int) -> np.ndarray:
    return np.rint(levels * (255 / (num_levels - 1))).astype(np.uint8)


def _save(target: Path, levels: np.ndarray, num_levels: int) -> None:
    partial = target.with_name(f".{target.name}.part{target.suffix}")
    if target.suffix.lower() == ".png":
        image = _bytes_of(levels[0], num_levels)
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(partial, format="PNG")
    elif target.suffix.lower() == ".npz":
        np.savez_compressed(partial, images=levels)
    else:
        np.save(partial, levels)
    os.replace(partial, target)


def _write(target: Path, data: bytes) -> None:
    partial = target.with_name(f".{target.name}.part")
    partial.write_bytes(data)
    os.replace(partial, target)


def _existing(given: str) -> Path:
    if not given:
        raise InputError("--mode=compress and --mode=decompress need --file: what to code, or to decode")
    path = local(given, "--file")
    if not path.is_file():
        raise InputError(f"--file={given} does not exist or is no file")
    return path


def _target(output: str, overwrite: bool) -> Path:
    target = local(output, "--output")
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists already: name another by --output, or add --overwrite")
    if not target.parent.is_dir():
        raise InputError(f"--output={target}: there is no directory {target.parent}")
    return target


def _run(config: ConfigDict, workdir: Path) -> Run:
    run = open_run(config, workdir)
    if not any(isinstance(measure, Code) for measure in run.model.measures):
        raise InputError(
            f"{run.system!r} with this configuration has no codec, so nothing can be coded by it; see docs/codec.md"
        )
    return run


def _codec(run: Run, step: int | None) -> tuple[Codec, bytes]:
    """The codec of a checkpoint's EMA weights, and what tells it from others."""
    params: Any = here(run.mesh, restore_ema(run, step)[1])
    model = {
        section: {k: v for k, v in value.items() if f"{section}.{k}" not in FREE} if isinstance(value, dict) else value
        for section, value in run.saved.items()
        if section not in (*FREE, "training", "init_from", "distillation")
    }
    return run.model.measure(Code).codec(params), file.digest(params, json.dumps(model, sort_keys=True))
