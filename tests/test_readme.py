"""What README and docs/library.md show works: Python runs, files exist, commands name real configurations and flags."""

import ast
import importlib
import re

import jax.numpy as jnp
import pytest

from tests.pages import ROOT, check_names

README = (ROOT / "README.md").read_text()
CONFIGS = sorted(path for path in (ROOT / "configs").glob("[!_]*.py") if path.stem != "base")


@pytest.mark.slow
def test_the_library_examples_run_and_bound_the_likelihood(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README + (ROOT / "docs/library.md").read_text(), flags=re.DOTALL)
    assert len(blocks) >= 9
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out
    bound, nll = (float(x) for x in re.match(r"([-\d.]+) >= ([-\d.]+) nats", printed).groups())
    spread = namespace["terms"].total.std() / len(namespace["data"]) ** 0.5
    assert bound > nll - 5 * spread
    assert bound < nll + 0.5  # a bound, and not a loose one: the predictor is exact
    assert namespace["samples"].shape == (1000, 2)
    # 0.3 of the mixture's weight is at x = -1: five standard errors of a share of 1000
    assert abs((namespace["samples"][:, 0] < 0).mean() - 0.3) < 5 * (0.21 / 1000) ** 0.5
    assert namespace["value"] > 0
    # Four steps of fourth order from noise: the weights and the spread of the mixture.
    carried = namespace["carried"]
    assert abs((carried[:, 0] < 0).mean() - 0.3) < 5 * (0.21 / 1000) ** 0.5 + 0.02
    # Given the first coordinate 0.9, the second has the law of the component at (1, 0.5) but for e^-36 of it.
    filled = namespace["filled"]
    assert abs(filled[:, 0] - 0.9).max() < 0.02
    assert abs(filled[:, 1].mean() - 0.5) < 5 * (0.05 / 1000) ** 0.5 + 0.02
    assert abs(filled[:, 1].var() - 0.05) < 5 * 0.05 * (2 / 1000) ** 0.5 + 0.01
    # What was measured of x_1 - x_2; the particles are worth more than 100 draws.
    posterior = namespace["mixture"].linear_posterior(jnp.array([[1.0, -1.0]]), jnp.array([0.4]), 0.1)
    drawn = namespace["drawn"]
    assert 1 / jnp.exp(2 * drawn.log_weights).sum() > 100
    mean = jnp.exp(drawn.log_weights) @ drawn.x
    assert (abs(mean - posterior.mean) < 5 * jnp.sqrt(jnp.diag(posterior.cov) / 100) + 0.02).all()
    # The flow's density is the mixture's but for the noise of 1e-3 at t = 1e-5 and the prior, both below 1e-3 nats.
    flow = float(re.search(r"flow ([-\d.]+) nats", printed).group(1))
    assert abs(flow + nll) < 5e-3
    latents, corrected = namespace["latents"], namespace["corrected"]
    assert (abs(latents.mean(0)) < 5 * 1000**-0.5).all()
    assert (abs(latents.var(0) - 1) < 5 * (2 / 1000) ** 0.5).all()
    assert abs((corrected[:, 0] < 0).mean() - 0.3) < 5 * (0.21 / 1000) ** 0.5 + 0.02
    # The banana's z[1] is the square of a standard normal plus noise: mean 1, variance 2 + 1/4.
    draws, dj = namespace["states"].position, namespace["dj"]
    assert (dj.mcmc.rhat(draws) < 1.05).all()
    error = (jnp.array([1.0, 2.25]) / dj.mcmc.ess(draws)) ** 0.5
    assert (abs(draws.mean((0, 1)) - jnp.array([0.0, 1.0])) < 5 * error).all()
    # 100 draws of log w vary by less than 1 nat each, and the untrained bound lies further off than that.
    elbo, log_p = (float(x) for x in re.search(r"ELBO ([-\d.]+) <= ([-\d.]+)", printed).groups())
    assert log_p - 0.1 < elbo < log_p + 0.1
    assert namespace["elbo"](dj.vi.linear_hamiltonian(2), namespace["key"]) < log_p - 0.5
    # Each estimator's mean is 2x = (2, -1); with 1000 draws the score function's has a standard error below 0.2.
    slopes = re.findall(r"^(\w+) \[\s*([-\d.]+)\s+([-\d.]+)\s*\]", printed, flags=re.MULTILINE)
    assert len(slopes) == 4
    for _, first, second in slopes:
        assert abs(float(first) - 2) < 1
        assert abs(float(second) + 1) < 1
    assert float(re.search(r"invertible ([-\d.e]+)", printed).group(1)) < 1e-5


@pytest.mark.parametrize("page", ["README.md", "experiments/results/README.md", "experiments/benchmarks/README.md"])
def test_pictures_links_and_configurations_exist(page):
    text = (ROOT / page).read_text()
    for path in re.findall(r"\]\(([^)#]+)\)", text):
        assert path.startswith("http") or ((ROOT / page).parent / path).exists(), path
    for path in re.findall(r"configs/\w+\.py", text):
        assert (ROOT / path).is_file() or path == "configs/x.py", path


def test_the_modules_of_the_architecture_exist():
    for name in re.findall(r"([\w/]+\.py)\b", (ROOT / "docs/architecture.md").read_text()):
        assert list(ROOT.glob(f"*/{name}")), name


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_what_a_configuration_says_of_itself_is_there(path):
    """Its docstring names files, commands, flags and fields that exist."""
    text = ast.get_docstring(ast.parse(path.read_text()))
    config = importlib.import_module(f"configs.{path.stem}").get_config()
    check_names(text, [config])
    # "The README's command" of a configuration that the README says nothing of was one such promise.
    if "README's command" in text:
        assert f"--config=configs/{path.name} --" in README
