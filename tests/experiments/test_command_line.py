"""What a command line may look like, and what is said of one that cannot be followed."""

import errno
import json
import pwd
import re
from pathlib import Path

import jax
import pytest
from absl import flags
from command import TINY, call, refused, run
from ml_collections import config_flags

from diffjax.errors import InputError
from diffjax.paths import local
from diffjax.training.checkpoint import Checkpointer
from experiments import main

STEPS = 7


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(TINY.replace("steps=20", f"steps={STEPS}"))
    return path


def parsed(*arguments):
    """(file of the configuration, training.steps, training.flip, --workdir, --num)"""
    seen = []

    def look(rest):
        training = main.CONFIG.value.training
        file = config_flags.get_config_filename(flags.FLAGS["config"])
        seen.append((file, training.steps, training.flip, main.WORKDIR.value, main.NUM.value))

    result = call(*arguments, also=look)
    assert result.returncode == 0, result.stderr
    return seen[0]


def test_every_way_to_write_an_option_means_the_same(tiny, tmp_path):
    lines = tmp_path / "flags"
    lines.write_text(f"# a comment\n--config {tiny}\n--workdir=w x\n--config.training.flip\n--num 3\n")
    ways = [
        [f"--config={tiny}", "--workdir=w x", "--config.training.flip=True", "--num=3"],
        ["--config", tiny, "--workdir", "w x", "--config.training.flip", "--num", "3"],
        ["-config", tiny, "-workdir", "w x", "-config.training.flip", "-num", "3"],
        [f"-config={tiny}", "-workdir=w x", "--config.training.flip=true", "-num=3"],
        ["--num", "3", "--config.training.flip", "--workdir", "w x", "--config", tiny],
        ["--config=nope.py", "--workdir=v", f"--config={tiny}", "--workdir=w x", "--num=3", "--config.training.flip"],
        [f"--flagfile={lines}"],
        ["--flagfile", lines],
        ["--num", "4", "--config.training.steps", STEPS, f"--flagfile={lines}"],
    ]  # fmt: skip
    for way in ways:
        assert parsed(*way) == (str(tiny), STEPS, True, "w x", 3), way


def test_without_a_configuration_it_is_that_of_the_workdir_however_this_is_written(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parsed("--num=2")[:2] == (str(main.DEFAULT), 800)
    workdir = tmp_path / "a run: ü"
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps({"training": {"steps": STEPS, "flip": False}}))
    lines = tmp_path / "flags"
    lines.write_text(f"--workdir={workdir}\n")
    for way in ([f"--workdir={workdir}"], ["-workdir", workdir], [f"--flagfile={lines}"], ["--workdir=~/a run: ü"]):
        assert parsed(*way)[1] == STEPS, way
        assert parsed(*way, "--config.training.steps", "9")[1] == 9
        assert parsed("--config.training.steps=9", *way)[1] == 9
    assert parsed(f"--workdir={workdir}", "--config=~/tiny.py")[0] == str(tiny)


def test_remote_places_are_refused_and_make_no_directory(tmp_path):
    before = sorted(path.name for path in main.DEFAULT.parents[1].iterdir())
    for place in ("gs://bucket/run", "s3://bucket/run", "file:///tmp/run"):
        for mode in ("train", "eval"):
            assert f"workdir = '{place}' is a remote place" in refused(call(f"--workdir={place}", f"--mode={mode}"))
    with pytest.raises(InputError, match="directory = 'gs:/bucket' is a remote place"):
        Checkpointer(Path("gs://bucket"))
    assert sorted(path.name for path in main.DEFAULT.parents[1].iterdir()) == before
    assert str(local("C:/runs", "workdir")) == "C:/runs"  # a drive is no scheme


def test_no_home_directory(tmp_path, monkeypatch):
    """HOME is not set, and the user is not in the passwd file: containers do so."""

    def nobody(number):
        raise KeyError(number)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert "no home directory" in refused(call("--mode=eval", "--workdir=~/r"))
    monkeypatch.setattr(main, "keep_one_arena", lambda: None)
    monkeypatch.setattr(main, "set_cpu_flags", lambda: None)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    cache, prepare = jax.config.jax_compilation_cache_dir, main._prepare
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        assert call(f"--workdir={tmp_path}/r", also=lambda rest: prepare()).returncode == 0
        assert jax.config.jax_compilation_cache_dir is None  # compiled programs are not kept
    finally:
        jax.config.update("jax_compilation_cache_dir", cache)


