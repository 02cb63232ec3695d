"""Opens a run: reads and checks its configuration once. The rest of `experiments` uses the typed `Run`."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from diffjax import data, zoo
from diffjax.data import labels
from diffjax.errors import InputError
from diffjax.evaluation import measure
from diffjax.evaluation.measure import Trained
from diffjax.mesh import DATA_PARALLEL, make_mesh
from diffjax.paths import local
from diffjax.training.averages import exponent
from diffjax.training.config import TrainingConfig, training_config
from diffjax.training.sharding import check_batch_size
from diffjax.training.state import check_parts
from experiments.workdir import plain, read_config

# For distillation: the fields that define what a network's output means. Teacher and student must agree on them.
MEANING = {
    "sde": ("name", "sigma_min", "sigma_max", "beta_min", "beta_max", "sigma_data"),
    "diffusion": ("schedule", "betas", "num_steps", "zero_terminal_snr", "prediction"),
    "matching": ("schedule", "source", "source_noise"),
}


class Run(NamedTuple):
    """The content of a configuration and a workdir, with types.

    system     the name of the model's system
    saved      the configuration as in config.json
    directory  the workdir
    settings   the section `training`, with mesh and parallel
    options    the section `evaluation`
    sampler    the name for files of samples: the sampler and its steps, the class and the guidance scale
    wandb      whether training is also logged at Weights & Biases
    init_from  the source of the initial parameters: a run's workdir, a file of weights, or the teacher; "" for none
    train_set  loads the training examples, once; `test_set` does the same for the test split
    """

    system: str
    saved: dict[str, Any]
    directory: Path
    settings: TrainingConfig
    options: Mapping[str, Any]
    sampler: str
    wandb: bool
    init_from: str
    mesh: Mesh
    model: zoo.Model
    train_set: Callable[[], data.Dataset]
    test_set: Callable[[], data.Dataset]

    @property
    def checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    @property
    def ema_width(self) -> float:
        """The width of the average used for evaluation and sampling; 0 for the one of `ema_decay`."""
        return self.options.get("ema_width", 0.0)

    @property
    def distils(self) -> bool:
        """Whether `init_from` is a teacher."""
        return _distils(self.model)

    @property
    def key(self) -> jax.Array:
        """The key for all randomness outside training."""
        return jax.random.key(self.settings.seed)

    def trained(self, params: Any, key: jax.Array, open_run: Callable[[str], Trained]) -> Trained:
        """The trained model to evaluate. `params` lie on the mesh; `open_run` opens another run."""
        return Trained(
            model=self.model,
            system=self.system,
            params=params,
            key=key,
            options=self.options,
            mesh=self.mesh,
            test_set=self.test_set(),
            train_set=self.train_set,
            seed=self.settings.seed,
            open_run=open_run,
        )


def open_run(config: ConfigDict, directory: str | Path) -> Run:
    """The run of a configuration in a directory. Nothing in the directory is read or written.

    Raises:
        InputError: if a value of the configuration cannot be used.
    """
    settings = settings_of(config)
    options = config.evaluation.to_dict()
    measure.check_numbers(options)
    if options.get("ema_width"):
        exponent(options["ema_width"], "evaluation.ema_width")
    model = zoo.make(config)
    return Run(
        system=config.system,
        saved=plain(config),
        directory=local(directory, "workdir"),
        settings=settings,
        options=options,
        sampler=_sampler(config),
        wandb=_wandb(config),
        init_from=(config.distillation.teacher or "") if _distils(model) else config.get("init_from", ""),
        mesh=make_mesh(settings.mesh),
        model=model,
        train_set=functools.cache(lambda: load(config, "train")),
        test_set=functools.cache(lambda: load(config, "test")),
    )


def ask(config: ConfigDict, sampler: str | None, steps: int | None, label: int | None, scale: float | None) -> None:
    """Sets the sampler, its steps, the class to draw and the guidance scale, each if it is not None.

    Raises `InputError` if a class or a scale is given but the system is not guided.
    """
    if sampler is not None:
        config.sampling.sampler = sampler
    if steps is not None:
        config.sampling.steps = steps
    for name, value in (("label", label), ("scale", scale)):
        if value is not None and "guidance" not in config:
            raise InputError(f"--{name} is of guided systems, as of configs/cfg_digits.py: this run knows no classes")
        if value is not None:
            config.guidance[name] = value


def _wandb(config: ConfigDict) -> bool:
    asked = config.get("logging", {}).get("wandb", False)  # old runs have no such section
    if not isinstance(asked, bool):
        raise InputError(f"logging.wandb = {asked!r} must be True or False")
    return asked


def _sampler(config: ConfigDict) -> str:
    name = f"{config.sampling.sampler}_{config.sampling.steps}"
    if "guidance" not in config:
        return name
    label, scale = config.guidance.label, config.guidance.scale
    return f"{name}_scale_{scale:g}" + (f"_label_{label}" if label >= 0 else "")


def open_to_train(config: ConfigDict, directory: str | Path) -> Run:
    """Like `open_run`, but also checks everything that would otherwise fail only at the end of a run.

    If data.mean and data.std are None, they are set to those of the training examples.

    Raises:
        InputError: also if data cannot be read or do not fit the system, or if a measure is not available.
    """
    settings = settings_of(config)
    check_batch_size(settings.batch_size, make_mesh(settings.mesh).size, settings.accumulate)
    train_set = load(config, "train")
    standardise(config, train_set)
    run = open_run(config, directory)._replace(train_set=lambda: train_set)
    check(run, train_set, run.test_set())
    if run.distils and config.get("init_from"):
        raise InputError(
            f"init_from={config.init_from!r}: a run of {run.system!r} begins with its teacher; name it by"
            " distillation.teacher, and leave init_from empty"
        )
    if run.distils and not run.init_from:
        raise InputError(
            "distillation.teacher names no run: set it to the workdir of the one to distil, as"
            " --config.distillation.teacher=runs/edm"
        )
    if run.ema_width and run.ema_width not in run.settings.ema_widths:
        raise InputError(
            f"evaluation.ema_width = {run.ema_width} is none of training.ema_widths = {run.settings.ema_widths}, which"
            " training keeps; take one of these, or leave it 0 until --mode=eval or --mode=sample"
        )
    shapes = jax.eval_shape(run.model.init, jax.random.key(0))  # raises an error if the network does not fit the data
    check_parts(run.settings, shapes)
    return run


def check(run: Run, train_set: data.Dataset, test_set: data.Dataset) -> None:
    """Raises `InputError` if the labels do not fit the system, or if a requested measure is not available."""
    if classes := run.model.examples.classes:
        labels.check_labelled(train_set, *classes)
        for dataset in (train_set, test_set):
            labels.check_classes(dataset, *classes)
    measure.check(run.model, run.system, run.options, train_set, test_set)


def notes(run: Run) -> list[str]:
    """What the user should know about the data before training, in lines."""
    said = [part().note for part in (run.train_set, run.test_set)]
    if classes := run.model.examples.classes:
        said.append(labels.surplus(run.train_set(), *classes))
    return [note for note in dict.fromkeys(said) if note]


def check_teacher(run: Run, teacher: Run) -> None:
    """Raises `InputError` unless the teacher's network output means the same in the student's run, see `MEANING`."""
    for section, fields in MEANING.items():
        ours, theirs = run.saved.get(section), teacher.saved.get(section)
        if ours is None:
            continue
        if theirs is None:
            raise InputError(
                f"distillation.teacher={str(teacher.directory)!r} is a run of {teacher.system!r} without a section"
                f" {section}, which says what its network means: name a run with one"
            )
        for field in fields:
            if ours.get(field) != theirs.get(field):
                raise InputError(
                    f"{section}.{field}={ours.get(field)!r}, but the teacher's is {theirs.get(field)!r}: set"
                    f" {section}.{field}={theirs.get(field)!r}"
                )


def _distils(model: zoo.Model) -> bool:
    return model.memory is not None and model.memory.of_teacher


def open_saved(directory: str | Path, field: str = "workdir") -> Run:
    """The run in a directory. `field` is the directory's name in error messages."""
    directory = local(directory, field)
    return open_run(read_config(directory, field), directory)


