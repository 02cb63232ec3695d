"""Arrays, tables of numbers, saved sets of Hugging Face's `datasets`: written here by numpy, by hand, by pyarrow."""

import json

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
from ml_collections import ConfigDict
from tiny_sets import everything, png

from diffjax.data import from_arrays, load
from diffjax.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 5, 4, 3), np.uint8)
POINTS = RNG.normal(size=(20, 3))
LABELS = np.arange(20) % 4


def whole(kind, path, shape, levels=256, **changes):
    """All examples and labels, the held-out ones at the end, and what is said of them."""
    config = ConfigDict(dict(name=kind, dir=str(path), shape=shape, levels=levels) | changes)
    train, test = load(config, "train"), load(config, "test")
    assert train.shape == shape and train.levels == levels
    both = [np.concatenate([everything(part)[name] for part in (train, test)]) for name in ("image", "label")]
    return *both, train.note


def same_rows(found, expected):
    """As sets of rows: a division has changed the order, and nothing else."""
    rows = [np.asarray(x, np.float64).reshape(len(x), -1) for x in (found, expected)]
    np.testing.assert_array_equal(*(x[np.lexsort(x.T[::-1])] for x in rows))


@pytest.mark.parametrize(
    ("arrays", "shape", "levels"),
    [
        (dict(images=IMAGES, labels=LABELS), (5, 4, 3), 256),
        (dict(x=IMAGES.astype(np.int64), y=LABELS.astype(np.float32)), (5, 4, 3), 256),
        (dict(mine=IMAGES[..., 0].astype(np.float64), label=LABELS), (5, 4, 1), 256),  # whole numbers as floats
        (dict(data=IMAGES[:, 0, 0] > 127, y=LABELS), (3,), 2),
        (dict(x=POINTS, y=LABELS), (3,), 0),
        (dict(arr_0=np.arange(60).reshape(20, 3), labels=LABELS), (3,), 0),  # whole numbers as real ones
    ],
)
def test_an_npz_is_taken_with_its_labels(tmp_path, arrays, shape, levels):
    np.savez(tmp_path / "mine.npz", **arrays)
    image, label, note = whole("npz", tmp_path / "mine.npz", shape, levels)
    examples = next(array for name, array in arrays.items() if array.ndim > 1).reshape(20, *shape)
    assert image.dtype == (np.uint8 if levels else np.float32) and label.dtype == np.int32
    same_rows(
        np.concatenate([image.reshape(20, -1), label[:, None]], 1),
        np.concatenate([examples.astype(image.dtype).reshape(20, -1), LABELS[:, None]], 1),
    )
    assert "20 examples" in note and ("standardise" in note) == ("arr_0" in arrays)
    again = whole("npz", tmp_path, shape, levels)  # the only one of the folder
    np.testing.assert_array_equal(again[0], image)


def test_arrays_of_a_notebook_are_taken_whatever_their_type():
    for examples, levels in ((IMAGES.astype(np.int64), 256), (IMAGES > 9, 2), (POINTS, 0), (jnp.asarray(POINTS), 0)):
        dataset = from_arrays("mine", examples, LABELS.tolist(), levels)
        found = everything(dataset)
        assert found["image"].dtype == (np.uint8 if levels else np.float32)
        np.testing.assert_array_equal(found["image"], np.asarray(examples).astype(found["image"].dtype))
        np.testing.assert_array_equal(found["label"], LABELS)
    with pytest.raises(InputError, match=r"'mine' has the value -1, outside 0 .. 255"):
        from_arrays("mine", IMAGES.astype(int) - 1)


def test_an_npy_has_no_labels_and_two_files_are_the_two_parts(tmp_path):
    np.save(tmp_path / "all.npy", IMAGES)
    image, label, _ = whole("npy", tmp_path / "all.npy", (5, 4, 3))
    same_rows(image, IMAGES)
    assert (label == 0).all()
    np.save(tmp_path / "more.npy", IMAGES[:7])
    image, _, _ = whole("npy", tmp_path, (5, 4, 3), train_split="all.npy", test_split="more.npy")
    np.testing.assert_array_equal(image, np.concatenate([IMAGES, IMAGES[:7]]))


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("1,2.5\n3,-4e0\n", [0, 0]),
        ("\ufeffx,y\n1,2.5\n3,-4\n", [0, 0]),  # a byte-order mark, and y is no label
        ("a;label;b\n1;0;2.5\n3;5;-4\n", [0, 5]),
        ("# by a sensor\n1\t2.5\n\n3\t-4\n", [0, 0]),
        ("1  2.5\r\n3 -4  \r\n", [0, 0]),
        ('"x","class"," y"\n"1","1","2.5"\n"3","2","-4"\n', [1, 2]),
    ],
)
def test_a_table_of_numbers_is_taken_row_by_row(tmp_path, text, labels):
    (tmp_path / "mine.csv").write_text(text, encoding="utf-8", newline="")
    image, label, _ = whole("csv", tmp_path / "mine.csv", (2,), 0)
    same_rows(np.c_[image, label], np.c_[[[1, 2.5], [3, -4]], labels])


