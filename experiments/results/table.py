"""A Markdown table of runs, made from their eval.json only: bits/dim, and measures of their samples.

    python -m experiments.results.table RUN [RUN ...]

Each run must be evaluated with --config.evaluation.quality=..., all by the same features. Each run is a row. The last
row compares two halves of the data: samples as good as the data would reach about these values.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Heading, measure, part. The first features that a run has are shown; a classifier's come before pixels.
COLUMNS = (
    ("Frechet distance", "frechet_distance", "value"),
    ("without bias", "frechet_distance", "extrapolated"),
    ("energy distance", "energy_distance", "value"),
    ("precision", "precision_recall", "precision"),
    ("recall", "precision_recall", "recall"),
)


def features_of(report: Mapping[str, Any]) -> str:
    """The name of the features in a report; pixels only if there are no others.

    Raises `SystemExit` with a sentence if the samples were not measured.
    """
    names = sorted(report.get("quality_of", {}), key=lambda name: name.startswith("pixels"))
    if not names:
        sys.exit("error: a run has no measures of samples: --mode=eval --config.evaluation.quality=... measures them")
    return names[0]


def row(name: str, report: Mapping[str, Any], floor: bool = False) -> list[str]:
    """The cells for a run, or for the halves of its data."""
    features = features_of(report)
    bits = "" if floor or "bits_per_dim" not in report else _number(report["bits_per_dim"], report["standard_error"])
    cells = [name, bits]
    for _, measure, part in COLUMNS:
        values = report["quality"].get(f"{measure}/{features}", {})
        values = values.get("halves_of_data", {}) if floor else values
        cells.append(_number(values.get(part), values.get("standard_error") if part == "value" else None))
    return cells


def _number(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" + (f" ± {error:.3f}" if error is not None else "")


def table(runs: Sequence[Path]) -> str:
    """The table. All runs must be measured with the same features and the same numbers of samples and examples."""
    reports = []
    for run in runs:
        path = run / "eval.json"
        if not path.exists():
            sys.exit(f"error: {run} has no eval.json: name workdirs of finished runs")
        reports.append(json.loads(path.read_text()))
    names = {features_of(report) for report in reports}
    if len(names) > 1:
        sys.exit(f"error: the runs were measured differently and do not compare: {', '.join(sorted(names))}")
    head = ["run", "bits/dim", *(heading for heading, _, _ in COLUMNS)]
    rows = [row(run.name, report) for run, report in zip(runs, reports, strict=True)]
    rows.append(row("two halves of the data", reports[0], floor=True))
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", f"By {names.pop()}."])


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    print(table([Path(argument) for argument in sys.argv[1:]]))
