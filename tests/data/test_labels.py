"""Sets with few labels: which ones are known, what comes with each example, and what is refused."""

import dataclasses
import io
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tiny_sets import config, embedded, everything, png

from diffjax.data import batches, from_arrays, load
from diffjax.data.labels import check_classes, check_labelled, hide_labels
from diffjax.errors import InputError

MNIST = Path(os.environ.get("TFDS_DATA_DIR", "")) / "mnist"


def numbered(labels):
    """A set whose images are their own indices."""
    return from_arrays("numbered", np.arange(len(labels), dtype=np.uint8)[:, None], np.asarray(labels))


def hundred():
    return numbered(np.arange(100) % 4)


def known(dataset):
    return set(np.flatnonzero(everything(dataset)["label"] >= 0))


def test_as_many_of_each_class_keep_their_labels_and_all_keep_their_images():
    whole, few = everything(hundred()), everything(hide_labels(hundred(), 12, 4, seed=3))
    assert (few["image"] == whole["image"]).all()
    labelled = few["label"] >= 0
    assert (few["label"][~labelled] == -1).all()
    assert (few["label"][labelled] == whole["label"][labelled]).all()
    assert np.bincount(few["label"][labelled]).tolist() == [3, 3, 3, 3]


def test_the_seed_chooses():
    chosen = [known(hide_labels(hundred(), 12, 4, seed)) for seed in range(200)]
    assert chosen[5] == known(hide_labels(hundred(), 12, 4, 5))
    assert len(set(map(tuple, map(sorted, chosen)))) == 200
    # Each example is chosen by 3/25 of the seeds: the largest of 100 counts, and the smallest, within five errors.
    counts = np.bincount(np.concatenate([list(c) for c in chosen]), minlength=100)
    assert np.abs(counts - 24).max() < 5 * (200 * 0.12 * 0.88) ** 0.5


def test_companions_are_the_labelled_ones_equally_often():
    dataset = hide_labels(hundred(), 12, 4, seed=0)
    examples = everything(dataset)
    companions = examples["labelled_image"][:, 0]
    assert set(companions) == known(dataset)
    assert set(np.bincount(companions)[sorted(known(dataset))]) == {8, 9}
    assert (examples["labelled_label"] == companions % 4).all()


def test_a_companion_says_nothing_of_its_example():
    """Over many examples their classes agree as often as chance has it: one in four."""
    labels = np.random.default_rng(0).integers(0, 4, 40_000)
    dataset = from_arrays("many", np.zeros((len(labels), 1), np.uint8), labels)
    agree = everything(hide_labels(dataset, 8, 4, seed=0))["labelled_label"] == labels
    assert abs(agree.mean() - 0.25) < 5 * (0.25 * 0.75 / len(labels)) ** 0.5


def test_a_companion_depends_on_its_example_alone():
    dataset = hide_labels(hundred(), 12, 4, seed=0)
    examples = everything(dataset)
    for i in (7, 61):
        alone = dataset.gather(np.array([i]))
        assert all((alone[name] == examples[name][i : i + 1]).all() for name in examples)
    parts = [next(batches(dataset, 10, seed=1, process_index=p, process_count=2)) for p in range(2)]
    whole = next(batches(dataset, 10, seed=1))
    assert all((np.concatenate([part[name] for part in parts]) == whole[name]).all() for name in whole)


def test_digits_are_asked_for_by_the_configuration():
    setting = embedded("digits", shape=(8, 8, 1), labelled=50, label_seed=2, num_classes=10)
    train, test = load(setting, "train"), load(setting, "test")
    labels = everything(train)["label"]
    assert np.bincount(labels[labels >= 0]).tolist() == [5] * 10
    assert sorted(everything(test)) == ["image", "label"]
    assert (everything(test)["label"] >= 0).all()
    setting.labelled = 0
    assert (everything(load(setting, "train"))["label"] >= 0).all()


