"""A run's directory: JSON that any reader takes, one training at a time, and systems that lack a module."""

import ast
import errno
import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from command import ROOT, call, refused
from ml_collections import ConfigDict

import experiments
from configs import digits, dit_digits
from diffjax import zoo
from diffjax.errors import InputError
from experiments import main
from experiments import report as reports
from experiments import workdir as workdirs
from experiments.workdir import Log, plain, read_config, write_json

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(100)
"""


def claim(workdir, config, **options):
    return workdirs.claim(workdir, plain(config), **options)


def once(*arguments, **options):
    with claim(*arguments, **options):
        pass


def strict(text):
    """As RFC 8259 has it."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_are_not_finite_are_null(tmp_path):
    write_json(tmp_path / "eval.json", {"a": math.nan, "b": [math.inf, -math.inf, 1.5], "c": {"d": None, "NaN": "NaN"}})
    read = strict((tmp_path / "eval.json").read_text())
    assert read == {"a": None, "b": [None, None, 1.5], "c": {"d": None, "NaN": "NaN"}}
    log = Log(tmp_path, 0)
    log.scalars(3, {"loss": math.nan, "grad_norm": math.inf, "speed": 0.25})
    log.close()
    line = strict((tmp_path / "metrics.jsonl").read_text())
    assert line == {"step": 3, "loss": None, "grad_norm": None, "speed": 0.25}
    assert sorted(path.suffix for path in tmp_path.iterdir() if "tfevents" not in path.name) == [".json", ".jsonl"]


def test_a_run_does_not_go_on_with_another_number_of_examples(tmp_path):
    config = ConfigDict({"a": 1})
    once(tmp_path, config)  # as before examples.json was written, and as a file of weights is written
    once(tmp_path, config, train_size=100)
    for writes in (True, False):
        with pytest.raises(InputError, match="began with 100 training examples, and the data has 101 now: give it"):
            once(tmp_path, config, train_size=101, writes=writes)
    assert json.loads((tmp_path / "examples.json").read_text()) == {"train": 100}
    once(tmp_path, config, train_size=100)


def test_a_configuration_comes_back_as_it_was(tmp_path):
    """Also one of before config.json was strict."""
    fields = {"a": math.nan, "b": (math.inf, -math.inf, (1, 2.5)), "c": None, "data": {"dir": "ü NaN", "on": True}}
    config = ConfigDict(fields)
    path = tmp_path / "r" / "config.json"
    with claim(path.parent, config):
        strict(path.read_text())
    for text in (path.read_text(), json.dumps(fields)):
        path.write_text(text)
        read = read_config(path.parent).to_dict()
        assert math.isnan(read.pop("a")) and read == {name: fields[name] for name in "bc"} | {"data": fields["data"]}
        once(path.parent, config)  # the same configuration, NaN and all
    with pytest.raises(InputError, match=r"made with another config: a \('NaN' there, 1.0 now\)"):
        once(path.parent, ConfigDict(fields | {"a": 1.0}))
    with pytest.raises(InputError, match=r"cannot be saved as JSON \(.*set.* give it numbers, strings"):
        once(tmp_path / "new", ConfigDict({"a": {1, 2}}))
    assert not (tmp_path / "new").exists()


def contents(path):
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.rglob("*") if p.is_file()}


def test_a_field_that_is_younger_than_a_run_had_its_default_there(tmp_path):
    once(tmp_path, ConfigDict({"training": {"learning_rate": 0.1}}))
    once(tmp_path, ConfigDict({"training": {"learning_rate": 0.1, "decay": "constant", "ema_widths": ()}}))
    once(tmp_path, ConfigDict({"training": {"learning_rate": 0.1}}))
    once(tmp_path, ConfigDict({"training": {"learning_rate": 0.1}, "logging": {"wandb": True}}))  # says where to look
    once(tmp_path, ConfigDict({"training": {"learning_rate": 0.1}}))
    with pytest.raises(InputError, match=r"training.decay \('constant' there, 'cosine' now\)"):
        once(tmp_path, ConfigDict({"training": {"learning_rate": 0.1, "decay": "cosine"}}))


def test_a_run_of_before_networks_had_names_goes_on_with_its_u_net(tmp_path):
    now = digits.get_config()
    before = now.copy_and_resolve_references()
    with before.unlocked():
        del before.net.name
    once(tmp_path, before)
    saved = read_config(tmp_path)
    key = jax.random.key(0)
    shapes, expected = (jax.eval_shape(zoo.make(config).init, key) for config in (saved, now))
    assert jax.tree.map(lambda leaf: leaf.shape, shapes) == jax.tree.map(lambda leaf: leaf.shape, expected)
    once(tmp_path, now)
    once(tmp_path, before)
    now.net = dit_digits.get_config().net
    with pytest.raises(InputError, match=r"net.name \('unet' there, 'dit' now\)"):
        once(tmp_path, now)


def test_a_second_training_in_a_workdir_is_told_and_changes_nothing(tmp_path):
    """While another process holds it; also if the second is of more steps. A killed one holds nothing."""
    configs = []
    options = f"--workdir={tmp_path}", "--config=configs/digits.py"
    call(*options, also=lambda rest: configs.append(main.CONFIG.value))
    once(tmp_path, configs[0])
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        before = contents(tmp_path)
        says = refused(call(*options, "--config.training.steps=9000"))
        assert f"another training is at work in workdir {tmp_path}; wait for it, stop it, or use another" in says
        assert contents(tmp_path) == before
        # Evaluation and sampling may look on: they get as far as the missing checkpoints.
        for mode in ("eval", "sample"):
            assert "there are no checkpoints in" in refused(call(*options, f"--mode={mode}"))
        once(tmp_path, configs[0], writes=False)  # all but the first of several processes
        other.kill()
    with claim(tmp_path, configs[0]), pytest.raises(InputError, match="another training is at work"):
        once(tmp_path, configs[0])  # of the same process


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_no_hindrance(code, tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(code, "no locks here")

    monkeypatch.setattr(workdirs.fcntl, "flock", flock)
    with claim(tmp_path, ConfigDict({"a": 1})):
        assert read_config(tmp_path).a == 1


UNIX = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}


def test_modules_of_unix_are_imported_only_where_they_may_be_missing(tmp_path, monkeypatch):
    """By the syntax of all sources; and runs without them: no lock, no peak of memory."""
    sources = [*(ROOT / "diffjax").rglob("*.py"), *(ROOT / "experiments").glob("*.py")]
    found = set()
    for path in sources:
        tree = ast.parse(path.read_text())
        guarded = [node for attempt in ast.walk(tree) if isinstance(attempt, ast.Try) for node in ast.walk(attempt)]
        for node in ast.walk(tree):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            if unix := UNIX & {name.split(".")[0] for name in names}:
                assert node in guarded, (path, unix)
                found |= unix
    assert found == {"fcntl", "resource"}

    for name in found:
        monkeypatch.setitem(sys.modules, name, None)
    for module in (workdirs, reports):
        monkeypatch.delitem(sys.modules, module.__name__)
        monkeypatch.setattr(experiments, module.__name__.split(".")[1], module)  # to be put back, too
    report, there = (importlib.import_module(module.__name__) for module in (reports, workdirs))
    assert report._peak_memory() is None
    with there.claim(tmp_path, there.plain(ConfigDict({"a": 1}))):
        assert there.read_config(Path(tmp_path)).a == 1
