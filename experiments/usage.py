"""--help: the part of the command line that most people need, on one screen. --helpfull has the rest."""

import textwrap

from absl import flags

# The flags to show, in this order. All others are for several processes, for planning, or from libraries.
MATTER = ("mode", "config", "workdir", "step", "num", "sampler", "steps", "label", "scale", "against")
EXAMPLES = (
    ("python -m experiments.main", "train the digits, no download"),
    ("python -m experiments.main --mode=list [WORD ...]", "what there is, and its cost"),
    ("python -m experiments.main --config=configs/vae_mnist.py --workdir=runs/vae", "another one"),
    ("... --config.training.steps=200 --config.net.channels=16", "the same with other numbers"),
    ("... --mode=eval   --workdir=runs/vae [--step=N]", "measure a run"),
    ("... --mode=sample --workdir=runs/vae --num=100 --sampler=ddim --steps=50", "draw from a run"),
    ("... --mode=compress --workdir=runs/vae --file=X.npy", "examples as a small file"),
    ("... --mode=plan   --config=configs/cifar10.py --devices=8 --memory=16", "what a step takes"),
)


def text(values: flags.FlagValues) -> str:
    """The text of the screen, with the help text of each flag."""
    wide = max(len(command) for command, _ in EXAMPLES) + 2
    lines = [
        "Train, evaluate and sample any system of configs/. A workdir that holds a run is taken up where it stopped.",
        "",
    ]
    for command, what in EXAMPLES:
        lines.append(f"  {command:{wide}}# {what}")
    lines += ["", "Flags, each as --name=value:", ""]
    for name in MATTER:
        flag = values[name]
        default = f" (default {flag.value})" if flag.value not in (None, "") and name in ("mode", "num") else ""
        lines += textwrap.wrap(
            f"{flag.help}{default}", 118, initial_indent=f"  --{name:9} ", subsequent_indent=" " * 14
        )
    lines += [
        "  --config.FIELD=value   any field of the configuration, as config.json of a run shows them",
        "",
        "--helpfull shows all flags: several processes, plans for other machines, seeds. More in docs/command_line.md.",
    ]
    return "\n".join(lines)
