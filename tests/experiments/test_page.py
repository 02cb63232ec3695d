"""report.html of workdirs written by hand: it parses, needs nothing else, and shows what the files say, escaped."""

import base64
import html.parser
import itertools
import json
import re

import numpy as np
import pytest
from PIL import Image

from experiments import page

VOID = {"meta", "img"}


class Reader(html.parser.HTMLParser):
    """Checks that every element is closed in its turn; keeps images, attributes, and each element with its text."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.images, self.attributes, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag == "img":
            self.images.append(dict(attributes))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.append([tag, ""])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.texts[-1][0] == self.open[-1]:  # not the white space after an element
            self.texts[-1][1] += data

    def cells(self):
        return [text for tag, text in self.texts if tag in ("th", "td")]


CONFIG = {
    "system": "vae",
    "data": {"name": "<b>bold</b>", "dir": "a & \"b\" 'c'", "std": None},
    "net": {"features": [[64], [2, 3]]},
}
REPORT = {
    "step": 20,
    "bits_per_dim": 1.23456789,
    "terms": {"prior": 0.5, "diffusion": None},
    "quality": {"frechet<1>": {"value": 2.0, "halves": {"value": 0.1}}, "recall": {"value": 0.75}},
    "machine": {"processor": "AMD <EPYC>", "cores": 2},
    "versions": {"jax": "0.10.2"},
    "command": "python -m experiments.main --config.data.name='<i>x</i>'",
}


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "eval.json").write_text(json.dumps(REPORT))
    lines = [{"step": n, "loss": 1 / n, "skipped": 0} for n in (5, 10, 15)]
    lines.append({"step": 15, "bits_per_dim": 1.25})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "samples").mkdir()
    for name in [*(f"step_{n:08d}.png" for n in range(10, 110, 10)), "film.gif", "ddim_5_seed_0.png", "a&b.png"]:
        Image.fromarray(np.full((4, 4), len(name), np.uint8)).save(tmp_path / "samples" / name)
    np.savez(tmp_path / "samples" / "ddim_5_seed_0.npz", samples=np.zeros(3))
    return tmp_path


def test_it_is_closed_and_needs_nothing_else(workdir):
    text = page.write(workdir, ["step 20: 1.23 < 2 & more"]).read_text()
    read = Reader(text)
    assert text.startswith("<!DOCTYPE html>\n<html lang=") and not re.search(
        r"<script|<link|<iframe|@import|url\(", text
    )
    references = [value for _, name, value in read.attributes if name in ("src", "href", "srcset", "data", "action")]
    assert references and all(value.startswith("data:image/") for value in references)
    assert all(image["alt"] for image in read.images)
    assert not list(workdir.glob("*.part"))


def test_it_says_what_the_files_say(workdir):
    read = Reader(page.page(workdir, ["step 20: 1.23 < 2 & more"]))
    cells, text = read.cells(), " ".join(data for _, data in read.texts)
    pairs = list(itertools.pairwise(cells))
    for pair in (("bits_per_dim", "1.23457"), ("prior", "0.5"), ("diffusion", "–"), ("jax", "0.10.2"), ("cores", "2")):
        assert pair in pairs
    assert ("features", "((64), (2, 3))") in pairs and ("std", "–") in pairs
    at = cells.index("frechet<1>")  # a table of measures: its columns are their parts
    assert cells[at - 3 : at + 6] == ["", "value", "halves.value", "frechet<1>", "2", "0.1", "recall", "0.75", ""]
    assert "step 20: 1.23 < 2 & more" in text and REPORT["command"] in text


def test_text_is_text_and_no_markup(workdir):
    text = page.page(workdir, ["<u>told</u>"])
    read = Reader(text)
    assert ("name", "<b>bold</b>") in list(itertools.pairwise(read.cells()))
    assert "&lt;b&gt;bold&lt;/b&gt;" in text and not re.search(r"<[biu]>|<EPYC>", text)
    assert "a &amp; &quot;b&quot; &#x27;c&#x27;" in text


def test_pictures_are_those_of_samples_and_curves_those_that_move(workdir):
    read = Reader(page.page(workdir))
    captions = [text for tag, text in read.texts if tag == "figcaption"]
    # A quarter, half, three quarters and the end of ten grids; the run's figures; nothing that --mode=sample drew.
    assert captions == [*(f"step_{n:08d}.png" for n in (20, 50, 80, 100)), "a&b.png", "film.gif"]
    curves, *others = read.images
    for name, image in zip(captions, others, strict=True):
        assert base64.b64decode(image["src"].split(",")[1]) == (workdir / "samples" / name).read_bytes()
    svg = base64.b64decode(curves["src"].split(",")[1])
    assert curves["alt"] == "curves of loss" and b"<svg" in svg
    (workdir / "samples" / "film.gif").write_bytes(bytes(page.LARGEST + 1))
    assert "too large for this page" in page.page(workdir)


def test_an_empty_workdir_has_a_page_too(tmp_path):
    assert "without a command line" in "".join(data for _, data in Reader(page.page(tmp_path)).texts)
