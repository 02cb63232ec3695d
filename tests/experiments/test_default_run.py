"""The default job as a user starts it: its bound, samples, inpainting and flow."""

import json

import jax
import numpy as np
import pytest
from command import run
from judges import the_flow_is_above_the_bound, these_are_digits
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from diffjax import data

pytestmark = [pytest.mark.slow, pytest.mark.trains]


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """Evaluated at the end alone, by 50 of the bound's 250 terms; there by the flow and by conditioned samples, too."""
    workdir = tmp_path_factory.mktemp("run") / "digits"
    more = ["--config.training.eval_every=0", "--config.evaluation.conditioning=True"]
    more += ["--config.evaluation.num_terms=50"]
    result = run(f"--workdir={workdir}", *more, "--config.evaluation.flow_examples=33")
    assert result.returncode == 0, result.stderr
    assert "probability flow less bound" in result.stdout
    return workdir


def test_the_default_run_beats_the_best_model_of_independent_pixels(default):
    """The best factorised model's bits/dim on the test set, from the training set's histograms (add-one smoothed)."""
    from configs.digits import get_config

    train, test = (data.load(get_config().data, split) for split in ("train", "test"))
    pixels = train.gather(np.arange(len(train)))["image"].reshape(len(train), 64)
    histogram = np.stack([(pixels == level).sum(0) + 1 for level in range(17)]) / (len(train) + 17)
    held_out = test.gather(np.arange(len(test)))["image"].reshape(len(test), 64)
    factorised = -np.log2(histogram[held_out, np.arange(64)]).mean()
    print(f"the best model of independent pixels: {factorised:.3f} bits/dim")
    report = json.loads((default / "eval.json").read_text())
    assert report["num_examples"] == len(test)
    assert report["bits_per_dim"] + 5 * report["standard_error"] < factorised


def test_the_default_run_draws_digits(default):
    assert run("--mode=sample", f"--workdir={default}", "--num=198").returncode == 0  # two batches
    (path,) = (default / "samples").glob("*.npz")
    these_are_digits(np.load(path)["images"], 1.25)


def test_the_default_model_inpaints_and_denoises_digits(default):
    """Guided by E[r(x_0) | x_t], holes are filled with what belongs there; noise is taken off by starting in it."""
    from diffjax import conditioning, samplers, zoo
    from experiments.opened import open_run
    from experiments.parameters import restore_ema
    from experiments.workdir import read_config

    config = read_config(default)
    _, params = restore_ema(open_run(config, default), None)
    process, predict = zoo.make(config).kernels(params)
    train = data.load(config.data, "train").gather(np.arange(1500))
    num = 50
    test = data.load(config.data, "test").gather(np.arange(num))
    x0 = test["image"] / 8.0 - 1
    stepper, times = samplers.ancestral(process, "learned"), samplers.spaced(process.schedule.times, 125)
    mask = np.ones((8, 8, 1), bool)
    mask[2:6, 2:6] = False
    given = conditioning.given(process, predict, conditioning.inpainting(x0, mask), "isotropic")

    def draw(predict, seed):
        return np.asarray(jax.jit(lambda key: samplers.sample(stepper, predict, key, times, x0.shape))(seed))

    filled, free = draw(given, jax.random.key(0)), draw(predict, jax.random.key(1))
    assert np.abs(filled - x0)[:, mask].max() < 0.1  # what is known stays
    hole = ~mask
    error, chance = (((x - x0)[:, hole] ** 2).mean() for x in (filled, free))
    print(f"mean square in the hole: inpainted {error:.3f}, other digits {chance:.3f}")
    assert error < 0.6 * chance
    neighbours = KNeighborsClassifier(3).fit(train["image"].reshape(-1, 64), train["label"])
    right = np.mean(neighbours.predict((filled.reshape(num, 64) + 1) * 8) == test["label"])
    print(f"{right:.2f} of the inpainted digits are read as what they were")
    assert right > 0.7

    noise = 0.5
    y = x0 + noise * np.random.default_rng(0).normal(size=x0.shape).astype(np.float32)
    start, later = conditioning.denoising_start(process, y, noise, times)
    clean = np.asarray(samplers.denoise(stepper, predict, jax.random.key(2), start, later))
    # A draw of p(x_0 | y) is off by twice the posterior's variance; y itself by noise².
    print(f"mean square error: noisy {((y - x0) ** 2).mean():.3f}, denoised {((clean - x0) ** 2).mean():.3f}")
    assert ((clean - x0) ** 2).mean() < 0.6 * noise**2

    # The run draws such pictures itself where it is asked to.
    for name in ("denoising", "inpainting"):
        assert np.asarray(Image.open(default / "samples" / f"{name}.png")).std() > 1


def test_the_flow_of_the_default_run_is_above_its_bound(default):
    the_flow_is_above_the_bound(json.loads((default / "eval.json").read_text()), 2.2)
