"""Image files of every kind, made here byte by byte where PIL cannot write them: taken exactly, or refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tiny_sets import config, embedded, everything

from diffjax.data import batches, image_files, load
from diffjax.data.sources import decode_image
from diffjax.errors import InputError

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (8, 8, 3), np.uint8)
GREYS = RNG.integers(0, 256, (8, 8), np.uint8)


def png(height, width, bits, kind, data):
    """PNG's own layout: kind 0 is grey, 2 RGB, 4 grey and alpha, 6 RGBA; data are rows, each after a filter byte."""
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def deep_png(kind, channels):
    return png(8, 8, 16, kind, b"".join(b"\0" + b"\x12\x34" * 8 * channels for _ in range(8)))


def deep_tiff(channels, photometric):
    """Little-endian TIFF of 8 x 8 pixels with 16 bits a channel."""
    data = b"\x34\x12" * 64 * channels
    at = 8 + 2 + 12 * 9 + 4  # of the bits of each channel, which follow the directory, and before the pixels
    bits = (3, channels, at if channels > 1 else 16)
    fields = {256: (3, 1, 8), 257: (3, 1, 8), 258: bits, 259: (3, 1, 1), 262: (3, 1, photometric)}
    fields |= {273: (4, 1, at + 2 * channels), 277: (3, 1, channels), 278: (3, 1, 8), 279: (4, 1, len(data))}
    directory = b"".join(struct.pack("<HHII", tag, *fields[tag]) for tag in sorted(fields))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + directory + b"\0\0\0\0" + b"\x10\0" * channels + data


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_alpha(mode, lowest):
    image = Image.fromarray(COLOURS).convert(mode)
    image.putalpha(Image.fromarray(np.where(np.arange(64).reshape(8, 8) == 5, lowest, 255).astype(np.uint8)))
    return saved(image, "PNG")


def frames():
    return [Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS)]


PALETTE = np.zeros((256, 3), np.uint8)
PALETTE[:4] = [[250, 10, 20], [0, 100, 200], [7, 7, 7], [255, 255, 255]]
INDICES = np.arange(64).reshape(8, 8) % 4


def palette(**options):
    image = Image.fromarray(INDICES.astype(np.uint8))
    image.putpalette(PALETTE.tobytes())
    return saved(image, "PNG", **options)


