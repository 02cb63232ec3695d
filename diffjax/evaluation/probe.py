"""A linear classifier of features: what an encoder learnt about the classes without labels (Alain & Bengio 2016).

The classifier is scikit-learn's with its default penalty. It is one of two:

    logistic   logistic regression (C = 1) of features standardised by the training examples
    svm        a support vector machine (squared hinge, C = 1, one class against the rest) of features as they are,
               because uninformative codes are small, and standardising by few examples would enlarge them

The accuracy a on n test examples has the binomial standard error √(a (1 - a) / n). It does not include the randomness
of training.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from jax import Array
from jaxtyping import Float, Integer

from diffjax.errors import InputError
from diffjax.evaluation.measure import Measure, Trained
from diffjax.extras import needs_run
from diffjax.mesh import share

KINDS = ("logistic", "svm")


class Report(TypedDict):
    """accuracy and standard_error as fractions."""

    accuracy: float
    standard_error: float
    num_train: int
    num_test: int


def linear(
    kind: str,
    features: Float[np.ndarray, "n dim"],
    labels: Integer[np.ndarray, " n"],
    test_features: Float[np.ndarray, "num dim"],
    test_labels: Integer[np.ndarray, " num"],
    seed: int = 0,
) -> Report:
    """Trains and tests on the examples whose label is not -1. Without such test examples both numbers are NaN.

    Args:
        kind: of `KINDS`.
        seed: of the order in which the support vector machine goes through the examples.

    Raises:
        InputError: as `check`; and if a feature is not finite.
    """
    with needs_run():  # importing takes a second, for which other evaluations need not wait
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import LinearSVC

    check(kind, labels)
    if not (np.isfinite(features).all() and np.isfinite(test_features).all()):
        raise InputError(f"evaluation.probe={kind!r}: the features have NaN or infinite values; train with fewer steps")
    known = labels >= 0
    svm = kind == "svm"
    machine = LinearSVC(max_iter=10_000, random_state=seed % 2**32)
    classifier = machine if svm else make_pipeline(StandardScaler(), LogisticRegression(max_iter=10_000))
    # Dead features are constant up to rounding. In single precision, standardising would enlarge that rounding.
    fitted = classifier.fit(features[known].astype(np.float64), labels[known])
    tested = test_labels >= 0
    n = int(tested.sum())
    right = fitted.predict(test_features[tested].astype(np.float64)) == test_labels[tested] if n else []
    accuracy = float(np.mean(right)) if n else math.nan
    return Report(
        accuracy=accuracy,
        standard_error=math.sqrt(accuracy * (1 - accuracy) / max(n, 1)),
        num_train=int(known.sum()),
        num_test=n,
    )


@dataclass(frozen=True)
class Probe(Measure):
    """A linear classifier of the features and, for comparison, one of the pixels.

    features  (params, batch) -> (batch, dim), an encoder's features of the examples
    """

    features: Callable[[Any, Any], Array]

    name = "probe"
    needs = "features"
    switch = "probe"

    def check(self, system: str, options: Mapping[str, Any], train_set: Any, test_set: Any) -> None:
        check(options["probe"], train_set.gather(np.arange(len(train_set)))["label"])

    def measure(self, trained: Trained, report: dict[str, Any]) -> dict[str, Any]:
        kind = trained.options["probe"]
        features = trained.spread(self.features, batch_at=1)

        def read(dataset: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            """Features, pixels and labels of the labelled examples."""
            examples = dataset.gather(np.arange(len(dataset)))
            known = np.flatnonzero(examples["label"] >= 0)
            batch_size = share(trained.mesh, trained.options["batch_size"])
            filled = np.resize(known, share(trained.mesh, len(known)))
            parts = [
                np.asarray(features(trained.params, {"image": examples["image"][filled[first : first + batch_size]]}))
                for first in range(0, len(filled), batch_size)
            ]
            images = examples["image"][known]
            return np.concatenate(parts)[: len(known)], images.reshape(len(images), -1), examples["label"][known]

        learnt, pixels, known = read(trained.train_set())
        test_learnt, test_pixels, test_known = read(trained.test_set)
        return {
            "probe": {
                "kind": kind,
                "features": linear(kind, learnt, known, test_learnt, test_known, trained.seed),
                "pixels": linear(kind, pixels, known, test_pixels, test_known, trained.seed),
            }
        }

    def lines(self, report: dict[str, Any]) -> Iterator[str]:
        found = report["probe"]
        features, pixels = (
            f"{100 * found[name]['accuracy']:.2f} ± {100 * found[name]['standard_error']:.2f}%"
            for name in ("features", "pixels")
        )
        numbers = f"{found['features']['num_train']} labels, {found['features']['num_test']} examples"
        yield f"linear probe ({found['kind']}; {numbers}): features {features} right, pixels {pixels}"

    def curves(self, report: dict[str, Any]) -> dict[str, float]:
        return {"probe_accuracy": report["probe"]["features"]["accuracy"]}


def check(kind: str, labels: Integer[np.ndarray, " n"]) -> None:
    """Raises `InputError` if `kind` is not in `KINDS`, or if the known labels (not -1) have fewer than two classes."""
    if kind not in KINDS:
        raise InputError(f"evaluation.probe must be '' or one of {', '.join(KINDS)}, not {kind!r}")
    classes = np.unique(labels[labels >= 0])
    if len(classes) < 2:
        raise InputError(
            f"evaluation.probe={kind!r} needs labelled training examples of at least 2 classes, but there are "
            f"{len(classes)}; set it to '' or take a data set with labels"
        )
