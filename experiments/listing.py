"""--mode=list: the configurations by system, with their costs, from their own docstrings. Imports no jax."""

import ast
import importlib
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.suggestions import nearest

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"


class Entry(NamedTuple):
    """A configuration: its file, its system, a one-sentence title, its cost, and its whole docstring."""

    path: str
    system: str
    title: str
    cost: str
    text: str


def files() -> list[Path]:
    """The files of configs/ that are runs."""
    return sorted(path for path in CONFIGS.glob("[!_]*.py") if path.stem != "base")


def entries() -> list[Entry]:
    """All configurations, by system and name."""
    return sorted(map(_entry, files()), key=lambda entry: (entry.system, entry.path))


def lines(words: Sequence[str], width: int = 100) -> Iterator[str]:
    """The configurations with all the words in system, name or docstring: two lines each, grouped by system."""
    found = [entry for entry in entries() if all(word.lower() in _searched(entry) for word in words)]
    system, wide = None, max((len(entry.path) for entry in found), default=0) + 2
    for entry in found:
        if entry.system != system:
            yield f"{'' if system is None else chr(10)}{entry.system}"
            system = entry.system
        title = textwrap.shorten(entry.title, max(width - wide - 2, 40), placeholder=" ...")
        yield f"  {entry.path:{wide}}{title}"
        cost = textwrap.shorten(entry.cost, max(width - wide - 2, 40), placeholder=" ...")
        yield f"  {'':{wide}}cost: {cost or 'not said'}"


def near_file(file: str) -> str:
    """The configuration that the user probably meant by a file that does not exist; "" if none is similar."""
    given = Path(file)
    beside = given.parent.glob("*.py") if given.parent.is_dir() else []
    here = Path.cwd()
    ours = (path.relative_to(here) if path.is_relative_to(here) else path for path in files())
    paths = {path.stem: str(path) for path in (*beside, *ours)}
    close = nearest(given.stem, paths)
    return paths[close[0]] if close else ""


def nothing_of(words: Sequence[str]) -> str:
    """The message if no configuration has all the words."""
    there = " ".join(map(_searched, entries()))
    known = set(re.findall(r"\w+", there))
    near = [close for word in words if word.lower() not in there for close in nearest(word.lower(), known, 3)]
    meant = f"; did you mean {', '.join(near)}?" if near else ""
    return f"no configuration has {' and '.join(map(repr, words))} in its name, system or description{meant}"


def cost_of(text: str) -> str:
    """The sentence of a docstring that begins with "Cost", without that word."""
    found = re.search(r"\bCost(?::\s*|\s+)((?:[^.]|\.(?!\s|$))*)", text)
    return " ".join(found[1].split()) if found else ""


def _entry(path: Path) -> Entry:
    name = f"configs/{path.name}"
    try:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        system = importlib.import_module(f"configs.{path.stem}").get_config().system
    except Exception as error:  # a file that the user is editing can fail in any way, and must not hide the others
        return Entry(name, "not to be loaded", f"{type(error).__name__}: {error}", "", "")
    title = re.split(r"(?<!\bal)\.\s", " ".join(text.split("\n\n")[0].split()))[0]
    return Entry(name, system, title.rstrip("."), cost_of(text), text)


def _searched(entry: Entry) -> str:
    return f"{entry.system} {entry.path} {entry.text}".lower()
