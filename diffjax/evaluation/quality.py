"""The quality of samples: distances between samples and data, in the features that `evaluation.quality` names.

    quality_samples         number of samples to draw
    quality_examples        number of examples of the data, 0: all; copies are looked for among these
    quality_reference       "train" or "test": the split of these examples
    quality_kept            number of examples per side for distances that need pairs, n² of time; moments use all
    quality_while_training  measure also at every `training.eval_every`

The name of every number says how many samples, how many examples of which split, and which features. A Frechet distance
of 1,000 samples is not comparable with one of 50,000. Its bias is estimated, too. Each number comes with the same
number between two halves of the data, `halves_of_data`. This is about what samples as good as the data would reach.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from diffjax import distances
from diffjax.distances import frechet
from diffjax.distances.neighbours import Nearest, copies
from diffjax.errors import InputError
from diffjax.evaluation.features import Features, features_of
from diffjax.evaluation.measure import Measure, Report, Trained
from diffjax.evaluation.sides import Side, Source, gathered, of_dataset, of_model
from diffjax.evaluation.two_sample import two_sample_test
from diffjax.registry import choose

DEFAULTS: dict[str, Any] = dict(
    quality_samples=1000,
    quality_examples=0,
    quality_reference="train",
    quality_kept=5000,
    quality_while_training=False,
)
SPLITS = ("train", "test")
Values = dict[str, Any]


def frechet_distance(samples: Side, data: Side) -> Values:
    """The Frechet distance with its standard error. If the halves are large enough, also with n → ∞."""
    (a, b), dim = (samples.moments, data.moments), samples.kept.shape[1]
    found: Values = {"value": frechet.of_samples(a, b)}
    found["standard_error"] = frechet.standard_error(a, b, samples.kept, data.kept)
    if min(half.num for half in (*samples.halves, *data.halves)) > dim:
        found["extrapolated"] = distances.extrapolated(samples.halves, data.halves)
        found["bias"] = found["value"] - found["extrapolated"]
    return found


def _of_kept(measure: Callable[[Any, Any], distances.Estimate]) -> Callable[[Side, Side], Values]:
    """Turns a distance between vectors into one between the kept vectors of two sides."""

    def measured(samples: Side, data: Side) -> Values:
        return measure(samples.kept, data.kept)._asdict()

    return measured


def precision_recall(samples: Side, data: Side) -> Values:
    return distances.precision_recall(samples.kept, data.kept)._asdict()


def density_coverage(samples: Side, data: Side) -> Values:
    """`expected_coverage` is the coverage that samples from the data's own distribution would have."""
    found = distances.density_coverage(samples.kept, data.kept)._asdict()
    return found | {"expected_coverage": distances.expected_coverage(len(samples.kept), len(data.kept))}


def two_sample(samples: Side, data: Side) -> Values:
    return two_sample_test(samples.kept, data.kept)._asdict()


def inception_score(samples: Side, data: Side) -> Values:
    """The score of the samples, and that of the data (`of_data`) as the target."""
    ours, theirs = (distances.inception_score(side.classes) for side in (samples, data))
    return ours._asdict() | {"of_data": theirs.value}


def classes(samples: Side, data: Side) -> Values:
    """The shares of the classes, and the Frechet distance of each class (None if it has too few examples)."""
    assert samples.counts is not None and data.counts is not None
    ours, theirs = samples.counts / samples.counts.sum(), data.counts / data.counts.sum()
    by_class: dict[str, float | None] = {}
    for label in range(len(ours)):
        x, y = (side.kept[side.kept_class == label] for side in (samples, data))
        enough = min(len(x), len(y)) > samples.kept.shape[1]
        by_class[str(label)] = distances.frechet_distance(x, y) if enough else None
    return {
        "value": distances.distance_of_shares(ours, theirs),
        "shares": ours.tolist(),
        "shares_of_data": theirs.tolist(),
        "frechet_distance": by_class,
    }


