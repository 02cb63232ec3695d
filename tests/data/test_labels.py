"""Sets with few labels: which ones are known, what comes with each example, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest
from tiny_sets import config, embedded, everything

from diffjax.data import batches, from_arrays, load
from diffjax.data.labels import hide_labels
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


def test_a_seed_that_is_none_is_refused():
    with pytest.raises(InputError, match=r"data.label_seed=-1 must be an integer of at least 0"):
        hide_labels(hundred(), 12, 4, seed=-1)


def test_real_values_have_no_bits():
    setting = embedded("swiss_roll", shape=(2,), num_train=10, noise=0.1, binarized=True)
    with pytest.raises(InputError, match=r"'swiss_roll' has real values, not levels"):
        load(setting, "train")
