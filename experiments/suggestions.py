"""Suggests what the user may have meant by a name that does not exist. Imports nothing that imports jax."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


def nearest(word: str, names: Iterable[str], num: int = 1) -> list[str]:
    """The names most similar to the word, the best first; empty if none is similar."""
    return difflib.get_close_matches(word, list(names), n=num)


def absent_field(config: Mapping[str, Any], name: str) -> tuple[str, str] | None:
    """For a field that a dict or a ConfigDict does not have: the first missing name, and which names there are.

    name: with dots, such as "training.steps". Returns None if the field exists.
    """
    here: Any = config
    root = "config"
    *sections, last = name.split(".")
    for part in (*sections, last):
        fields = sorted(here.keys()) if hasattr(here, "keys") else []
        if part not in fields:
            there = ", ".join(nearest(part, fields) or fields) or "no fields"
            return f"{root}.{part}", f"{root} has {there}"
        root = f"{root}.{part}"
        if root.count(".") <= len(sections):  # the value of the field itself may not be set yet
            here = here[part]
    return None
