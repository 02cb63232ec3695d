"""The command line of every system: train, evaluate, sample, compress, list and plan.

python -m experiments.main                                            the digits, no download
python -m experiments.main --config=configs/cifar10.py --config.training.batch_size=64 --workdir=DIR
python -m experiments.main --mode=eval --workdir=DIR [--step=N] [--against=OTHER]
python -m experiments.main --mode=sample --workdir=DIR [--num=64 --sampler=ddim --steps=50]
python -m experiments.main --mode=compress --workdir=DIR --file=X [--output=X.djx]
python -m experiments.main --mode=decompress --workdir=DIR --file=X.djx [--output=X]
python -m experiments.main --mode=list [WORD ...]
python -m experiments.main --mode=plan --config=FILE [--devices=8 | --topology=v5e:2x4] [--memory=16]

If the workdir already holds a run, training continues where it stopped. Without --config it uses that run's
configuration. Other modes with a workdir use the run's configuration; --config.field=value changes it for this call.
--mode=compress writes levels or an image as bits by the run's model, --mode=decompress gives them back. --mode=plan
prints what a step needs on devices that need not exist. --mode=list shows the configurations that have all the words.

Several processes: the same command in each, with --coordinator=HOST:PORT --num_processes=N --process_id=0 ... N - 1;
on TPU slices and under Slurm with --coordinator=auto. All processes must reach the same --workdir.

Exit codes: 0: done; 1: an error, in one sentence; 143: stopped by SIGTERM or Ctrl-C, after saving; 130: interrupted.
"""

import errno
import os
import re
import runpy
import shutil
import sys
from pathlib import Path

from experiments import listing
from experiments.platform import keep_compiled, keep_one_arena, keep_quiet, set_cpu_flags
from experiments.suggestions import absent_field

try:
    from absl import app, flags
    from ml_collections import ConfigDict, config_flags
except ModuleNotFoundError as error:
    from diffjax.extras import missing  # not earlier: it imports jax, whose flags must be set first

    sys.exit(f"error: {missing(error)}")

