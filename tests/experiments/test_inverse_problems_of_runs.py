"""Three inverse problems on the images of a run: what the truth has in the table, and what is refused."""

import re

import numpy as np
import pytest
from command import TINY, call
from PIL import Image

from experiments.results import inverse_problems


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("inverse")
    (place / "tiny.py").write_text(TINY)
    result = call(f"--config={place / 'tiny.py'}", f"--workdir={place / 'run'}")
    assert result.returncode == 0, result.stderr
    return place / "run"


@pytest.mark.slow
def test_the_table_and_the_picture(trained, capsys):
    inverse_problems.main([str(trained), "--images=5", "--steps=4", "--particles=2"])
    out = capsys.readouterr().out
    rows = re.findall(r"^\| ([\w-]+) \| ([\w-]+) \| ([\d.]+) ± [\d.]+ \| ([\d.]+) \|$", out, flags=re.MULTILINE)
    assert [row[1] for row in rows] == 3 * ["truth", "pseudoinverse-guided", "DPS", "twisted"]
    for (_, method, error, off), measured in zip(rows, np.repeat([48, 16, 64], 4), strict=True):
        if method == "truth":  # it is off by the noise: a chi-square of all that was measured
            assert float(error) == 0
            assert abs(float(off) - 1) < 5 / np.sqrt(2 * 5 * measured)
        else:
            assert 0 < float(error) < 4
    picture = np.asarray(Image.open(trained / "samples" / "inverse_problems.png"))
    side = (picture.shape[0] - 1) // 5  # five rows, and three times five columns
    assert picture.shape[1] == 15 * side + 1
    np.testing.assert_array_equal(picture[1:side, 1 : 5 * side], picture[1:side, 5 * side + 1 : 10 * side])


@pytest.mark.slow
def test_what_cannot_be_is_one_sentence(trained):
    for wrong, message in {
        "--images=0": "--images=0 must be from 1 to",
        "--steps=11": "steps must be from 1 to the chain's 10",
        "--particles=0": "at least one particle",
        "--noise=0": "noise above 0",
    }.items():
        with pytest.raises(SystemExit, match=f"error: .*{message}"):
            inverse_problems.main([str(trained), "--steps=4", "--images=2", wrong])
    with pytest.raises(SystemExit, match=r"error: .*nowhere"):
        inverse_problems.main(["nowhere"])
