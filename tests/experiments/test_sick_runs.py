"""What goes wrong around the mathematics: one sentence, exit code 1, and nothing that was there is touched."""

import time

import pytest
from command import QUICK, call, refused, run


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("train the digits", "SyntaxError"),
        ("import nothing_of_this_name", "No module named 'nothing_of_this_name'"),
        ("x = 1 / 0", "ZeroDivisionError"),
        ("config = 3", "does not define get_config()"),
        ("def get_config(): return {'system': 'ddpm'}", "returns a dict, not an ml_collections.ConfigDict"),
        ("def get_config(): raise RuntimeError('not today')", "RuntimeError: not today"),
        ("def get_config(): raise ValueError('not today')", "ValueError: not today"),
        ("def get_config(): return {}['training']", "KeyError: 'training'"),
        ("def get_config(): return None.training", "AttributeError"),
    ],
)
def test_a_configuration_that_is_none_says_why(text, reason, tmp_path):
    config = tmp_path / "bad.py"
    config.write_text(text)
    says = refused(call(f"--config={config}", f"--workdir={tmp_path}/r"))
    assert reason in says and str(config) in says
    assert not (tmp_path / "r").exists()


HANGS = """
import time
from diffjax import data

def batches(*args, **kwargs):
    for n, batch in enumerate(whole(*args, **kwargs)):
        if n == 7:
            time.sleep(100000)
        yield batch

if data.batches.__name__ != "batches" or data.batches.__module__ != __name__:
    whole, data.batches = data.batches, batches
"""


@pytest.mark.slow
def test_a_data_worker_that_hangs_ends_the_run_and_what_was_saved_stays(tmp_path):
    config = tmp_path / "hangs.py"
    config.write_text(HANGS + QUICK)
    began = time.monotonic()
    few = ["--config.training.save_every=5", "--config.training.data_timeout=3.0", "--config.training.eval_every=0"]
    # In a process of its own, which the run leaves without waiting for the worker.
    result = run(f"--config={config}", f"--workdir={tmp_path}/r", *few)
    assert result.returncode == 1
    assert "error: no batch for step 8 came within training.data_timeout = 3 seconds" in result.stderr
    assert "Traceback" not in result.stderr and time.monotonic() - began < 120
    assert (tmp_path / "r" / "checkpoints" / "5").is_dir()


@pytest.mark.slow
def test_bad_steps_are_skipped_where_that_is_asked_for(tmp_path):
    """A limit between the gradients' norms: some steps are skipped, by number, and the run ends as others do."""
    config = tmp_path / "tiny.py"
    config.write_text(QUICK)
    some = ["--config.training.on_bad_step=skip", "--config.training.grad_limit=700.0"]
    result = call(f"--config={config}", f"--workdir={tmp_path}/r", *some)
    assert result.returncode == 0, result.stderr
    skipped = result.stderr.count("above training.grad_limit = 700")
    assert 0 < skipped < 20
    assert "step 20" in result.stdout