# Measures of samples and data by name. Those in OF_CLASSES need features that give log p(class | example).
DISTANCES: dict[str, Callable[[Side, Side], Values]] = {
    "frechet_distance": frechet_distance,
    "kernel_distance": _of_kept(distances.kernel_distance),
    "precision_recall": precision_recall,
    "density_coverage": density_coverage,
    "sliced_wasserstein": _of_kept(distances.sliced_wasserstein),
    "energy_distance": _of_kept(distances.energy_distance),
    "maximum_mean_discrepancy": _of_kept(distances.maximum_mean_discrepancy),
    "two_sample_test": two_sample,
}
OF_CLASSES: dict[str, Callable[[Side, Side], Values]] = {"inception_score": inception_score, "classes": classes}


def compared(samples: Side, data: Side) -> dict[str, Values]:
    """All distances that are defined for the two sides. One that needs more examples is {"not measured": reason}."""
    found: dict[str, Values] = {}
    for name, measure in (DISTANCES | (OF_CLASSES if samples.counts is not None else {})).items():
        try:
            found[name] = measure(samples, data)
        except InputError as reason:
            found[name] = {"not measured": str(reason)}
    return found


def named(trained: Trained, features: Features, samples: Side, data: Side) -> str:
    """The name of a comparison: features, preprocessing, and the numbers of samples and examples."""
    resized = [] if features.resizing == "none" else [features.resizing]
    levels = [f"{trained.test_set.levels or 256}levels"] if len(trained.test_set.shape) == 3 else []
    return "_".join([features.name, *resized, *levels, samples.source.name, data.source.name])


def described(trained: Trained, features: Features, samples: Side, data: Side) -> Values:
    """The settings of a comparison, for the report."""
    levels = trained.test_set.levels or 256
    images = len(trained.test_set.shape) == 3
    return {
        "features": features.name,
        "dimensions": samples.kept.shape[1],
        "resizing": features.resizing,
        "clipping": f"to the data's range, rounded to {levels} levels, 8 bits" if images else "none",
        "num_samples": samples.source.num,
        "num_examples": data.source.num,
        "kept_samples": len(samples.kept),
        "kept_examples": len(data.kept),
    }


def options_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of quality. Older runs lack them and get the defaults.

    Raises `InputError` if `quality_reference` is not a split.
    """
    found = DEFAULTS | {name: options[name] for name in DEFAULTS if name in options}
    choose("evaluation.quality_reference", found["quality_reference"], SPLITS)
    return found


@dataclass(frozen=True)
class Quality(Measure):
    """The measure of this file; see the module's docstring. Every system with samples has it."""

    name = "quality"
    needs = "samples"
    switch = "quality"
    least: ClassVar[dict[str, int]] = {"quality_samples": 20, "quality_examples": 0, "quality_kept": 20}
    of_samples = True

    def check(self, system: str, options: Mapping[str, Any], train_set: Any, test_set: Any) -> None:
        options_of(options)

    def measure(self, trained: Trained, report: Report) -> Report:
        options = options_of(trained.options)
        features, keep = features_of(trained), options["quality_kept"]
        try:
            samples = gathered(trained, features, of_model(trained, options["quality_samples"]), keep)
        except InputError as reason:  # e.g. NaN: it must not lose the other measures of a long run
            return {"quality": {}, "quality_of": {}, "quality_lacks": str(reason)}
        held_out = gathered(trained, features, of_dataset(trained.test_set, "test"), keep)
        watch = [(Nearest(ours.kept), Nearest(others.kept)) for ours, others in zip(samples, held_out, strict=True)]
        data = gathered(trained, features, data_of(trained, options), keep, watch)
        found: Report = {}
        words: Report = {}
        for one, ours, theirs, nearest in zip(features, samples, data, watch, strict=True):
            name, values = named(trained, one, ours, theirs), compared(ours, theirs)
            if options["quality_reference"] == "train":
                values["nearest_training"] = copies(*nearest)._asdict()
                self._show(trained, one, ours, theirs.source, nearest[0].rows)
            for measure, value in compared(*theirs.split()).items():
                values[measure]["halves_of_data"] = value
            found |= {f"{measure}/{name}": value for measure, value in values.items()}
            words[name] = described(trained, one, ours, theirs)
        return {"quality": found, "quality_of": words}

    def _show(self, trained: Trained, features: Features, samples: Side, data: Source, nearest: np.ndarray) -> None:
        """Shows a picture of samples, each next to its nearest training examples."""
        if len(trained.test_set.shape) != 3 or data.gather is None:
            return
        cells = [np.concatenate([[x], data.gather(rows)]) for x, rows in zip(samples.shown, nearest, strict=False)]
        images = np.concatenate(cells).astype(np.float32) / 127.5 - 1
        trained.show(f"neighbours_{features.name}", images, 3 * len(cells[0]))

    def lines(self, report: Report) -> Iterator[str]:
        if "quality_lacks" in report:
            yield f"quality: not measured: {report['quality_lacks']}"
        for name in report["quality_of"]:
            of_name = {key.partition("/")[0]: v for key, v in report["quality"].items() if key.endswith(f"/{name}")}
            yield from told(name, of_name)

    def curves(self, report: Report) -> dict[str, float]:
        return {f"quality/{key}/{part}": number for key, part, number in numbers(report["quality"])}


