"""What a measure is, and the loop that computes all measures which a system has and the options ask for.

A measure is one frozen dataclass in a file of its own in this package. Its fields are the functions that it needs of a
system. Its methods say how it is computed, checked and told:

    @dataclass(frozen=True)
    class Sharpness(Measure):
        score: Callable[[Any, Array], Array]         # what it needs of a system
        name = "sharpness"                           # its key in the report
        switch = "sharpness_examples"                # the field of `evaluation` that asks for it
        needs = "score"                              # what a system without it lacks
        least = {"sharpness_examples": 0}            # the fields of `evaluation` that are its own
        def measure(self, trained): ...              # -> what it adds to the report
        def lines(self, report): ...                 # -> what the screen shows of it

A system declares its measures in `Model.measures`, in the order in which they are computed: one that reads the report
of another comes after it. The first is the headline. A measure with `of_samples` needs nothing
but `Model.sample`: every system that has samples has it, undeclared.
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
MEASURES: list[type["Measure"]] = []  # all there are, in order of import


def _no_run(directory: str) -> "Trained":
    raise InputError(f"{directory!r}: other runs are opened by the command line alone")


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained system and the data that it is measured on: all that a measure may use.

    model       a `zoo.Model`, and what the configuration calls it, `system`
    params      its parameters, on the mesh
    key         of what is random in the measures
    options     the section `evaluation` of the configuration
    test_set    the examples to measure on
    train_set   a function that loads the training examples
    seed        of what a measure trains itself
    open_run    directory -> the trained system of another run
    show        (name, images (n, H, W, C) in [-1, 1], columns): where a measure's pictures go
    made        what was compiled or loaded, which a `dataclasses.replace` with other parameters uses again
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
        """The first `num` test examples, all if 0, in batches with a `mask` that is 0 where a batch is filled up."""
        from diffjax.data import epoch

        num = min(num or len(self.test_set), len(self.test_set))
        return epoch(dataclasses.replace(self.test_set, size=num), self.batch_size(num))

    def batch_size(self, num: int) -> int:
        """The examples of a batch, at most about `num`, that the devices can share."""
        return share(self.mesh, min(self.options["batch_size"], num))

    def spread(self, fn: Callable[..., Any], batch_at: int = 2) -> Callable[..., Any]:
        """`fn` compiled over the mesh, see `diffjax.mesh.spread`."""
        return self.once(("spread", fn, batch_at), lambda: spread(fn, self.mesh, batch_at))

    def once(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """make(), or what it gave when it was called under this name."""
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
        """`num` samples (batch, *event), a batch at a time."""
        size = min(num, self.options["batch_size"])
        sampler = self.once(("sampler", self.model.sample, size), lambda: Sampler(self.model, size, self.mesh))
        for i, first in enumerate(range(0, num, sampler.num)):
            yield sampler(self.params, jax.random.fold_in(self.key, i))[: num - first]


class Measure:
    """One thing that a system is measured by. See the head of this file for an example."""

    name: ClassVar[str]
    needs: ClassVar[str]
    switch: ClassVar[str] = ""  # "": it is always measured
    least: ClassVar[dict[str, int]] = {}
    of_samples: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        MEASURES.append(cls)

    def check(self, system: str, options: Mapping[str, Any], train_set: "Dataset", test_set: "Dataset") -> None:
        """Before training. Raises `InputError` for what would only be found at the end of the run."""

    def measure(self, trained: Trained, report: Report) -> Report:
        """What it adds to the `report` of the measures before it."""
        raise NotImplementedError

    def headline(self, report: Report) -> str:
        """Its one number, with its error and unit, where it is the first measure of a system."""
        raise NotImplementedError

    def lines(self, report: Report) -> Iterator[str]:
        """Lines for the screen."""
        yield from ()

    def curves(self, report: Report) -> dict[str, float]:
        """What is logged beside the losses."""
        return {}


def measures_of(model: Any, options: Mapping[str, Any]) -> list[Measure]:
    """The measures that the model has and the options ask for."""
    common = [kind() for kind in MEASURES if kind.of_samples and model.sample is not None]
    return [measure for measure in (*model.measures, *common) if not measure.switch or options.get(measure.switch)]


def check(model: Any, system: str, options: Mapping[str, Any], train_set: "Dataset", test_set: "Dataset") -> None:
    """Raises `InputError` if the options ask for a measure that the system lacks, or one that cannot be had."""
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
    """The number of the system's first measure."""
    examples = f"{report['num_examples']} held-out examples"
    return f"{model.measures[0].headline(report)} on {examples}" if model.measures else examples


def lacks(system: str, option: str, value: Any, what: str) -> InputError:
    """The error of a measure that is asked of a system without it."""
    return InputError(f"evaluation.{option}={value!r}: {system!r} has no {what}; set it to {type(value)()!r}")
