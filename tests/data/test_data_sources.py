"""diffjax.data.load against independent readings of the same data, and the sentences it says when it cannot."""

import io
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_sets import config, embedded, everything, png

from diffjax.data import from_arrays, load
from diffjax.data import sources as sources_module
from diffjax.data.sources import decode_image
from diffjax.errors import InputError

ROOT = Path(__file__).parents[2]


def digits(split):
    return load(config("digits", shape=(8, 8, 1), train="", test=""), split)


def test_digits_are_scikit_learns_in_two_disjoint_parts():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    train, test = digits("train"), digits("test")
    assert (len(train), len(test), train.levels, train.shape) == (1500, 297, 17, (8, 8, 1))
    pairs = [(im.tobytes(), la) for d in map(everything, (train, test)) for im, la in zip(*d.values(), strict=True)]
    expected = [(im.astype(np.uint8).tobytes(), la) for im, la in zip(bunch.images, bunch.target, strict=True)]
    assert sorted(pairs) == sorted(expected)  # as multisets: nothing lost, doubled or mislabelled
    assert (everything(digits("train"))["label"] == everything(train)["label"]).all()


def wire(message):
    """(field number, bytes) pairs of a protocol buffer with length-delimited fields only, as a tf.Example is."""

    def varint(at):
        value = shift = 0
        while True:
            value |= (message[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if message[at - 1] < 128:
                return value, at

    at, fields = 0, []
    while at < len(message):
        key, at = varint(at)
        assert key & 7 == 2
        length, at = varint(at)
        fields.append((key >> 3, message[at : at + length]))
        at += length
    return fields


def by_hand(directory, name, version, split, i):
    """Image and label of record i: array_record's own reader, PIL, and the bytes of the tf.Example protocol buffer."""
    from array_record.python.array_record_module import ArrayRecordReader

    path = directory / name / version / f"{name}-{split}.array_record-00000-of-00001"
    (record,) = ArrayRecordReader(str(path)).read([i])
    ((_, features),) = wire(record)
    entries = dict((dict(wire(entry))[1].decode(), dict(wire(entry))[2]) for _, entry in wire(features))
    ((_, images),), ((_, labels),) = wire(entries["image"]), wire(entries["label"])
    ((_, encoded),), ((_, label),) = wire(images), wire(labels)
    image = np.asarray(Image.open(io.BytesIO(encoded)))
    return image.reshape(*image.shape[:2], -1), label[0]


@pytest.mark.slow
def test_mnist_is_mnist(real):
    train = load(config("mnist", real, (28, 28, 1)), "train")
    assert (len(train), train.shape, train.levels) == (60_000, (28, 28, 1), 256)
    for i in (0, 1, 12_345, 59_999):
        image, label = by_hand(real, "mnist", "3.0.1", "train", i)
        got = train.gather(np.array([i]))
        np.testing.assert_array_equal(got["image"][0], image)
        assert got["label"][0] == label
    data = everything(train)
    # The published class counts, and the mean and deviation that everybody normalises MNIST by.
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    np.testing.assert_array_equal(np.bincount(data["label"]), counts)
    assert abs(data["image"].mean() / 255 - 0.1307) < 5e-5 and abs(data["image"].std() / 255 - 0.3081) < 5e-5


@pytest.mark.slow
def test_cifar10_is_cifar10(real):
    test = load(config("cifar10", real, (32, 32, 3)), "test")
    for i in (0, 7, 9_999):
        image, label = by_hand(real, "cifar10", "3.0.2", "test", i)
        got = test.gather(np.array([i]))
        np.testing.assert_array_equal(got["image"][0], image)
        assert got["label"][0] == label
    np.testing.assert_array_equal(np.bincount(everything(test)["label"]), [1000] * 10)
    lazy = load(config("cifar10", real, (32, 32, 3), in_memory=False), "test")
    indices = np.array([5, 5, 9_999, 0])
    for key in ("image", "label"):
        np.testing.assert_array_equal(lazy.gather(indices)[key], test.gather(indices)[key])


@pytest.mark.parametrize("in_memory", [True, False])
def test_splits_and_labels(tiny, in_memory):
    train = everything(load(config("tiny_flat", tiny, in_memory=in_memory), "train"))
    values = train["image"][:, 0, 0, 0]
    assert sorted(values) == list(range(20)) and (train["image"] == values[:, None, None, None]).all()
    np.testing.assert_array_equal(train["label"], values % 3)
    assert train["image"].dtype == np.uint8 and train["label"].dtype == np.int32
    test = everything(load(config("tiny_flat", tiny, in_memory=in_memory), "test"))
    assert sorted(test["image"][:, 0, 0, 0]) == list(range(20, 27))
    parts = [
        everything(load(config("tiny_flat:1.2.0", tiny, train=s, in_memory=in_memory), "train"))["image"]
        for s in ("train[:75%]", "train[75%:]+test")
    ]
    assert len(parts[0]) == 15
    np.testing.assert_array_equal(np.concatenate(parts), np.concatenate([train["image"], test["image"]]))


@pytest.mark.parametrize("in_memory", [True, False])
def test_images_of_several_sizes_are_cropped_about_the_centre(tiny, in_memory):
    data = everything(load(config("tiny_striped", tiny, (10, 10, 3), in_memory=in_memory), "train"))
    # Exactly the green middle third of each is left.
    assert (data["image"][..., [0, 2]] == 0).all()
    assert sorted(data["image"][:, 0, 0, 1]) == list(range(100, 108))
    assert (data["image"][..., 1] == data["image"][:, :1, :1, 1]).all()
    assert (data["label"] == 0).all()
    # At half that size too; interpolation may mix a little of the neighbours into the border, not into the centre.
    half = everything(load(config("tiny_striped", tiny, (5, 5, 3), in_memory=in_memory), "train"))["image"]
    np.testing.assert_array_equal(half[:, 2, 2], data["image"][:, 5, 5])
    np.testing.assert_allclose(half.astype(int), data["image"][:, ::2, ::2].astype(int), atol=10)


def test_decode_image():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (9, 7, 3), np.uint8)
    np.testing.assert_array_equal(decode_image(png(image), (9, 7, 3)), image)  # PNG is lossless
    # A ramp halved: the mean of each pair of columns, away from the border; height and width not confused.
    ramp = np.broadcast_to(np.arange(0, 160, 4, dtype=np.uint8), (20, 40))
    half = decode_image(png(ramp), (10, 20, 1)).astype(int)
    np.testing.assert_allclose(
        half[:, 2:-2, 0], np.broadcast_to(ramp[0].reshape(20, 2).mean(1)[2:-2], (10, 16)), atol=1
    )
    # Antialiased: a checkerboard at a quarter of its size is grey, where nearest or plain bicubic would leave 0 or 255.
    board = (np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8)
    grey = decode_image(png(board), (8, 8, 1))
    assert abs(grey.astype(int) - 127).max() <= 8


@pytest.mark.parametrize(
    ("images", "labels", "levels", "words"),
    [
        (np.zeros((2, 3, 3, 1), np.float32), np.zeros(2, int), 256, ["uint8", "float32"]),
        (np.zeros(2, np.uint8), np.zeros(2, int), 256, ["(2,)"]),
        (np.zeros((2, 3), np.uint8), np.zeros(2, int), 0, ["float32", "uint8 (2, 3)", "levels=0"]),
        (np.float32([[0, 1], [np.nan, np.inf]]), None, 0, ["2 NaN or infinite"]),
        (np.zeros((2, 3, 3, 1), np.uint8), np.zeros(3, int), 256, ["2 examples", "(3,)"]),
        (np.full((2, 3, 3, 1), 17, np.uint8), np.zeros(2, int), 17, ["17", "0 .. 16"]),
        (np.zeros((0, 3, 3, 1), np.uint8), np.zeros(0, int), 256, ["no examples"]),
    ],
)
def test_arrays_are_checked(images, labels, levels, words):
    with pytest.raises(InputError) as error:
        from_arrays("mine", images, labels, levels)
    assert all(word in str(error.value) for word in ["'mine'", *words]), str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(name="cifer10"), ["data.name='cifer10'", "digits", "TensorFlow Datasets", "cifar10"]),
        (dict(name="lsun"), ["data.name='lsun'", "bedroom"]),
        (dict(name="lsun/bed"), ["data.name='lsun/bed'", "bedroom"]),
        (dict(name="cifar10"), ["data.name='cifar10'", "not prepared", "diffjax.data.prepare cifar10 --dir="]),
        (dict(name="cifar10", dir="/no/such"), ["'/no/such', which does not exist", "--dir=/no/such"]),
        (dict(name="tiny_flat:9.9.9"), ["tiny_flat:9.9.9"]),
        (dict(shape=(6, 6, 3)), ["data.shape=(6, 6, 3)", "(6, 5, 3)"]),
        (dict(shape=(6, 5, 1)), ["data.shape=(6, 5, 1)", "(6, 5, 3)"]),
        (dict(shape=(6, 5, 1), in_memory=False), ["data.shape=(6, 5, 1)", "(6, 5, 3)"]),
        (dict(shape=(6, 5)), ["data.shape=(6, 5)", "channels"]),
        (dict(shape=(6, 5, 4)), ["data.shape=(6, 5, 4)", "channels"]),
        (dict(train_split=""), ["data.train_split=''", "train, test"]),
        (dict(train_split="validation"), ["data.train_split='validation'", "train, test"]),
        (dict(train_split="train[:0]"), ["data.train_split='train[:0]'", "not empty"]),
        (dict(name=3), ["data.name=3", "name of a set"]),
        (dict(shape="x"), ["data.shape='x'", "positive integers"]),
        (dict(train_split="train[5:2]"), ["data.train_split='train[5:2]'", "not empty"]),
        (dict(name="digits", train_split="", test_split=""), ["data.shape=(6, 5, 3)", "(8, 8, 1)"]),
        (dict(name="digits", shape=(8, 8, 1)), ["train_split", "''", "digits"]),
    ],
)
def test_sentences(tiny, changes, words):
    bad = config("tiny_flat", tiny)
    with bad.ignore_type():
        bad.update(changes)
    with pytest.raises(InputError) as error:
        load(bad, "train")
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