DEFAULT = Path(__file__).parents[1] / "configs" / "digits.py"
SAVED = Path(__file__).with_name("saved.py")
CONFIG = config_flags.DEFINE_config_file("config", None, "What to run: a file with get_config(); default the digits.")
WORKDIR = flags.DEFINE_string("workdir", "", "Where the run lives; default runs/<config>-<date>.")
MODES = ["train", "eval", "sample", "compress", "decompress", "list", "plan"]
MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
STEP = flags.DEFINE_integer("step", None, "eval, sample, compress: the checkpoint; default the newest.", lower_bound=0)
AGAINST = flags.DEFINE_string(
    "against", "", "eval: another workdir, a folder of images or an .npz; compares its samples with the run's."
)
NUM = flags.DEFINE_integer("num", 64, "sample: how many images.", lower_bound=1)
SAMPLER = flags.DEFINE_string(
    "sampler", None, "sample: e.g. ancestral, ddim, heun, what the system has; default the config's."
)
STEPS = flags.DEFINE_integer("steps", None, "sample: steps of the sampler; default the config's.", lower_bound=1)
LABEL = flags.DEFINE_integer("label", None, "sample: the class to draw; default the config's.", lower_bound=-1)
SCALE = flags.DEFINE_float("scale", None, "sample: of guidance, 1 for none; default the config's.", lower_bound=0.0)
SEED = flags.DEFINE_integer("seed", 0, "sample: another seed, other images.", 0, 2**32 - 1)
FILE = flags.DEFINE_string("file", "", "compress: levels in .npy or .npz, or an image; decompress: a coded file.")
OUTPUT = flags.DEFINE_string("output", "", "compress, decompress: what to write; default FILE.djx, or FILE without it.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "compress, decompress: an existing file may be replaced.")
DEVICES = flags.DEFINE_integer("devices", None, "plan: that many devices, of any kind; default those here.", 1)
TOPOLOGY = flags.DEFINE_string("topology", "", "plan: a TPU slice such as v5e:2x4, compiled for by the package libtpu.")
MEMORY = flags.DEFINE_float("memory", None, "plan: GiB of a device; says the largest batch that fits.", 0.0)
COORDINATOR = flags.DEFINE_string("coordinator", "", "Several processes: HOST:PORT of the first, or auto.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Several processes: how many.", 1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Several processes: which one this is, from 0.", 0)
STOPPED = 143  # 128 + SIGTERM: what a scheduler expects from a job that it has asked to stop
INTERRUPTED = 130  # 128 + SIGINT
FULL = (errno.ENOSPC, errno.EDQUOT)
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


def main(argv: list[str]) -> None:
    if MODE.value == "list":
        _list(argv[1:])
        return
    _prepare()
    from diffjax.errors import InputError
    from diffjax.extras import MissingExtra

    try:
        from diffjax.training.feed import DataTimeout
        from diffjax.training.loop import TrainingStopped
    except MissingExtra as error:
        sys.exit(f"error: {error}")
    try:
        _run()
    except TrainingStopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(STOPPED)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except DataTimeout as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(1)  # the interpreter would wait for the thread that hangs
    except (InputError, OSError, AttributeError, KeyError) as error:
        message = str(error) if isinstance(error, InputError) else _explained(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(1)


def _list(words: list[str]) -> None:
    text = "\n".join(listing.lines(words, shutil.get_terminal_size((160, 24)).columns))
    if not text:
        sys.exit(f"error: {listing.nothing_of(words)}")
    _print(text)


def _print(text: str) -> None:
    """Prints to a reader that may close the pipe early, such as `| head`."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more


def _prepare() -> None:
    """Sets what must be set before jax and other libraries start."""
    keep_one_arena()
    set_cpu_flags()
    if not flags.FLAGS["verbosity"].present:
        keep_quiet()
    if MODE.value == "plan" and DEVICES.value:
        several = f" --xla_force_host_platform_device_count={DEVICES.value}"
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + several
    # Import jax only now, after the lines above. If a configuration has imported it already, it no longer reads JAX_...
    import jax

    if MODE.value == "plan" and DEVICES.value:
        jax.config.update("jax_platforms", "cpu")
    keep_compiled()


def _explained(error: Exception) -> str | None:
    """What the user can do about an error raised by a library; None if it may be a bug of the program."""
    if isinstance(error, OSError):
        code = error.errno
        fix = "; free some space and start again" if code in FULL else ""
        fix = "; make it writable, or choose another --workdir, and start again" if code in UNWRITABLE else fix
        return f"{error.filename or WORKDIR.value} cannot be used: {error.strerror or error}{fix}"
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None or not last.tb_frame.f_globals.get("__name__", "").startswith("ml_collections."):
        return None
    text = " ".join(str(error).strip("'\"").split())
    return f"the configuration lacks a field that its system needs, {text}; begin with one of configs/"


def _run() -> None:
    from diffjax.errors import InputError

    if COORDINATOR.value:
        _join()
    elif NUM_PROCESSES.value is not None or PROCESS_ID.value is not None:
        raise InputError("--num_processes and --process_id need --coordinator=HOST:PORT, the same in every process")
    from diffjax.paths import local
    from experiments import compress, opened, plan, run, workdir

    if MODE.value == "plan":
        plan.plan(CONFIG.value, TOPOLOGY.value, MEMORY.value)
        return
    if MODE.value == "train":
        given = flags.FLAGS["config"]
        run.train(CONFIG.value, WORKDIR.value or workdir.default(config_flags.get_config_filename(given)))
        return
    if not WORKDIR.value:
        raise InputError(f"--mode={MODE.value} needs --workdir: the directory of the run")
    path = local(WORKDIR.value, "workdir")
    config = _config_of(path)
    if MODE.value == "eval":
        run.evaluate(config, path, STEP.value, AGAINST.value)
        return
    if MODE.value in ("compress", "decompress"):
        code = getattr(compress, MODE.value)
        code(config, path, STEP.value, FILE.value, OUTPUT.value, OVERWRITE.value)
        return
    opened.ask(config, SAMPLER.value, STEPS.value, LABEL.value, SCALE.value)
    run.sample(config, path, STEP.value, NUM.value, SEED.value)


def _join() -> None:
    """Joins this process with the others."""
    import jax

    from diffjax.errors import InputError

    if not WORKDIR.value:
        raise InputError("several processes need --workdir: one directory that all of them can reach")
    count, index = NUM_PROCESSES.value, PROCESS_ID.value
    given = (COORDINATOR.value, count, index)
    if COORDINATOR.value == "auto":
        given = (None, count, index)
    elif count is None or index is None or index >= count:
        raise InputError(
            f"--coordinator={COORDINATOR.value} with --num_processes={count} and --process_id={index}: "
            "give the number of processes, and in each another number from 0 up to one less"
        )
    try:
        jax.distributed.initialize(*given)
    except (ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise InputError(
            f"--coordinator={COORDINATOR.value}: the processes cannot be joined ({reason}); "
            "write HOST:PORT of process 0, and use auto on TPU slices and under Slurm only"
        ) from None


def _config_of(path: Path) -> ConfigDict:
    """The configuration of the workdir's run, with the overrides from the command line."""
    from experiments import workdir

    config = workdir.read_config(path)
    config.update_from_flattened_dict(config_flags.get_override_values(flags.FLAGS["config"]))
    return config


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags, or exits with one sentence that says what is wrong with them."""
    path = None
    if any(arg in ("-h", "-?", "-help", "--help") for arg in argv[1:]):
        from experiments import usage

        _print(usage.text(flags.FLAGS))
        sys.exit(0)
    try:
        argv, path = _in_full(argv)
        sys.argv[:] = argv  # ml_collections looks there for --config.field
        rest = flags.FLAGS(argv)
        CONFIG.value.to_dict()  # a file that could not be loaded raises its error only here
        if rest[1:] and MODE.value != "list":
            raise flags.Error(f"unexpected arguments {' '.join(rest[1:])}: every option is --name=value")
        return rest
    except Exception as error:  # the file is the user's, and can fail in any way
        message = (path and _fault(path, argv)) or " ".join(str(error).split())
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def _in_full(argv: list[str]) -> tuple[list[str], str]:
    """`argv` with flag files expanded and --config=FILE in front; and FILE.

    Without --config, FILE is the configuration of the run in --workdir, or the digits if there is none. It becomes an
    argument and not the flag's default, because a default would be read before errors can be caught.
    """
    # A line of a flag file may be "--name value". absl wants --name=value there.
    whole = [re.sub(r"^(--?[\w.]+)\s+", r"\1=", arg) for arg in flags.FLAGS.read_flags_from_files(argv[1:])]
    given = flags.FlagValues()
    given.set_gnu_getopt(True)  # go on after the values of flags it does not know
    for name in ("config", "workdir"):
        flags.DEFINE_string(name, None, "", flag_values=given)
    rest = given([argv[0], *whole], known_only=True)[1:]
    for name in given:
        if given[name].value == "":
            raise flags.Error(f"--{name} is empty: give it a value, or leave it out")
    path = os.path.expanduser(given.config or _default(given.workdir))
    workdir = [f"--workdir={given.workdir}"] if given.workdir else []
    return [argv[0], f"--config={path}", *workdir, *rest], path


def _default(workdir: str | None) -> str:
    if workdir is None:
        return str(DEFAULT)
    from diffjax.paths import local

    return f"{SAVED}:{workdir}" if (local(workdir, "workdir") / "config.json").exists() else str(DEFAULT)


def _fault(path: str, argv: list[str]) -> str | None:
    """What is wrong with the configuration, or which `--config.a.b` it does not have; None if all is right."""
    file, _, argument = path.partition(":")
    if not Path(file).exists():
        near = listing.near_file(file)
        return f"--config={path} does not exist; " + (
            f"did you mean {near}?" if near else "--mode=list shows those of configs/"
        )
    try:
        namespace = runpy.run_path(file)
        if "get_config" not in namespace:
            return f"--config={path} does not define get_config(), which must return an ml_collections.ConfigDict"
        config = namespace["get_config"](*[argument] if argument else [])
    except Exception as error:
        reason = " ".join(str(error).split())
        return reason if file == str(SAVED) else f"--config={path} cannot be used: {type(error).__name__}: {reason}"
    if not isinstance(config, ConfigDict):
        return f"get_config() of --config={path} returns a {type(config).__name__}, not an ml_collections.ConfigDict"
    where = Path(argument) / "config.json" if file == str(SAVED) else path
    for arg in argv:
        override = re.match(r"--?(no)?config\.([^=]*)", arg)
        absent = absent_field(config, override[2]) if override else None
        if absent:
            return f"{absent[0]} is not a field of {where}; {absent[1]}"
    return None


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
