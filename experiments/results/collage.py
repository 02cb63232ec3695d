"""Makes the picture at the top of README: rows of pictures from this folder.

    python -m experiments.results.collage [PICTURE]

PICTURE is where it goes, collage.png in this folder unless given.
"""

import sys
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
WIDTH, GAP = 1200, 6  # pixels
ROWS = (
    ("straight_paths", "sde_mnist_samples"),
    ("swiss_roll", "ncsn_toy_scores", "flow_energies"),
    ("gravel_inpainting", "vae_mnist_manifold", "cfg_digits"),
)


def row(names: tuple[str, ...]) -> Image.Image:
    """Pictures side by side, with equal heights and a total width of WIDTH."""
    images = [Image.open(HERE / f"{name}.png").convert("RGB") for name in names]
    height = round((WIDTH - GAP * (len(images) - 1)) / sum(image.width / image.height for image in images))
    line, left = Image.new("RGB", (WIDTH, height), "white"), 0
    for image in images:
        width = round(image.width * height / image.height)
        line.paste(image.resize((width, height), Image.Resampling.LANCZOS), (left, 0))
        left += width + GAP
    return line


def main() -> None:
    rows = [row(names) for names in ROWS]
    whole, top = Image.new("RGB", (WIDTH, sum(line.height + GAP for line in rows) - GAP), "white"), 0
    for line in rows:
        whole.paste(line, (0, top))
        top += line.height + GAP
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "collage.png"
    whole.quantize(256).save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    main()
