"""Where data come from: embedded sets (embedded.py), the user's own (own.py), and images of TensorFlow Datasets (TFDS).

A TFDS set lies in DIR/name[/config]/version as dataset_info.json, features.json and record files. Only the array_record
format can be read without TensorFlow. This module looks at these files to see what is on disk. It never asks TFDS to
prepare a set: offline, TFDS would retry for minutes. Nothing is downloaded here, see prepare.py.

A set held in memory is decoded once from the lazy set, and then cached (see cache.py).
"""

import difflib
import io
import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from diffjax.data import image_files
from diffjax.data.cache import Arrays, cached
from diffjax.data.dataset import AT_ONCE, Dataset, as_labels, from_arrays
from diffjax.data.embedded import EMBEDDED, load_embedded
from diffjax.data.labels import hide_labels
from diffjax.data.own import OWN, load_own
from diffjax.data.pairs import with_source
from diffjax.errors import InputError
from diffjax.extras import needs_run
from diffjax.paths import local

DECODER = 2  # raise it when a code change gives other arrays for the same records: old cache entries are then unused


def load(config: Any, split: str) -> Dataset:
    """The "train" or "test" part of the set that config describes.

    config.name: one of three kinds. An embedded set such as "digits": `load_embedded` explains its fields. A kind of
        your own data such as "folder": `load_own` explains its fields. Or a TFDS name such as "mnist",
        "celeb_a_hq/256" or "cifar10:3.0.2", with the fields below.
    config.dir: where TFDS keeps prepared sets; "" or absent means $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    config.shape: (H, W, C). If the set is held in memory, its images must have this shape. Lazy sets, and sets whose
        images differ in size, are centre-cropped and resized to it.
    config.train_split, config.test_split: TFDS splits such as "train[:90%]".
    config.in_memory: decode the whole set now (the default, for small sets), or each image on demand (for large sets).

    These fields are optional:
    config.binarized: if true, every pixel becomes 1 with probability level / (levels - 1), its grey value. The bits are
        drawn once (Salakhutdinov and Murray 2008) and held in memory.
    config.labelled: if not 0, how many training examples keep their labels. config.label_seed chooses them, and
        config.num_classes is the number of classes. See `labels.hide_labels`.
    config.source: if not empty, the fields of another set, as described here. Its examples are in the batches as
        "source". See `pairs.with_source`.

    Raises `InputError` if the set cannot be loaded, in one sentence that says what to change or run.
    """
    if split not in ("train", "test"):
        raise InputError(f"split={split!r} must be 'train' or 'test'.")
    if not isinstance(config.name, str):
        raise InputError(f"data.name={config.name!r} must be the name of a set, such as 'digits'.")
    shape = config.shape
    if not isinstance(shape, tuple | list) or not shape or not all(type(side) is int and side > 0 for side in shape):
        raise InputError(f"data.shape={shape!r} must be positive integers, those of one example's axes.")
    read = load_own if config.name in OWN else load_embedded if config.name in EMBEDDED else _load_tfds
    dataset = read(config, split)
    if config.get("binarized"):
        dataset = _binarize(dataset, split)
    if split == "train" and config.get("labelled"):
        dataset = hide_labels(dataset, config.labelled, config.get("num_classes"), config.get("label_seed", 0))
    if config.get("source"):
        dataset = with_source(dataset, load(config.source, split))
    return dataset


def _load_tfds(config: Any, split: str) -> Dataset:
    shape = tuple(config.shape)
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise InputError(f"data.shape={shape} must be (height, width, channels) with 1 or 3 channels.")
    directory = data_dir(config.get("dir", ""))
    path = find_prepared(directory, config.name)
    if path is None:
        check_name(config.name)
        missing = "" if directory.is_dir() else ", which does not exist"
        raise InputError(
            f"data.name={config.name!r} is not prepared in data.dir={str(directory)!r}{missing}: correct data.dir,"
            f" or run `python -m diffjax.data.prepare {config.name} --dir={directory}` on a machine with network."
        )
    field = f"data.{split}_split"
    part = config.get(f"{split}_split", "")
    if not config.get("in_memory", True):
        if config.get("binarized"):
            raise InputError("data.binarized=True is for a set held in memory: set data.in_memory=True.")
        return _lazy(path, config.name, field, part, shape, resize=True)
    facts = {
        "set": [config.name, path.name, part, shape],
        "decoder": DECODER,
        "files": [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in sorted(path.glob("*.array_record*"))],
    }

    def decode() -> Arrays:
        return _decode_all(_lazy(path, config.name, field, part, shape, resize=False))

    images, labels = cached(f"{config.name}-{split}", facts, decode)
    return from_arrays(config.name, images, labels)


