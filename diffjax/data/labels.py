"""Sets with few known labels, for semi-supervised learning (Kingma et al. 2014, section 4).

Of N examples, n keep their labels, equally many in each class. A seed chooses them. Each example i comes with a
labelled companion, l[perm(i) mod n]. Here l are the labelled examples and perm is one fixed permutation of 0 .. N - 1.
So in an epoch each labelled example is seen N/n times, within 1, for any batches and any number of devices.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int32, Integer

from diffjax.data.dataset import AT_ONCE, UNKNOWN, Dataset
from diffjax.data.pipeline import permutation
from diffjax.errors import InputError
from diffjax.randomness import check_seed

CHOICE, COMPANIONS = 2**63, 2**63 + 1  # "epochs" that training never reaches: independent of the batch order


def hide_labels(dataset: Dataset, num: int, num_classes: int, seed: int) -> Dataset:
    """The same examples, `num` of them with labels, each with a labelled companion.

    Its batches are dict(image, label, labelled_image, labelled_label), each (n, ...). `label` is -1 where it is hidden.
    Entry j of `labelled_image` and `labelled_label` is the companion of example j.

    Raises `InputError` if `num` is not a multiple of `num_classes` or is larger than the set, if a label is not in
    0 .. num_classes - 1, or if a class has fewer than num / num_classes examples.
    """
    if not isinstance(num_classes, int) or num_classes < 2:
        raise InputError(f"data.num_classes={num_classes!r} must be an integer of at least 2: data.labelled needs it.")
    if not isinstance(num, int) or num < num_classes or num % num_classes:
        raise InputError(
            f"data.labelled={num!r} must be a positive multiple of data.num_classes={num_classes}, for each class gets"
            " as many labels, or 0 for all labels."
        )
    if num > len(dataset):
        raise InputError(f"data.labelled={num} is more than the {len(dataset)} examples of {dataset.name!r}: lower it.")
    check_seed("data.label_seed", seed)
    labels = all_labels(dataset)
    check_labels(dataset.name, labels, num_classes)
    known = _choose(labels, num // num_classes, num_classes, seed)
    chosen = np.flatnonzero(known)
    companions = chosen[permutation(seed, COMPANIONS, len(dataset)) % num]

    def gather(indices: Integer[np.ndarray, " n"]) -> dict[str, np.ndarray]:
        batch, labelled = dataset.gather(indices), dataset.gather(companions[indices])
        label = np.where(known[indices], batch["label"], UNKNOWN).astype(np.int32)
        return batch | {"label": label, "labelled_image": labelled["image"], "labelled_label": labelled["label"]}

    return dataclasses.replace(dataset, gather=gather)


def all_labels(dataset: Dataset) -> Int32[np.ndarray, " n"]:
    """The labels of the whole set. The images are read, too, but not kept."""
    firsts = range(0, len(dataset), AT_ONCE)
    return np.concatenate(
        [dataset.gather(np.arange(first, min(first + AT_ONCE, len(dataset))))["label"] for first in firsts]
    )


def check_classes(dataset: Dataset, field: str, num_classes: int) -> None:
    """Raises `InputError` if a label is not below `num_classes`. `field` is the name of that configuration field.

    Every `Dataset` guarantees that no label is below -1, which stands for "not known".
    """
    if (highest := _highest(dataset)) >= num_classes:
        raise InputError(
            f"{field}={num_classes}, but {dataset.name!r} has the label {highest}, which is none of"
            f" 0 .. {num_classes - 1}: set {field}={highest + 1}."
        )


def check_labelled(dataset: Dataset, field: str, num_classes: int) -> None:
    """Raises `InputError` if all labels are 0, as in a set without labels, although there are several classes."""
    if num_classes > 1 and _highest(dataset) <= 0:
        raise InputError(
            f"{field}={num_classes}, but {dataset.name!r} has no labels, or one class only: choose a set with labels;"
            " in a folder of images each class is a sub-folder."
        )


def surplus(dataset: Dataset, field: str, num_classes: int) -> str:
    """A warning if no example has the last of `num_classes` classes; "" otherwise."""
    if dataset.highest_label is None or dataset.highest_label >= num_classes - 1:
        return ""
    return (
        f"{field}={num_classes}, but no label of {dataset.name!r} is above {dataset.highest_label}: classes from"
        f" {dataset.highest_label + 1} on are not learned, unless you set {field}={dataset.highest_label + 1}"
    )


def _highest(dataset: Dataset) -> int:
    return int(all_labels(dataset).max()) if dataset.highest_label is None else dataset.highest_label


def check_labels(name: str, labels: Int32[np.ndarray, " n"], num_classes: int) -> None:
    """Raises `InputError` if all labels are equal, as in a set without labels, or if one is not a class."""
    if (labels == labels[0]).all():
        raise InputError(f"data.labelled: {name!r} has no labels, or one class only: choose a set with labels.")
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if len(outside):
        raise InputError(
            f"data.num_classes={num_classes}, but {name!r} has the label {int(outside[0])}, which is none of"
            f" 0 .. {num_classes - 1}: set data.num_classes={int(labels.max()) + 1}."
            if outside[0] > 0
            else f"{name!r} has the label {int(outside[0])}: labels must be 0 .. {num_classes - 1}."
        )


def _choose(labels: np.ndarray, per_class: int, num_classes: int, seed: int) -> Bool[np.ndarray, " n"]:
    """True for the first `per_class` examples of each class, in a random order that the seed gives."""
    order = permutation(seed, CHOICE, len(labels))
    known = np.zeros(len(labels), bool)
    for label in range(num_classes):
        members = order[labels[order] == label]
        if len(members) < per_class:
            have = "no example" if not len(members) else f"{len(members)} examples only"
            raise InputError(
                f"data.labelled={per_class * num_classes} asks for {per_class} labels of each of data.num_classes="
                f"{num_classes} classes, but class {label} has {have}: lower one of them."
            )
        known[members[:per_class]] = True
    return known