ROLL = dict(name="swiss_roll", shape=(2,), num_train=5, num_test=5, noise=0.1)
BEAT = dict(name="heartbeat", shape=(20,), num_train=5, num_test=5)
LEAVES = dict(name="dead_leaves", shape=(8, 8, 1), num_train=5, num_test=5, radii=(1.5, 4.0))
GRASS = dict(name="grass", shape=(8, 8, 1), num_train=5, num_test=5)
PAIRS = dict(name="correlated", shape=(2,), num_train=5, num_test=5, sigmas=(1.0, 2.0))
MODES = dict(name="mixture", shape=(2,), num_train=5, num_test=5)
MODES |= dict(weights=(0.5, 0.5), means=((0.0, 1.0), (2.0, 3.0)), std=1.0)
GIVEN = dict(name="given", shape=(2,), num_train=5, num_test=5, example=(1.0, 2.0))
FOLDER = dict(name="folder", shape=(8, 8, 3), num_train=5, num_test=5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (ROLL | dict(noise=None), ["data.noise=None", "number", "swiss_roll"]),
        (ROLL | dict(name="two_moons", noise=None), ["data.noise=None", "number", "two_moons"]),
        (ROLL | dict(noise="0.1"), ["data.noise='0.1'", "number"]),
        (ROLL | dict(noise=0.0), ["noise=0.0", "between 0 and 1"]),
        (ROLL | dict(noise=1), ["noise=1", "between 0 and 1"]),
        (ROLL | dict(noise=float("nan")), ["noise=nan", "between 0 and 1"]),
        (ROLL | dict(shape=(2, 1)), ["data.shape=(2, 1)", "set data.shape=(2,)"]),
        (ROLL | dict(num_train=0), ["data.num_train=0", "at least 1", "swiss_roll"]),
        (ROLL | dict(train_split="train"), ["data.train_split", "''", "swiss_roll"]),
        (BEAT | dict(num_train=None), ["data.num_train=None", "heartbeat"]),
        (BEAT | dict(num_train=10.0), ["data.num_train=10.0", "whole number"]),
        (BEAT | dict(shape=(21,)), ["data.shape=(21,)", "set data.shape=(20,)"]),
        (LEAVES | dict(radii=None), ["data.radii=None", "two numbers"]),
        (LEAVES | dict(radii=(1.5,)), ["data.radii=(1.5,)", "two numbers"]),
        (LEAVES | dict(radii=(4.0, 1.5)), ["min_radius=4.0", "max_radius=1.5", "<"]),
        (LEAVES | dict(radii=(0.1, 1.5)), ["min_radius=0.1", "0.5"]),
        (LEAVES | dict(radii=(1.0, float("inf"))), ["max_radius=inf"]),
        (LEAVES | dict(num_train=None), ["data.num_train=None", "dead_leaves"]),
        (LEAVES | dict(shape=(8, 9, 1)), ["data.shape=(8, 9, 1)", "(8, 8, 1)"]),
        (LEAVES | dict(shape=(8, 8, 3)), ["data.shape=(8, 8, 3)", "(height, width, 1)"]),
        (GRASS | dict(shape=(8, 8)), ["data.shape=(8, 8)", "(height, width, 1)", "grass"]),
        (GRASS | dict(shape=(385, 8, 1)), ["385 x 8", "384 x 512", "train", "data.shape"]),
        (GRASS | dict(shape=(8, 513, 1)), ["8 x 513", "384 x 512"]),
        (GRASS | dict(num_train=-1), ["data.num_train=-1", "grass"]),
        (FOLDER, ["data.dir=''", "directory"]),
        (FOLDER | dict(dir=3), ["data.dir=3", "directory"]),
        (ROLL | dict(noise=True), ["data.noise=True", "number"]),
        (ROLL | dict(num_train=True), ["data.num_train=True", "whole number"]),
        (ROLL | dict(num_train=2.0), ["data.num_train=2.0", "whole number"]),
        (ROLL | dict(shape=2), ["data.shape=2", "positive integers"]),
        (ROLL | dict(shape=(0,)), ["data.shape=(0,)", "positive integers"]),
        (LEAVES | dict(radii=(1.5, float("nan"))), ["max_radius=nan"]),
        (LEAVES | dict(radii=(1.5, True)), ["data.radii=(1.5, True)", "two numbers"]),
        (PAIRS | dict(sigmas=None), ["data.sigmas is missing", "correlated"]),
        (PAIRS | dict(sigmas=(1.0, float("inf"))), ["data.sigmas=(1.0, inf)", "finite numbers"]),
        (PAIRS | dict(sigmas=("a", "b")), ["data.sigmas=('a', 'b')", "finite numbers"]),
        (PAIRS | dict(sigmas=(1.0, -1.0)), ["data.sigmas=(1.0, -1.0)", "two positive numbers"]),
        (PAIRS | dict(sigmas=3.0), ["data.sigmas=3.0", "two positive numbers"]),
        (MODES | dict(weights=None), ["data.weights is missing", "mixture"]),
        (MODES | dict(weights=(0.5, "b")), ["data.weights=(0.5, 'b')", "finite numbers"]),
        (MODES | dict(weights=(0.5, 0.4)), ["weights=[0.5, 0.4]", "sum to 1"]),
        (MODES | dict(weights=1.0), ["weights=1.0", "as many as means"]),
        (MODES | dict(means=((0.0, 1.0), (2.0,))), ["data.means=((0.0, 1.0), (2.0,))", "finite numbers"]),
        (MODES | dict(means=((0.0, 1.0), (2.0, float("nan")))), ["data.means", "nan", "finite numbers"]),
        (MODES | dict(means=(0.0, 1.0)), ["as many as means=[0.0, 1.0]"]),
        (MODES | dict(std=(1.0, 2.0)), ["data.std=(1.0, 2.0)", "one number"]),
        (MODES | dict(std=-1.0), ["std=-1.0", "positive"]),
        (GIVEN | dict(example="12"), ["data.example='12'", "list of numbers"]),
        (GIVEN | dict(example=("a",)), ["data.example=('a',)", "finite numbers"]),
        (GIVEN | dict(example=()), ["data.example=()", "finite numbers"]),
        (GIVEN | dict(example=(1.0, float("-inf"))), ["data.example=(1.0, -inf)", "finite numbers"]),
        (GIVEN | dict(name=7), ["data.name=7", "name of a set"]),
        (FOLDER | dict(dir=None), ["data.dir=None", "directory"]),
        (FOLDER | dict(dir="/no/such"), ["data.dir='/no/such'", "no directory"]),
        (FOLDER | dict(dir=str(ROOT / "tests" / "data")), ["no image file", ".png"]),
        (
            FOLDER | dict(shape=(8, 8, 4), dir=str(ROOT / "experiments" / "results")),
            ["data.shape=(8, 8, 4)", "(height, width, 1 or 3)"],
        ),
    ],
)
def test_sentences_of_embedded_sets(fields, words):
    config = embedded(**fields)
    for name in [name for name, value in fields.items() if value is None]:
        del config[name]  # None stands for a field that is missing
    with pytest.raises(InputError) as error:
        load(config, "train")
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