def _binarize(dataset: Dataset, split: str) -> Dataset:
    if not dataset.levels:
        raise InputError(f"data.binarized=True, but {dataset.name!r} has real values, not levels: set it to False.")
    examples = dataset.gather(np.arange(len(dataset)))
    uniform = np.random.default_rng(("train", "test").index(split)).random(examples["image"].shape, np.float32)
    bits = ((dataset.levels - 1) * uniform < examples["image"]).astype(np.uint8)
    return from_arrays(dataset.name, bits, examples["label"], levels=2, note=dataset.note)


def data_dir(given: str) -> Path:
    """Where TFDS keeps prepared sets, by TFDS's own rule but without importing it."""
    return local(given or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets", "data.dir")


def find_prepared(directory: Path, name: str) -> Path | None:
    """The directory of the newest version that is prepared as array_record, or of the version in "name:version".

    Returns None if no version is prepared. Raises `InputError` if the set is prepared in another format only, or if its
    dataset_info.json cannot be read.
    """
    base, _, wanted = name.partition(":")
    formats = {}
    for info in (directory / base).glob("*/dataset_info.json"):
        version = info.parent.name
        if re.fullmatch(r"\d+\.\d+\.\d+", version) and wanted in ("", version):
            formats[tuple(map(int, version.split(".")))] = info.parent, read_info(info)["fileFormat"]
    ready = {version: path for version, (path, file_format) in formats.items() if file_format == "array_record"}
    if ready:
        return ready[max(ready)]
    if not formats:
        return None
    path, file_format = formats[max(formats)]
    other = directory.with_name(directory.name + "-array_record")
    source = f"--from-tfrecord={path}" if file_format == "tfrecord" else name
    raise InputError(
        f"data.name={name!r} is prepared in {path} as {file_format}, which only TensorFlow reads: run"
        f" `python -m diffjax.data.prepare {source} --dir={other}` and set data.dir={str(other)!r}."
    )


def read_info(path: Path) -> dict:
    """A dataset_info.json. fileFormat is "tfrecord" if it is absent: TFDS left it out when that was the only format."""
    try:
        return {"fileFormat": "tfrecord"} | json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): prepare this set again.") from error


def check_name(name: str) -> None:
    """Raises `InputError` if TFDS has no such set, or if the set has configs and the name does not give one of them."""
    with needs_run():
        import tensorflow_datasets as tfds  # takes half a second, not needed for a set in the cache

    base, _, config = name.partition(":")[0].partition("/")
    known = tfds.list_builders(with_community_datasets=False)
    if base not in known:
        close = difflib.get_close_matches(base, [*EMBEDDED, *OWN, *known], n=3)
        raise InputError(
            f"data.name={name!r} is unknown: the embedded sets are {', '.join(EMBEDDED)}, data of your own are"
            f" {', '.join(OWN)}, any other name is looked up as data.dir/name/version and among the sets of TensorFlow"
            f" Datasets (close to it: {', '.join(close) if close else 'none'})."
        )
    configs = list(tfds.builder_cls(base).builder_configs)
    if configs and config not in configs:
        raise InputError(
            f"data.name={name!r} must name one of the configs of {base!r}: write {base}/NAME where NAME is"
            f" {', '.join(configs[:20])}{' ...' if len(configs) > 20 else ''}."
        )


