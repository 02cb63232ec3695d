"""How to say what `evaluation` found, the report of eval.json: a headline, curves, and all there is."""

import functools
import operator
from typing import Any


def headline(report: dict[str, Any]) -> str:
    """The bound of a system that has one."""
    examples = f"{report['num_examples']} held-out examples"
    if "bits_per_dim" not in report:
        return f"{examples}, no bound on log p(x)"
    terms = ", ".join(f"{name} {value:.4f}" for name, value in report["terms"].items())
    return f"{report['bits_per_dim']:.4f} ± {report['standard_error']:.4f} bits/dim on {examples} ({terms})"


def scalars(report: dict[str, Any]) -> dict[str, float]:
    """What of the report is worth a curve."""
    places = {
        "bits_per_dim": ("bits_per_dim",),
        "reconstruction": ("reconstruction", "mean_squared_error"),
        "error_rate_percent": ("classification", "error_rate_percent"),
        "probe_accuracy": ("probe", "features", "accuracy"),
    }
    return {
        name: functools.reduce(operator.getitem, path, report) for name, path in places.items() if path[0] in report
    }


def show(report: dict[str, Any]) -> None:
    """What there is of K, L_null and their difference, many samples, the flow, reconstruction, classification, the
    probe, the system's own table and the Parzen window."""

    def words(name: str, value: dict[str, float]) -> str:
        pixel = f", {value['per_pixel']:.4f} a pixel" if "per_pixel" in value else ""
        nats = f"{value['nats']:.3f} ± {value['standard_error_nats']:.3f} nats"
        return f"{name} {value['per_example']:.4f} ± {value['standard_error']:.4f} bits ({nats}){pixel}"

    if "K" in report:
        print("; ".join(words(name, report[name]) for name in ("K", "L_null", "K - L_null")))
    for name in ("many samples", "annealed"):
        if many := report.get(name):
            names = f"{name}, {many['num_weights']} weights on {many['num_examples']} examples"
            print(f"{names}: {words('log p ≥', many['log p'])}; {words('the mean of log w', many['K'])}")
            if "difference" in many:
                print(words("annealed less many samples, paired:", many["difference"]))
    if whole := report.get("log p"):
        bound = f"bound {report['bound']['nats']:.2f} ± {report['bound']['standard_error_nats']:.2f} nats"
        print(f"all examples: {bound}, log p ≥ {whole['nats']:.2f} ± {whole['standard_error_nats']:.2f} nats")
    if whole := report.get("log p by annealing"):
        print(f"all examples: log p ≥ {whole['nats']:.2f} ± {whole['standard_error_nats']:.2f} nats by annealing")
    if flow := report.get("flow"):
        print(f"probability flow, {flow['num_examples']} examples: {words('log p', flow['log p'])}")
        print(words("probability flow less bound, paired:", flow["above the bound"]))
    if error := report.get("reconstruction"):
        value = f"{error['mean_squared_error']:.5f} ± {error['standard_error']:.5f}"
        numbers = f"in units of the {error['units']}, {error['num_examples']} examples"
        print(f"reconstruction: mean squared error {value} an element, {numbers}")
    if error := report.get("classification"):
        value = f"{error['error_rate_percent']:.2f} ± {error['standard_error_percent']:.2f}%"
        print(f"classification: {value} wrong of {error['num_examples']} examples")
    if found := report.get("probe"):
        features, pixels = (
            f"{100 * found[name]['accuracy']:.2f} ± {100 * found[name]['standard_error']:.2f}%"
            for name in ("features", "pixels")
        )
        numbers = f"{found['features']['num_train']} labels, {found['features']['num_test']} examples"
        print(f"linear probe ({found['kind']}; {numbers}): features {features} right, pixels {pixels}")
    for row, columns in report.get("table", {}).items():
        print(f"{row}: {', '.join(f'{name} {value:.4f}' for name, value in columns.items())}")
    if window := report.get("parzen"):
        for name, score in window.items():
            error = f"{score['log_likelihood']:.1f} ± {score['standard_error']:.1f} nats"
            print(f"Parzen window of {score['num_samples']} {name}: {error} ({score['bits']:.1f} bits)")
