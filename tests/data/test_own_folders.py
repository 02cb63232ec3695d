"""Folders of images: pixels say which file they are of, so that order, labels and parts can be told."""

import os
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from tiny_sets import everything, striped

from diffjax.data import batches, from_arrays, load, pictures, split
from diffjax.data.parts import held_out
from diffjax.errors import InputError

PATHS = ["a/1.png", "a/deep/er/2.PNG", "b/3.bmp", "b/4.png", "c d/5.webp", *(f"c d/{i}.png" for i in range(60, 75))]
VALUES = [1, 2, 3, 4, *range(60, 75), 5]  # in the order of the paths: "5.webp" < "60.png" would be wrong, "5" < "6" not
LABELS = [0, 0, 1, 1, *[2] * 16]


def fields(directory, **changes):
    return ConfigDict(dict(name="folder", dir=str(directory), shape=(4, 4, 3)) | changes)


def write(path, value, size=(4, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path, lossless=True)


@pytest.fixture
def classes(tmp_path):
    """Twenty images in three classes, and what is to be passed over."""
    directory = tmp_path / "classes"
    for path in PATHS:
        write(directory / path, int("".join(c for c in path.rsplit("/", 1)[-1] if c.isdigit())))
    write(directory / ".hidden" / "7.png", 7)
    write(directory / "b" / "._8.png", 8)
    (directory / "b" / "notes.txt").write_text("no image")
    (directory / "b" / "0 broken.png").write_bytes(b"no image")
    (directory / "c d" / "cut.png").write_bytes((directory / "a/1.png").read_bytes()[:45])
    (directory / "c d" / "circle").symlink_to(directory)
    return directory


def parts(config):
    return [everything(load(config, name)) for name in ("train", "test")]


@pytest.mark.parametrize("in_memory", [True, False])
def test_sub_folders_are_classes_and_every_image_is_in_one_part(classes, in_memory):
    config = fields(classes, in_memory=in_memory, test_fraction=0.25, split_seed=3)
    train, test = parts(config)
    assert (len(train["image"]), len(test["image"])) == (15, 5)
    order = sorted(PATHS, key=lambda path: path.split("/"))
    expected = [int("".join(c for c in path.rsplit("/", 1)[-1] if c.isdigit())) for path in order]
    label = dict(zip(expected, LABELS, strict=True))
    for part in (train, test):
        values = part["image"][:, 0, 0, 0].tolist()
        assert (part["image"] == part["image"][:, :1, :1, :1]).all()
        assert values == sorted(values, key=expected.index)  # a part keeps the order of the paths
        assert part["label"].tolist() == [label[value] for value in values]
    assert sorted([*train["image"][:, 0, 0, 0], *test["image"][:, 0, 0, 0]]) == sorted(expected)
    dataset = load(config, "train")
    assert (dataset.shape, dataset.levels, dataset.highest_label) == ((4, 4, 3), 256, 2)
    for words in ("20 images", "0 'a', 1 'b', 2 'c d'", "2 left out", "0 broken.png", "cut.png", "cannot identify"):
        assert words in dataset.note, dataset.note
    assert "\n" not in dataset.note
    other = parts(fields(classes, in_memory=in_memory, test_fraction=0.25, split_seed=4))
    assert not np.array_equal(other[1]["image"], test["image"])


def test_batches_do_not_depend_on_memory_or_processes_and_go_on_where_they_stopped(classes):
    def seen(in_memory, count, start):
        dataset = load(fields(classes, in_memory=in_memory), "train")
        own = [batches(dataset, 6, seed=1, start=start, process_index=p, process_count=count) for p in range(count)]
        return [np.concatenate([next(mine)["image"] for mine in own]) for _ in range(7 - start)]

    whole = seen(True, 1, 0)
    for in_memory, count, start in ((False, 1, 0), (False, 2, 0), (True, 3, 0), (False, 2, 4)):
        np.testing.assert_array_equal(seen(in_memory, count, start), whole[start:])


def test_images_are_cropped_about_the_centre_made_grey_and_counted(tmp_path):
    for i in range(8):  # 10 x 30 or 30 x 10: the centre is green
        Image.fromarray(striped(i)).save(tmp_path / f"{i}.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies; its upper half, black, is to the left
    lying = np.zeros((6, 6, 3), np.uint8)
    lying[:, 3:] = 200
    Image.fromarray(lying).save(tmp_path / "z.png", exif=exif)
    train, test = parts(fields(tmp_path, shape=(10, 10, 3)))
    assert len(test["image"]) == 1
    image = np.concatenate([train["image"], test["image"]])
    green = image[image[:, 5, 5, 1] >= 100][:, :, :, :]
    green = green[green[..., 0].max((1, 2)) < 100]
    assert sorted(green[:, 0, 0, 1]) == list(range(100, 108)) and (green[..., [0, 2]] == 0).all()
    (turned,) = image[image[:, 9, 5, 0] > 150]
    assert (turned[:3] < 60).all() and (turned[7:] > 140).all()  # enlarged: near the edge the filter overshoots
    grey = np.concatenate([part["image"] for part in parts(fields(tmp_path, shape=(10, 10, 1)))])
    assert set(grey[:, 0, 0, 0].tolist()) >= {round(0.587 * v) for v in range(100, 108)}  # ITU-R BT.601
    note = load(fields(tmp_path, shape=(10, 10, 3)), "train").note
    assert "1 turned as EXIF says" in note and "1 smaller than data.shape, enlarged" in note and "classes" not in note


def test_two_folders_may_be_the_two_parts(classes, tmp_path):
    both = tmp_path / "both"
    shutil.copytree(classes / "a", both / "train" / "a")
    shutil.copytree(classes / "b", both / "train" / "b")
    write(both / "test" / "b" / "9.png", 9)
    write(both / "test" / "10.png", 10)
    train, test = parts(fields(both, train_split="train", test_split="test"))
    assert train["image"][:, 0, 0, 0].tolist() == [1, 2, 3, 4] and train["label"].tolist() == [0, 0, 1, 1]
    # The class has the number that it has in training, and of an image in no class none is known.
    assert test["image"][:, 0, 0, 0].tolist() == [10, 9] and test["label"].tolist() == [-1, 1]
    with pytest.raises(InputError, match=r"set data.train_split='train' and data.test_split='test'"):
        load(fields(both), "train")
    write(both / "test" / "q" / "9.png", 9)
    with pytest.raises(InputError, match=r"has the class 'q', which .*train' has not: its classes are a, b"):
        load(fields(both, train_split="train", test_split="test"), "test")


def test_files_are_decoded_again_only_when_they_have_changed(classes, monkeypatch):
    seen = []
    read = pictures._read
    monkeypatch.setattr(pictures, "_read", lambda files, i, shape: seen.append(i) or read(files, i, shape))
    first = parts(fields(classes))
    assert len(seen) == 22
    again = parts(fields(classes))
    assert len(seen) == 22
    np.testing.assert_array_equal(again[0]["image"], first[0]["image"])
    write(classes / "a" / "1.png", 111)
    os.utime(classes / "a" / "1.png", (0, 0))
    assert 111 in np.concatenate([part["image"] for part in parts(fields(classes))]) and len(seen) == 44


def test_what_was_broken_is_tried_again_though_the_file_looks_the_same(classes):
    """A disk that was away, say. A link to nowhere is one more that cannot be read."""
    path = classes / "b" / "0 broken.png"
    write(path, 77)
    whole = path.read_bytes()
    path.write_bytes(b"x" * len(whole))
    os.utime(path, ns=(10**18, 10**18))
    (classes / "b" / "nowhere.png").symlink_to(classes / "gone.png")
    assert "3 left out" in load(fields(classes), "train").note
    path.write_bytes(whole)
    os.utime(path, ns=(10**18, 10**18))
    train, test = parts(fields(classes))
    assert 77 in np.concatenate([train["image"], test["image"]])
    assert "21 images" in (note := load(fields(classes), "train").note) and "2 left out" in note


def test_a_large_set_is_read_as_it_is_asked_for_and_names_a_file_that_is_gone(classes, monkeypatch):
    monkeypatch.setattr(pictures, "IN_MEMORY", 100)
    dataset = load(fields(classes), "train")
    shutil.rmtree(classes / "c d")
    with pytest.raises(InputError, match=r"c d/\d+\.\w+ cannot be read as an image"):
        everything(dataset)


def test_a_part_is_held_out_by_seed_and_number_alone():
    for num, fraction, size in ((10, 0.1, 1), (1000, 0.25, 250), (2, 0.01, 1), (3, 0.99, 2)):
        train, test = held_out(num, fraction, 0)
        assert len(test) == size and sorted([*train, *test]) == list(range(num))
        assert (np.diff(train) > 0).all() and (np.diff(test) > 0).all()
    # Each example is held out with the same probability: 500 seeds, a standard error of sqrt(0.3 0.7 / 500) = 0.02.
    share = np.mean([np.isin(np.arange(10), held_out(10, 0.3, seed)[1]) for seed in range(500)], axis=0)
    assert abs(share - 0.3).max() < 5 * 0.0205
    x = np.arange(40, dtype=np.int64).reshape(20, 2)
    train, test = split(from_arrays("mine", x, np.arange(20)), 0.2, seed=1)
    assert (len(train), len(test), train.shape) == (16, 4, (2,))
    both = [np.concatenate([everything(part)[name] for part in (train, test)]) for name in ("image", "label")]
    np.testing.assert_array_equal(both[0], x[both[1]])
    assert sorted(both[1]) == list(range(20))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(dir=""), ["data.dir=''", "directory"]),
        (dict(dir="gs://bucket/x"), ["remote place"]),
        (dict(dir="nowhere"), ["nowhere' is no directory", ".png"]),
        (dict(dir="HERE/b/empty"), ["has no image file", ".png"]),
        (dict(dir="HERE/broken"), ["0 images", "1 left out", "x.png", "that can be read"]),
        (dict(dir="HERE/a/deep/er"), ["data.test_fraction=0.1", "only 1"]),
        (dict(train_split="a"), ["data.train_split='a'", "data.test_split=''", "both"]),
        (dict(train_split="a", test_split="z"), ["data.test_split='z' is not there", "''"]),
        (dict(test_fraction=0), ["data.test_fraction=0", "between 0 and 1"]),
        (dict(test_fraction=1.0), ["data.test_fraction=1.0", "between 0 and 1"]),
        (dict(split_seed=-1), ["data.split_seed = -1"]),
        (dict(shape=(4, 4, 4)), ["data.shape=(4, 4, 4)", "(height, width, 1 or 3)"]),
        (dict(shape=(16,)), ["data.shape=(16,)", "(height, width, 1 or 3)"]),
    ],
)
def test_sentences_of_folders(classes, changes, words):
    (classes / "b" / "empty").mkdir()
    (classes / "broken").mkdir()
    (classes / "broken" / "x.png").write_bytes(b"x")
    config = fields(classes, **changes)
    config.dir = config.dir.replace("HERE", str(classes))
    with pytest.raises(InputError) as error:
        load(config, "test")
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value), str(error.value)
