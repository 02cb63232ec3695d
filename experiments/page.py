"""report.html: a run on one self-contained page, made from the files in its workdir.

It shows the numbers of eval.json, the curves of metrics.jsonl, the pictures of samples/, the configuration, the
machine, the versions and the command.
"""

import base64
import html
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import pictures
from experiments.workdir import read_metrics, worth_a_curve

LARGEST = 5 * 2**20  # bytes; of larger pictures the page has only the name
ON_THE_WAY = 4  # how many grids of samples from during training to show, the last one included
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #ccc; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
pre { background: #f4f4f4; padding: .6rem; white-space: pre-wrap; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .15rem .8rem .15rem 0; vertical-align: top; border-bottom: 1px solid #eee; }
th { font-weight: 600; } td { overflow-wrap: anywhere; }
.wide { overflow-x: auto; } img { max-width: 100%; }
.tables, .pictures { display: flex; flex-wrap: wrap; gap: .5rem 2.5rem; align-items: flex-start; }
.tables section { max-width: 100%; } figure { margin: 0; max-width: min(32rem, 100%); }
figcaption { color: #666; font-size: .85rem; }
"""
MACHINE = ("machine", "versions", "wall_seconds", "peak_memory_gb", "first_step_seconds", "input_wait")
MACHINE += ("training_images_per_second", "sampling_images_per_second")


def write(directory: Path, told: Sequence[str] = ()) -> Path:
    """Writes report.html into a workdir. told: the lines that the screen shows about its numbers."""
    path = directory / "report.html"
    part = path.with_name(path.name + ".part")
    part.write_text(page(directory, told), encoding="utf-8")
    part.replace(path)
    return path


def page(directory: Path, told: Sequence[str] = ()) -> str:
    """The whole page. Parts whose files are missing are left out."""
    config, report = _read(directory / "config.json"), _read(directory / "eval.json")
    title = f"{config.get('system', 'run')}: {directory.resolve().name}"
    head = f'<meta charset="utf-8">\n<title>{_text(title)}</title>\n<style>{STYLE}</style>'
    body = "\n".join([f"<h1>{_text(title)}</h1>", *_sections(directory, config, report, told)])
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def _sections(directory: Path, config: Mapping, report: Mapping, told: Sequence[str]) -> Iterator[str]:
    if told:
        yield f"<pre>{_text(chr(10).join(told))}</pre>"
    numbers = {name: value for name, value in report.items() if name not in (*MACHINE, "command")}
    if numbers:
        yield "<h2>Evaluation</h2>"
        yield from _tables(numbers)
    if curves := worth_a_curve(read_metrics(directory)) if (directory / "metrics.jsonl").exists() else {}:
        yield f"<h2>Training</h2>\n<p>{_image(_svg(curves), 'svg+xml', 'curves of ' + ', '.join(curves))}</p>"
    if found := chosen(directory):
        yield '<h2>Pictures</h2>\n<div class="pictures">'
        yield from map(_figure, found)
        yield "</div>"
    yield "<h2>Configuration</h2>"
    yield from _tables(config)
    yield "<h2>Machine and command</h2>"
    yield f"<pre>{_text(report.get('command') or 'called as a function, without a command line')}</pre>"
    yield from _tables({name: report[name] for name in MACHINE if name in report})


def chosen(directory: Path) -> list[Path]:
    """The pictures of samples/ to show: a few grids from during training, and all figures, but not --mode=sample's."""
    paths = sorted(path for path in (directory / "samples").glob("*") if path.suffix in (".png", ".gif"))
    grids = [path for path in paths if path.match("step_*.png")]
    every = [grids[round((i + 1) * len(grids) / ON_THE_WAY) - 1] for i in range(ON_THE_WAY)] if grids else []
    drawn = [path for path in paths if path not in grids and not path.with_suffix(".npz").exists()]
    return [*sorted(set(every)), *drawn]


def _tables(values: Mapping[str, Any]) -> Iterator[str]:
    """One table for the top-level values, and one for each section."""
    plain = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
    yield '<div class="tables">'
    if plain:
        yield f"<section>{_table([[name, _value(value)] for name, value in plain.items()])}</section>"
    for name, section in values.items():
        if isinstance(section, Mapping) and section:
            yield f"<section><h3>{_text(name)}</h3>{_section(section)}</section>"
    yield "</div>"


def _section(section: Mapping[str, Any]) -> str:
    """A table of a section. If all its values are sections, too, these become the rows."""
    rows = {name: _flat(value) for name, value in section.items() if isinstance(value, Mapping)}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    if len(rows) < len(section) or len(columns) > 10:
        return _table([[name, _value(value)] for name, value in _flat(section).items()])
    cells = [[name, *(_value(row[c]) if c in row else "" for c in columns)] for name, row in rows.items()]
    return _table(cells, ["", *columns])


def _table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """An HTML table. The first cell of a row is its name."""
    columns = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in head)
    above = f"<thead><tr>{columns}</tr></thead>" if head else ""
    lines = []
    for name, *cells in rows:
        data = "".join(f"<td>{_text(cell)}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{_text(name)}</th>{data}</tr>\n')
    return f'<div class="wide"><table>{above}<tbody>\n{"".join(lines)}</tbody></table></div>'


def _figure(path: Path) -> str:
    caption = f"<figcaption>{_text(path.name)}</figcaption>"
    if path.stat().st_size > LARGEST:
        return f"<figure><p>too large for this page</p>{caption}</figure>"
    return f"<figure>{_image(path.read_bytes(), path.suffix[1:], path.stem)}{caption}</figure>"


def _image(picture: bytes, kind: str, says: str) -> str:
    return f'<img alt="{_text(says)}" src="data:image/{kind};base64,{base64.b64encode(picture).decode()}">'


def _svg(curves: Mapping[str, Any]) -> bytes:
    held = io.BytesIO()
    pictures.of_metrics(curves).savefig(held, format="svg", metadata={"Date": None})
    return held.getvalue()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else str(value)
    if isinstance(value, list):
        return f"({', '.join(map(_value, value))})" if len(value) <= 100 else f"{len(value)} values"
    return str(value)


def _text(value: object) -> str:
    return html.escape(str(value))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
