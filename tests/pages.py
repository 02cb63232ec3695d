"""What a text may name: files, fields, flags and modules that exist. For configurations and the pages of docs/."""

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Where the flags of commands are declared.
DOORS = (
    "experiments/main.py",
    "experiments/weights.py",
    "diffjax/data/prepare.py",
    "experiments/results/inverse_problems.py",
)


def check_names(text: str, configs: Iterable) -> None:
    """Asserts that all that the text names exists. A field must be one of some of the configurations."""
    configs = list(configs)
    for name in re.findall(r"--config\.([\w.]+)=", text.replace("--config.field=value", "")):
        assert any(has_field(config, name) for config in configs), f"no field {name}"
    doors = "".join((ROOT / path).read_text() for path in DOORS if (ROOT / path).exists())
    for flag in re.findall(r"(?<![\w-])--(\w+)[=\s`]", text):
        known = flag in ("config", "logdir", "help", "helpfull")
        assert known or re.search(f'"(--)?{flag}"', doors), f"no flag --{flag}"
    for name in re.findall(r"(?:configs|experiments|diffjax|tests)/[\w/]+\.\w+", text):
        assert (ROOT / name).is_file() or name == "configs/x.py", f"no file {name}"
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert importlib.util.find_spec(module), f"no module {module}"


def has_field(config, name: str) -> bool:
    """Whether a name with dots is a field of a configuration."""
    for part in name.split("."):
        if not hasattr(config, "keys") or part not in config:
            return False
        config = config[part]
    return True
