"""Test error against the number of labels: the models of Kingma et al. 2014, and baselines without a generative model.

    python -m experiments.benchmarks.semi_supervised --out=DIR [--labels=100,600 --seeds=5 --models=m1m2,m2]
        [--config=configs/ssl_digits.py] [--config.training.steps=3000]

Each run is one of `experiments.main`, in its own directory below --out, with the seed as data.label_seed and
training.seed. A run that has an eval.json is not repeated. So you can stop, resume and extend a table, or make it with
several calls, each with other fields of --config for one model. M1 does not use labels: it is trained once for each
seed, and M2 on its codes starts from it for any number of labels. The minutes of models on M1 do not include M1's.

The baselines are support vector machines of scikit-learn. They see the same labelled images, as pixels or as M1's
codes. There are linear machines, machines with Gaussian kernels, and the latter with self-training, in place of the
paper's transductive machines. In self-training, --unlabelled images get the machine's own labels in ten rounds, equally
many in each class, the most certain first.

Printed: error on the whole test set in %, mean ± standard error over seeds, minutes a run, and the paper's error.
Written to --out: errors.csv, a line for each seed, and errors.png.
"""

import csv
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from experiments.platform import set_cpu_flags

PAPER = {  # table 1: MNIST; M1 with a transductive support vector machine
    "M1 + M2": {100: 3.33, 600: 2.59, 1000: 2.40, 3000: 2.18},
    "M2": {100: 11.97, 600: 4.94, 1000: 3.60, 3000: 3.92},
    "M1 + self-training SVM": {100: 11.82, 600: 5.72, 1000: 4.24, 3000: 3.49},
}
ROUNDS = 10  # of self-training
MODELS = {"m1m2": "M1 + M2", "m2": "M2", "supervised": "supervised only", "m1": "M1"}

_CONFIG = config_flags.DEFINE_config_file("config", "configs/ssl_mnist.py", "what every run begins with")
_OUT = flags.DEFINE_string("out", None, "where the runs and their results are", required=True)
_LABELS = flags.DEFINE_list("labels", ["100"], "how many, e.g. 100,600,1000,3000")
_SEEDS = flags.DEFINE_integer("seeds", 5, "runs of each kind", lower_bound=1)
_MODELS = flags.DEFINE_list("models", list(MODELS), "which, of " + ", ".join(MODELS))
_PIXELS = flags.DEFINE_boolean("pixels", True, "the baselines of pixels, too")
_UNLABELLED = flags.DEFINE_integer("unlabelled", 5000, "images for self-training", lower_bound=1)


class Result(NamedTuple):
    """error: of the test set, in %; minutes: of training and evaluation."""

    name: str
    labels: int
    seed: int
    error: float
    minutes: float


def results() -> Iterator[Result]:
    for labels in map(int, _LABELS.value):
        for seed in range(_SEEDS.value):
            for model in _MODELS.value:
                config = configured(model, labels, seed)
                if model in ("m1", "m1m2"):
                    first = Path(_OUT.value) / f"m1_seed_{seed}"
                    train(configured("m1", 0, seed), first)
                if model == "m1":
                    yield from machines("M1", codes(config, first), labels, seed)
                    continue
                if model == "m1m2":
                    config.init_from, config.ssl.freeze_m1 = str(first), True
                report = train(config, Path(_OUT.value) / f"{model}_{labels}_labels_seed_{seed}")
                error = report["classification"]["error_rate_percent"]
                yield Result(MODELS[model], labels, seed, error, report["wall_seconds"] / 60)
            if _PIXELS.value:
                yield from machines("pixels", pixels(configured("supervised", labels, seed)), labels, seed)


def configured(model: str, labels: int, seed: int) -> ConfigDict:
    config = _CONFIG.value.copy_and_resolve_references()
    config.ssl.model = model
    config.data.update(labelled=labels, label_seed=seed)
    config.training.seed = seed
    return config


def train(config: ConfigDict, workdir: Path) -> dict:
    """The report of a run. Trains the run unless the report exists."""
    from experiments import run

    if not (workdir / "eval.json").exists():
        run.train(config, workdir)
    return json.loads((workdir / "eval.json").read_text())


