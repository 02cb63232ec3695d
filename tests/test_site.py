"""The pages of docs/ are true: their Python runs, what they name exists, their numbers are those of the results."""

import contextlib
import importlib
import importlib.util
import io
import re

import pytest

import diffjax as dj
from tests.pages import ROOT, check_names, has_field

DOCS = ROOT / "docs"
PAGES = sorted(
    path for path in DOCS.rglob("*.md") if path.relative_to(DOCS).parts[0] not in ("api", "notebooks", "_build")
)
SYSTEMS = [path for path in PAGES if path.parent.parent == DOCS / "systems"]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("[!_]*.py") if path.stem != "base")
NUMBERS = (ROOT / "README.md").read_text() + (ROOT / "experiments/results/README.md").read_text()


def name_of(path):
    return str(path.relative_to(DOCS))


def config(name):
    return importlib.import_module(f"configs.{name}").get_config()


@pytest.fixture(scope="module")
def docstrings():
    spec = importlib.util.spec_from_file_location("docs_docstrings", DOCS / "docstrings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_names_exists(page):
    text = page.read_text()
    named = set(re.findall(r"configs/(\w+)\.py", text)) & set(CONFIGS)
    configs = [config(name) for name in sorted({"digits", "base", *named})]
    check_names(text, configs)
    for link in re.findall(r"\]\(([^)#]+)", re.sub(r"```\{include\}.*?```", "", text, flags=re.DOTALL)):
        assert link.startswith("http") or (page.parent / link).is_file(), link
    for name in re.findall(r"`(?:dj\.|diffjax\.)?(\w+\.\w+)", text):
        package, _, function = name.partition(".")
        if package in dj.__all__ and function != "py" and not any(has_field(known, name) for known in configs):
            assert hasattr(getattr(dj, package), function), name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_includes_is_found(page):
    for file, options in re.findall(r"```\{include\} (\S+)\n((?::.*\n)*)```", page.read_text()):
        text = (page.parent / file).read_text()
        for option in ("start-after", "end-before"):
            if found := re.search(rf":{option}: \"?(.*?)\"?\n", options):
                mark = found[1].replace("\\n", "\n")
                assert mark in text, mark
                text = text.split(mark, 1)[option == "start-after"]
        assert text.strip()


def blocks_of(page):
    """(the reason not to run it, or "", the code) of all Python of a page."""
    return re.findall(r"(?:^% not run: (.*)\n)?^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


# test_design.py runs the examples of design.md, test_readme.py those of library.md.
WITH_PYTHON = [page for page in PAGES if page.name not in ("design.md", "library.md") and blocks_of(page)]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_the_python_of_a_page_runs(page):
    namespace = {"__name__": "example"}
    for reason, code in blocks_of(page):
        program = compile(code, name_of(page), "exec")  # also what is not run is Python
        if reason:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(program, namespace)
        said = re.findall(r"^print\(.*\)  # (.*)$", code, flags=re.MULTILINE)
        assert printed.getvalue().splitlines() == said


def test_every_configuration_has_the_page_of_a_system():
    text = "".join(page.read_text() for page in SYSTEMS)
    assert [name for name in CONFIGS if f"configs/{name}.py" not in text] == []


def test_every_page_of_a_system_is_listed_and_complete():
    index = (DOCS / "systems/index.md").read_text()
    for page in SYSTEMS:
        text = page.read_text()
        assert f"\n{page.relative_to(DOCS / 'systems').with_suffix('')}\n" in index
        for part in ("$$", "python -m experiments.main", "**Our number**", "**In the library**"):
            assert part in text, (page, part)
        assert 15 <= len(text.splitlines()) <= 40, page


@pytest.mark.parametrize("page", [*SYSTEMS, DOCS / "guide.md", DOCS / "faq.md"], ids=name_of)
def test_numbers_with_errors_are_those_of_the_results(page):
    for number in re.findall(r"\d[\d.,]* ± \d[\d.]*\d", page.read_text()):
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", NUMBERS), number


def test_the_tables_of_the_guide_are_those_of_the_results():
    """Each row of a sampler or a guidance has the numbers of its row there."""
    rows = re.findall(r"^\| (.+?) \|(.*)\|$", (ROOT / "experiments/results/README.md").read_text(), flags=re.MULTILINE)
    known = {}
    for name, cells in rows:
        known.setdefault(name, []).append([cell.strip() for cell in cells.split("|")])
    guide = (DOCS / "guide.md").read_text()
    names = {"`unipc` (order 2)": "unipc", "`unipc`, `--config.sampling.order=3`": "unipc of order 3"}
    for name, *cells in re.findall(r"^\| (`.+?) \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", guide, flags=re.MULTILINE):
        if name.startswith("`--sampler`"):
            continue
        found = known[names.get(name, name.strip("`"))]
        assert [row[1] for row in found if len(row) == 5] == cells, name
    guided = {
        "none: the unconditional model": "classifier-free",
        "none: the conditional model": "classifier-free",
        "the same on times [0.2, 0.7] alone": "on [0.2, 0.7] alone",
        "autoguidance, by the network after 200 steps": "autoguidance",
    }
    for name, *cells in re.findall(
        r"^\| (\w.+?) \| ([\d.]+)" + r" \| ([\d.]+)" * 4 + r" \|$", guide, flags=re.MULTILINE
    ):
        assert cells in known[guided.get(name, name)], name


def test_the_stable_names_are_there():
    rows = re.findall(r"^\| `(\w+)` \| (`.*`) \|$", (DOCS / "api.md").read_text(), flags=re.MULTILINE)
    assert len(rows) == 16
    for package, names in rows:
        module = importlib.import_module(f"diffjax.{package}")
        for name in re.findall(r"`(\w+)`", names):
            assert hasattr(module, name), f"{package}.{name}"


def test_all_say_the_same_version():
    version = re.search(r'version="([\d.]+)"', (ROOT / "setup.py").read_text())[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1].endswith(f"({version})")


def test_a_docstring_becomes_what_it_looks_like(docstrings):
    said = """The law; `x_t` is code: |x| and x_0, *not* markup, an end_ of a name.

    eps    the noise
    x0     the data

from_betas: the chain,
    of T steps

Args:
    num_steps: as of `sample`, *all* of them.

Raises:
    InputError: if |x| is not finite."""
    assert docstrings.converted(said.split("\n")) == [
        r"The law; ``x_t`` is code: \|x\| and x_0, \*not\* markup, an end\_ of a name.",
        "",
        "::",
        "",
        "    eps    the noise",
        "    x0     the data",
        "",
        "- from_betas: the chain,",
        "  of T steps",
        "",
        "Args:",
        r"    num_steps: as of ``sample``, \*all\* of them.",
        "",
        "Raises:",
        r"    InputError: if \|x\| is not finite.",
        "",
    ]
    assert docstrings.converted(["one: two", "  three", "four: five", "  six"])[:4] == [
        "- one: two",
        "  three",
        "- four: five",
        "  six",
    ]


def test_a_signature_is_that_of_the_source(docstrings):
    arguments, result = docstrings.signature(dj.samplers.ddim)
    assert arguments == "(process: Gaussian, eta: ArrayLike=0.0)"
    assert result == "Stepper"
    assert docstrings.signature(dj.samplers.Stepper)[0].startswith("(prior: Callable")
    assert docstrings.signature(len) is None


def test_every_page_is_in_the_contents():
    toctree = (DOCS / "index.md").read_text().split("{toctree}")[1]
    for page in PAGES:
        name = page.relative_to(DOCS)
        assert (
            len(name.parts) > 1
            or name.stem == "index"
            or f"\n{name.stem}\n" in toctree
            or f"<{name.stem}>\n" in toctree
        )
