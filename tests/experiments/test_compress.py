"""--mode=compress and --mode=decompress as a user types them: a round trip byte for byte, and what is refused."""

import io
import json
import zipfile

import numpy as np
import pytest
from command import QUICK, call, refused
from PIL import Image
from sklearn.datasets import load_digits

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    (root / "quick.py").write_text(QUICK)
    coded = "--config.evaluation.coded_examples=30"
    for name, more in (("run", coded), ("other", "--config.training.seed=1")):
        done = call(f"--config={root}/quick.py", f"--workdir={root}/{name}", more)
        assert done.returncode == 0, done.stderr
    return root / "run"


def levels(num):
    return load_digits().images[:num, :, :, None].astype(np.uint8)


def test_a_thousand_digits_come_back_byte_for_byte(workdir, tmp_path):
    path, back = tmp_path / "x.npy", tmp_path / "y.npy"
    np.save(path, levels(1000))
    done = call("--mode=compress", f"--workdir={workdir}", f"--file={path}")
    assert done.returncode == 0, done.stderr
    coded = tmp_path / "x.npy.djx"
    assert f"{coded}: 1000 examples in {coded.stat().st_size} bytes" in done.stdout
    assert coded.stat().st_size < path.stat().st_size / 1.5
    done = call("--mode=decompress", f"--workdir={workdir}", f"--file={coded}", f"--output={back}")
    assert done.returncode == 0, done.stderr
    assert back.read_bytes() == path.read_bytes()
    # Nothing is overwritten unless asked.
    coded_again = call("--mode=compress", f"--workdir={workdir}", f"--file={path}")
    assert f"{coded} exists already: name another by --output, or add --overwrite" in refused(coded_again)
    assert "exists already" in refused(call("--mode=decompress", f"--workdir={workdir}", f"--file={coded}"))
    assert call("--mode=compress", f"--workdir={workdir}", f"--file={path}", "--overwrite").returncode == 0
    # What is damaged or of another model.
    data = coded.read_bytes()
    for wrong, says in (
        (data[:-5], "is truncated"),
        (data[:90] + b"\0\1" + data[92:], "is damaged"),
        (b"x", "not written"),
    ):
        (tmp_path / "wrong.djx").write_bytes(wrong)
        said = refused(call("--mode=decompress", f"--workdir={workdir}", f"--file={tmp_path}/wrong.djx"))
        assert says in said, said
    other = call(
        "--mode=decompress", f"--workdir={workdir.parent}/other", f"--file={coded}", f"--output={tmp_path}/z.npy"
    )
    assert "was coded by another model" in refused(other)
    assert not (tmp_path / "z.npy").exists()


def test_a_run_reports_the_size_of_its_code_beside_the_bound(workdir):
    found = json.loads((workdir / "eval.json").read_text())["code"]
    assert found["num_examples"] == 30
    net = found["bits_per_dim"] - found["borrowed"]  # what is left beyond the bound: the head and the rounding
    assert found["reported"] * 0.97 < net < found["reported"] * 1.03 + 8 * 70 / (30 * 64)


def test_an_image_comes_back_as_an_image(workdir, tmp_path):
    grey = np.rint(levels(1)[0, :, :, 0] * (255 / 16)).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "x.png")
    assert call("--mode=compress", f"--workdir={workdir}", f"--file={tmp_path}/x.png").returncode == 0
    back = f"--output={tmp_path}/y.png"
    assert call("--mode=decompress", f"--workdir={workdir}", f"--file={tmp_path}/x.png.djx", back).returncode == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "y.png")), grey)
    wrong = f"--output={tmp_path}/y.npy"
    done = call("--mode=decompress", f"--workdir={workdir}", f"--file={tmp_path}/x.png.djx", wrong)
    assert "the name must end with .png" in refused(done)


def test_what_cannot_be_coded_is_refused(workdir, tmp_path):
    def of(name, data):
        (tmp_path / name).write_bytes(data)
        return refused(call("--mode=compress", f"--workdir={workdir}", f"--file={tmp_path}/{name}"))

    def saved(save, *args):
        out = io.BytesIO()
        save(out, *args)
        return out.getvalue()

    x = levels(2)
    assert "has the value 17: levels are 0 .. 16" in of("a.npy", saved(np.save, x + (x == 16).astype(np.uint8)))
    assert "(2, 8, 8)" in of("b.npy", saved(np.save, x[..., 0]))
    assert "cannot be read as an array" in of("c.npy", b"\x93NUMPY")
    assert "cannot be read as an array" in of("d.npz", saved(np.savez, x)[:100])
    two = io.BytesIO()
    np.savez(two, a=x, b=x)
    assert zipfile.is_zipfile(two) and "name one 'images'" in of("e.npz", two.getvalue())
    odd = np.full((8, 8), 100, np.uint8)
    grey = saved(lambda out: Image.fromarray(odd).save(out, format="PNG"))
    assert "has the grey value 100, which is none of the run's 17 levels" in of("f.png", grey)
    assert "mode L and shape (4, 8, 1)" in of(
        "g.png", saved(lambda out: Image.fromarray(odd[:4]).save(out, format="PNG"))
    )
    assert "JPEG has lost" in of("h.jpg", b"")
    assert "'.txt' is not known" in of("i.txt", b"")
    assert "cannot be read as an image" in of("j.png", b"x")
    missing = call("--mode=compress", f"--workdir={workdir}", f"--file={tmp_path}/nothing.npy")
    assert "does not exist" in refused(missing)
    assert "need --file" in refused(call("--mode=compress", f"--workdir={workdir}"))