SEMI_SUPERVISED = "--config=configs/ssl_digits.py", "--config.training.batch_size=96"
DOORS = {
    "no number of images": (["--mode=sample", "--workdir=W", "--num=0"], "--num=0"),
    "seed below 0": (["--mode=sample", "--workdir=W", "--seed=-1"], "--seed=-1"),
    "seed of 33 bits": (["--mode=sample", "--workdir=W", "--seed=4294967296"], "--seed=4294967296"),
    "training seed of 33 bits": (["--config.training.seed=4294967296"], "training.seed = 4294967296 must be"),
    "training seed of 65 bits": (["--config.training.seed=18446744073709551616"], "below 2^32"),
    "training seed below 0": (["--config.training.seed=-1"], "training.seed = -1 must be an integer of at least 0"),
    "label seed of 65 bits": (
        [*SEMI_SUPERVISED, "--config.data.label_seed=18446744073709551616"],
        "data.label_seed = 18446744073709551616 must be",
    ),
    "empty configuration": (["--config="], "--config is empty"),
    "empty workdir": (["--workdir="], "--workdir is empty"),
    "no value": (["--workdir"], "Missing value for flag --workdir"),
    "no flag file": (["--flagfile=nowhere"], "nowhere"),
    "a directory as configuration": (["--config=configs"], "--config=configs cannot be used"),
    "processes without a coordinator": (["--num_processes=2", "--process_id=0"], "need --coordinator"),
    "a process too many": (
        ["--coordinator=x:1", "--num_processes=2", "--process_id=2", "--workdir=W"],
        "--process_id=2: give the number of processes",
    ),
    "a workdir under a file": (["--workdir=F/r"], "F/r cannot be written"),
    "a workdir that is a file": (["--workdir=F"], "F cannot be written (File exists)"),
    "a run that is a file": (["--mode=eval", "--workdir=F"], "F holds no run"),
    "a name too long": (["--workdir=" + 300 * "x"], "File name too long"),
    "no checkpoints": (["--mode=eval", "--workdir=W"], "there are no checkpoints in"),
    "mesh of no axes": (["--config.mesh=((1,2),)"], "mesh = ((1, 2),) has the axes 1"),
    "mesh of too many": (["--config.mesh=(('data',3),)"], "mesh = (('data', 3),) is for 3 devices, but there are 8"),
    "mesh of words": (["--config.mesh=('data','model')"], "mesh = ('data', 'model') is not a sequence"),
    "a section for a number": (["--config.training=5"], "config.training"),
    "batches of nothing": (["--config.evaluation.batch_size=0"], "evaluation.batch_size = 0 must be an integer of at"),
    "examples below 0": (["--mode=eval", "--workdir=W", "--config.evaluation.num_examples=-1"], "num_examples = -1"),
    "memory without end": (["--mode=plan", "--memory=inf"], "--memory = inf must be a finite number of GiB above 0"),
    "memory of nothing": (["--mode=plan", "--memory=nan"], "--memory = nan must"),
    "remote data": (["--config=configs/cifar10.py", "--config.data.dir=gs://b"], "data.dir = 'gs://b' is a remote"),
    "init_from a remote place": ([*SEMI_SUPERVISED, "--config.init_from=gs://b"], "init_from = 'gs://b' is a remote"),
    "init_from elsewhere": ([*SEMI_SUPERVISED, "--config.init_from=nowhere"], "init_from nowhere holds no run"),
}  # fmt: skip


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", DOORS)
def test_misuse_is_one_sentence(name, tmp_path):
    arguments, says = DOORS[name]
    (tmp_path / "F").write_text("kept")
    (tmp_path / "W").mkdir()
    there = tmp_path / "W" / "config.json"
    call("--workdir=x", also=lambda rest: there.write_text(main.CONFIG.value.to_json()))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    arguments = [re.sub("^--workdir=(?=.)", f"--workdir={tmp_path}/", a) for a in arguments]
    if not any("workdir" in a for a in arguments):
        arguments.append(f"--workdir={tmp_path}/new")
    assert says in refused(call(*arguments))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert (tmp_path / "F").read_text() == "kept"


@pytest.mark.slow
def test_a_damaged_or_foreign_config_json_is_one_sentence(tmp_path):
    """Cut short, of another kind, not text; fields that are missing, or that no version knows."""
    whole = []
    call("--workdir=x", also=lambda rest: whole.append(json.loads(main.CONFIG.value.to_json())))
    text = json.dumps(whole[0])
    with_more = json.dumps({**whole[0], "training": {**whole[0]["training"], "momentum": 1}})
    without = json.dumps({name: section for name, section in whole[0].items() if name != "diffusion"})
    path = tmp_path / "config.json"
    for content, says in (
        (text[:100].encode(), "config.json cannot be read (Unterminated string"),
        (b"", "config.json cannot be read (Expecting value"),
        (b"[1, 2]", "config.json cannot be read (not a JSON object)"),
        (text.encode() + b"\xff", "config.json cannot be read ('utf-8' codec"),
        (with_more.encode(), "training.momentum is not a field of the training section"),
        (without.encode(), "the configuration lacks a field that its system needs, diffusion"),
    ):
        path.write_bytes(content)
        for mode in ("train", "eval", "sample"):
            assert says in refused(call(f"--workdir={tmp_path}", f"--mode={mode}")), (says, mode)
        if "cannot be read" in says:
            assert "meta.config in checkpoints/STEP/meta/metadata" in refused(
                call(f"--workdir={tmp_path}", "--config=configs/digits.py")
            )
        assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "f"), 1, "f cannot be used: No space left on device; free"),
        (PermissionError(errno.EACCES, "Permission denied", "f"), 1, "Permission denied; make it writable, or choose"),
        (OSError("the disk is gone"), 1, "error: w cannot be used: the disk is gone"),
    ],
)
def test_what_comes_from_outside_is_told_in_a_line(error, code, says, monkeypatch):
    monkeypatch.setattr(main, "_run", lambda: (_ for _ in ()).throw(error))
    result = call("--workdir=w")
    assert result.returncode == code and says in result.stderr and result.stderr.count("\n") == 1


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(main, "_run", lambda: {}["a key that nobody set"])
    with pytest.raises(KeyError, match="a key that nobody set"):
        call("--workdir=w")


@pytest.mark.slow
def test_elsewhere_with_a_relative_configuration_and_no_cluster(tmp_path):
    """The one command in a process of its own: from another directory, with PYTHONPATH."""
    (tmp_path / "mine.py").write_text(TINY)
    result = run("--config", "mine.py", "--coordinator=auto", "--workdir", "r", cwd=tmp_path)
    assert "--coordinator=auto: the processes cannot be joined (" in refused(result)
    assert not (tmp_path / "r").exists()