def test_binarized_digits_have_the_greys_as_means():
    """The sum of all bits, of variance Σ p (1 - p); and black and white stay what they are."""
    setting = embedded("digits", shape=(8, 8, 1))
    grey = everything(load(setting, "train"))["image"] / 16
    setting.binarized = True
    dataset = load(setting, "train")
    bits = everything(dataset)["image"]
    assert dataset.levels == 2
    assert set(np.unique(bits)) == {0, 1}
    assert (bits[grey == 0] == 0).all() and (bits[grey == 1] == 1).all()
    for pixel in (slice(None), (slice(None), 3, 4)):
        p = grey[pixel]
        assert abs(bits[pixel].sum() - p.sum()) < 5 * (p * (1 - p)).sum() ** 0.5
    assert (everything(load(setting, "train"))["image"] == bits).all()


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST is not prepared in $TFDS_DATA_DIR")
def test_mnist_by_tfds():
    setting = config("mnist", shape=(28, 28, 1), train="train[:2000]")
    setting.update(labelled=100, label_seed=0, num_classes=10, binarized=True)
    examples = everything(load(setting, "train"))
    assert set(np.unique(examples["image"])) == {0, 1}
    assert np.bincount(examples["label"] + 1).tolist() == [1900] + [10] * 10
    assert np.bincount(examples["labelled_label"]).tolist() == [200] * 10


@pytest.mark.parametrize(
    ("labels", "num", "num_classes", "message"),
    [
        (np.arange(100) % 4, 10, 4, r"data.labelled=10 must be a positive multiple of data.num_classes=4"),
        (np.arange(100) % 4, -4, 4, r"data.labelled=-4 must be a positive multiple"),
        (np.arange(100) % 4, 104, 4, r"data.labelled=104 is more than the 100 examples"),
        (np.arange(100) % 4, 12, 3, r"has the label 3, which is none of 0 .. 2: set data.num_classes=4"),
        (np.arange(100) % 4 - 1, 12, 4, r"has the label -1: labels must be 0 .. 3"),
        (np.arange(100) % 4, 10, 5, r"class 4 has no example"),
        (np.minimum(np.arange(100), 3), 8, 4, r"class 0 has 1 examples only"),
        (np.zeros(100, int), 8, 4, r"has no labels, or one class only"),
        (np.arange(100) % 4, 12, None, r"data.num_classes=None must be an integer"),
    ],
)
def test_what_cannot_be_is_said(labels, num, num_classes, message):
    with pytest.raises(InputError, match=message):
        hide_labels(numbered(labels), num, num_classes, seed=0)


@pytest.mark.parametrize(
    "labels",
    [np.float32([3, 0, -1]), np.float64([3, 0, -1]), np.int64([3, 0, -1]), np.int8([3, 0, -1])],
)
def test_whole_numbers_of_any_type_are_labels(labels):
    assert everything(numbered(labels))["label"].tolist() == [3, 0, -1]
    assert everything(numbered(labels))["label"].dtype == np.int32
    assert everything(numbered(np.array([True, False])))["label"].tolist() == [1, 0]
    assert everything(numbered(np.array([200, 0], np.uint8)))["label"].tolist() == [200, 0]


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.array([0.0, 1.5]), "the label 1.5: give classes as whole numbers"),
        (np.array([0.0, np.nan]), "the label nan"),
        (np.array([0.0, np.inf]), "the label inf"),
        (np.array([0, -3]), "the label -3: .* -1 where the class is not known"),
        (np.array([0, 2**31]), "the label 2147483648"),
        (np.array([0, 2**64 - 1], np.uint64), "the label 18446744073709551615"),
        (np.array(["cat", "dog"]), "labels of type <U3"),
        (np.array([0, 1j]), "labels of type complex128"),
    ],
)
def test_what_is_no_class_is_refused(labels, says):
    with pytest.raises(InputError, match=f"'numbered' has {says}"):
        numbered(labels)


def test_labels_are_compared_with_the_number_of_classes():
    dataset = numbered([0, 9, -1])
    check_classes(dataset, "net.num_classes", 10)
    check_labelled(dataset, "net.num_classes", 10)
    says = r"net.num_classes=9, but 'numbered' has the label 9, which is none of 0 .. 8: set net.num_classes=10"
    for unread in (dataset, dataclasses.replace(dataset, highest_label=None)):
        with pytest.raises(InputError, match=says):
            check_classes(unread, "net.num_classes", 9)
    for without in (numbered([0, 0, 0]), numbered([-1, 0, -1])):
        with pytest.raises(InputError, match=r"classifier.num_classes=10, but 'numbered' has no labels"):
            check_labelled(without, "classifier.num_classes", 10)
        check_labelled(without, "net.num_classes", 1)


