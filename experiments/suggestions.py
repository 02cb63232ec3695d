"""What a person may have meant by a name that does not exist. Imports nothing that imports jax."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


def nearest(word: str, names: Iterable[str], num: int = 1) -> list[str]:
    """The names that look most like the word, the best first; none where none does."""
    return difflib.get_close_matches(word, list(names), n=num)


def absent_field(config: Mapping[str, Any], name: str) -> tuple[str, str] | None:
    """For a field, by its name with dots, that a dict or a ConfigDict does not have: which one, and what is there.

    None if it has the field.
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