def _lazy(path: Path, name: str, field: str, split: str, shape: tuple[int, int, int], resize: bool) -> Dataset:
    """A prepared set whose images are decoded on demand. Without resize, images of one size must have `shape`."""
    with needs_run():
        import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(path)
    features = dict(builder.info.features.items())
    image = features.get("image")
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise InputError(f"data.name={name!r} has no 8-bit feature called 'image': choose an image set.")
    theirs = tuple(mine if side is None else side for mine, side in zip(shape, image.shape, strict=True))
    if theirs[2] not in (1, 3):
        raise InputError(f"data.name={name!r} has images of {theirs[2]} channels: choose a set of 1 or 3.")
    if shape[2] != theirs[2] or (not resize and shape != theirs):
        raise InputError(f"data.shape={shape} disagrees with {name!r}: set data.shape={theirs}.")
    label = features.get("label")
    _check_label(name, label)
    try:
        # Images stay encoded here: TFDS would decode one example at a time, at a quarter of the speed.
        source = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        size = len(source)
    except (ValueError, AssertionError) as error:
        raise InputError(
            f"{field}={split!r} is not a part of {name!r}, which has the splits {', '.join(builder.info.splits)}: write"
            " one of them, or a slice that is not empty such as 'train[:90%]'."
        ) from error

    def read(indices: list[int]) -> list[dict]:
        try:
            return source.__getitems__(indices)
        except RuntimeError as error:  # array_record checks a hash of every record it reads
            raise InputError(f"A record file in {path} is missing or damaged ({error}): prepare it again.") from error

    if image.encoding_format is None and size and read([0])[0]["image"].startswith(b"\xff\xd8"):
        logging.getLogger(__name__).warning(
            "%s in %s holds JPEG images: if the original is lossless, as CIFAR-10 is, then bits per dimension and FID"
            " on this copy do not compare with published ones.",
            name,
            path,
        )

    def gather(indices):
        examples = read(indices.tolist())
        images = np.empty((len(examples), *shape), np.uint8)

        def fill(part):
            for i in part:
                record = f"Image {indices[i]} of {field}={split!r} of {name!r}"
                images[i] = decode_image(examples[i]["image"], shape, record)

        image_files.in_threads(fill, len(examples))
        labels = [0 if label is None else example["label"] for example in examples]
        return {"image": images, "label": as_labels(name, labels)}

    classes = 1 if label is None else getattr(label, "num_classes", None)
    return Dataset(name, shape, 256, size, gather, classes and classes - 1)


def decode_image(encoded: bytes, shape: tuple[int, int, int], name: str = "The image") -> UInt8[np.ndarray, "h w c"]:
    """The pixels of a PNG or JPEG. An image of another size is centre-cropped and resized (bicubic, antialiased).

    The EXIF orientation is ignored, as in TensorFlow. name: the image's name in error messages.
    Raises `InputError` if the image cannot be read as 8-bit pixels without loss, see image_files.py.
    """
    return image_files.fit(image_files.read(io.BytesIO(encoded), name, shape[2]), shape)


def _check_label(name: str, label: Any) -> None:
    """Raises `InputError` unless the TFDS feature `label` is one number for each example, or None (no labels)."""
    with needs_run():
        import tensorflow_datasets as tfds

    number = isinstance(label, tfds.features.Tensor) and label.shape == () and np.dtype(label.np_dtype).kind in "biuf"
    if label is not None and not isinstance(label, tfds.features.ClassLabel) and not number:
        raise InputError(
            f"data.name={name!r} has a feature 'label' that is no single number, {' '.join(repr(label).split())}:"
            " choose a set whose label is a class."
        )


def _decode_all(dataset: Dataset) -> Arrays:
    with needs_run():
        from tqdm import tqdm

    images = np.empty((len(dataset), *dataset.shape), np.uint8)
    labels = np.empty(len(dataset), np.int32)
    with tqdm(total=len(dataset), desc=f"decoding {dataset.name}", unit="image", disable=None) as progress:
        for first in range(0, len(dataset), AT_ONCE):
            part = np.arange(first, min(first + AT_ONCE, len(dataset)))
            examples = dataset.gather(part)
            images[part], labels[part] = examples["image"], examples["label"]
            progress.update(len(part))
    return images, labels