def test_split_must_be_train_or_test(tiny):
    with pytest.raises(InputError, match="split='valid'"):
        load(config("tiny_flat", tiny), "valid")


def test_default_directory_is_that_of_tfds(tiny, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tiny))
    assert len(load(config("tiny_flat"), "train")) == 20


def test_newest_version_wins_by_number_and_unfinished_ones_do_not_count(tiny, tmp_path):
    for version in ("1.9.0", "1.10.0", "1.11.0.incompleteABC"):
        shutil.copytree(tiny / "tiny_flat" / "1.2.0", tmp_path / "tiny_flat" / version)
    assert sources_module.find_prepared(tmp_path, "tiny_flat").name == "1.10.0"
    assert sources_module.find_prepared(tmp_path, "tiny_flat:1.9.0").name == "1.9.0"
    (tmp_path / "tiny_flat" / "1.9.0" / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        sources_module.find_prepared(tmp_path, "tiny_flat")


def test_lossy_copies_of_a_set_are_mentioned(tmp_path, tiny, caplog):
    """CIFAR-10 in JPEG is another distribution; a set that declares JPEG, as LSUN does, is what it says."""
    import tensorflow_datasets as tfds

    file = io.BytesIO()
    Image.new("RGB", (5, 6)).save(file, "JPEG")
    for declared in (None, "jpeg"):

        class TinyLossy(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version("1.0.0")
            FORMAT = declared

            def _info(self):
                image = tfds.features.Image(shape=(6, 5, 3), encoding_format=self.FORMAT)
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(dict(image=image)))

            def _split_generators(self, dl_manager):
                return dict(train=[(0, dict(image=file.getvalue()))])

            def _generate_examples(self):
                raise NotImplementedError

        directory = tmp_path / str(declared)
        TinyLossy(data_dir=directory).download_and_prepare(file_format="array_record")
        caplog.clear()
        load(config("tiny_lossy", directory), "train")
        assert ("holds JPEG images" in caplog.text) == (declared is None)
    caplog.clear()
    load(config("tiny_flat", tiny), "train")
    assert caplog.text == ""


@pytest.mark.parametrize("in_memory", [True, False])
def test_damaged_records_are_noticed(tiny, tmp_path, in_memory):
    shutil.copytree(tiny / "tiny_flat", tmp_path / "tiny_flat")
    path = tmp_path / "tiny_flat" / "1.2.0" / "tiny_flat-train.array_record-00000-of-00001"
    data = bytearray(path.read_bytes())
    at = data.index(b"\x89PNG") + 40
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="missing or damaged"):
        everything(load(config("tiny_flat", tmp_path, in_memory=in_memory), "train"))


