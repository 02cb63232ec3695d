"""Tables that compare many ways to sample from one trained network. A classifier that has seen no sample judges them.

    python -m experiments.results.sampling solvers RUN CLASSIFIER
    python -m experiments.results.sampling guidance RUN CLASSIFIER [WORSE]
    python -m experiments.results.sampling few RUN CLASSIFIER
    python -m experiments.results.sampling configured RUN CLASSIFIER

RUN is the workdir of a diffusion of images; for `guidance`, a run of configs/cfg_digits.py or a similar one. CLASSIFIER
is the workdir of a run of configs/classifier_digits.py on the same data. WORSE is the workdir of a shorter training of
RUN, for autoguidance (Karras et al. 2024b). `few` works for any system that samples in steps: it takes 1, 2, 4 and 8
evaluations, and the number in the run's configuration. `configured` is that last row alone.

Columns: the Frechet distance between the classifier's features of samples and of training images, precision and recall
by these features (recall is diversity), for guidance how many samples are classified as the class asked for, and
seconds.
"""

import functools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffjax import conditioning, distances, predictions, samplers, zoo
from diffjax.errors import InputError
from diffjax.evaluation.features import of_run
from diffjax.evaluation.sides import Side, gathered, of_arrays, of_dataset
from diffjax.mesh import here
from experiments.opened import open_saved
from experiments.parameters import restore_ema
from experiments.run import trained_of
from experiments.workdir import read_config

NUM, SEED = 1000, 0
EVALUATIONS = (5, 10, 20, 50)
SCALES = (0.0, 1.0, 1.5, 2.0, 3.0, 5.0)
FEW = (1, 2, 4, 8)
TWICE = ("heun", "dpmpp_2s")  # two evaluations in each step except the last
SOLVERS = (
    "ancestral",
    "euler_maruyama",
    "dpmpp_2m_sde",
    "euler",
    "heun",
    "dpmpp_2s",
    "dpmpp_2m",
    "dpmpp_3m",
    "unipc",
    "unipc of order 3",
)


# By system: solvers of one evaluation a step. A flow from coupled noise has no score. Others have their own samplers.
FEW_BY = dict.fromkeys(("ddpm", "score", "vdm"), ("ddim", "unipc"))
FEW_BY |= dict.fromkeys(("flow_matching", "reflow"), ("euler",))


class Judge:
    """Judges samples by a classifier's features of the training images."""

    def __init__(self, run: Any, params: Any, classifier: str):
        trained = trained_of(run, params)
        self.trained, self.levels = trained, trained.test_set.levels
        self.features = [of_run(classifier, trained)]
        self.data = self._seen(of_dataset(trained.train_set(), "train"))

    def _seen(self, source: Any) -> Side:
        return gathered(self.trained, self.features, source, source.num)[0]

    def row(self, samples: Any, asked: np.ndarray | None = None) -> list[str]:
        """Frechet distance, precision, recall, and the share of samples read as `asked`."""
        images = np.clip(np.asarray(samples), -1, 1)
        if not np.isfinite(images).all():
            return ["not finite", "", "", ""]
        side = self._seen(of_arrays(images, self.levels))
        near = distances.precision_recall(side.kept, self.data.kept)
        cells = [f"{distances.frechet_distance(side.kept, self.data.kept):.2f}"]
        cells += [f"{near.precision:.3f}", f"{near.recall:.3f}"]
        return cells + ([f"{(side.kept_class == asked).mean():.3f}"] if asked is not None else [])


def drawn(config: ConfigDict, params: Any) -> tuple[Any, float]:
    """NUM samples of the configuration's model, and the seconds they took, without compilation."""
    key = jax.random.key(SEED)
    sample = jax.jit(zoo.make(config).sample, static_argnums=2).lower(params, key, NUM).compile()  # type: ignore[arg-type]
    began = time.perf_counter()
    samples = jax.block_until_ready(sample(params, key))
    return samples, time.perf_counter() - began


def solvers(config: ConfigDict, params: Any, judge: Judge) -> Iterator[list[str]]:
    """A row for each solver and number of evaluations of the network."""
    yield ["solver", "evaluations", "Frechet distance", "precision", "recall", "seconds"]
    for name in SOLVERS:
        config.sampling.update(order=3 if name.endswith("3") else 2, spacing=config.sampling.spacing or "karras")
        for most in EVALUATIONS:
            steps = (most + 1) // 2 if name in TWICE else most
            config.sampling.update(sampler=name.split()[0], steps=steps)
            samples, seconds = drawn(config, params)
            yield [name, str(2 * steps - 1 if name in TWICE else steps), *judge.row(samples), f"{seconds:.2f}"]


