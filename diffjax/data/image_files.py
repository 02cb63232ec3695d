"""Image files as 8-bit pixels, or a sentence why not: nothing is cut, merged or guessed in silence.

Taken are grey and colour images of at most 8 bits a channel, palettes, and alpha channels that are opaque everywhere.
Refused are more bits (PIL would cut them to 8), transparency, CMYK and other colour spaces (there is more than one way
to make RGB of them), several frames, and what is damaged or too large.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from diffjax.errors import InputError
from diffjax.extras import needs_run

if TYPE_CHECKING:
    from PIL import Image, ImageFile

PLAIN = ("1", "L", "P", "RGB")
ALPHA = ("LA", "PA", "RGBA")
DEEP = re.compile(r";16$|;16[BLN]$|;32")  # of PIL's raw modes; its "BGR;16" has five or six bits a channel
FRAMES = ("MPO",)  # whose further frames are previews and depths of the first
SMALLER = "make it smaller, or cut it into parts"


def read(source: Path | BinaryIO, name: str, channels: int, upright: bool = False) -> "Image.Image":
    """The image in a file: grey ("L") if channels is 1, colour ("RGB") if it is 3; `name` is what errors call it.

    upright: turned as the EXIF orientation says, which is how a viewer shows it.
    Raises `InputError` for whatever the module's docstring refuses.
    """
    with needs_run():
        from PIL import Image, ImageOps

    try:
        with Image.open(source) as file:
            _check(file, name, Image.MAX_IMAGE_PIXELS)
            image = ImageOps.exif_transpose(file) if upright else file
            if image.mode in ALPHA or "transparency" in image.info:
                image = image.convert("RGBA")
                if image.getchannel("A").getextrema() != (255, 255):
                    raise InputError(f"{name} has transparent pixels: put it on a background and save it without them.")
            return image.convert("L" if channels == 1 else "RGB")
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{name} has too many pixels ({_line(error)}): {SMALLER}.") from error
    except Exception as error:  # PIL has one exception for each way in which a file can be damaged
        raise InputError(f"{name} cannot be read as an image ({_line(error)}): mend or remove it.") from error


def _check(image: "ImageFile.ImageFile", name: str, limit: int | None) -> None:
    """What the header says, before any pixel is decoded."""
    if limit and image.width * image.height > limit:
        raise InputError(f"{name} has {image.width} x {image.height} pixels, more than {limit}: {SMALLER}.")
    arguments = [part for tile in image.tile for part in (tile[3] if isinstance(tile[3], tuple) else [tile[3]])]
    raw = [part for part in arguments if isinstance(part, str)]
    # The one format whose largest value is a number: PIL scales what is above 255 down.
    above = image.format == "PPM" and any(isinstance(part, int) and part > 255 for part in arguments)
    if above or image.mode.startswith(("I", "F")) or any(map(DEEP.search, raw)):
        kind = raw[0] if raw else image.mode
        raise InputError(f"{name} has more than 8 bits a channel ({kind}): convert it to 8 bits.")
    if image.mode not in PLAIN + ALPHA:
        raise InputError(f"{name} has pixels of the kind {image.mode}: convert it to RGB or grey.")
    if (frames := getattr(image, "n_frames", 1)) > 1 and image.format not in FRAMES:
        raise InputError(f"{name} has {frames} frames: save the one you want as an image of its own.")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