def test_a_table_of_levels_becomes_images(tmp_path):
    np.savetxt(tmp_path / "digits.csv", IMAGES[:, :, :, 0].reshape(20, 20), delimiter=",", fmt="%d")
    same_rows(whole("csv", tmp_path / "digits.csv", (5, 4, 1))[0], IMAGES[..., 0])


def saved(directory, columns, features, parts=1):
    """What save_to_disk of `datasets` 5.2 leaves, as far as it matters."""
    directory.mkdir(parents=True)
    table, names = pa.table(columns), [f"data-{i:05}-of-{parts:05}.arrow" for i in range(parts)]
    for i, name in enumerate(names):
        part = table.slice(i * len(table) // parts, (i + 1) * len(table) // parts - i * len(table) // parts)
        with pa.OSFile(str(directory / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(part, max_chunksize=3)
    (directory / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (directory / "dataset_info.json").write_text(json.dumps({"features": features}))
    return directory


FEATURES = {"id": {"_type": "Value"}, "kind": {"_type": "ClassLabel", "names": list("wxyz")}, "pic": {"_type": "Image"}}


def columns(rows=slice(None), kinds=None):
    files = [{"bytes": png(image), "path": None} for image in IMAGES[rows]]
    return {"id": list(range(len(files))), "kind": (kinds or LABELS.tolist())[rows], "pic": files}


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_saved_set_of_images_is_taken_with_its_classes(tmp_path, in_memory):
    files = columns(kinds=[None, *LABELS[1:].tolist()])
    files["pic"][3] = {"bytes": b"broken", "path": None}
    saved(tmp_path / "set", files, FEATURES, parts=2)
    image, label, note = whole("huggingface", tmp_path / "set", (5, 4, 3), in_memory=in_memory)
    keep = np.arange(20) != 3
    expected = np.where(np.arange(20) == 0, -1, LABELS)[keep]
    same_rows(np.c_[image.reshape(19, -1), label], np.c_[IMAGES[keep].reshape(19, -1), expected])
    assert all(words in note for words in ("19 images", "2 'y'", "1 in no class", "1 left out (row 3)")), note


def test_the_splits_of_a_saved_set_are_parts_and_columns_of_numbers_vectors(tmp_path):
    for name, rows in (("train", slice(0, 15)), ("test", slice(15, 20))):
        saved(tmp_path / "dict" / name, columns(rows), FEATURES)
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    image, label, _ = whole("huggingface", tmp_path / "dict", (5, 4, 3), train_split="train", test_split="test")
    np.testing.assert_array_equal(image, IMAGES)
    np.testing.assert_array_equal(label, LABELS)
    with pytest.raises(InputError, match=r"has the splits train, test: set data.train_split and data.test_split"):
        whole("huggingface", tmp_path / "dict", (5, 4, 3))
    saved(tmp_path / "vectors", {"v": POINTS.tolist(), "label": LABELS.tolist()}, {})
    image, label, _ = whole("huggingface", tmp_path / "vectors", (3,), 0)
    same_rows(np.c_[image, label], np.c_[POINTS.astype(np.float32), LABELS])


def write_npz(**arrays):
    return "npz", lambda path: np.savez(path, **arrays)


def write_csv(text):
    return "csv", lambda path: path.write_bytes(text if isinstance(text, bytes) else text.encode())


def renamed(save, suffix, path):
    save(path.with_suffix(suffix), POINTS)
    path.with_suffix(suffix).rename(path)


NAN = np.where(np.arange(60).reshape(20, 3) == 7, np.nan, POINTS)


@pytest.mark.parametrize(
    ("made", "changes", "words"),
    [
        (write_npz(a=POINTS, b=POINTS), {}, ["arrays a, b", "'images'"]),
        (write_npz(x=POINTS, y=LABELS[:19]), {}, ["20 examples", "(19,)"]),
        (write_npz(x=POINTS, y=LABELS + 0.5), {}, ["label 0.5", "whole numbers"]),
        (write_npz(x=NAN), {}, ["1 NaN or infinite", "remove"]),
        (write_npz(x=POINTS * 1e300), {}, ["NaN or infinite"]),
        (write_npz(x=POINTS), dict(levels=256), ["data.levels=256", "astype(np.uint8)", "data.levels=0"]),
        (write_npz(x=IMAGES), dict(levels=17, shape=(5, 4, 3)), ["outside 0 .. 16"]),
        (write_npz(x=IMAGES.astype(int) - 9), dict(levels=256, shape=(5, 4, 3)), ["value -9, outside 0 .. 255"]),
        (write_npz(x=POINTS), dict(shape=(4,)), ["data.shape=(4,)", "set data.shape=(3,)"]),
        (write_npz(x=IMAGES[..., 0]), dict(levels=256, shape=(9, 9, 1)), ["set data.shape=(5, 4, 1)"]),
        (write_npz(x=np.moveaxis(IMAGES, 3, 1)), dict(levels=256, shape=(5, 4, 3)), ["transpose(0, 2, 3, 1)"]),
        (write_npz(x=POINTS[0]), {}, ["shape (3,)", "(n, ...)"]),
        (write_npz(x=POINTS.astype(str)), {}, ["type <U", "numbers"]),
        (write_npz(x=np.array([[{}]], object)), {}, ["Python objects", "not executed"]),
        (write_npz(x=POINTS[:1]), {}, ["data.test_fraction=0.1", "only 1"]),
        (("npz", lambda path: np.savez(path, x=POINTS) or path.write_bytes(path.read_bytes()[:90])), {}, ["be read"]),
        (("npz", lambda path: path.write_bytes(b"")), {}, ["cannot be read", "np.savez"]),
        (("npz", lambda path: None), {}, ["is not there", ".npz"]),
        (("npy", lambda path: renamed(np.savez, ".npz", path)), {}, ["several arrays", "data.name='npz'"]),
        (("npz", lambda path: renamed(np.save, ".npy", path)), {}, ["one array", "data.name='npy'"]),
        (write_csv("a,b\n1,2\n3,oops\n"), dict(shape=(2,)), ["'oops' in row 2", "column 2 (b)"]),
        (write_csv("1,2\n3,\n"), dict(shape=(2,)), ["'' in row 2", "column 2", "leave out rows"]),
        (write_csv("1,2\n3,nan\n5,6\n"), dict(shape=(2,)), ["1 NaN or infinite"]),
        (write_csv("1,2\n3\n"), dict(shape=(2,)), ["1 cells in row 2", "2 before"]),
        (write_csv("1,2\n3,4\n"), {}, ["2 columns", "set data.shape=(2,)"]),
        (write_csv("a,label\n1,2\n3,4\n"), {}, ["1 columns beside the labels", "set data.shape=(1,)"]),
        (write_csv("a,label\n1,2\n3,4.5\n"), dict(shape=(1,)), ["label 4.5", "whole numbers"]),
        (write_csv("\n"), {}, ["empty"]),
        (write_csv("a,b,c\n"), {}, ["names of columns only"]),
        (write_csv(b"\xff\xfe\x00,1"), {}, ["UTF-8"]),
        (write_csv("1,2,3\n" * 4), dict(name="npz"), [".npz"]),
    ],
)
def test_sentences_of_arrays_and_tables(tmp_path, made, changes, words):
    kind, write = made
    write(tmp_path / f"mine.{kind}")
    config = ConfigDict(dict(name=kind, dir=str(tmp_path / f"mine.{kind}"), shape=(3,), levels=0))
    config.update(changes)
    with pytest.raises(InputError) as error:
        load(config, "train")
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value), str(error.value)


def test_sentences_of_saved_sets(tmp_path):
    np.savez(tmp_path / "a.npz", x=POINTS)
    np.savez(tmp_path / "b.npz", x=POINTS)
    ragged = saved(tmp_path / "ragged", {"x": [[1.0], [2.0, 3.0]]}, {})
    short = saved(tmp_path / "short", columns(), FEATURES)
    (arrow,) = short.glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:3000])
    several = saved(tmp_path / "several", {"p": [1.0] * 4, "q": [2.0] * 4}, {})
    broken = saved(tmp_path / "broken", columns(), FEATURES)
    (broken / "state.json").write_text("{")
    for kind, place, says in (
        ("npz", tmp_path, r"2 files that end in .npz \(a.npz, b.npz\): name one"),
        ("huggingface", tmp_path, "is no directory that save_to_disk"),
        ("huggingface", ragged, "rows of several lengths in its column 'x'"),
        ("huggingface", short, "cannot be read"),
        ("huggingface", several, "columns p, q: call that of the examples"),
        ("huggingface", broken, "state.json is not JSON"),
    ):
        with pytest.raises(InputError, match=says):
            whole(kind, place, (5, 4, 3))
