"""Every configuration with every other set of data: it is loaded, or one sentence says which field is wrong."""

import ast
import importlib
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_sets import everything

from diffjax import data, zoo
from diffjax.data.embedded import EMBEDDED
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from experiments import opened

CONFIGS = sorted({path.stem for path in (Path(__file__).parents[2] / "configs").glob("[a-z]*.py")} - {"base"})
SHAPES = ((), (0,), (5,), (20, 2), (9, 9, 1), (8, 8, 3), (8, 8, -1), (8.0, 8, 1), "8")


def get(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    if "num_train" in config.data:
        config.data.num_train = config.data.num_test = 20
    return config


def said(fn):
    """What `fn` returns, and None; or None and the sentence it says."""
    try:
        return fn(), None
    except InputError as error:
        assert re.fullmatch(r"[^\n]{20,}", str(error))
        return None, str(error)


@pytest.mark.parametrize("name", CONFIGS)
def test_wrong_shapes_and_levels_are_said_when_the_model_is_made(name):
    zoo.make(get(name))
    for field, values in {"shape": SHAPES, "levels": (-1, 1, 3, 0, 257, 2.0, None, "x")}.items():
        for value in values:
            config = get(name)
            with config.data.ignore_type():
                config.data[field] = value
            _, sentence = said(lambda config=config: zoo.make(config))
            valid = (
                value in (3, 0)
                if field == "levels"
                else isinstance(value, tuple) and all(type(side) is int and side > 0 for side in value) and len(value)
            )
            assert valid or (sentence is not None and f"data.{field}" in sentence), (field, value, sentence)


@pytest.mark.slow
def test_every_set_is_loaded_as_the_configuration_has_it_or_the_field_is_named(tiny):
    """The fields of data alone matter, so configurations that have the same are tried once."""
    sections = {json.dumps(get(name).data.to_dict(), default=str): name for name in CONFIGS}
    outcomes = []
    for name in sections.values():
        for other in (*EMBEDDED, "tiny_flat", "tiny_striped", "no_such_set"):
            for split in ("train", "test"):
                config = get(name)
                config.data.name = other
                if "dir" in config.data and other.startswith("tiny"):
                    config.data.dir = str(tiny)
                dataset, sentence = said(lambda config=config, split=split: opened.load(config, split))
                if sentence is None:
                    assert dataset.shape == tuple(config.data.shape) and dataset.levels == config.data.levels
                else:
                    assert "data." in sentence, sentence
                outcomes.append(sentence)
    assert sum(sentence is None for sentence in outcomes) >= 2 * len(EMBEDDED)


@pytest.mark.parametrize("name", ["ae_mlp_digits", "vae_digits", "sohl_dickstein_texture", "sohl_dickstein_cifar10"])
def test_the_sentences_lead_to_the_other_set(name, tiny):
    """Whoever does what they say, one after the other, has it in the end."""
    config = get(name)
    config.data.update(name="tiny_flat", dir=str(tiny))
    fixes = []
    for _ in range(6):
        dataset, sentence = said(lambda: opened.load(config, "train"))
        if sentence is None:
            break
        if (field := re.search(r"set data\.(\w+)=(.*?)\.?$", sentence)) is not None:
            fixes.append(field[1])
            config.data[field[1]] = ast.literal_eval(field[2])
        else:
            assert re.match(r"data\.train_split='' .* has the splits .*train", sentence), sentence
            fixes.append("train_split")
            config.data.train_split = "train"
    assert len(set(fixes)) == len(fixes)
    examples = everything(dataset)
    np.testing.assert_array_equal(np.sort(examples["image"][:, 0, 0, 0]), np.arange(20))
    np.testing.assert_array_equal(examples["label"], examples["image"][:, 0, 0, 0] % 3)
    config.data.test_split = "test"
    assert len(opened.load(config, "test")) == 7


@pytest.fixture
def folder(tmp_path):
    """Two images darker and flatter than gravel is."""
    rng = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(rng.integers(20, 60, (40, 40), np.uint8)).save(tmp_path / f"{i}.png")
    return str(tmp_path)


@pytest.mark.parametrize("name", ["gravel", "brick", "folder"])
def test_each_texture_is_standardised_by_its_own_mean_and_deviation(name, folder):
    """Σ (x - mean)²/std² over all training pixels is then their number, and log p under the prior known."""
    config = get("sohl_dickstein_texture")
    config.data.update(name=name, dir=folder, shape=(8, 8, 1), num_train=300)
    train_set = opened.load(config, "train")
    assert opened.standardise(config, train_set)
    pixels = everything(train_set)["image"].astype(float)
    np.testing.assert_allclose([config.data.mean, config.data.std], [pixels.mean(), pixels.std()], rtol=1e-12)
    assert not opened.standardise(config, train_set)  # a run that is continued finds what it wrote
    null = zoo.make(config).measure(Bound).null({"image": everything(train_set)["image"]})
    std = pixels.std()
    expected = -0.5 * 64 * (np.log(2 * np.pi) + 1 + 1 / 12 / std**2) - 64 * np.log(std)
    np.testing.assert_allclose(np.mean(null, dtype=float), expected, rtol=1e-5)


def test_another_set_s_mean_and_deviation_are_refused():
    config = get("sohl_dickstein_mnist")
    config.data.update(name="gravel", shape=(8, 8, 1), train_split="", test_split="")
    config.data.num_train = 50
    train_set = opened.load(config, "train")
    mean, std = data.mean_and_std(train_set)
    says = f"data.mean=33.32 and data.std=78.57, but .* 'gravel' have {mean:.2f} and {std:.2f}: set these"
    with pytest.raises(InputError, match=says):
        opened.standardise(config, train_set)
    config.data.update(mean=round(mean, 2), std=round(std, 2))
    assert not opened.standardise(config, train_set)


def test_without_the_training_examples_costs_are_nan_and_never_another_set_s(folder):
    config = get("sohl_dickstein_texture")
    model = zoo.make(config)
    assert np.isnan(model.measure(Bound).null({"image": np.zeros((2, 32, 32, 1), np.uint8)})).all()
    jax.eval_shape(model.init, jax.random.key(0))
    config.data.std = 3.0
    with pytest.raises(InputError, match=r"data.mean=None and data.std=3.0"):
        zoo.make(config)


def test_labels_are_compared_with_a_system_s_classes_before_training():
    config = get("guided_digits")
    config.classifier.num_classes = 9
    digits = opened.load(config, "train")
    others = data.from_arrays("others", np.zeros((5, 8, 8, 1), np.uint8), np.array([3, 1, 7, -1, 0]), 17)
    for train_set, test_set in ((digits, others), (others, digits)):
        with pytest.raises(InputError, match=r"classifier.num_classes=9, but 'digits' has the label 9"):
            opened.check(opened.open_run(config, "runs"), train_set, test_set)
    opened.check(run := opened.open_run(config, "runs"), others, others)
    run = run._replace(train_set=lambda: others, test_set=lambda: others)
    (said,) = opened.notes(run)  # labels up to 7 need no ninth class
    assert said.startswith("classifier.num_classes=9, but no label of 'others' is above 7") and said.endswith("=8")
    assert opened.notes(run._replace(train_set=lambda: digits)) == []
    blank = data.from_arrays("blank", np.zeros((5, 8, 8, 1), np.uint8), levels=17)
    with pytest.raises(InputError, match=r"'blank' has no labels, or one class only"):
        opened.check(opened.open_run(config, "runs"), blank, others)
    opened.check(opened.open_run(get("digits"), "runs"), blank, blank)  # which looks at no label