@pytest.mark.slow
def test_a_missing_set_is_said_at_once_and_without_a_connection(tiny, tmp_path):
    """Whole processes, as a user sees them; any attempt to use the network is an error of another kind.

    At once: in little more than the imports take, and without those of TensorFlow.
    """
    as_tfrecord = tmp_path / "tiny_flat" / "1.2.0"
    shutil.copytree(tiny / "tiny_flat" / "1.2.0", as_tfrecord)
    info = as_tfrecord / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    code = """if True:
        import socket, sys
        def forbidden(*args, **kwargs):
            raise AssertionError("the network was used")
        socket.socket.connect = socket.create_connection = socket.getaddrinfo = forbidden
        import time
        began = time.process_time()
        import ml_collections
        from diffjax.data import load
        imported = time.process_time()
        config = ml_collections.ConfigDict(dict(name=sys.argv[1], dir=sys.argv[2], shape=(6, 5, 3), train_split="train",
                                                test_split="test", in_memory=True))
        try:
            load(config, "train")
        except ValueError as error:
            print(error)
        print((time.process_time() - imported) / (imported - began), "tensorflow" in sys.modules)
    """
    for name, words in (("tiny_flat", f"--from-tfrecord={as_tfrecord}"), ("cifar10", "not prepared"), ("x", "unknown")):
        run = subprocess.run(
            [sys.executable, "-c", code, name, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=True
        )
        said, measured = run.stdout.splitlines()
        ratio, with_tensorflow = measured.split()
        print(f"{name}: {float(ratio):.2f} times the imports, {said}")
        assert words in said and with_tensorflow == "False" and float(ratio) < 2, run.stdout + run.stderr


# --- the cache of decoded sets ---


def cached_file(cache):
    (path,) = cache.iterdir()  # exactly one, so nothing temporary is left either
    return path


@pytest.fixture
def decodings(monkeypatch):
    """Counts how often a set is decoded."""
    calls = []
    decode_all = sources_module._decode_all
    monkeypatch.setattr(sources_module, "_decode_all", lambda d: calls.append(d.name) or decode_all(d))
    return calls


def test_second_load_reads_the_cache(tiny, cache, decodings):
    first, second = (everything(load(config("tiny_flat", tiny), "train")) for _ in range(2))
    assert len(decodings) == 1 and cached_file(cache).suffix == ".npz"
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])


