"""Crops of images whose pixels say where they are, scikit-image's photographs, and folders of image files."""

import numpy as np
import pytest
from PIL import Image
from tiny_sets import embedded, everything

from diffjax.data import load, textures
from diffjax.errors import InputError


def maps(*sizes):
    """Images whose pixel (y, x) of image i is (y, x, i)."""
    return [np.stack([*np.indices(size), np.full(size, i)], axis=-1).astype(np.uint8) for i, size in enumerate(sizes)]


@pytest.mark.parametrize(("split", "first", "last"), [("train", (0, 0), (30, 18)), ("test", (30, 18), (40, 25))])
def test_crops_are_contiguous_uniform_and_inside_their_part(split, first, last):
    n, size = 20_000, (5, 7)
    crops = textures.crops(np.random.default_rng(0), maps((40, 9), (25, 8)), size, n, split).astype(int)
    assert crops.shape == (n, 5, 7, 3)
    offset = np.stack([*np.indices(size), np.zeros(size, int)], axis=-1)
    np.testing.assert_array_equal(crops, crops[:, :1, :1] + offset)
    places = []
    for i, columns in ((0, 9), (1, 8)):
        corner = crops[:, 0, 0][crops[:, 0, 0, 2] == i]
        rows = last[i] - first[i] - 4
        expected = n / 2 / (rows * (columns - 6))  # of each place
        index = (corner[:, 0] - first[i]) * (columns - 6) + corner[:, 1]
        assert index.min() >= 0
        places.append((np.bincount(index, minlength=rows * (columns - 6)) - expected) ** 2 / expected)
        assert len(places[-1]) == rows * (columns - 6)
    chi2 = np.concatenate(places)
    assert abs(chi2.sum() - (len(chi2) - 1)) < 5 * np.sqrt(2 * (len(chi2) - 1))


@pytest.mark.parametrize("name", ["gravel", "grass", "brick"])
def test_crops_of_photographs_are_parts_of_them(name):
    import skimage.data

    fields = embedded(name, shape=(12, 20, 1), num_train=50, num_test=30)
    photograph = getattr(skimage.data, name)()
    views = np.lib.stride_tricks.sliding_window_view(photograph, (12, 20))
    for split, num in (("train", 50), ("test", 30)):
        dataset = load(fields, split)
        assert (len(dataset), dataset.shape, dataset.levels) == (num, (12, 20, 1), 256)
        for crop in everything(dataset)["image"][:10, :, :, 0]:
            candidates = np.argwhere((views[:, :, 0] == crop[0]).all(axis=-1))
            rows = [y for y, x in candidates if (views[y, x] == crop).all()]
            assert rows and all(y + 12 <= 384 if split == "train" else y >= 384 for y in rows)
        np.testing.assert_array_equal(everything(load(fields, split))["image"], everything(dataset)["image"])


def folder(directory, **fields):
    return embedded("folder", **dict(dir=str(directory), shape=(4, 4, 3), num_train=400, num_test=40) | fields)


def test_folder_reads_every_image_in_grey_or_colour(tmp_path):
    # Distinct constants: a colour PNG, a grey one, one with a palette, and one in a format of two other spellings.
    Image.new("RGB", (16, 16), (10, 200, 30)).save(tmp_path / "a.png")
    Image.new("L", (20, 24), 77).save(tmp_path / "b.PNG")
    Image.new("P", (16, 16), 0).save(tmp_path / "c.gif")
    Image.new("RGB", (16, 16), (250, 250, 250)).save(tmp_path / "d.bmp")
    (tmp_path / "notes.txt").write_text("no image")
    colours = {tuple(p) for p in everything(load(folder(tmp_path), "train"))["image"].reshape(-1, 3).tolist()}
    assert colours == {(10, 200, 30), (77, 77, 77), (0, 0, 0), (250, 250, 250)}
    greys = set(everything(load(folder(tmp_path, shape=(4, 4, 1)), "train"))["image"].ravel().tolist())
    luma = round(0.299 * 10 + 0.587 * 200 + 0.114 * 30)  # ITU-R BT.601
    assert greys == {luma, 77, 0, 250}


def test_folder_splits_by_rows_as_a_viewer_shows_them(tmp_path):
    pixels = np.zeros((16, 16), np.uint8)
    pixels[12:] = 255
    lying = Image.fromarray(np.rot90(pixels))  # turned to the left; orientation 6 says: turn it to the right to view it
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(tmp_path / "a.jpg", exif=exif, quality=100)
    fields = folder(tmp_path, shape=(4, 8, 1))
    assert everything(load(fields, "train"))["image"].max() <= 2
    assert everything(load(fields, "test"))["image"].min() >= 253


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: path.write_bytes(b"not an image"), ["1 images", "b.png", "cannot be read"]),
        (lambda path: path.write_bytes(b""), ["1 images", "b.png", "cannot be read"]),
        (lambda path: cut_short(path), ["1 images", "b.png", "cannot be read"]),
        (lambda path: Image.fromarray(np.full((16, 16), 7, np.uint16)).save(path), ["2 images", "1 with more than 8"]),
    ],
)
def test_folder_counts_what_it_left_out_or_changed(tmp_path, write, words):
    Image.new("L", (32, 32)).save(tmp_path / "a.png")
    write(tmp_path / "b.png")
    dataset = load(folder(tmp_path, shape=(4, 4, 1)), "test")
    assert (everything(dataset)["image"] == 0).all() and "\n" not in dataset.note
    assert all(word in dataset.note for word in words), dataset.note


def test_folder_names_the_size_and_the_field_that_are_wrong(tmp_path, monkeypatch):
    Image.new("L", (32, 32)).save(tmp_path / "a.png")
    Image.new("L", (16, 15)).save(tmp_path / "b.png")
    sentences = {
        "test part, 4 x 16 pixels, of an image of 15 x 16": dict(shape=(5, 5, 1)),
        "data.num_test=0 must be a whole number": dict(num_test=0),
        "must be '' where data.num_train asks for crops": dict(train_split="a", test_split="b"),
    }
    for says, changes in sentences.items():
        with pytest.raises(InputError, match=says):
            load(folder(tmp_path, **dict(shape=(4, 4, 1)) | changes), "test")
    monkeypatch.setattr("diffjax.data.folders.CROPPED", 1200)  # 1024 and 240 bytes
    with pytest.raises(InputError, match=r"data\.num_train=0 to take them whole"):
        load(folder(tmp_path, shape=(4, 4, 1)), "test")


def cut_short(path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1000])