class Split(NamedTuple):
    """Vectors and labels, -1 where hidden, for training and test."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def pixels(config: ConfigDict) -> Split:
    from diffjax import data

    parts = []
    for split in ("train", "test"):
        dataset = data.load(config.data, split)
        examples = dataset.gather(np.arange(len(dataset)))
        parts += [examples["image"].reshape(len(dataset), -1) / (dataset.levels - 1), examples["label"]]
    return Split(*parts)


def codes(config: ConfigDict, workdir: Path) -> Split:
    """The means of q(z | x) of the M1 in workdir."""
    import jax

    from diffjax import data
    from diffjax.evaluation.probe import Probe
    from experiments import parameters
    from experiments.opened import open_run

    opened = open_run(config, workdir)
    _, params = parameters.restore_ema(opened, None)
    encode = jax.jit(opened.model.measure(Probe).features)
    parts = []
    for split in ("train", "test"):
        dataset = data.load(config.data, split)
        batches = list(data.epoch(dataset, min(config.evaluation.batch_size, len(dataset))))
        for values in ([np.asarray(encode(params, b)) for b in batches], [b["label"] for b in batches]):
            parts.append(np.concatenate(values)[: len(dataset)])
    return Split(*parts)


def machines(name: str, split: Split, labels: int, seed: int) -> Iterator[Result]:
    """The support vector machines trained on the labelled examples, and the one with self-training."""
    from sklearn.svm import SVC, LinearSVC

    known, hidden = np.flatnonzero(split.train_labels >= 0), np.flatnonzero(split.train_labels < 0)
    x, y = split.train[known], split.train_labels[known]
    unlabelled = split.train[np.random.default_rng(seed).permutation(hidden)[: _UNLABELLED.value]]

    machine = SVC(C=10.0).fit(x, y)
    began = time.perf_counter()
    fits = {"linear SVM": LinearSVC(random_state=seed).fit(x, y), "SVM": machine}
    for i in range(ROUNDS):
        margins = machine.decision_function(unlabelled)
        given, quota = margins.argmax(1), len(unlabelled) * (i + 1) // (ROUNDS * margins.shape[1])
        members = [np.flatnonzero(given == c) for c in range(margins.shape[1])]
        surest = np.concatenate([m[np.argsort(-margins[m, c])[:quota]] for c, m in enumerate(members)])
        both = np.concatenate([x, unlabelled[surest]]), np.concatenate([y, machine.classes_[given[surest]]])
        machine = SVC(C=10.0).fit(*both)
    minutes = (time.perf_counter() - began) / 60
    for kind, fit in (fits | {"self-training SVM": machine}).items():
        error = 100 * float((fit.predict(split.test) != split.test_labels).mean())
        yield Result(f"{name} + {kind}", labels, seed, error, minutes)  # of all three


def show(found: list[Result]) -> None:
    names, counts = dict.fromkeys(r.name for r in found), sorted({r.labels for r in found})
    print(f"\n{'labels':28s}" + "".join(f"{n:>22d}" for n in counts))
    for name in names:
        cells = []
        for n in counts:
            mean, error, minutes = summary([r for r in found if (r.name, r.labels) == (name, n)])
            theirs = paper().get(name, {}).get(n)
            cells.append(f"{mean:.2f} ± {error:.2f}, {minutes:.1f} min" + (f" (paper {theirs})" if theirs else ""))
        print(f"{name:28s}" + "  ".join(cells))


def paper() -> dict[str, dict[int, float]]:
    return PAPER if _CONFIG.value.data.name == "mnist" else {}


def summary(runs: list[Result]) -> tuple[float, float, float]:
    """Mean error, its standard error, mean minutes."""
    errors = [r.error for r in runs]
    spread = statistics.stdev(errors) / len(errors) ** 0.5 if len(errors) > 1 else float("nan")
    return statistics.mean(errors), spread, statistics.mean(r.minutes for r in runs)


def draw(found: list[Result], path: Path) -> None:
    """Error against labels, with standard errors; the paper's numbers as crosses."""
    from matplotlib.figure import Figure

    plot = Figure(figsize=(6, 4), layout="constrained")
    axes = plot.subplots()
    for i, name in enumerate(dict.fromkeys(r.name for r in found)):
        counts = sorted({r.labels for r in found if r.name == name})
        points = [summary([r for r in found if (r.name, r.labels) == (name, n)]) for n in counts]
        axes.errorbar(counts, [p[0] for p in points], [p[1] for p in points], capsize=3, label=name, color=f"C{i}")
        theirs = {n: error for n, error in paper().get(name, {}).items() if n in counts}
        axes.plot(list(theirs), list(theirs.values()), "x", color=f"C{i}")
    axes.set(
        xscale="log", xlabel="labels", ylabel="test error, %" + " (crosses: the paper)" * bool(paper()), ylim=(0, None)
    )
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    plot.savefig(path, dpi=120)


def main(_: list[str]) -> None:
    set_cpu_flags()
    logging.set_verbosity(logging.WARNING)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path("~/.cache/diffjax/compiled").expanduser()))
    from diffjax.errors import InputError

    out = Path(_OUT.value)
    found: list[Result] = []
    try:
        if unknown := [name for name in _MODELS.value if name not in MODELS]:
            raise InputError(f"--models: {unknown[0]!r} is none of {', '.join(MODELS)}")
        for result in results():
            found.append(result)
            print(f"{result.name}, {result.labels} labels, seed {result.seed}: {result.error:.2f}%", flush=True)
    except InputError as error:
        sys.exit(f"error: {error}")
    with (out / "errors.csv").open("w", newline="") as file:
        csv.writer(file).writerows([Result._fields, *found])
    show(found)
    draw(found, out / "errors.png")


if __name__ == "__main__":
    app.run(main)
