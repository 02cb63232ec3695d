"""One door to every system.

python -m experiments.main                                            the digits, no download
python -m experiments.main --config=configs/cifar10.py --config.training.batch_size=64 --workdir=DIR
python -m experiments.main --mode=eval --workdir=DIR [--step=N]
python -m experiments.main --mode=sample --workdir=DIR [--num=64 --sampler=ddim --steps=50]
python -m experiments.main --mode=plan --config=FILE [--devices=8 | --topology=v5e:2x4] [--memory=16]

Training in a workdir that holds a run picks it up where it stopped, without --config with that run's configuration.
--mode=eval and --mode=sample always take that; --config.field=value changes it for this call. --mode=plan trains
nothing: it says what a step needs on devices that need not be there.

Several processes: the same command in each, with --coordinator=HOST:PORT --num_processes=N --process_id=0 ... N - 1, or
with --coordinator=auto where jax can find out for itself (TPU slices, Slurm); one --workdir that all can reach.

Exit codes: 0, all done; 1, an error, said in one sentence; 143, stopped by SIGTERM or Ctrl-C after saving.
"""

import difflib
import errno
import os
import runpy
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from experiments.platform import keep_one_arena, set_cpu_flags

DEFAULT = Path(__file__).parents[1] / "configs" / "digits.py"
SAVED = Path(__file__).with_name("saved.py")
CONFIG = config_flags.DEFINE_config_file("config", None, "What to run: a file with get_config(); default the digits.")
WORKDIR = flags.DEFINE_string("workdir", "", "Where the run lives; default runs/<config>-<date>.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "eval", "sample", "plan"], "What to do.")
STEP = flags.DEFINE_integer("step", None, "eval, sample: the checkpoint; default the newest.", lower_bound=0)
NUM = flags.DEFINE_integer("num", 64, "sample: how many images.", lower_bound=1)
SAMPLER = flags.DEFINE_string(
    "sampler", None, "sample: e.g. ancestral, ddim, heun, what the system has; default the config's."
)
STEPS = flags.DEFINE_integer("steps", None, "sample: steps of the sampler; default the config's.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "sample: another seed, other images.")
DEVICES = flags.DEFINE_integer("devices", None, "plan: that many devices, of any kind; default those here.", 1)
TOPOLOGY = flags.DEFINE_string("topology", "", "plan: a TPU slice such as v5e:2x4, compiled for by the package libtpu.")
MEMORY = flags.DEFINE_float("memory", None, "plan: GiB of a device; says the largest batch that fits.", 0.0)
COORDINATOR = flags.DEFINE_string("coordinator", "", "Several processes: HOST:PORT of the first, or auto.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Several processes: how many.", 1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Several processes: which one this is, from 0.", 0)
STOPPED = 143  # 128 + SIGTERM: what a scheduler expects of a job that it has asked to leave
FULL = (errno.ENOSPC, errno.EDQUOT)


def main(_: list[str]) -> None:
    keep_one_arena()
    set_cpu_flags()
    if MODE.value == "plan" and DEVICES.value:
        several = f" --xla_force_host_platform_device_count={DEVICES.value}"
        os.environ |= {"XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + several, "JAX_PLATFORMS": "cpu"}
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.FATAL)  # orbax tells of every file it writes, and of errors that we tell of
    # Compilation takes longer than a short run's training: keep its results between runs.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path("~/.cache/diffjax/compiled").expanduser()))
    from diffjax.errors import InputError
    from diffjax.training.feed import DataTimeout
    from diffjax.training.loop import TrainingStopped

    try:
        _run()
    except TrainingStopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(STOPPED)
    except DataTimeout as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(1)  # the interpreter would wait for the thread that hangs
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in (*FULL, errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        fix = "free some space" if error.errno in FULL else "make it writable, or choose another --workdir"
        where = error.filename or WORKDIR.value
        print(f"error: {where} cannot be written: {error.strerror}; {fix} and start again", file=sys.stderr)
        sys.exit(1)


def _run() -> None:
    from diffjax.errors import InputError

    if COORDINATOR.value:
        _join()
    from experiments import plan, run, workdir

    if MODE.value == "plan":
        plan.plan(CONFIG.value, TOPOLOGY.value, MEMORY.value)
        return
    if MODE.value == "train":
        given = flags.FLAGS["config"]
        run.train(CONFIG.value, Path(WORKDIR.value or workdir.default(config_flags.get_config_filename(given))))
        return
    if not WORKDIR.value:
        raise InputError(f"--mode={MODE.value} needs --workdir: the directory of the run")
    path = Path(WORKDIR.value)
    config = _config_of(path)
    if MODE.value == "eval":
        run.evaluate(config, path, STEP.value)
        return
    if SAMPLER.value is not None:
        config.sampling.sampler = SAMPLER.value
    if STEPS.value is not None:
        config.sampling.steps = STEPS.value
    run.sample(config, path, STEP.value, NUM.value, SEED.value)


def _join() -> None:
    """Makes this process one of several."""
    import jax

    from diffjax.errors import InputError

    if not WORKDIR.value:
        raise InputError("several processes need --workdir: one directory that all of them can reach")
    if COORDINATOR.value == "auto":
        jax.distributed.initialize()
        return
    count, index = NUM_PROCESSES.value, PROCESS_ID.value
    if count is None or index is None or index >= count:
        raise InputError(
            f"--coordinator={COORDINATOR.value} with --num_processes={count} and --process_id={index}: "
            "give the number of processes, and in each another number from 0 up to one less"
        )
    jax.distributed.initialize(COORDINATOR.value, count, index)


def _config_of(path: Path) -> ConfigDict:
    """The workdir's configuration with the overrides of the command line."""
    from experiments import workdir

    config = workdir.read_config(path)
    config.update_from_flattened_dict(config_flags.get_override_values(flags.FLAGS["config"]))
    return config


def _parse(argv: list[str]) -> list[str]:
    """The flags, or one sentence that says what is wrong with them."""
    try:
        rest = flags.FLAGS(argv)
        CONFIG.value.to_dict()  # a file that could not be loaded says so only when it is used
        if rest[1:]:
            raise flags.Error(f"unexpected arguments {' '.join(rest[1:])}: every option is --name=value")
        return rest
    except (AttributeError, KeyError):
        message = _unknown_field(argv)
    except flags.Error as error:
        message = " ".join(str(error).split())
    except Exception as error:  # the file is the user's, and can fail in any way
        path = [arg.split("=", 1)[1] for arg in argv if arg.startswith("--config=")][-1]
        message = f"--config={path} cannot be used: {type(error).__name__}: {' '.join(str(error).split())}"
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def _unknown_field(argv: list[str]) -> str:
    """Which `--config.a.b` names a field that the configuration does not have, and what is there instead."""
    path, _, argument = [arg.split("=", 1)[1] for arg in argv if arg.startswith("--config=")][-1].partition(":")
    namespace = runpy.run_path(path)
    if "get_config" not in namespace:
        return f"--config={path} does not define get_config(), which must return an ml_collections.ConfigDict"
    config = namespace["get_config"](*[argument] if argument else [])
    if not isinstance(config, ConfigDict):
        return f"get_config() of --config={path} returns a {type(config).__name__}, not an ml_collections.ConfigDict"
    path = Path(argument) / "config.json" if path == str(SAVED) else path
    for arg in argv:
        if not arg.startswith("--config."):
            continue
        here, walked = config, "config"
        for name in arg.split("=", 1)[0].split(".")[1:]:
            if not isinstance(here, ConfigDict) or name not in here:
                fields = sorted(here) if isinstance(here, ConfigDict) else []
                near = difflib.get_close_matches(name, fields, n=1) or fields
                return f"{walked}.{name} is not a field of {path}; {walked} has {', '.join(near) or 'no fields'}"
            here, walked = here[name], f"{walked}.{name}"
    return f"--config={path} cannot be read"


def _default(argv: list[str]) -> str:
    """What --config is where it is not given: that of the run in --workdir if there is one, else the digits."""
    values = [arg.split("=", 1)[1] for arg in argv if arg.startswith(("--workdir=", "-workdir="))]
    return f"{SAVED}:{values[-1]}" if values and (Path(values[-1]) / "config.json").exists() else str(DEFAULT)


if __name__ == "__main__":
    # As an argument and not as the flag's default, which would be read before errors can be caught.
    if not any(arg.startswith(("--config=", "-config=")) for arg in sys.argv):
        sys.argv.insert(1, f"--config={_default(sys.argv)}")
    app.run(main, flags_parser=_parse)
