"""One process with four devices, two with two and four with one: the same run, the same files, each written once."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from command import FLAGS, QUICK, ROOT, state_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    base = tmp_path_factory.mktemp("processes")
    # Wider, so that some arrays are large enough to be divided; no batch that four devices divide into 30 examples.
    (base / "tiny.py").write_text(QUICK.replace("64", "256"))

    def launch(name, processes, devices, *arguments):
        """The output of each process; a name is a workdir, which may be run in again."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = [] if "--mode=sample" in arguments else [f"--config={base / 'tiny.py'}"]
        command = [sys.executable, "-m", "experiments.main", *config, f"--workdir={base / name}", *arguments]
        flags = f"{FLAGS} --xla_force_host_platform_device_count={devices}"
        env = os.environ | {"XLA_FLAGS": flags, "JAX_COMPILATION_CACHE_DIR": str(base)}
        several = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}"] if processes > 1 else []
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started = [
            subprocess.Popen(
                [*command, *several, *([f"--process_id={index}"] if several else [])], cwd=ROOT, env=env, **pipes
            )
            for index in range(processes)
        ]
        outputs = [process.communicate(timeout=600) for process in started]
        assert all(process.returncode == 0 for process in started), outputs
        return base / name, [out for out, _ in outputs]

    return launch


@pytest.fixture(scope="module")
def one(launch):
    return launch("one", 1, 4)[0]


def same_run(got, want):
    """To the order of summation: 20 steps of Adam's, of whose second moments some begin near 0."""
    for a, b in zip(state_of(got, 20), state_of(want, 20), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)
    ours, theirs = ([json.loads(line) for line in (w / "metrics.jsonl").read_text().splitlines()] for w in (got, want))
    assert [line["step"] for line in ours] == [5, 10, 15, 20, 20]  # the last is the evaluation; each once
    for a, b in zip(ours, theirs, strict=True):
        for name in a.keys() & {"loss", "grad_norm", "learning_rate", "bits_per_dim"}:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5)
    reports = [json.loads((w / "eval.json").read_text()) for w in (got, want)]
    assert reports[0]["num_examples"] == 30  # of batches of 16: no example twice, none left out
    np.testing.assert_allclose(reports[0]["standard_error"], reports[1]["standard_error"], rtol=1e-5)


def test_two_processes_that_divide_the_state_between_two_devices_each(launch, one):
    """Parameters and moments divided between the devices of each process, the batch between all."""
    workdir, outputs = launch("two", 2, 2, "--config.mesh=(('data',2),('model',2))", "--config.training.accumulate=2")
    same_run(workdir, one)
    assert "step 20" in outputs[0] and "step" not in outputs[1]  # one speaks, and writes
    assert len(list(workdir.glob("events.out.tfevents.*"))) == 1
    # Sampling is shared, too, and 13 images are 13.
    drawn = {}
    for name, processes, devices in (("two", 2, 2), ("one", 1, 4)):
        path, _ = launch(name, processes, devices, "--mode=sample", "--num=13", "--config.evaluation.batch_size=6")
        (file,) = (path / "samples").glob("*.npz")
        drawn[name] = np.load(file)["images"].astype(int)
    assert drawn["two"].shape == (13, 8, 8, 1) and len(np.unique(drawn["one"], axis=0)) == 13
    assert (drawn["two"] == drawn["one"]).mean() > 0.99  # rounding may move a pixel


def test_four_processes_and_then_one_with_one_device(launch, one):
    """Half the steps with the state divided over four processes; the other half elsewhere, on the same data."""
    halves = "--config.training.steps=10", "--config.mesh=(('data',1),('model',4))"
    workdir, _ = launch("four", 4, 1, *halves)
    assert (workdir / "checkpoints" / "10").is_dir()
    launch("four", 1, 1)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    kept = [line for line in lines if not ("bits_per_dim" in line and json.loads(line)["step"] == 10)]
    (workdir / "metrics.jsonl").write_text("".join(line + "\n" for line in kept))  # the evaluation in between
    same_run(workdir, one)
