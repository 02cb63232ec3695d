"""Docstrings of diffjax as reStructuredText. They are plain text: columns, indented formulas, |x| and x_0.

In them `code` is code, and nothing else is markup but Google's sections (`Args:`, `Raises:`), which napoleon reads.
"""

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):$")
COLUMNS = re.compile(r"\S {2,}\S")
CODE = re.compile(r"(`+)(.+?)\1")


def converted(lines: Iterable[str]) -> list[str]:
    """The lines of a docstring as reStructuredText.

    Paragraphs that are indented, or have columns, are shown as they stand. A paragraph of lines with hanging indents is
    a list. Sections keep their lines.
    """
    done: list[str] = []
    for block in _blocks(lines):
        done += [*_block(block), ""]
    return done


def escaped(text: str) -> str:
    """One line of prose, of which `code` alone has a meaning."""
    parts, end = [], 0
    for found in CODE.finditer(text):
        parts += [_plain(text[end : found.start()]), f"``{found[2].strip()}``"]
        end = found.end()
        if text[end : end + 1].isalnum():  # `sampler`s: a literal must end with its word
            parts.append("\\ ")
    return "".join([*parts, _plain(text[end:])])


def signature(thing: Any) -> tuple[str, str | None] | None:
    """Arguments and result as the source has them; of a class of fields, the fields. None if there is no source."""
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))
        node = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return None
    if isinstance(node, ast.FunctionDef):
        arguments = node.args
        if arguments.args and arguments.args[0].arg in ("self", "cls"):
            del arguments.args[0]
        return f"({ast.unparse(arguments)})", ast.unparse(node.returns) if node.returns else None
    if isinstance(node, ast.ClassDef) and (dataclasses.is_dataclass(thing) or hasattr(thing, "_fields")):
        fields = [ast.unparse(part) for part in node.body if isinstance(part, ast.AnnAssign)]
        return f"({', '.join(fields)})", None
    return None


def _plain(text: str) -> str:
    text = re.sub(r"([\\*|`])", r"\\\1", text)
    return re.sub(r"(?<=\w)_(?!\w)", r"\\_", text)


def _blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Paragraphs; a section is one with all that is indented beneath it."""
    block: list[str] = []
    for line in lines:
        in_section = bool(block) and bool(SECTION.match(block[0]))
        if in_section and (not line.strip() or line.startswith(" ")):
            block.append(line)
        elif not line.strip() or in_section:
            if block:
                yield block
            block = [line] if line.strip() else []
        else:
            block.append(line)
    if block:
        yield block


def _block(block: list[str]) -> list[str]:
    if SECTION.match(block[0]):
        return "\n".join([block[0], *map(escaped, block[1:])]).rstrip().split("\n")
    if block[0].startswith(" ") or any(COLUMNS.search(CODE.sub("x", line)) for line in block):
        return ["::", "", *("    " + line for line in textwrap.dedent("\n".join(block)).split("\n"))]
    indented = [line.startswith(" ") for line in block]
    if not any(indented):
        return [escaped(line) for line in block]
    first = indented.index(True)
    if all(indented[first:]) and not block[0].startswith("- ") and block[first - 1].endswith(":"):
        return [*_block(block[:first]), "", *_block(block[first:])]
    items: list[str] = []
    for line, hangs in zip(block, indented, strict=True):
        text = escaped(line.strip().removeprefix("- "))
        items.append(f"  {text}" if hangs else f"- {text}")
    return items