def few(config: ConfigDict, params: Any, judge: Judge) -> Iterator[list[str]]:
    """A row for each number of evaluations, by `FEW_BY` or the system's own sampler; then as configured."""
    head, own = configured(config, params, judge)
    yield head
    for name in FEW_BY.get(config.system, (config.sampling.sampler,)):
        for steps in FEW:
            settings = {"sampler": name, "steps": steps}
            if config.system == "score":
                settings["spacing"] = config.sampling.spacing or "karras"
            changed = config.copy_and_resolve_references()
            changed.sampling.update(settings)
            samples, seconds = drawn(changed, params)
            yield [config.system, name, str(steps), *judge.row(samples), f"{seconds:.2f}"]
    yield own


def configured(config: ConfigDict, params: Any, judge: Judge) -> Iterator[list[str]]:
    """One row, of the run's own configuration."""
    yield ["system", "sampler", "evaluations", "Frechet distance", "precision", "recall", "seconds"]
    name, steps = config.sampling.sampler, config.sampling.steps
    samples, seconds = drawn(config, params)
    evaluations = 2 * steps - 1 if name in TWICE else steps
    if "guidance" in config and config.guidance.scale not in (0, 1):
        evaluations *= 2  # one with and one without the class
    yield [config.system, name, str(evaluations), *judge.row(samples), f"{seconds:.2f}"]


def guidance(config: ConfigDict, params: Any, judge: Judge, worse: Any = None) -> Iterator[list[str]]:
    """A row for each scale; with an interval, rescaled, projected, thresholded; and guided by a worse model."""
    yield ["guidance", "scale", "Frechet distance", "precision", "recall", "read as asked"]
    num_classes = config.net.num_classes
    asked = np.arange(NUM) % num_classes
    config.guidance.label = -1
    plain = config.guidance.copy_and_resolve_references()
    ways: dict[str, dict[str, Any]] = {
        "classifier-free": {},
        "on [0.2, 0.7] alone": {"interval": (0.2, 0.7)},
        "rescaled by 0.7": {"rescale": 0.7},
        "projected": {"parallel": 0.0},
        "thresholded at 0.995": {"threshold": 0.995},
    }
    for way, settings in ways.items():
        for scale in SCALES if not settings else (s for s in SCALES if s > 1.5):
            config.guidance = ConfigDict({**plain, **settings, "scale": scale})
            yield [way, f"{scale:g}", *judge.row(drawn(config, params)[0], asked)]
    if worse is None:
        return
    config.guidance = ConfigDict({**plain, "scale": 1.0})
    draw = autoguided(config, params, worse)
    for scale in (s for s in SCALES if s >= 1.5):
        yield ["autoguidance", f"{scale:g}", *judge.row(draw(scale), asked)]


def autoguided(config: ConfigDict, params: Any, worse: Any) -> Callable[[float], np.ndarray]:
    """scale -> NUM samples of all classes in turn, guided by the model with worse parameters."""
    num_classes = config.net.num_classes

    @functools.partial(jax.jit, static_argnums=0)
    def of_class(label: int, key: jax.Array, scale: jax.Array, params: Any, worse: Any) -> jax.Array:
        config.guidance.label = label
        model = zoo.make(config)
        assert model.kernels is not None
        process, good = model.kernels(params)
        guided = conditioning.classifier_free(good, model.kernels(worse)[1], process, scale)
        stepper = samplers.make(config.sampling.sampler, process, config.sampling)
        times = samplers.grid(process.schedule, config.sampling)
        shape = (NUM // num_classes, *config.data.shape)
        return samplers.sample(stepper, predictions.clip(guided, process), key, times, shape)

    def draw(scale: float) -> np.ndarray:
        keys = jax.random.split(jax.random.key(SEED), num_classes)
        classes = [of_class(i, key, jnp.asarray(scale), params, worse) for i, key in enumerate(keys)]
        return np.stack(classes, 1).reshape(-1, *config.data.shape)

    return draw


TABLES: dict[str, Callable[..., Iterator[list[str]]]] = {"solvers": solvers, "few": few, "configured": configured}


def main(arguments: list[str]) -> None:
    if len(arguments) < 3 or arguments[0] not in (*TABLES, "guidance"):
        sys.exit(__doc__)
    kind, directory, classifier, *rest = arguments
    try:
        run = open_saved(directory, "RUN")
        config = read_config(run.directory, "RUN")
        if kind == "guidance" and "guidance" not in config:
            raise InputError(f"{directory} is no run of a class-conditional model, as of configs/cfg_digits.py")
        whole = functools.partial(here, run.mesh)
        params = restore_ema(run, None)[1]
        judge = Judge(run, params, classifier)
        worse = whole(restore_ema(open_saved(rest[0], "WORSE"), None)[1]) if rest else None
    except InputError as error:
        sys.exit(f"error: {error}")
    table = TABLES.get(kind, functools.partial(guidance, worse=worse))
    rows = table(config, whole(params), judge)
    for i, cells in enumerate(rows):
        print(f"| {' | '.join(cells)} |" + ("\n|" + " --- |" * len(cells) if i == 0 else ""), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