REFUSED = {
    "16-bit RGB PNG": (deep_png(2, 3), "more than 8 bits a channel (RGB;16B)"),
    "16-bit RGBA PNG": (deep_png(6, 4), "more than 8 bits a channel"),
    "16-bit grey and alpha PNG": (deep_png(4, 2), "more than 8 bits a channel"),
    "16-bit grey PNG": (deep_png(0, 1), "more than 8 bits a channel (I;16"),
    "16-bit RGB TIFF": (deep_tiff(3, 2), "more than 8 bits a channel (RGB;16L)"),
    "16-bit grey TIFF": (deep_tiff(1, 1), "more than 8 bits a channel (I;16)"),
    "float TIFF": (saved(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"), "more than 8 bits a channel"),
    "16-bit PPM": (b"P6\n8 8\n65535\n" + b"\x12\x34" * 192, "more than 8 bits a channel"),
    "12-bit PGM in text": (b"P2\n8 8\n4095\n" + b"4000 " * 64, "more than 8 bits a channel"),
    "CMYK JPEG": (saved(Image.new("CMYK", (8, 8)), "JPEG"), "pixels of the kind CMYK"),
    "LAB TIFF": (saved(Image.new("LAB", (8, 8)), "TIFF"), "pixels of the kind LAB"),
    "transparent RGBA": (with_alpha("RGB", 254), "transparent pixels"),
    "transparent grey": (with_alpha("L", 0), "transparent pixels"),
    "transparent palette": (palette(transparency=1), "transparent pixels"),
    "palette of transparencies": (palette(transparency=bytes([255, 200])), "transparent pixels"),
    "transparent colour": (saved(Image.new("RGB", (8, 8), (1, 2, 3)), "PNG", transparency=(1, 2, 3)), "transparent"),
    "animated GIF": (saved(frames()[0], "GIF", save_all=True, append_images=frames()[1:]), "has 2 frames"),
    "animated WebP": (saved(frames()[0], "WEBP", save_all=True, append_images=frames()[1:]), "has 2 frames"),
    "animated PNG": (saved(frames()[0], "PNG", save_all=True, append_images=frames()[1:]), "has 2 frames"),
    "TIFF of pages": (saved(frames()[0], "TIFF", save_all=True, append_images=frames()[1:]), "has 2 frames"),
    "200 megapixels": (png(10_000, 20_000, 8, 0, b""), "too many pixels"),
    "100 megapixels": (png(10_000, 10_000, 8, 0, b""), "pixels"),
    "nothing": (b"", "cannot be read as an image"),
    "text": (b"hello", "cannot be read as an image"),
    "a cut PNG": (saved(Image.fromarray(RNG.integers(0, 256, (64, 64), np.uint8)), "PNG")[:1000], "cannot be read"),
    "a cut JPEG": (saved(Image.fromarray(RNG.integers(0, 256, (64, 64), np.uint8)), "JPEG")[:900], "cannot be read"),
    "a PNG without pixels": (png(8, 8, 8, 0, b""), "cannot be read as an image"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_be_cut_or_guessed_is_refused_by_name(kind, tmp_path):
    data, says = REFUSED[kind]
    # The suffix does not matter, what is in the file does.
    (tmp_path / "mine.png").write_bytes(data)
    for read in (
        lambda: image_files.read(tmp_path / "mine.png", "mine.png", 3, upright=True),
        lambda: decode_image(data, (8, 8, 3), "mine.png"),
    ):
        with pytest.raises(InputError) as error:
            read()
        message = str(error.value)
        assert says in message and "mine.png" in message and "\n" not in message, message


LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
TAKEN = {
    "RGB": (saved(Image.fromarray(COLOURS), "PNG"), COLOURS),
    "grey": (saved(Image.fromarray(GREYS), "PNG"), np.repeat(GREYS[..., None], 3, 2)),
    "opaque RGBA": (with_alpha("RGB", 255), COLOURS),
    "palette": (palette(), PALETTE[INDICES]),
    "palette whose transparent colour is not used": (palette(transparency=9), PALETTE[INDICES]),
    "palette of opacities": (palette(transparency=bytes([255] * 4)), PALETTE[INDICES]),
    "bits": (saved(Image.fromarray(GREYS > 127), "PNG"), np.repeat(np.where(GREYS > 127, 255, 0)[..., None], 3, 2)),
    # Four bits, two pixels a byte: n becomes 17 n, so that white stays white.
    "four bits": (png(8, 8, 4, 0, b"\0\x0f\x1e\x2d\x3c" * 8), np.array([0, 15, 1, 14, 2, 13, 3, 12]) * 17),
    "BMP of five bits a channel": (
        b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 54 + 128, 0, 0, 54, 40, 8, 8, 1, 16, 0, 128, 0, 0, 0, 0)
        + b"\x1f\0" * 64,
        np.array([0, 0, 255]),  # the lowest five bits are blue
    ),
    "JPEG with a preview": (
        saved(Image.new("L", (8, 8), 99), "MPO", save_all=True, append_images=[Image.new("L", (8, 8))], quality=100),
        np.full(3, 99),
    ),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_what_fits_eight_bits_is_taken_exactly(kind):
    data, expected = TAKEN[kind]
    if kind == "four bits":
        expected = expected[:, None]
    expected = np.broadcast_to(expected, (8, 8, 3))
    np.testing.assert_array_equal(decode_image(data, (8, 8, 3)), expected)
    grey = decode_image(data, (8, 8, 1))[..., 0]
    np.testing.assert_allclose(grey, expected @ LUMA, atol=0.51)


# What a person's own files become: 0x1234 has the upper bits 0x12 = 18.
ALPHAS = np.where(np.arange(64).reshape(8, 8, 1) == 5, 254, 255)
OWN = {
    "16-bit RGB PNG": (18, {"deep"}),
    "16-bit grey PNG": (18, {"deep"}),
    "16-bit RGB TIFF": (18, {"deep"}),
    "16-bit grey TIFF": (18, {"deep"}),
    "16-bit PPM": (18, {"deep"}),
    "12-bit PGM in text": (4000 * 256 / 4096, {"deep"}),
    "16-bit RGBA PNG": ((18 * 18 + (255 - 18) * 255) / 255, {"deep", "transparent"}),
    "16-bit grey and alpha PNG": ((18 * 18 + (255 - 18) * 255) / 255, {"deep", "transparent"}),
    "CMYK JPEG": (255, {"colours"}),
    "transparent RGBA": ((COLOURS * ALPHAS + 255.0 * (255 - ALPHAS)) / 255, {"transparent"}),
    "transparent palette": (np.where(INDICES[..., None] == 1, 255, PALETTE[INDICES]), {"transparent"}),
    "transparent colour": (255, {"transparent"}),
    "animated PNG": (COLOURS, {"frames"}),
    "TIFF of pages": (COLOURS, {"frames"}),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_person_s_own_files_are_converted_one_way_each_or_refused():
    for kind, (data, pixels) in TAKEN.items():
        image, changes = image_files.converted(io.BytesIO(data), kind, 3)
        expected = pixels[:, None] if kind == "four bits" else pixels
        np.testing.assert_array_equal(np.asarray(image), np.broadcast_to(expected, (8, 8, 3)), err_msg=kind)
        assert not changes, kind
    for kind, (pixels, expected) in OWN.items():
        image, changes = image_files.converted(io.BytesIO(REFUSED[kind][0]), kind, 3)
        # White JPEG is 255 to a level or so, and a blend is rounded.
        np.testing.assert_allclose(np.asarray(image), np.broadcast_to(pixels, (8, 8, 3)), atol=1.01, err_msg=kind)
        assert changes == expected, (kind, changes)
        assert image_files.converted(io.BytesIO(REFUSED[kind][0]), kind, 1)[0].mode == "L"
    for kind in ("float TIFF", "100 megapixels", "200 megapixels", "nothing", "text", "a cut PNG"):
        with pytest.raises(InputError, match=kind):
            image_files.converted(io.BytesIO(REFUSED[kind][0]), kind, 3)


def test_an_orientation_turns_a_folder_s_image_alone(tmp_path):
    """A record is read as TensorFlow reads it, who ignores the orientation."""
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image = Image.fromarray(GREYS)
    image.save(tmp_path / "a.png", exif=exif)
    data = (tmp_path / "a.png").read_bytes()
    np.testing.assert_array_equal(decode_image(data, (8, 8, 1))[..., 0], GREYS)
    turned = image_files.read(tmp_path / "a.png", "a.png", 1, upright=True)
    np.testing.assert_array_equal(np.asarray(turned), GREYS[::-1, ::-1])
    train = everything(load(embedded("folder", dir=str(tmp_path), shape=(6, 8, 1), num_train=2, num_test=2), "train"))
    np.testing.assert_array_equal(train["image"][0, ..., 0], GREYS[::-1, ::-1][:6])


def undecodable(number, tmp_path):
    """A prepared set of four images, of which one is no image: the record itself is whole."""
    import tensorflow_datasets as tfds

    class TinyBroken(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image = tfds.features.Image(shape=(8, 8, 1), encoding_format="png")
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(dict(image=image)))

        def _split_generators(self, dl_manager):
            data = [saved(Image.fromarray(GREYS), "PNG")] * 4
            data[number] = data[number][:40]
            return dict(train=[(i, dict(image=io.BytesIO(d))) for i, d in enumerate(data)])

        def _generate_examples(self):
            raise NotImplementedError

    TinyBroken(
        data_dir=tmp_path,
    ).download_and_prepare(file_format="array_record")
    source = tfds.builder_from_directory(tmp_path / "tiny_broken" / "1.0.0").as_data_source(
        "train", decoders={"image": tfds.decode.SkipDecoding()}
    )
    return [i for i in range(4) if len(source[i]["image"]) == 40]  # TFDS shuffles them


@pytest.mark.parametrize("in_memory", [True, False])
def test_an_undecodable_image_in_a_record_is_named_by_its_number(in_memory, tmp_path):
    (number,) = undecodable(2, tmp_path)
    fields = config("tiny_broken", tmp_path, (8, 8, 1), in_memory=in_memory)
    with pytest.raises(InputError) as error:
        dataset = load(fields, "train")
        next(batches(dataset, 4, seed=0))  # a lazy set notices when it gets there, in the thread that fetches ahead
    says = f"Image {number} of data.train_split='train' of 'tiny_broken' cannot be read as an image"
    assert says in str(error.value) and "\n" not in str(error.value), str(error.value)
