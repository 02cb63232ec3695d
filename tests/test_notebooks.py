"""The notebooks are valid, small and as they should look, and each runs from top to bottom at its smaller setting."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
LARGEST = 300_000  # bytes of a file, pictures included
LONGEST = 20  # lines of a cell

# Runs the cells given as JSON on the standard input, one after the other in one namespace, as a kernel does.
RUNNER = """
import json, sys
namespace = {"__name__": "__main__"}
for number, source in enumerate(json.load(sys.stdin)):
    exec(compile(source, f"{sys.argv[1]}, code cell {number}", "exec"), namespace)
"""


def load(path):
    return nbformat.read(path, as_version=4)


def sources(path):
    return [cell.source for cell in load(path).cells if cell.cell_type == "code"]


def test_there_are_seven():
    assert [path.name[:2] for path in PATHS] == [f"{n}_" for n in range(1, 8)]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_small_and_shows_what_it_computed(path):
    notebook = load(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < LARGEST
    title, first, *_ = notebook.cells
    assert title.cell_type == "markdown" and title.source.startswith("# ") and BADGE in title.source
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert first is code[0] and 'find_spec("diffjax") is None' in first.source and "pip" in first.source
    # Executed from top to bottom, without an error, pictures included.
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert "error" not in {output.output_type for output in outputs}
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert any("assert" in cell.source for cell in code)
    for cell in code:
        assert len(cell.source.splitlines()) <= LONGEST, cell.source
        ast.parse(cell.source)  # plain Python, so that it runs without IPython, too


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_what_a_notebook_names_is_there(path):
    text = "\n".join(cell.source for cell in load(path).cells)
    for name in re.findall(r"configs/(\w+\.py)", text):
        assert (ROOT / "configs" / name).exists(), name
    for number in re.findall(r"notebooks? (\d)", text):
        assert any(other.name.startswith(f"{number}_") for other in PATHS), number


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_runs(path):
    environment = {**os.environ, "DIFFJAX_FAST": "1", "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    # Its programs are compiled quickly, as those of all tests, but for the one device that a reader has.
    environment["XLA_FLAGS"] = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ["XLA_FLAGS"])
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, path.name],
        input=json.dumps(sources(path)),
        cwd=path.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
