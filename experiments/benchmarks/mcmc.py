"""Hamiltonian Monte Carlo of diffjax, blackjax and numpyro, at the same step size and number of leapfrog steps.

    python -m experiments.benchmarks.mcmc [--rounds=5]

Everything is compiled first. Every round runs all sides on a target, one after the other, so a change of the machine's
speed affects all alike. Printed: gradient evaluations a second and effective samples a second (of the slowest
dimension, `diffjax.mcmc.ess`), as medians, and the median over rounds of the ratio of rates diffjax / other, above 1 if
diffjax is faster. numpyro's calls have a fixed cost, so it has two rows: per call, and marginal (the difference of a
long and a short run). It gets trajectory_length=None, otherwise it would choose its number of steps itself.
"""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import blackjax
import jax
import jax.numpy as jnp
from absl import app, flags
from jax import Array
from sklearn.datasets import load_breast_cancer

from diffjax.mcmc import Kernel, ess, hmc, run

try:
    import numpyro.infer
except ImportError:
    numpyro = None

SHORT = 10  # a long run has this many times the steps of a short one
ESS_CHAINS = 100

_ROUNDS = flags.DEFINE_integer("rounds", 5, "runs of each side on each target", lower_bound=1)


class Target(NamedTuple):
    """start: (chains, dimensions). The lengths take about half a second each on two cores."""

    name: str
    log_density: Callable[[Array], Array]
    start: Array
    step_size: float
    num_leapfrog: int
    num_steps: int

    def gradients(self, num_steps: int) -> int:
        return len(self.start) * num_steps * self.num_leapfrog


def targets() -> list[Target]:
    """The targets. Trajectories have ε L = 1 to 1.5 standard deviations or less: far from the resonance at π."""
    scales = jnp.linspace(0.5, 1.5, 100)
    means = 1.5 * jax.random.normal(jax.random.key(0), (4, 10))

    features, labels = load_breast_cancer(return_X_y=True)
    x = jnp.asarray((features - features.mean(0)) / features.std(0), jnp.float32)
    sign = jnp.where(jnp.asarray(labels) == 1, 1.0, -1.0)

    def gaussian(q: Array) -> Array:
        return -0.5 * jnp.sum((q / scales) ** 2)

    def mixture(q: Array) -> Array:
        return jax.nn.logsumexp(-0.5 * jnp.sum((q - means) ** 2, axis=-1))

    def logistic(w: Array) -> Array:
        return jnp.sum(jax.nn.log_sigmoid(sign * (x @ w))) - 0.5 * w @ w

    return [
        Target("Gaussian, 100 d", gaussian, jnp.zeros((1, 100)), 0.1, 10, 20_000),
        Target("mixture, 10 d, 1000 chains", mixture, jnp.zeros((1000, 10)), 0.3, 5, 500),
        Target("logistic regression, 30 d", logistic, jnp.zeros((1, 30)), 0.06, 10, 6_000),
    ]


Side = Callable[[Array], Array]  # key -> draws (chain, draw, dimension)


def scanned(kernel: Kernel, start: Array, num_steps: int) -> Side:
    def chain(key: Array, position: Array) -> Array:
        return run(kernel, key, position, num_steps)[0].position

    if len(start) == 1:  # no vmap over one chain, as a user would write it: vmap runs both branches of a cond
        return jax.jit(lambda key: chain(key, start[0])[None])
    return jax.jit(lambda key: jax.vmap(chain)(jax.random.split(key, len(start)), start))


def ours(target: Target) -> Side:
    kernel = hmc(target.log_density, target.step_size, target.num_leapfrog)
    return scanned(kernel, target.start, target.num_steps)


def blackjaxs(target: Target) -> Side:
    unit = jnp.ones(target.start.shape[1])
    algorithm = blackjax.hmc(target.log_density, target.step_size, unit, target.num_leapfrog)
    return scanned(Kernel(algorithm.init, algorithm.step), target.start, target.num_steps)


def numpyros(target: Target, num_steps: int) -> Side:
    kernel = numpyro.infer.HMC(
        potential_fn=lambda q: -target.log_density(q),
        step_size=target.step_size,
        num_steps=target.num_leapfrog,
        trajectory_length=None,
        adapt_step_size=False,
        adapt_mass_matrix=False,
    )
    chains = len(target.start)
    mcmc = numpyro.infer.MCMC(
        kernel, num_warmup=0, num_samples=num_steps, num_chains=chains, chain_method="vectorized", progress_bar=False
    )

    def side(key: Array) -> Array:
        mcmc.run(key, init_params=target.start if chains > 1 else target.start[0])
        return mcmc.get_samples(group_by_chain=True)

    return side


def timed(side: Side, key: Array) -> tuple[float, Array]:
    start = time.perf_counter()
    draws = jax.block_until_ready(side(key))
    return time.perf_counter() - start, draws


def measure(target: Target) -> None:
    sides = {"diffjax": ours(target), "blackjax": blackjaxs(target)}
    short = target.num_steps // SHORT
    if numpyro is not None:
        sides |= {"numpyro, per call": numpyros(target, target.num_steps), "numpyro, short": numpyros(target, short)}
    key = jax.random.key(1)
    draws = {name: timed(side, key)[1] for name, side in sides.items()}

    # Seconds a gradient evaluation, of every round.
    cost: dict[str, list[float]] = {name: [] for name in sides}
    if numpyro is not None:
        cost["numpyro, marginal"] = []
    for i in range(_ROUNDS.value):
        seconds = {name: timed(side, jax.random.fold_in(key, i))[0] for name, side in sides.items()}
        for name, second in seconds.items():
            cost[name].append(second / target.gradients(short if name == "numpyro, short" else target.num_steps))
        if numpyro is not None:
            more = seconds["numpyro, per call"] - seconds["numpyro, short"]
            cost["numpyro, marginal"].append(more / target.gradients(target.num_steps - short))

    draws["numpyro, marginal"] = draws.get("numpyro, per call")
    for name, costs in cost.items():
        if name == "numpyro, short":
            continue
        rate = 1 / statistics.median(costs)
        part = draws[name][:ESS_CHAINS]
        samples = float(ess(part).min()) / target.gradients(target.num_steps) * len(target.start) / len(part)
        ratios = sorted(other / mine for other, mine in zip(costs, cost["diffjax"], strict=True))
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} .. {ratios[-1]:.2f})"
        print(f"{target.name:28s} {name:18s} {rate:14,.0f} {rate * samples:12,.0f}   {spread}", flush=True)


def main(argv: list[str]) -> None:
    del argv
    if numpyro is None:
        print("numpyro is not installed (pip install numpyro), so that only blackjax is compared.")
    print(f"{'target':28s} {'side':18s} {'gradients/s':>14s} {'ESS/s':>12s}   diffjax / side: median (least .. most)")
    for target in targets():
        measure(target)


if __name__ == "__main__":
    app.run(main)
