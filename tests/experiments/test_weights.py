"""The command for everybody's weights: into a workdir, out of it, and what it refuses."""

import argparse
import json
import sys

import jax
import numpy as np
import pytest
from command import TINY
from command import run as command
from safetensors.numpy import load_file, save_file

from diffjax.errors import InputError
from diffjax.nets import published
from diffjax.nets.unet import UNet
from experiments import run as runs
from experiments import weights, weights_file
from experiments.opened import open_run, open_saved

CONFIG = {
    "_class_name": "UNet2DModel", "_diffusers_version": "0.42.1", "sample_size": 8, "block_out_channels": [8, 8],
    "layers_per_block": 1, "norm_num_groups": 2, "attention_head_dim": 4, "in_channels": 1, "out_channels": 1,
    "down_block_types": ["DownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "UpBlock2D"],
}  # fmt: skip
SCHEDULER = {"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}


def written_by_hand():
    """The names and shapes of that network, as diffusers writes them."""
    shapes = {"conv_in": (8, 1, 3, 3), "time_embedding.linear_1": (32, 8), "time_embedding.linear_2": (32, 32)}
    shapes |= {"conv_norm_out": (8,), "conv_out": (1, 8, 3, 3), "mid_block.attentions.0.group_norm": (8,)}
    shapes |= {f"mid_block.attentions.0.{name}": (8, 8) for name in ("to_q", "to_k", "to_v", "to_out.0")}
    shapes |= {f"{place}_blocks.0.{place}samplers.0.conv": (8, 8, 3, 3) for place in ("down", "up")}
    blocks = {f"down_blocks.{i}.resnets.0": 8 for i in (0, 1)} | {f"mid_block.resnets.{i}": 8 for i in (0, 1)}
    blocks |= {f"up_blocks.{i}.resnets.{j}": 16 for i in (0, 1) for j in (0, 1)}
    for name, width in blocks.items():
        shapes |= {f"{name}.norm1": (width,), f"{name}.conv1": (8, width, 3, 3), f"{name}.time_emb_proj": (8, 32)}
        shapes |= {f"{name}.norm2": (8,), f"{name}.conv2": (8, 8, 3, 3)}
        shapes |= {f"{name}.conv_shortcut": (8, 16, 1, 1)} if width == 16 else {}
    rng, tensors = np.random.default_rng(0), {}
    for name, shape in shapes.items():
        tensors[f"{name}.weight"] = rng.standard_normal(shape).astype("f4")
        tensors[f"{name}.bias"] = rng.standard_normal(shape[0]).astype("f4")
    return tensors


def write_theirs(place, tensors, **config):
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(CONFIG | config))
    (place / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    save_file(tensors, place / "diffusion_pytorch_model.safetensors")
    return place


def door(*arguments):
    weights.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder as diffusers writes it, the workdir made of it, its file, and a workdir of that."""
    place = tmp_path_factory.mktemp("weights")
    write_theirs(place / "theirs", written_by_hand())
    door(place / "theirs", place / "run")
    door(place / "run", place / "file/mine.safetensors")
    return place


def ema(directory):
    return runs.restore_ema(open_saved(directory), None)


def test_a_workdir_has_their_network_chain_and_weights(places):
    run = open_saved(places / "run")
    diffusion, net = run.saved["diffusion"], run.saved["net"]
    assert (diffusion["schedule"], diffusion["prediction"], diffusion["variance"]) == ("cosine", "v", "posterior")
    assert (net["channels"], net["multipliers"], net["num_blocks"], net["attention"]) == (8, [1, 1], 1, [])
    assert net["conventions"] == {
        "groups": 2, "epsilon": 1e-5, "head_width": 4, "symmetric": True, "last_frequency": False,
    }  # fmt: skip
    assert (run.saved["data"]["shape"], run.saved["data"]["name"]) == ([8, 8, 1], "unknown")
    step, params = ema(places / "run")
    theirs = written_by_hand()
    assert step == 0
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == sum(value.size for value in theirs.values())
    up = theirs["up_blocks.1.resnets.0.conv_shortcut.weight"]  # at the highest resolution, which we count as 0
    np.testing.assert_array_equal(params["up_0_block_0"]["nin_shortcut"]["kernel"], up[:, :, 0, 0].T)
    np.testing.assert_array_equal(
        params["down_0_downsample"]["kernel"], theirs["down_blocks.0.downsamplers.0.conv.weight"].transpose(2, 3, 1, 0)
    )
    cosines, sines = np.split(theirs["time_embedding.linear_1.weight"].T, 2)  # flip_sin_to_cos is diffusers' default
    np.testing.assert_array_equal(params["temb_dense0"]["kernel"], np.concatenate([sines, cosines]))


def test_a_folder_comes_out_with_every_tensor(places, tmp_path):
    door(places / "run", tmp_path / "out")
    again, theirs = load_file(tmp_path / "out/diffusion_pytorch_model.safetensors"), written_by_hand()
    assert again.keys() == theirs.keys()
    first = "time_embedding.linear_1.weight"
    theirs[first] = np.roll(theirs[first], 4, axis=1)
    for name, value in theirs.items():
        np.testing.assert_array_equal(again[name], value)
    found = {name: json.loads((tmp_path / f"out/{name}.json").read_text()) for name in ("config", "scheduler_config")}
    wanted = {name: value for name, value in CONFIG.items() if name != "_diffusers_version"} | {
        "flip_sin_to_cos": False
    }
    assert {name: found["config"][name] for name in wanted} == wanted
    assert {name: found["scheduler_config"][name] for name in SCHEDULER} == SCHEDULER
    assert json.loads((tmp_path / "out/model_index.json").read_text())["unet"] == ["diffusers", "UNet2DModel"]


def test_a_file_says_what_it_is_and_begins_other_runs(places, tmp_path):
    file = places / "file/mine.safetensors"
    found = weights_file.read(file, "init_from")
    assert (found.step, found.config.system, found.config.net.channels) == (0, "ddpm", 8)
    card = (places / "file/README.md").read_text()
    for words in ("`mine.safetensors` holds", "`unknown`", "(8, 8, 1)", "# license:", "Not measured", f"{places}"):
        assert (words in card) == (words != f"{places}"), words
    other = open_run(found.config, tmp_path)._replace(init_from=str(file))
    given = runs._given(other)
    assert jax.tree.all(jax.tree.map(np.array_equal, given, ema(places / "run")[1]))
    other.saved["net"]["conventions"] = {"groups": 4}
    with pytest.raises(
        InputError, match=r"init_from=.*mine\.safetensors.* has a network with net\.conventions=.*'groups': 2"
    ):
        runs._given(other)


def test_a_card_has_the_numbers_of_the_report(places):
    run = open_saved(places / "run")
    (places / "run/eval.json").write_text(json.dumps({"step": 7, "bound": {"total": 3.25}, "machine": {"cores": 2}}))
    card = weights.model_card(run, "mine.safetensors", 7, ema(places / "run")[1])
    assert "eval.json, of step 7:" in card
    assert "| bound.total | 3.25 |" in card
    assert "cores" not in card
    assert "not of step 8, whose weights these are" in weights.model_card(run, "mine.safetensors", 8, {})


def test_an_evaluated_init_from_is_exclusive_of_a_teacher(tmp_path):
    from configs import progressive_digits
    from experiments.opened import open_to_train

    config = progressive_digits.get_config()
    config.init_from = "x"
    with pytest.raises(InputError, match=r"init_from='x': a run of .* begins with its teacher"):
        open_to_train(config, tmp_path)


def truncated(place):
    file = write_theirs(place / "theirs", written_by_hand()) / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return file.parent


def without_weights(place):
    (write_theirs(place / "theirs", written_by_hand()) / "diffusion_pytorch_model.safetensors").unlink()
    return place / "theirs"


def a_pickle(place):
    (place / "edm.pkl").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    return place / "edm.pkl"


def another_file(place):
    save_file({"a": np.zeros(2, "f4")}, place / "a.safetensors")
    return place / "a.safetensors"


def half_a_file(places, place):
    data = (places / "file/mine.safetensors").read_bytes()
    (place / "half.safetensors").write_bytes(data[: len(data) // 2])
    return place / "half.safetensors"


REFUSED = {
    "missing": (lambda places, place: place / "nowhere", "does not exist; name a folder or a file"),
    "truncated": (lambda places, place: truncated(place), "safetensors is truncated, or no"),
    "no weights": (lambda places, place: without_weights(place), "has no diffusion_pytorch_model.safetensors; copy"),
    "another class": (
        lambda places, place: write_theirs(place / "theirs", {}, _class_name="UNet2DConditionModel"),
        "_class_name is 'UNet2DConditionModel', and only 'UNet2DModel' is read",
    ),
    "another width": (
        lambda places, place: write_theirs(place / "theirs", written_by_hand(), block_out_channels=[8, 16]),
        r"down_blocks.0.downsamplers|tensors lacks .*conv_shortcut",
    ),
    "another shape": (
        lambda places, place: write_theirs(place / "theirs", written_by_hand() | {"conv_in.bias": np.zeros(9, "f4")}),
        r"conv_in.bias has shape \(9,\), but this network needs \(8,\)",
    ),
    "a pickle": (lambda places, place: a_pickle(place), "a .pkl, such as EDM's, is a program that unpickling runs"),
    "an empty folder": (lambda places, place: place, "neither a run nor a folder of diffusers"),
    "another's file": (lambda places, place: another_file(place), "says nothing of its network"),
    "half a file": (half_a_file, "is truncated, or no safetensors file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_one_sentence_and_writes_nothing(case, places, tmp_path, capsys):
    make, words = REFUSED[case]
    with pytest.raises(SystemExit) as stopped:
        door(make(places, tmp_path), tmp_path / "out")
    message = str(stopped.value)
    assert message.startswith("error: ")
    assert "\n" not in message
    with pytest.raises(InputError, match=words):
        raise InputError(message)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "ran").exists()
    assert capsys.readouterr().out == ""


def test_nothing_is_overwritten(places, tmp_path):
    for there, out in (
        ("run", "run"),
        ("theirs", "run"),
        ("run", "file/mine.safetensors"),
        ("run", "file/b.safetensors"),
    ):
        before = {path: path.stat().st_mtime_ns for path in places.rglob("*")}
        with pytest.raises(SystemExit, match=r"error: .* exists"):
            door(places / there, places / out)
        assert {path: path.stat().st_mtime_ns for path in places.rglob("*")} == before


def test_ddpms_own_file_is_of_a_run_of_its_size(tmp_path):
    """The names are those that `test_published` checks against the equations; here the settings that shapes say."""
    net = UNet(channels=8, multipliers=(1, 2), num_blocks=1, attention=(16,), out_channels=1)
    like = jax.eval_shape(net.init, jax.random.key(0), np.zeros((1, 32, 32, 1), "f4"), np.zeros(1, "f4"))
    tensors = {}
    for path, leaf in jax.tree.leaves_with_path(like):
        name = published.ddpm_name(tuple(key.key for key in path)) + published.AVERAGE
        tensors[name] = np.random.default_rng(len(tensors)).standard_normal(leaf.shape).astype("f4")
    np.savez(tmp_path / "ddpm.npz", **tensors)
    found = published.open_published(tmp_path / "ddpm.npz")
    options = argparse.Namespace(config=None, schedule=None, steps=None)
    config = weights.config_for(found, tmp_path, options)
    # Attention at the second level means that this has 16x16 and the images 32x32.
    assert (config.data.shape, config.net.attention, config.net.multipliers) == ((32, 32, 1), (16,), (1, 2))
    assert (config.diffusion.schedule, config.diffusion.num_steps, config.diffusion.variance) == (
        "linear",
        1000,
        "forward",
    )
    assert "conventions" not in config.net
    params = found.params(like["params"], 1000)
    np.testing.assert_array_equal(
        params["mid_attn"]["q"]["kernel"], tensors["model/mid/attn_1/q/W" + published.AVERAGE]
    )
    with pytest.raises(InputError, match="lacks model/conv_in"):
        published.network_of_ddpm({}, 0, "here")


@pytest.mark.slow
def test_the_commands_as_typed(places, tmp_path):
    """A trained run goes out as a file, and both a workdir of it and a training from it begin with its weights."""
    file = tmp_path / "tiny.py"
    file.write_text(TINY)
    first, second = tmp_path / "first", tmp_path / "second"
    done = command(f"--config={file}", f"--workdir={first}", "--config.training.steps=2")
    assert done.returncode == 0, done.stderr
    door(first, tmp_path / "out/tiny.safetensors")
    card = (tmp_path / "out/README.md").read_text()
    assert "eval.json, of step 2:" in card
    assert "`digits`" in card
    done = command(
        f"--config={file}", f"--workdir={second}", f"--config.init_from={tmp_path}/out/tiny.safetensors",
        "--config.training.steps=1", "--config.training.keep_every=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    given, begun = ema(first)[1], runs.restore_ema(open_saved(second), 0)[1]
    assert jax.tree.all(jax.tree.map(np.array_equal, given, begun))
    door(tmp_path / "out/tiny.safetensors", tmp_path / "third")
    samples = []
    for workdir in (first, tmp_path / "third"):
        done = command("--mode=sample", f"--workdir={workdir}", "--num=4")
        assert done.returncode == 0, done.stderr
        samples.append(np.load(next((workdir / "samples").glob("ancestral_*.npz")))["images"])
    np.testing.assert_array_equal(*samples)
    assert samples[0].std() > 0


def test_the_library_alone_says_that_it_needs_a_clone(monkeypatch):
    monkeypatch.setitem(sys.modules, "experiments.weights", None)
    with pytest.raises(SystemExit, match=r"^error: this command needs a clone of the repository"):
        published.main()
