"""docs/ as a site: `sphinx-build -W --keep-going -b html docs docs/_build`, after `pip install -e '.[docs]'`.

Before Sphinx reads, the notebooks are copied to docs/notebooks and a page for each module or package of diffjax is
written to docs/api. Git ignores both.
"""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # modules are imported, and nothing is computed
sys.path[:0] = [str(HERE), str(ROOT)]

from docstrings import converted, signature  # noqa: E402
from sphinx.addnodes import pending_xref  # noqa: E402

project = "diffjax"
author = copyright = "The diffjax authors"
release = version = re.search(r'version="([\d.]+)"', (ROOT / "setup.py").read_text())[1]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "diffjax"
html_show_sourcelink = False
smartquotes = False
nb_execution_mode = "off"  # notebooks show the outputs that they were committed with
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 90
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields of dataclasses are there already
suppress_warnings = ["ref.python"]  # of two classes of one name a signature links to the first

# Pages of the repository that others link to, and their pages here.
PAGES = {
    "experiments/results/README.md": "results",
    "experiments/benchmarks/README.md": "benchmarks",
    "docs/design.md": "design",
}


def copy_notebooks() -> None:
    """The notebooks with their outputs."""
    place = HERE / "notebooks"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        shutil.copy(path, place)


def write_api() -> None:
    """A page for each module and package of diffjax, with all its modules, and one for the functions of notebooks."""
    place = HERE / "api"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    functions = ["# experiments", "", *automodule("experiments.notebook", members=True)]
    (place / "experiments.md").write_text("\n".join(functions))
    for path in sorted((ROOT / "diffjax").glob("[!_]*")):
        if path.suffix == ".py" or (path / "__init__.py").exists():
            (place / f"{path.stem}.md").write_text("\n".join(api_page(path)))


def api_page(path: Path) -> list[str]:
    """The lines of the page of a module, or of a package with its modules as sections."""
    name = f"diffjax.{path.stem}"
    lines = [f"# {path.stem}", "", *automodule(name, members=path.is_file())]
    for file in sorted(path.rglob("*.py")) if path.is_dir() else ():
        inner = ".".join(file.relative_to(path).with_suffix("").parts)
        if file.name != "__init__.py":
            lines += [f"## {path.stem}.{inner}", "", *automodule(f"{name}.{inner}", members=True)]
    return lines


def automodule(name: str, members: bool) -> list[str]:
    """What autodoc is asked for."""
    return ["```{eval-rst}", f".. automodule:: {name}", *(["   :members:"] if members else []), "```", ""]


def plain_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Before napoleon looks at it."""
    lines[:] = converted(lines)


def source_signature(app: Any, what: str, name: str, obj: Any, options: Any, args: Any, result: Any) -> Any:
    """Annotations as the source has them: Float[Array, 'batch *event'], and names for unions."""
    return signature(obj) if what in ("function", "method", "class") else None


def without_numbers(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """The fields of named tuples have no text but their number; the class tells what they are."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def link_pages(app: Any, doctree: Any) -> None:
    """Links to files of the repository that are pages here lead to these."""
    for node in doctree.findall(pending_xref):
        page = PAGES.get(re.sub(r"^(\.\./)+", "", node.get("reftarget", "")))
        if page:
            node.attributes.update(refdomain="std", reftype="doc", reftarget=f"/{page}", refexplicit=True)


def setup(app: Any) -> None:
    copy_notebooks()
    write_api()
    app.connect("autodoc-process-docstring", plain_docstring, priority=400)
    app.connect("autodoc-process-signature", source_signature)
    app.connect("autodoc-skip-member", without_numbers)
    app.connect("doctree-read", link_pages)
