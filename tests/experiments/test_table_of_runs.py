"""The table of runs: its numbers are those of eval.json, and runs that do not compare are not compared."""

import json

import pytest

from experiments.results import table

VALUES = {
    "frechet_distance": {"value": 0.5, "standard_error": 0.01, "extrapolated": 0.4, "halves_of_data": {"value": 0.1}},
    "energy_distance": {
        "value": 0.03,
        "standard_error": 0.002,
        "halves_of_data": {"value": 0.001, "standard_error": 0.001},
    },
    "precision_recall": {"precision": 0.7, "recall": 0.2, "halves_of_data": {"precision": 0.9, "recall": 0.8}},
}


def write(path, name, bits=None):
    """A run's report, measured by pixels and by `name`."""
    quality = {f"{measure}/{name}": values for measure, values in VALUES.items()}
    report = {"quality": quality, "quality_of": {"pixels_n9_train9": {}, name: {}}}
    if bits:
        report |= {"bits_per_dim": bits, "standard_error": 0.01}
    path.mkdir()
    (path / "eval.json").write_text(json.dumps(report))
    return path


def test_rows_and_the_floor(tmp_path):
    runs = [write(tmp_path / "ddpm", "net_n9_train9", 2.0), write(tmp_path / "flow", "net_n9_train9")]
    lines = table.table(runs).splitlines()
    assert lines[0] == "| run | bits/dim | Frechet distance | without bias | energy distance | precision | recall |"
    assert lines[2] == "| ddpm | 2.000 ± 0.010 | 0.500 ± 0.010 | 0.400 | 0.030 ± 0.002 | 0.700 | 0.200 |"
    assert lines[3] == "| flow |  | 0.500 ± 0.010 | 0.400 | 0.030 ± 0.002 | 0.700 | 0.200 |"
    assert lines[4] == "| two halves of the data |  | 0.100 |  | 0.001 ± 0.001 | 0.900 | 0.800 |"
    assert lines[-1] == "By net_n9_train9."


def test_what_does_not_compare_is_refused(tmp_path):
    one, other = write(tmp_path / "a", "net_n9_train9"), write(tmp_path / "b", "net_n99_train9")
    with pytest.raises(SystemExit, match="measured differently and do not compare: net_n99_train9, net_n9_train9"):
        table.table([one, other])
    with pytest.raises(SystemExit, match=r"has no eval\.json"):
        table.table([one, tmp_path])
    (one / "eval.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"--config\.evaluation\.quality="):
        table.table([one])
