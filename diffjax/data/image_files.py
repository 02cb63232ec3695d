"""Reads image files as 8-bit pixels, or raises an error that says why not. No information is lost in silence.

`read` takes grey and colour images of at most 8 bits a channel, palettes, and alpha channels that are opaque
everywhere. It refuses more bits (PIL would cut them to 8), transparency, CMYK and other colour spaces (there is more
than one way to convert them to RGB), several frames, and files that are damaged or too large.

`converted` is for the user's own files. It also takes all of these, converts each in one fixed way, and reports what it
did (`CHANGES`). It refuses files that are damaged or too large, and 32-bit values, because their white is not known.
"""

import functools
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from jaxtyping import Int64, UInt8

from diffjax.errors import InputError
from diffjax.extras import needs_run

if TYPE_CHECKING:
    from PIL import Image, ImageFile

PLAIN = ("1", "L", "P", "RGB")
ALPHA = ("LA", "PA", "RGBA")
DEEP = re.compile(r";16$|;16[BLN]$|;32")  # matches PIL's raw modes; its "BGR;16" has five or six bits a channel
OPAQUE = (255, 255)
ORIENTATION = 0x0112  # an EXIF tag
FRAMES = ("MPO",)  # formats whose further frames are previews and depth maps of the first
SMALLER = "make it smaller, or cut it into parts"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm")
CHANGES = {
    "deep": "with more than 8 bits a channel, of which the upper 8 stay",
    "transparent": "with transparent pixels, put on white",
    "colours": "in CMYK or another colour space, made RGB",
    "frames": "with several frames, of which the first is taken",
    "turned": "turned as EXIF says",
    "enlarged": "smaller than data.shape, enlarged",
}


def read(source: Path | BinaryIO, name: str, channels: int, upright: bool = False) -> "Image.Image":
    """The image in a file: grey ("L") if channels is 1, colour ("RGB") if it is 3.

    name: its name in error messages.
    upright: turn it as the EXIF orientation says, as an image viewer does.
    Raises `InputError` for all that `read` refuses, see the module's docstring.
    """
    with _opened(source, name) as file:
        _check(file, name)
        image = _upright(file) if upright else file
        if _has_alpha(image):
            image = image.convert("RGBA")
            if image.getchannel("A").getextrema() != OPAQUE:
                raise InputError(f"{name} has transparent pixels: put it on a background and save it without them.")
        return image.convert("L" if channels == 1 else "RGB")


def converted(source: Path | BinaryIO, name: str, channels: int) -> tuple["Image.Image", set[str]]:
    """The image in the form that `read` returns, turned upright, and the `CHANGES` that were made to it.

    Raises `InputError` if the file is damaged or too large, or has 32-bit values.
    """
    with needs_run():
        from PIL import Image

    changes = set()
    with _opened(source, name) as file:
        _check_size(file, name)
        if getattr(file, "n_frames", 1) > 1 and file.format not in FRAMES:
            changes.add("frames")
        if _deep(file):
            changes.add("deep")
        if file.getexif().get(ORIENTATION, 1) != 1:
            changes.add("turned")
        image = _eight_bits(_upright(file), file.format, name)
        if _has_alpha(image):
            image = image.convert("RGBA")
            if image.getchannel("A").getextrema() != OPAQUE:
                changes.add("transparent")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        elif image.mode not in PLAIN:
            changes.add("colours")
            image = image.convert("RGB")  # PIL cannot convert every colour space to grey directly
        return image.convert("L" if channels == 1 else "RGB"), changes


