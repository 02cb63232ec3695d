"""Defines what a measure is, and computes all measures that a system has and the options ask for.

A measure is a frozen dataclass in its own file of this package. Its fields are the functions that it needs from a
system. Its methods check it, compute it and show it:

    @dataclass(frozen=True)
    class Sharpness(Measure):
        score: Callable[[Any, Array], Array]         # what it needs from a system
        name = "sharpness"                           # its key in the report
        switch = "sharpness_examples"                # the field of `evaluation` that asks for it
        needs = "score"                              # what a system without it lacks
        least = {"sharpness_examples": 0}            # the fields of `evaluation` that are its own
        def measure(self, trained): ...              # -> what it adds to the report
        def lines(self, report): ...                 # -> what the screen shows of it

A system declares its measures in `Model.measures`, in the order in which they are computed. A measure that reads the
report of another comes after it. The first is the headline. A measure with `of_samples` needs only `Model.sample`, so
every system with samples has it without declaring it.
"""

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import numpy as np
from jax.sharding import Mesh

from diffjax.errors import InputError
from diffjax.evaluation.drawing import Sampler
from diffjax.mesh import here, share, spread

if TYPE_CHECKING:
    from diffjax.data import Dataset

Report = dict[str, Any]
MEASURES: list[type["Measure"]] = []  # all measures, in order of import


def _no_run(directory: str) -> "Trained":
    raise InputError(f"{directory!r}: other runs are opened by the command line alone; in Python, set Trained.open_run")


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained system and the data that it is measured on. A measure uses nothing else.

    model       a `zoo.Model`
    system      its name in the configuration
    params      its parameters, on the mesh
    key         for the randomness of the measures
    options     the section `evaluation` of the configuration
    mesh        the devices
    test_set    the examples to measure on
    train_set   a function that loads the training examples
    seed        for what a measure itself trains
    open_run    directory -> the trained system of another run
    show        (name, images (n, H, W, C) in [-1, 1], columns) -> None: receives the pictures of a measure
    made        compiled or loaded objects; a `dataclasses.replace` with other parameters keeps them
    """

    model: Any
    system: str
    params: Any
    key: jax.Array
    options: Mapping[str, Any]
    mesh: Mesh
    test_set: "Dataset"
    train_set: Callable[[], "Dataset"]
    seed: int = 0
    open_run: Callable[[str], "Trained"] = _no_run
    show: Callable[[str, np.ndarray, int], None] = lambda name, images, columns: None
    made: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def batches(self, num: int) -> Iterator[dict[str, np.ndarray]]:
        """The first `num` test examples (all if 0) in batches. `mask` is 0 for examples that only fill up a batch."""
        from diffjax.data import epoch

        num = min(num or len(self.test_set), len(self.test_set))
        return epoch(dataclasses.replace(self.test_set, size=num), self.batch_size(num))

    def batch_size(self, num: int) -> int:
        """The smaller of the option `batch_size` and `num`, rounded up so that the devices can share a batch."""
        return share(self.mesh, min(self.options["batch_size"], num))

    def spread(self, fn: Callable[..., Any], batch_at: int = 2) -> Callable[..., Any]:
        """`fn`, compiled over the mesh; see `diffjax.mesh.spread`."""
        return self.once(("spread", fn, batch_at), lambda: spread(fn, self.mesh, batch_at))

    def once(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """make() at the first call with this name, and the same result at later calls."""
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    def whole_params(self) -> Any:
        """The parameters on one device of this process."""
        return here(self.mesh, self.params)

    def samples(self, num: int) -> np.ndarray:
        """(num, *event), drawn in batches."""
        return np.concatenate(list(self.sample_batches(num)))

    def sample_batches(self, num: int) -> Iterator[np.ndarray]:
        """`num` samples, in batches (batch, *event)."""
        size = min(num, self.options["batch_size"])
        sampler = self.once(("sampler", self.model.sample, size), lambda: Sampler(self.model, size, self.mesh))
        for i, first in enumerate(range(0, num, sampler.num)):
            yield sampler(self.params, jax.random.fold_in(self.key, i))[: num - first]


class Measure:
    """One measure of a system. The module's docstring has an example."""

    name: ClassVar[str]
    needs: ClassVar[str]
    switch: ClassVar[str] = ""  # "": it is always measured
    least: ClassVar[dict[str, int]] = {}
    of_samples: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        MEASURES.append(cls)

    def check(self, system: str, options: Mapping[str, Any], train_set: "Dataset", test_set: "Dataset") -> None:
        """Runs before training. Raises `InputError` for what would otherwise fail only at the end of the run."""

    def measure(self, trained: Trained, report: Report) -> Report:
        """The entries that this measure adds to the `report` of the measures before it."""
        raise NotImplementedError

    def headline(self, report: Report) -> str:
        """Its main number, with error and unit. It is shown if this is the first measure of a system."""
        raise NotImplementedError

    def lines(self, report: Report) -> Iterator[str]:
        """Lines for the screen."""
        yield from ()

    def curves(self, report: Report) -> dict[str, float]:
        """Numbers that are logged together with the losses."""
        return {}


def measures_of(model: Any, options: Mapping[str, Any]) -> list[Measure]:
    """The measures that the model has and the options ask for."""
    common = [kind() for kind in MEASURES if kind.of_samples and model.sample is not None]
    return [measure for measure in (*model.measures, *common) if not measure.switch or options.get(measure.switch)]


def check(model: Any, system: str, options: Mapping[str, Any], train_set: "Dataset", test_set: "Dataset") -> None:
    """Raises `InputError` if the options ask for a measure that the system lacks or that cannot be computed."""
    check_asked(model, system, options)
    for measure in measures_of(model, options):
        measure.check(system, options, train_set, test_set)


def check_asked(model: Any, system: str, options: Mapping[str, Any]) -> None:
    """Raises `InputError` if the options ask for a measure that the system lacks."""
    found = {type(measure) for measure in measures_of(model, options)}
    for kind in MEASURES:
        if kind.switch and options.get(kind.switch) and kind not in found:
            raise lacks(system, kind.switch, options[kind.switch], kind.needs)


def check_numbers(options: Mapping[str, Any]) -> None:
    """Raises `InputError` unless the numbers of the options are integers in range."""
    least = {"batch_size": 1, "grid": 1, "bound_steps": 1, "num_examples": 0}
    for kind in MEASURES:
        least |= kind.least
    for name, value in options.items():
        if name in least and (isinstance(value, bool) or not isinstance(value, int) or value < least[name]):
            raise InputError(f"evaluation.{name} = {value!r} must be an integer of at least {least[name]}")


def evaluate(trained: Trained) -> Report:
    """The report of all measures that the system has and the options ask for.

    Raises:
        InputError: if the options ask for a measure that the system lacks.
    """
    check_asked(trained.model, trained.system, trained.options)
    num = len(trained.test_set)
    report: Report = {"num_examples": min(trained.options["num_examples"] or num, num)}
    for measure in measures_of(trained.model, trained.options):
        report |= measure.measure(trained, report)
    return report


def headline(model: Any, report: Report) -> str:
    """The main number of the system's first measure, as text."""
    examples = f"{report['num_examples']} held-out examples"
    return f"{model.measures[0].headline(report)} on {examples}" if model.measures else examples


def lacks(system: str, option: str, value: Any, what: str) -> InputError:
    """The error for options that ask for a measure that the system lacks."""
    return InputError(f"evaluation.{option}={value!r}: {system!r} has no {what}; set it to {type(value)()!r}")
