"""A training's log at Weights & Biases, beside metrics.jsonl and TensorBoard: --config.logging.wandb=True.

The project is $WANDB_PROJECT, or diffjax. wandb's own variables set the rest: WANDB_MODE=offline writes only to the
workdir, for `wandb sync` later. A run that resumes also continues its log there: wandb.json keeps its id.
"""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffjax.errors import InputError
from diffjax.extras import needs_wandb


def check() -> None:
    """Raises `MissingExtra` if wandb is not installed."""
    with needs_wandb():
        import wandb  # noqa: F401


class WandbLog:
    """Logs the metrics and pictures of a training in `workdir`. `saved` is its configuration."""

    def __init__(self, workdir: Path, saved: Mapping[str, Any]):
        with needs_wandb():
            import wandb

        self._wandb = wandb
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "diffjax"),
                name=workdir.name,
                dir=str(workdir),
                id=_identity(workdir),
                resume="allow",
                config=dict(saved),
                settings=wandb.Settings(console="off"),  # it would log the progress bar as hundreds of lines
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise InputError(
                f"logging.wandb = True, but Weights & Biases cannot begin ({reason}); log in by `wandb login`, or set"
                " WANDB_MODE=offline"
            ) from None
        # Our own step axis: wandb's steps must increase, but a run that was killed repeats some.
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def image(self, step: int, name: str, path: Path) -> None:
        """path: of a PNG or a GIF."""
        film = path.suffix == ".gif"
        picture = self._wandb.Video(str(path), format="gif") if film else self._wandb.Image(str(path))
        self._run.log({"step": step, name: picture})

    def close(self) -> None:
        self._run.finish()


def _identity(workdir: Path) -> str:
    path = workdir / "wandb.json"
    if not path.exists():
        path.write_text(json.dumps({"id": uuid.uuid4().hex}) + "\n")
    return json.loads(path.read_text())["id"]