FEATURES = tfds.features


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A function of a TFDS feature and four labels: a data_dir with the set "tiny_labelled" of images 0 .. 3."""

    def prepare(feature, labels):
        class TinyLabelled(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                features = dict(image=FEATURES.Image(shape=(2, 2, 1), encoding_format="png"), label=feature)
                return tfds.core.DatasetInfo(builder=self, features=FEATURES.FeaturesDict(features))

            def _split_generators(self, dl_manager):
                images = [io.BytesIO(png(np.full((2, 2), i, np.uint8))) for i in range(4)]
                return dict(train=[(i, dict(image=images[i], label=label)) for i, label in enumerate(labels)])

            def _generate_examples(self):
                raise NotImplementedError

        directory = tmp_path_factory.mktemp("labelled")
        TinyLabelled(data_dir=directory).download_and_prepare(file_format="array_record")
        return directory

    return prepare


@pytest.mark.parametrize(
    ("feature", "labels", "highest"),
    [
        (FEATURES.ClassLabel(num_classes=300), [7, 0, 256, -1], 299),
        (FEATURES.Scalar(np.int64), [7, 0, 256, -1], None),
        (FEATURES.Scalar(np.uint8), [7, 0, 255, 1], None),
        (FEATURES.Scalar(np.bool_), [1, 0, 0, 1], None),
        (FEATURES.Scalar(np.float32), [7.0, 0.0, 256.0, -1.0], None),
        (FEATURES.Tensor(shape=(), dtype=np.int32), [7, 0, 256, -1], None),
    ],
    ids=str,
)
def test_the_label_of_a_record_is_what_was_written(prepared, feature, labels, highest):
    directory = prepared(feature, labels)
    for in_memory in (True, False):
        fields = config("tiny_labelled", directory, (2, 2, 1), in_memory=in_memory)
        dataset = load(fields, "train")
        examples = everything(dataset)
        assert examples["label"].tolist() == [labels[i] for i in examples["image"][:, 0, 0, 0]]
        assert dataset.highest_label == (max(labels) if in_memory else highest)
        with pytest.raises(InputError, match=r"net.num_classes=1, but 'tiny_labelled' has the label"):
            check_classes(dataset, "net.num_classes", 1)


@pytest.mark.parametrize(
    ("feature", "labels", "says"),
    [
        (FEATURES.Scalar(np.float64), [0.0, 1.0, 2.5, 3.0], "the label 2.5"),
        (FEATURES.Scalar(np.int64), [0, 1, -2, 3], "the label -2"),
        (FEATURES.Tensor(shape=(1,), dtype=np.int64), [[0], [1], [2], [3]], "'label' that is no single number, Tensor"),
        (FEATURES.Text(), ["a", "b", "c", "d"], "'label' that is no single number, Text"),
        (FEATURES.Sequence(FEATURES.ClassLabel(num_classes=4)), [[0], [1], [2], [3]], "no single number, Sequence"),
    ],
    ids=str,
)
def test_what_is_no_class_in_a_record_is_refused(prepared, feature, labels, says):
    directory = prepared(feature, labels)
    for in_memory in (True, False):
        with pytest.raises(InputError) as error:
            everything(load(config("tiny_labelled", directory, (2, 2, 1), in_memory=in_memory), "train"))
        assert says in str(error.value) and "tiny_labelled" in str(error.value) and "\n" not in str(error.value)


def test_a_seed_that_is_none_is_refused():
    with pytest.raises(InputError, match=r"data.label_seed = -1 must be an integer of at least 0"):
        hide_labels(hundred(), 12, 4, seed=-1)


def test_real_values_have_no_bits():
    setting = embedded("swiss_roll", shape=(2,), num_train=10, noise=0.1, binarized=True)
    with pytest.raises(InputError, match=r"'swiss_roll' has real values, not levels"):
        load(setting, "train")
