"""Small sets in TFDS's own layout, written by TFDS itself, and the real ones where a copy is at hand."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from tiny_sets import png, striped


@pytest.fixture(scope="session")
def builders():
    """TFDS builders: tiny_flat (constant images with value i and label i % 3), tiny_striped (two sizes, no label)."""
    import tensorflow_datasets as tfds

    class TinyFlat(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.2.0")

        def _info(self):
            features = dict(image=tfds.features.Image(shape=(6, 5, 3)), label=tfds.features.ClassLabel(num_classes=3))
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return dict(train=self._generate_examples(0, 20), test=self._generate_examples(20, 27))

        def _generate_examples(self, first, last):
            for i in range(first, last):
                yield i, dict(image=io.BytesIO(png(np.full((6, 5, 3), i, np.uint8))), label=i % 3)

    class TinyStriped(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict(dict(image=tfds.features.Image()))
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return dict(train=((i, dict(image=io.BytesIO(png(striped(i))))) for i in range(8)))

        def _generate_examples(self):
            raise NotImplementedError

    return TinyFlat, TinyStriped


@pytest.fixture(scope="session")
def tiny(builders, tmp_path_factory):
    """A data_dir in which both tiny sets are prepared as array_record."""
    directory = tmp_path_factory.mktemp("tfds")
    for builder in builders:
        builder(data_dir=directory).download_and_prepare(file_format="array_record")
    return directory


@pytest.fixture(scope="session")
def real():
    """A data_dir with MNIST and CIFAR-10."""
    beside = Path(__file__).parents[2].parent / "shared" / "tensorflow_datasets"
    directory = Path(os.environ.get("TFDS_DATA_DIR") or beside)
    for name in ("mnist", "cifar10"):
        if not list(directory.glob(f"{name}/*/{name}-train.array_record*")):
            pytest.skip(f"{name} is not prepared as array_record in {directory}")
    return directory


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("DIFFJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
