"""What a person may have meant by a name that does not exist. Imports nothing that imports jax."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


def nearest(word: str, names: Iterable[str], num: int = 1) -> list[str]:
    """The names that look most like the word, the best first; none where none does."""
    return difflib.get_close_matches(word, list(names), n=num)


def absent_field(config: Mapping[str, Any], name: str, root: str = "config") -> tuple[str, str] | None:
    """For a field, by its name with dots, that the configuration does not have: which one, and what is there.

    None if it has the field.
    """
    here: Any = config
    for part in name.split("."):
        if not isinstance(here, Mapping) or part not in here:
            fields = sorted(here) if isinstance(here, Mapping) else []
            there = ", ".join(nearest(part, fields) or fields) or "no fields"
            return f"{root}.{part}", f"{root} has {there}"
        here, root = here[part], f"{root}.{part}"
    return None
