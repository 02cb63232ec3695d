"""What the command line says of itself: --help, --mode=list, and the name that a person may have meant."""

import re

import pytest
from command import ROOT, call, refused

from experiments import listing, usage
from experiments.suggestions import absent_field


def test_help_is_a_screen_and_its_examples_are_flags_and_files_that_exist():
    for flag in ("--help", "-h"):
        result = call("--mode=eval", flag)
        assert result.returncode == 0 and len(result.stdout.splitlines()) <= 26
    shown = re.findall(r"^  --(\w+) ", result.stdout, flags=re.MULTILINE)
    assert tuple(shown) == usage.MATTER and len(shown) == 10
    assert "--coordinator" not in result.stdout and max(map(len, result.stdout.splitlines())) <= 120
    assert "<train|eval|sample|compress|decompress|list|plan>" in result.stdout
    for path in re.findall(r"configs/\w+\.py", result.stdout):
        assert (ROOT / path).is_file()
    for name in re.findall(r"--(\w+)=", " ".join(command for command, _ in usage.EXAMPLES)):
        assert f'"{name}"' in (ROOT / "experiments" / "main.py").read_text()


def test_the_list_has_every_configuration_once_with_its_system_and_a_cost():
    result = call("--mode=list")
    assert result.returncode == 0
    files = {f"configs/{path.name}" for path in (ROOT / "configs").glob("*.py")} - {
        "configs/base.py",
        "configs/__init__.py",
    }
    assert sorted(re.findall(r"^  (configs/\S+)", result.stdout, flags=re.MULTILINE)) == sorted(files)
    costs = re.findall(r"^ +cost: (.*)$", result.stdout, flags=re.MULTILINE)
    assert len(costs) == len(files) and "not said" not in costs
    blocks = {block.split("\n")[0]: block for block in result.stdout.split("\n\n")}
    assert "configs/vdm_digits.py" in blocks["vdm"] and "configs/digits.py" in blocks["ddpm"]
    assert "not to be loaded" not in blocks


def test_the_list_takes_words_and_suggests_others():
    found = re.findall(r"configs/\w+\.py(?=  )", call("--mode=list", "Distillation", "digits").stdout)
    assert "configs/progressive_digits.py" in found and "configs/cifar10.py" not in found
    assert "did you mean consistency" in str(call("--mode=list", "consistancy").returncode)
    assert "unexpected arguments digits" in refused(call("--mode=eval", "digits"))


@pytest.mark.parametrize(
    ("text", "cost"),
    [
        ("A title.\n\nCost: under 3 minutes on 2\nCPU cores. Expected: 2.1 bits.", "under 3 minutes on 2 CPU cores"),
        ("Cost on two cores: 0.4 of a day; more.", "on two cores: 0.4 of a day; more"),
        ("Costly to run.", ""),
    ],
)
def test_the_cost_is_a_sentence_of_the_docstring(text, cost):
    assert listing.cost_of(text) == cost


def test_a_configuration_that_cannot_be_loaded_does_not_hide_the_others(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text('"""Mine."""\nraise RuntimeError("half written")')
    (tmp_path / "digits.py").write_text('"""Mine.\n\nCost: none."""')
    monkeypatch.setattr(listing, "CONFIGS", tmp_path)
    text = "\n".join(listing.lines([]))
    assert "not to be loaded\n  configs/broken.py" in text and "ddpm\n  configs/digits.py" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config=configs/digit.py"], "--config=configs/digit.py does not exist; did you mean configs/digits.py?"),
        (["--config=vae_minst"], "did you mean configs/vae_mnist.py?"),
        (["--config=tests/experiments/comand.py"], "did you mean tests/experiments/command.py?"),
        (["--config=qqqq.py"], "--config=qqqq.py does not exist; --mode=list shows those of configs/"),
        (["--smapler=ddim"], "Did you mean: sampler"),
        (["--config.trainig.steps=3"], "config.trainig is not a field of"),
    ],
)
def test_a_typo_is_told_what_comes_nearest(arguments, says):
    assert says in refused(call(*arguments))


def test_a_run_that_is_not_there_is_told_the_nearest_that_is(tmp_path):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "config.json").write_text("{}")
    says = refused(call("--mode=eval", f"--workdir={tmp_path}/digit"))
    assert says.endswith(f"holds no run (no config.json); did you mean {tmp_path}/digits?")


def test_the_field_that_is_absent_is_named_with_its_place():
    config = {"training": {"steps": 3, "seed": 0}, "system": "vae"}
    assert absent_field(config, "training.steps") is None
    assert absent_field(config, "training.stesp") == ("config.training.stesp", "config.training has steps")
    assert absent_field(config, "system.name") == ("config.system.name", "config.system has no fields")
    assert absent_field(config, "zzz.a") == ("config.zzz", "config has system, training")