def settings_of(config: ConfigDict) -> TrainingConfig:
    """The checked section `training`, with the fields parallel and mesh. Old runs have no mesh."""
    return training_config({**config.training, "parallel": config.parallel, "mesh": config.get("mesh", DATA_PARALLEL)})


def load(config: ConfigDict, split: str) -> data.Dataset:
    """The examples of a split. Raises `InputError` if they have other levels than the configuration says."""
    dataset = data.load(config.data, split)
    if dataset.levels != config.data.levels:
        raise InputError(
            f"data.levels={config.data.levels}, but {config.data.name!r} has {dataset.levels} levels: "
            f"set data.levels={dataset.levels}"
        )
    return dataset


def standardise(config: ConfigDict, train_set: data.Dataset) -> bool:
    """Sets data.mean and data.std to those of the training examples if they are None. Returns whether it did.

    Raises `InputError` if they are numbers that do not fit the training examples.
    """
    if not train_set.levels or "mean" not in config.data or "std" not in config.data:
        return False
    mean, std = data.mean_and_std(train_set)
    if config.data.mean is None:
        config.data.update(mean=mean, std=std)
        return True
    if abs(config.data.mean - mean) > 0.1 * std or abs(config.data.std - std) > 0.1 * std:
        raise InputError(
            f"data.mean={config.data.mean} and data.std={config.data.std}, but the training examples of"
            f" {train_set.name!r} have {mean:.2f} and {std:.2f}: set these"
        )
    return False
