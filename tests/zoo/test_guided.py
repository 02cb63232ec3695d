"""Guidance by a classifier: exact for a mixture, and of a whole run as scikit-learn reads its samples."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import SVC

from configs import guided_digits, sde_digits
from diffjax import conditioning, data, predictions, processes, reference, schedules, zoo
from diffjax.errors import InputError
from diffjax.evaluation.table import Table
from diffjax.nets.classifier import Classifier
from diffjax.zoo.diffusion import guided


def small(base="ddpm"):
    config = guided_digits.get_config()
    if base == "score":
        guided, config = config, sde_digits.get_config()
        config.update(system="guided", base="score", classifier=guided.classifier, guidance=guided.guidance)
        config.sde.update(name="ve", sigma_min=1e-3, sigma_max=20.0)
        config.sampling.sampler = "ddim"
    else:
        config.diffusion.update(num_steps=20, betas=(0.01, 0.3), loss="simple", variance="forward", clip=False)
    config.net.update(channels=8, multipliers=(1,), num_blocks=1, attention=())
    config.classifier.update(channels=8, multipliers=(1,), dropout=0.0)
    config.sampling.update(steps=10)
    return config


@pytest.fixture(scope="module")
def batch():
    return data.load(guided_digits.get_config().data, "test").gather(np.arange(100))


@pytest.fixture(scope="module")
def params():
    """Zero networks, and a classifier that is not: it reads x and t, to no purpose."""
    zero = jax.jit(zoo.make(small()).init)(jax.random.key(0))
    leaves, tree = jax.tree.flatten(zero["classifier"])
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [x + 0.1 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    return zero, zero | {"classifier": tree.unflatten(noise)}


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [schedules.vp(), schedules.ve(0.01, 20.0)])
def test_the_exact_classifier_of_a_mixture_guides_to_its_component(schedule):
    """p(k | x_t) is Bayes' rule between noised components: at scale 1 the score is component k's, and linear in it."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        a = rng.normal(size=(3, 2, 2))
        weights, means, covs = jnp.array([0.2, 0.3, 0.5]), jnp.asarray(rng.normal(size=(3, 2))), 0.2 * np.eye(2)
        covs = jnp.asarray(covs + 0.3 * a @ np.swapaxes(a, 1, 2))
        mixture = reference.GaussianMixture(weights, means, covs)
        parts = [reference.GaussianMixture(jnp.ones(1), means[k, None], covs[k, None]) for k in range(3)]
        process, label = processes.gaussian(schedule), jnp.array([0, 1, 2, 2])
        xt, t = jnp.asarray(rng.normal(size=(4, 2))), jnp.array([0.05, 0.3, 0.6, 0.95])

        def log_p(x, t):
            def one(x, t):
                noised = [part.at(schedule.alpha(t), schedule.sigma(t)) for part in parts]
                return jax.nn.log_softmax(jnp.log(weights) + jnp.stack([part.log_prob(x) for part in noised]))

            return jax.vmap(one)(x, t)[jnp.arange(4), label]

        predict = mixture.predict(schedule)
        component = jnp.stack([parts[k].predict(schedule)(xt, t).value[i] for i, k in enumerate(label)])
        for scale in (1.0, 3.0):
            guided = conditioning.guided(process, predict, lambda x, t, scale=scale: scale * log_p(x, t))
            free = predict(xt, t).value
            want = free + scale * (component - free)
            np.testing.assert_allclose(jax.jit(guided)(xt, t).value, want, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(("base", "least"), [("ddpm", 1.0), ("score", 0.5)])  # of networks that say 0, per E eps² = 1
def test_the_loss_is_the_base_s_and_the_cross_entropy(base, least, params, batch):
    zero, random = params
    loss = jax.jit(zoo.make(small(base)).loss)
    losses = np.asarray(loss(zero, jax.random.key(2), batch))
    assert abs(losses.mean() - (least + np.log(10))) < 5 * least * np.sqrt(2 / losses.size / 64)

    # The same draws with other labels: the base's part is gone. So early x_t is x_0 nearly.
    early = batch | {"t": np.full(100, 1e-6, np.float32)}
    other = early | {"label": (batch["label"] + 3) % 10}
    difference = loss(random, jax.random.key(2), other) - loss(random, jax.random.key(2), early)
    net = Classifier(10, channels=8, multipliers=(1,))
    logits = jax.jit(net.apply)({"params": random["classifier"]}, batch["image"] / 8.0 - 1, jnp.full(100, 1e-3))
    rows = np.arange(100)
    want = np.asarray(logits)[rows, batch["label"]] - np.asarray(logits)[rows, other["label"]]
    assert want.std() > 0.1
    np.testing.assert_allclose(difference, want, atol=0.05 * want.std())

    # Of an example whose class is not known, the cross-entropy is left out.
    unknown = early | {"label": np.where(rows % 2, batch["label"], -1).astype(np.int32)}
    difference = loss(random, jax.random.key(2), early) - loss(random, jax.random.key(2), unknown)
    log_p = jax.nn.log_softmax(logits)[rows, batch["label"]]
    np.testing.assert_allclose(difference, np.where(rows % 2, 0.0, -log_p), atol=0.05 * want.std())


@pytest.mark.slow
def test_samples_are_drawn_towards_their_class(params):
    _, random = params
    config = small()
    config.guidance.scale = 5.0
    net = Classifier(10, channels=8, multipliers=(1,))
    read = jax.jit(lambda x: jax.nn.log_softmax(net.apply({"params": random["classifier"]}, x, jnp.full(50, 50.0))))

    def drawn(label):
        config.guidance.label = label
        return np.asarray(read(jax.jit(zoo.make(config).sample, static_argnums=2)(random, jax.random.key(3), 50)))

    in_turn, four = drawn(-1), drawn(4)  # from the same noise
    asked = np.arange(50) % 10
    gain = (in_turn - four)[np.arange(50), asked]
    assert (np.abs(gain[asked == 4]) < 1e-5).all()
    assert gain[asked != 4].mean() > 0.5
    assert (four - in_turn)[asked != 4, 4].mean() > 0.5


@pytest.mark.slow
def test_ancestral_draws_with_the_variance_that_the_base_has_learned(monkeypatch, params):
    """A base that knows N(0, v I) and the exact variance of its reverse kernels: the samples' variance is the chain's.

    Standard error of a variance V of n draws: V √(2/n).
    """
    v, betas = 0.5, np.linspace(0.1, 0.6, 4)
    config = small()
    config.diffusion.update(num_steps=4, betas=(0.1, 0.6), loss="hybrid", variance="learned")
    config.sampling.update(sampler="ancestral", steps=4)
    config.guidance.scale = 0.0
    bar = np.concatenate([[1.0], np.cumprod(1 - betas)])
    gain = np.sqrt(bar[1:]) * v / (bar[1:] * v + 1 - bar[1:])  # E[x_0 | x_t] = gain x_t
    # x_s given x_t is Gaussian: keep x_t + pull x_0 has the gain's slope, and adds to β̃ what x_0 is unknown by.
    keep = np.sqrt(1 - betas) * (1 - bar[:-1]) / (1 - bar[1:])
    pull = np.sqrt(bar[:-1]) * betas / (1 - bar[1:])
    small_variance = (1 - bar[:-1]) / (1 - bar[1:]) * betas
    exact = small_variance + pull**2 * (v - gain * np.sqrt(bar[1:]) * v)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (np.log(exact) - np.log(small_variance)) / (np.log(betas) - np.log(small_variance))
    share[0] = 0.5  # of the step to s = 0, which takes the mean

    def predict(xt, t):
        i = jnp.round(4 * t).astype(int) - 1
        mean, log_var = (jnp.asarray(a, xt.dtype)[i][:, None, None, None] for a in (gain, share))
        return predictions.Prediction(mean * xt, "x0", jnp.broadcast_to(log_var, xt.shape))

    process = processes.gaussian(schedules.from_betas(betas))
    known = zoo.make(config)._replace(kernels=lambda params: (process, predict))
    monkeypatch.setitem(guided.BASES, "ddpm", lambda config: known)
    samples = jax.jit(zoo.make(config).sample, static_argnums=2)({"model": None, **params[0]}, jax.random.key(0), 500)

    def last(added):
        variance = 1.0
        for slope, extra in zip((keep + pull * gain)[:0:-1], added[:0:-1], strict=True):
            variance = slope**2 * variance + extra
        return gain[0] ** 2 * variance

    want, wrong = last(exact), last(small_variance)
    error = want * np.sqrt(2 / samples.size)
    assert abs(np.float64(samples).var() - want) < 5 * error
    assert want - wrong > 15 * error


@pytest.mark.slow
def test_the_table_s_judge_is_the_nearest_neighbour(params, batch):
    table = zoo.make(small()).measure(Table).table(params[0], jax.random.key(4), batch)
    first = np.mean(batch["label"] == 0)  # all classes are equally likely, and the first is taken
    for t in (0.1, 0.9):
        row = table[f"classifier at t = {t}"]
        np.testing.assert_allclose([row["accuracy"], row["cross-entropy (nats)"]], [first, np.log(10)], rtol=1e-5)
    pixels = batch["image"].reshape(100, 64) / 8.0
    nearest = NearestNeighbors(n_neighbors=2).fit(pixels).kneighbors(pixels, return_distance=False)[:, 1]
    judge = table["held-out images, read by their neighbours"]["accuracy"]
    np.testing.assert_allclose(judge, np.mean(batch["label"][nearest] == batch["label"]), rtol=1e-6)
    assert judge > 0.7


def test_what_cannot_be_is_named(params, batch):
    for section, field, value, says in (
        ("net", "num_classes", 10, "net.num_classes=10 must be 0"),
        ("classifier", "num_classes", 1, "classifier.num_classes.*at least 2, not 1"),
        ("guidance", "scale", -1.0, "guidance.scale.*at least 0, not -1"),
        ("guidance", "scale", float("nan"), "guidance.scale"),
        ("guidance", "label", 10, "guidance.label.*num_classes=10.*not 10"),
        ("sampling", "sampler", "eule", "sampling.sampler must be one of ancestral, ddim, euler.*'eule'"),
    ):
        config = small()
        config[section][field] = value
        with pytest.raises(InputError, match=says):
            zoo.make(config)
    config = small()
    config.base = "hvi"
    with pytest.raises(InputError, match="base must be one of ddpm, score, not 'hvi'"):
        zoo.make(config)
    config = small()
    config.classifier.num_classes = 5
    model = zoo.make(config)
    with pytest.raises(InputError, match=r"label 9 is none of classifier.num_classes=5 classes"):
        model.loss(params[0], jax.random.key(0), batch)
    with pytest.raises(InputError, match="'image' and 'label'"):
        model.loss(params[0], jax.random.key(0), {"image": batch["image"]})


@pytest.mark.slow
@pytest.mark.trains
def test_a_trained_run_draws_the_classes_it_is_asked_for(tmp_path):
    """300 steps at half the width. The judge is a support vector machine of real digits.

    Of 300 guided samples nearly all are as asked. Of 200 samples without guidance a tenth is right by chance.
    """
    root, workdir = Path(__file__).parents[2], tmp_path / "guided"
    clean = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}

    def run(*arguments):
        command = [sys.executable, "-m", "experiments.main", f"--workdir={workdir}", *arguments]
        result = subprocess.run(command, cwd=root, env=clean, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr

    # Evaluation, which compiles and draws for longer than the training takes, is kept small.
    few = ["num_examples=10", "num_terms=1", "batch_size=50", "grid=10"]
    few = [f"--config.evaluation.{option}" for option in few]
    short = ["--config=configs/guided_digits.py", "--config.training.steps=300", "--config.training.eval_every=0"]
    short += ["--config.net.channels=16", "--config.classifier.channels=16"]
    run(*short, "--config.sampling.steps=8", *few)
    train, test = (data.load(guided_digits.get_config().data, split) for split in ("train", "test"))
    known, held_out = train.gather(np.arange(len(train))), test.gather(np.arange(len(test)))
    judge = SVC(gamma=0.001, C=10).fit(known["image"].reshape(-1, 64), known["label"])
    assert judge.score(held_out["image"].reshape(-1, 64), held_out["label"]) > 0.95

    run("--mode=sample", "--num=300", "--steps=50", "--config.evaluation.batch_size=300")
    (path,) = (workdir / "samples").glob("*.npz")
    samples = np.load(path)["images"].reshape(300, 64) / 255 * 16
    guided = np.mean(judge.predict(samples) == np.arange(300) % 10)
    # Those without guidance are in the run's own table.
    table = json.loads((workdir / "eval.json").read_text())["table"]
    free = table["samples at scale 0, read by held-out neighbours"]["as asked"]
    print(f"read as asked: {guided:.3f} guided, {free:.3f} not")
    assert free < 0.1 + 5 * (0.09 / 200) ** 0.5
    assert guided > 0.85
