"""The model card for a file of weights: what it is, its training data, the commands to use it, and its numbers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from experiments.opened import Run


def model_card(run: Run, file: str, step: int, params: Any) -> str:
    """README.md in Markdown. Whoever publishes the weights must fill in the licence."""
    saved = run.saved
    data = saved["data"]
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    width = f" of width {run.ema_width:g}" if run.ema_width else ""
    splits = f" (split `{data['train_split']}`)" if data.get("train_split") else ""
    levels = f"{data['levels']} levels" if data["levels"] else "real numbers"
    training = saved["training"]
    after = f"after {step:,} of {training['steps']:,} steps of batch {training['batch_size']}"
    after = after if step else "as they were given: no step of training followed"
    return f"""---
library_name: diffjax
tags: [{run.system}]
# license: name one, for the weights are yours
---

# {Path(file).stem}

`{file}` holds the running mean{width} of the weights of a `{run.system}` of diffjax, {count:,} parameters,
{after}.

- **Training data:** `{data["name"]}`{splits}, examples of shape {tuple(data["shape"])}, {levels}.
- **Configuration:** all of it is in the file's metadata, and in config.json of the run that the next command makes.
- **Licence:** not stated yet. Write it here and above; say that of the training data, too.

## Use

```
python -m diffjax.nets.published {file} DIR
python -m experiments.main --mode=sample --workdir=DIR
python -m experiments.main --config=experiments/saved.py:DIR --workdir=OTHER       # trains it again
python -m experiments.main --config=experiments/saved.py:DIR --config.init_from={file} --workdir=OTHER
```

## Numbers

{_numbers(run.directory / "eval.json", step)}
"""


def _numbers(path: Path, step: int) -> str:
    """A table of the numbers in a run's report."""
    if not path.is_file():
        return "Not measured: `python -m experiments.main --mode=eval` writes eval.json."
    report = json.loads(path.read_text())
    rows = [f"| {name} | {value} |" for name, value in _flat(report) if not name.startswith("machine.")]
    note = "" if report.get("step") == step else f", and not of step {step:,}, whose weights these are"
    head = f"eval.json, of step {report.get('step', 0):,}{note}:\n\n| measure | value |\n|---|---|\n"
    return head + "\n".join(rows)


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The numbers and strings of a report, their names joined by dots."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            yield f"{prefix}{name}", f"{value:.6g}"
        elif isinstance(value, int | str):
            yield f"{prefix}{name}", str(value)