def fit(image: "Image.Image", shape: tuple[int, int, int]) -> UInt8[np.ndarray, "h w c"]:
    """The pixels in a given shape. An image of another size is centre-cropped and resized (bicubic, antialiased).

    shape: (height, width, channels). The number of channels must be the image's.
    """
    if image.size != (shape[1], shape[0]):
        with needs_run():
            from PIL import Image, ImageOps

        image = ImageOps.fit(image, (shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(shape)


def listed(directory: Path) -> list[Path]:
    """The image files in a directory and its sub-directories, sorted by path. The order is the same on every machine.

    Hidden files and directories (names that begin with a dot) are skipped. Links to directories are followed, but each
    directory is read once.
    """
    found, seen = [], set()
    for root, directories, names in os.walk(directory, followlinks=True):
        place = os.path.realpath(root)
        # Sorted, so that every machine reaches a directory by the same path if there are two.
        directories[:] = [] if place in seen else sorted(d for d in directories if not d.startswith((".", "__MACOSX")))
        if place not in seen:
            found += [Path(root, name) for name in names if not name.startswith(".")]
        seen.add(place)
    images = [path for path in found if path.suffix.lower() in SUFFIXES]
    return sorted(images, key=lambda path: path.relative_to(directory).parts)


def in_threads(fill: Callable[[Int64[np.ndarray, " n"]], None], num: int) -> None:
    """Divides 0 .. num - 1 into one part for each core and calls `fill` on the parts in parallel threads."""
    list(_pool().map(fill, np.array_split(np.arange(num), _cores())))


def _cores() -> int:
    return os.cpu_count() or 1


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_cores())


@contextmanager
def _opened(source: Path | BinaryIO, name: str) -> Iterator["ImageFile.ImageFile"]:
    with needs_run():
        from PIL import Image

    try:
        with Image.open(source) as file:
            yield file
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{name} has too many pixels ({_line(error)}): {SMALLER}.") from error
    except Exception as error:  # PIL has one exception for each way in which a file can be damaged
        raise InputError(f"{name} cannot be read as an image ({_line(error)}): mend or remove it.") from error


def _upright(image: "Image.Image") -> "Image.Image":
    with needs_run():
        from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _has_alpha(image: "Image.Image") -> bool:
    return image.mode in ALPHA or "transparency" in image.info


def _eight_bits(image: "Image.Image", kind: str | None, name: str) -> "Image.Image":
    """The upper 8 of 16 bits. PIL does the same to 16 bits of colour, which have no mode of their own."""
    with needs_run():
        from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode[0] in "IF":
        raise InputError(f"{name} has numbers of 32 bits, whose white is not known: save it with 8 bits.")
    return image


def _check(image: "ImageFile.ImageFile", name: str) -> None:
    """Checks the header, before any pixel is decoded."""
    _check_size(image, name)
    if kind := _deep(image):
        raise InputError(f"{name} has more than 8 bits a channel ({kind}): convert it to 8 bits.")
    if image.mode not in PLAIN + ALPHA:
        raise InputError(f"{name} has pixels of the kind {image.mode}: convert it to RGB or grey.")
    if (frames := getattr(image, "n_frames", 1)) > 1 and image.format not in FRAMES:
        raise InputError(f"{name} has {frames} frames: save the one you want as an image of its own.")


def _check_size(image: "ImageFile.ImageFile", name: str) -> None:
    with needs_run():
        from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    if limit and image.width * image.height > limit:
        raise InputError(f"{name} has {image.width} x {image.height} pixels, more than {limit}: {SMALLER}.")


def _deep(image: "ImageFile.ImageFile") -> str:
    """PIL's name for the pixel format if it has more than 8 bits a channel; otherwise ""."""
    arguments = [part for tile in image.tile for part in (tile[3] if isinstance(tile[3], tuple) else [tile[3]])]
    raw = [part for part in arguments if isinstance(part, str)]
    # PPM is the one format that states its largest value as a number. PIL scales values above 255 down.
    above = image.format == "PPM" and any(isinstance(part, int) and part > 255 for part in arguments)
    if above or image.mode.startswith(("I", "F")) or any(map(DEEP.search, raw)):
        return raw[0] if raw else image.mode
    return ""


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
