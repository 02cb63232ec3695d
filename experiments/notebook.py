"""Training, evaluation and sampling as functions, for notebooks and programs: `experiments.run` without a command line.

    import experiments
    from configs import digits

    result = experiments.train(digits.get_config(), "runs/digits")      # interrupt it, and call it again to go on
    experiments.show(result)                                            # the run's pictures
    images = experiments.sample("runs/digits", 16, sampler="ddim", steps=20)
    report = experiments.evaluate("runs/digits", overrides={"evaluation.num_examples": 100})
    model, params, step = experiments.restore("runs/digits")

They write the same files as the command line, to the same workdir. Each can continue a run of the other.
"""

import dataclasses
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from diffjax import zoo
from diffjax.errors import InputError
from diffjax.paths import local
from diffjax.training.loop import TrainingStopped
from experiments import opened, parameters, pictures, platform, run
from experiments import workdir as workdirs
from experiments.suggestions import absent_field


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a training.

    workdir  its directory
    step     of the newest checkpoint; 0 if there is none
    report   the content of eval.json; empty if training was interrupted
    """

    workdir: Path
    step: int
    report: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def finished(self) -> bool:
        return bool(self.report)


class Restored(NamedTuple):
    """A trained model: its functions, the mean of its parameters, and the step of their checkpoint."""

    model: zoo.Model
    params: Any
    step: int


Run = str | Path | Result  # a workdir, or what training returned


def train(config: ConfigDict | None = None, workdir: str | Path | None = None) -> Result:
    """Trains a configuration to `training.steps`, from the workdir's newest checkpoint; then evaluates and draws.

    If you interrupt it (stop button of a notebook, or Ctrl-C), it finishes the step, saves, says so and returns.

    config   it is not changed; None: the configuration of the run in the workdir
    workdir  None: a new directory, runs/<system>-<date>

    Raises:
        InputError: if the configuration or the workdir is wrong, or if training diverges.
    """
    _prepare()
    if config is None and workdir is None:
        raise InputError("train() needs a configuration, such as digits.get_config() of configs, or a run's workdir")
    if config is None:
        config = workdirs.read_config(local(workdir, "workdir"))
    place = local(workdir or workdirs.default(config.system), "workdir")
    try:
        report = run.train(config.copy_and_resolve_references(), place)
    except (TrainingStopped, KeyboardInterrupt):  # KeyboardInterrupt: before the first step, or during evaluation
        step = max((int(path.name) for path in (place / "checkpoints").glob("[0-9]*")), default=0)
        saved = f"step {step} is saved" if step else "no step was saved yet"
        print(f"interrupted; {saved}; the same call with workdir={str(place)!r} goes on from there")
        return Result(place, step)
    return Result(place, report["step"], report)


def evaluate(workdir: Run, step: int | None = None, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Evaluates a run on the test split, and returns the content of eval.json.

    step       of the checkpoint; None: the newest
    overrides  fields of the configuration to change for this call: {"evaluation.quality": "pixels"}
    """
    _prepare()
    place, config = _opened(workdir, overrides)
    return run.evaluate(config, place, step)


def sample(
    workdir: Run,
    num: int = 64,
    *,
    step: int | None = None,
    seed: int = 0,
    sampler: str | None = None,
    steps: int | None = None,
    label: int | None = None,
    scale: float | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """Samples (num, *event) from a run's mean parameters; images in [-1, 1]. They are also written to samples/.

    step            of the checkpoint; None: the newest
    seed            another seed gives other samples
    sampler, steps  the sampler and its number of steps; None: the configuration's
    label, scale    for guided systems: the class to draw and the guidance scale; None: the configuration's
    overrides       as in `evaluate`
    """
    _prepare()
    place, config = _opened(workdir, overrides)
    opened.ask(config, sampler, steps, label, scale)
    return run.sample(config, place, step, num, seed)


def restore(workdir: Run, step: int | None = None) -> Restored:
    """The model of a run and the mean of its parameters, for use with the library.

    For a diffusion model, `model.kernels(params)` gives its process and its network as a Predict.
    """
    _prepare()
    place, config = _opened(workdir, None)
    opens = opened.open_run(config, place)
    step, params = parameters.restore_ema(opens, step)
    return Restored(opens.model, params, step)


def show(workdir: Run, *patterns: str) -> list[Path]:
    """Shows a run's pictures in a notebook, and returns their paths.

    patterns: which files of samples/, such as "*.gif" or "step_*". Without patterns: all, but of the samples drawn
        during training only the last.
    """
    place = _place(workdir)
    everything = sorted(p for p in (place / "samples").glob("*") if p.suffix in (".png", ".gif"))
    found = [p for p in everything if any(p.match(pattern) for pattern in patterns)]
    if not patterns:
        on_the_way = [p for p in everything if p.match("step_*.png")][:-1]
        found = [p for p in everything if p not in on_the_way]
    for path in found:
        _display(path.read_bytes(), path.name)
    return found


def metrics(workdir: Run) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What training logged: name -> (steps, values), both (num,); nan for a value that was not finite."""
    return workdirs.read_metrics(_place(workdir))


def curves(workdir: Run, *names: str) -> Any:
    """A matplotlib figure of these metrics, or of all that change if no names are given. A notebook shows it."""
    there = metrics(workdir)
    if missing := [name for name in names if name not in there]:
        raise InputError(f"{', '.join(missing)} is no metric of this run; it has {', '.join(there)}")
    drawn = {name: there[name] for name in names} if names else workdirs.worth_a_curve(there)
    plot = pictures.of_metrics(drawn)
    held = io.BytesIO()
    plot.savefig(held, format="png", dpi=100)
    _display(held.getvalue())
    return plot


def _prepare() -> None:
    """Makes the settings of the command line. XLA flags take effect only if jax has not been used yet."""
    platform.keep_one_arena()
    platform.set_cpu_flags()
    platform.keep_quiet()
    platform.keep_compiled()


def _place(workdir: Run) -> Path:
    return workdir.workdir if isinstance(workdir, Result) else local(workdir, "workdir")


def _opened(workdir: Run, overrides: Mapping[str, Any] | None) -> tuple[Path, ConfigDict]:
    place = _place(workdir)
    config = workdirs.read_config(place)
    for name, value in (overrides or {}).items():
        if absent := absent_field(config, name):
            raise InputError(f"overrides names {absent[0]}, which is not a field of {place}/config.json; {absent[1]}")
        try:
            config.update_from_flattened_dict({name: value})
        except (TypeError, ValueError) as error:
            raise InputError(f"overrides[{name!r}] = {value!r} does not fit config.json: {error}") from None
    return place, config


def _display(picture: bytes, name: str = "") -> None:
    """Shows a PNG or GIF in a notebook; elsewhere does nothing."""
    shell = sys.modules.get("IPython")  # in a notebook it is already imported
    if shell is None or shell.get_ipython() is None:
        return
    from IPython.display import Image, display

    if name:
        print(name)
    display(Image(data=picture))