def test_another_split_or_changed_records_are_another_entry(tiny, cache, decodings, tmp_path):
    shutil.copytree(tiny / "tiny_flat", tmp_path / "tiny_flat")
    load(config("tiny_flat", tmp_path), "train")
    load(config("tiny_flat", tmp_path, train="train[:5]"), "train")
    assert len(decodings) == 2
    record_file = next((tmp_path / "tiny_flat" / "1.2.0").glob("*-train.array_record*"))
    os.utime(record_file, (0, 0))
    load(config("tiny_flat", tmp_path), "train")
    assert len(decodings) == 3 and len(list(cache.iterdir())) == 3


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4  # among the pixels: only the checksum can tell
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not a zip file at all" * 50),
        lambda path: np.savez(path, images=np.zeros(3)),
        lambda path: np.savez(path, images=np.array([Bomb()], object), labels=np.zeros(1, np.int32)),
        lambda path: path.write_bytes(pickle.dumps(Bomb())),
    ],
    ids=["bit", "short", "empty", "garbage", "keys", "pickled array", "pickle"],
)
def test_a_damaged_cache_file_is_rebuilt(tiny, cache, decodings, damage):
    first = everything(load(config("tiny_flat", tiny), "train"))
    damage(cached_file(cache))
    for _ in range(2):
        again = everything(load(config("tiny_flat", tiny), "train"))
        np.testing.assert_array_equal(again["image"], first["image"])
        np.testing.assert_array_equal(again["label"], first["label"])
    assert len(decodings) == 2  # rebuilt, and whole again
    cached_file(cache)


class Bomb:
    """An object whose unpickling would be noticed."""

    def __reduce__(self):
        return pytest.fail, ("a pickle in the cache was executed",)


def test_an_unwritable_cache_only_costs_time(tiny, decodings, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DIFFJAX_CACHE", str(tmp_path / "file" / "below"))
    for _ in range(2):
        assert len(load(config("tiny_flat", tiny), "train")) == 20
    assert len(decodings) == 2


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_nothing(tiny, cache, monkeypatch, error):
    def half(file, **arrays):
        file.write(b"half")
        assert not list(cache.glob("*.npz"))  # not under its final name before it is whole
        raise error

    monkeypatch.setattr(np, "savez", half)
    try:
        assert len(load(config("tiny_flat", tiny), "train")) == 20
    except KeyboardInterrupt:
        assert isinstance(error, KeyboardInterrupt)
    assert list(cache.iterdir()) == []
