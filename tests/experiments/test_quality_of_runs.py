"""The quality of a run's samples from the command line: in training, in --mode=eval, and --against others."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command import call
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from configs import classifier_digits
from diffjax import data
from diffjax.evaluation.bound import Bound
from diffjax.zoo import Model
from diffjax.zoo.make import SYSTEMS

NAME = "17levels_n60_train1500"


def template(config):
    """Images of a mean and a deviation for each pixel."""

    def terms(params, key, batch):
        x = jnp.asarray(batch["image"], float) / 8.0 - 1.0
        return {"nll": 0.5 * ((x - params["mean"]) ** 2).reshape(len(x), -1).sum(1)}

    return Model(
        init=lambda key: {"mean": jnp.zeros((8, 8, 1))},
        loss=lambda params, key, batch: terms(params, key, batch)["nll"],
        sample=lambda params, key, num: params["mean"] + 0.3 * jax.random.normal(key, (num, 8, 8, 1)),
        measures=[Bound(terms, unit="nats")],
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A classifier and two short runs of `template`, the first measured while it trains; and what the first said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SYSTEMS, "template", template)
        root = tmp_path_factory.mktemp("quality")
        (root / "template.py").write_text(
            "from configs import classifier_digits\n"
            "def get_config():\n"
            "    config = classifier_digits.get_config()\n"
            "    config.system = 'template'\n"
            "    config.evaluation.grid = 4\n"
            "    config.training.update(batch_size=96, steps=20, eval_every=10, log_every=10)\n"
            "    config.evaluation.update(quality_samples=60, quality_kept=200, num_examples=40)\n"
            "    return config\n"
        )
        call(
            "--config=configs/classifier_digits.py",
            f"--workdir={root}/classifier",
            "--config.training.steps=30",
            "--config.training.batch_size=96",
        )
        words = f"--config.evaluation.quality=pixels,run:{root}/classifier"
        file = f"--config={root}/template.py"
        said = call(file, f"--workdir={root}/a", words, "--config.evaluation.quality_while_training=True")
        call(file, f"--workdir={root}/b", "--config.training.learning_rate=0.1")
        yield root, said


def test_a_run_reports_quality_of_its_samples_and_its_classes(place):
    root, done = place
    assert done.returncode == 0, done.stderr
    report = json.loads((root / "a/eval.json").read_text())
    assert set(report["quality_of"]) == {f"pixels_{NAME}", f"classifier_digits_{NAME}"}
    assert {key.partition("/")[0] for key in report["quality"]} >= {"inception_score", "classes", "nearest_training"}
    score = report["quality"][f"precision_recall/pixels_{NAME}"]
    assert f"precision recall: precision {score['precision']:.4g}, recall {score['recall']:.4g}" in done.stdout
    # The numbers of quality are what the run says last.
    assert done.stdout.rstrip().splitlines()[-1].startswith("  nearest training:")
    # 60 samples of 64 pixels, but of 32 features.
    assert "frechet distance: not measured: 60 examples of 64 features" in done.stdout.replace("_", " ")
    assert report["quality"][f"frechet_distance/classifier_digits_{NAME}"]["value"] > 0


def test_the_picture_shows_samples_beside_their_neighbours(place):
    picture = np.asarray(Image.open(place[0] / "a/samples/neighbours_pixels.png").convert("L"))
    side = (picture.shape[0] - 1) // 4  # four rows of three samples, each with three neighbours; a line between cells
    centres = np.arange(8) * (side - 1) // 8 + side // 16 + 1
    cells = [picture[np.ix_(side * i + centres, side * j + centres)].ravel() for i in range(4) for j in range(12)]
    cells = np.array(cells, float).reshape(12, 4, 64)
    train = data.load(classifier_digits.get_config().data, "train").gather(np.arange(1500))["image"].reshape(1500, 64)
    far = np.linalg.norm(cells[:, :1] - np.round(train * (255 / 16)), axis=-1)
    shown = np.linalg.norm(cells[:, :1] - cells[:, 1:], axis=-1)
    np.testing.assert_allclose(shown, np.sort(far, axis=1)[:, :3])


def test_training_is_measured_at_every_evaluation(place):
    tags = {}
    (events,) = (place[0] / "a").glob("events.*")
    records, position = events.read_bytes(), 0
    while position < len(records):
        size = int.from_bytes(records[position : position + 8], "little")
        event = Event.FromString(records[position + 12 : position + 12 + size])
        position += 12 + size + 4
        for value in event.summary.value:
            tags.setdefault(value.tag, []).append(event.step)
    assert tags[f"quality/kernel_distance/pixels_{NAME}/value"].count(10) == 1
    assert 20 in tags[f"quality/kernel_distance/pixels_{NAME}/value"]


def test_two_runs_are_compared(place):
    root, _ = place
    words = "--config.evaluation.quality=pixels"
    done = call("--mode=eval", f"--workdir={root}/a", f"--against={root}/b", words)
    assert done.returncode == 0, done.stderr
    found = json.loads((root / "a/against.json").read_text())
    a, b = (found[f"{pair} to data/energy_distance/pixels_{NAME}"]["value"] for pair in "AB")
    assert b < a  # it has learned the mean
    assert found["A to B/energy_distance/pixels_17levels_n60_n60"]["value"] > 0
    assert f"quality by pixels_{NAME}, B to data:" in done.stdout
    assert json.loads((root / "a/eval.json").read_text())["step"] == 20  # of the run itself: as it was


def test_images_that_any_tool_made_are_compared(place):
    root, _ = place
    done = call("--mode=sample", f"--workdir={root}/b", "--num=60")
    (made,) = (root / "b/samples").glob("*.npz")
    folder = root / "folder"
    folder.mkdir()
    for i, image in enumerate(np.load(made)["images"]):
        Image.fromarray(image[..., 0]).save(folder / f"{i:03}.png")
    words, found = "--config.evaluation.quality=pixels", []
    for other in (folder, made):
        done = call("--mode=eval", f"--workdir={root}/a", f"--against={other}", words)
        assert done.returncode == 0, done.stderr
        found.append(json.loads((root / "a/against.json").read_text()))
    same = [{key: v for key, v in one.items() if key.startswith(("A to", "B to"))} for one in found]
    assert same[0] == same[1] and len(same[0]) == 24
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(folder / "other.png")
    done = call("--mode=eval", f"--workdir={root}/a", f"--against={folder}", words)
    assert done.returncode == 1 and "other.png has the shape (9, 8, 1), the data are (8, 8, 1)" in done.stderr


def test_features_that_cannot_be_had_are_refused_before_training(place):
    root, _ = place
    done = call(f"--config={root}/template.py", f"--workdir={root}/new", "--config.evaluation.quality=run:/nowhere")
    assert done.returncode == 1 and "evaluation.quality /nowhere holds no run" in done.stderr, done.stderr
    assert not (root / "new").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--against=/nowhere"], "--against=/nowhere does not exist"),
        (["--against={root}/classifier/checkpoints"], "holds 0 image files and no run"),
        (["--against={root}/classifier"], "'classifier' has no samples"),
        (["--against={root}/b", "--config.evaluation.quality="], "--against needs features"),
        (["--config.evaluation.quality=run:{root}/none"], "evaluation.quality {root}/none holds no run"),
        (["--config.evaluation.quality_reference=all"], "evaluation.quality_reference must be one of train, test"),
        (["--config.evaluation.quality_samples=3"], "evaluation.quality_samples = 3 must be an integer of at least 20"),
    ],
)
def test_bad_input_is_one_sentence(place, arguments, message):
    root, _ = place
    before = (root / "a/eval.json").read_bytes()
    given = [argument.format(root=root) for argument in arguments]
    words = [] if any("quality=" in one for one in given) else ["--config.evaluation.quality=pixels"]
    done = call("--mode=eval", f"--workdir={root}/a", *given, *words)
    assert done.returncode == 1 and message.format(root=root) in done.stderr and done.stderr.count("\n") == 1, (
        done.stderr
    )
    assert (root / "a/eval.json").read_bytes() == before