def numbers(found: Mapping[str, Values]) -> Iterator[tuple[str, str, float]]:
    """(name, part, number) of all entries that are single numbers, without standard errors."""
    for key, values in found.items():
        for part, number in values.items():
            if isinstance(number, float) and "standard_error" not in part:
                yield key, part, number


def told(name: str, found: Mapping[str, Values]) -> Iterator[str]:
    """Lines for the screen about one comparison."""
    yield f"quality by {name}:"
    for measure, values in found.items():
        if "not measured" in values:
            yield f"  {measure}: not measured: {values['not measured']}"
            continue
        halves = values.get("halves_of_data", {})
        floor = f"; between halves of the data {_words(halves)}" if _words(halves) else ""
        yield f"  {measure.replace('_', ' ')}: {_words(values)}{floor}"


def _words(values: Values) -> str:
    """The numbers of one measure as text."""
    parts = []
    for part, value in values.items():
        if isinstance(value, float) and part != "standard_error":
            error = values.get("standard_error") if part in ("value", "accuracy") else None
            number = f"{value:.4g}" + (f" ± {error:.2g}" if error is not None else "")
            parts.append(number if part == "value" else f"{part.replace('_', ' ')} {number}")
    return ", ".join(parts)


def data_of(trained: Trained, options: Mapping[str, Any]) -> Source:
    """The examples that samples are compared with."""
    split = options["quality_reference"]
    dataset = trained.train_set() if split == "train" else trained.test_set
    return of_dataset(dataset, split, options["quality_examples"])


def against(trained: Trained, others: Source) -> Report:
    """Compares samples A of a run and samples or images B from elsewhere with the data and with each other.

    Both are measured with the run's data, options and features.
    """
    options = options_of(trained.options)
    features, keep = features_of(trained), options["quality_kept"]
    sources = data_of(trained, options), of_model(trained, options["quality_samples"]), others
    sides = [gathered(trained, features, source, keep) for source in sources]
    report: Report = {}
    for one, data, a, b in zip(features, *sides, strict=True):
        for pair, (x, y) in {"A to data": (a, data), "B to data": (b, data), "A to B": (a, b)}.items():
            report |= {
                f"{pair}/{measure}/{named(trained, one, x, y)}": value for measure, value in compared(x, y).items()
            }
    return report


def told_of_both(found: Report) -> Iterator[str]:
    """Lines for the screen about `against`."""
    for pair in ("A to data", "B to data", "A to B"):
        of_pair = {key.split("/", 1)[1]: values for key, values in found.items() if key.startswith(f"{pair}/")}
        for name in dict.fromkeys(key.partition("/")[2] for key in of_pair):
            of_name = {key.partition("/")[0]: v for key, v in of_pair.items() if key.endswith(f"/{name}")}
            yield from told(f"{name}, {pair}", of_name)


def of_step(trained: Trained) -> dict[str, float]:
    """The curves at one step of training."""
    measure = Quality()
    return measure.curves(measure.measure(trained, {}))
