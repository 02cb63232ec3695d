"""A diffusion whose every step is trained on its part of the bound (Sohl-Dickstein et al. 2015), as a Model.

    log p(x_0) ≥ K = -Σ_{t≥2} E KL(q(x_{t-1} | x_t, x_0) ‖ p(x_{t-1} | x_t)) - KL(q(x_T | x_0) ‖ π) + E log p(x_0 | x_1)

If the first step (the "edge") is fixed, p(x_0 | x_1) = q(x_1 | x_0) π(x_0)/π(x_1) is the forward step run backwards in
equilibrium. This is the paper's eq. 14, extended to all data: its entropies hold for data with unit second moments. The
`Chain` has what differs between Gaussian and binomial diffusion.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from diffjax import bounds, losses, randomness, registry, samplers, time_sampling
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.many_samples import ManySamples
from diffjax.memory import of_times
from diffjax.predictions import Predict
from diffjax.processes import Process, Variance
from diffjax.zoo.figures import Figures
from diffjax.zoo.model import Batch, Model, bound_of


class Chain(NamedTuple):
    """What is specific to a system.

    init(key) -> params
    kernels(params) -> the process and the network as its Predict
    encode(key, batch) -> x_0 (batch, *event) for the process
    decode(x) -> samples for the Model
    null(batch) -> (batch,), log p(x) in nats under the prior itself
    variance: of the reverse kernel
    fixed_edge: whether p(x_0 | x_1) is the forward step in equilibrium, which has nothing to learn
    units: nats per example that `encode` adds to the log-density of the data
    """

    init: Callable[[Array], Any]
    kernels: Callable[[Any], tuple[Process, Predict]]
    encode: Callable[[randomness.Keys, Batch], Array]
    decode: Callable[[Array], Array]
    null: Callable[[Batch], Array]
    variance: Variance
    fixed_edge: bool
    units: float


class Choices(NamedTuple):
    """How a chain is trained, sampled and measured.

    time_sampling: a name of `time_sampling.TIME_SAMPLERS`, which draws the steps of training.
    stepper: from the chain's process to the stepper of samples, which takes all steps. The default is `ancestral`.
    num_terms: the number of the bound's steps to draw for each example. The default is all.
    """

    time_sampling: str = "uniform"
    stepper: Callable[[Process], samplers.Stepper] | None = None
    num_terms: int | None = None


DEFAULTS = Choices()


def learned_chain(
    chain: Chain, shape: tuple[int, ...], num_steps: int, figures: Figures, choices: Choices = DEFAULTS
) -> Model:
    """The Model of a chain of `num_steps` steps on examples of `shape`."""
    times = jnp.arange(num_steps + 1) / num_steps
    first = 2 if chain.fixed_edge else 1
    time_sampler = _from(first, time_sampling.TIME_SAMPLERS[choices.time_sampling], num_steps)
    uniform = _from(first, time_sampling.uniform, num_steps)

    def loss(params: Any, key: Array, batch: Batch) -> Array:
        encode_key, time_key, noise_key, edge_key = randomness.split(key, 4)
        x0 = chain.encode(encode_key, batch)
        given = batch.get("t") if isinstance(batch, dict) else None
        t = uniform.sample((), time_key, len(x0))[0] if given is None else given
        s = times[jnp.round(t * num_steps).astype(int) - 1]
        process, predict = chain.kernels(params)
        steps = losses.vlb(process, predict, noise_key, x0, s, t, num_steps - first + 1, chain.variance)
        last = process.marginal(x0, times[-1]).kl(process.prior(x0.shape)).reshape(len(x0), -1).sum(1)
        edge = edge_cost(process, edge_key, x0) if chain.fixed_edge else 0.0
        return bounds.bits_per_dim(steps + last + edge, shape)

    def edge_cost(process: Process, key: randomness.Keys, x0: Array) -> Array:
        """It is computed for every example. Drawn as one of T steps and multiplied by T, it would add much noise."""
        x1 = losses.draw(process.marginal(x0, times[1]), key)
        return -process.transition(x1, times[0], times[1]).log_prob(x0).reshape(len(x0), -1).sum(1)

    def terms(params: Any, key: Array, batch: Batch) -> dict[str, Array]:
        encode_key, key = randomness.split(key, 2)
        x0 = chain.encode(encode_key, batch)
        costs = bounds.diffusion(*chain.kernels(params), key, x0, times, chain.variance, None, choices.num_terms)
        parts = {"prior": costs.prior, "diffusion": costs.diffusion.sum(0), "reconstruction": costs.reconstruction}
        return parts | ({"units": jnp.full(len(x0), chain.units)} if chain.units else {})

    def log_weight(params: Any, key: Array, batch: Batch) -> Array:
        encode_key, key = randomness.split(key, 2)
        x0 = chain.encode(encode_key, batch)
        process, predict = chain.kernels(params)
        return bounds.trajectory_log_weight(process, predict, key, x0, times, chain.variance) - chain.units

    def sample(params: Any, key: Array, num: int) -> Array:
        process, predict = chain.kernels(params)
        stepper = choices.stepper(process) if choices.stepper else samplers.ancestral(process, chain.variance)
        return chain.decode(samplers.sample(stepper, predict, key, times[::-1], (num, *shape)))

    return Model(
        chain.init,
        loss,
        bound_of(terms),
        sample,
        chain.kernels,
        of_times(time_sampler),
        measures=(Bound(terms, chain.null), ManySamples(log_weight)),
        figures=figures,
    )


def chosen(config: Any, process: Process, variance: Variance) -> Choices:
    """The choices of `config.{diffusion, sampling, evaluation}`.

    `process` has the kind of the chain's process. With it, a sampler that does not fit is found before training.

    Raises:
        InputError: on a sampler, a number of sampling steps or a way to draw times that the chain does not have.
    """
    setting, sampling = config.diffusion, config.sampling
    if sampling.steps != setting.num_steps:
        raise InputError(
            f"sampling.steps must be diffusion.num_steps={setting.num_steps}, because every step has kernels of its "
            f"own, not {sampling.steps}"
        )

    def stepper(process: Process) -> samplers.Stepper:
        return samplers.make(sampling.sampler, process, {**sampling, "variance": variance})

    stepper(process)
    registry.choose("diffusion.time_sampling", setting.time_sampling, time_sampling.TIME_SAMPLERS)
    return Choices(setting.time_sampling, stepper, config.evaluation.num_terms or None)


def check_steps(setting: Any) -> None:
    """Raises `InputError` unless a chain can have `setting.num_steps` steps."""
    if not isinstance(setting.num_steps, int) or setting.num_steps < 2:
        raise InputError(f"diffusion.num_steps must be an integer of at least 2, not {setting.num_steps!r}")


def _from(first: int, make: Callable[[int], time_sampling.TimeSampler], num_steps: int) -> time_sampling.TimeSampler:
    """A sampler of the steps `first` .. T alone. For the inner sampler they are 1 .. T - first + 1."""
    count = num_steps - first + 1
    sampler = make(count)

    def sample(state: Any, key: Array, num: int) -> tuple[Array, Array]:
        t, weights = sampler.sample(state, key, num)
        return (t * count + first - 1) / num_steps, weights

    def update(state: Any, t: Array, losses: Array) -> Any:
        return sampler.update(state, (t * num_steps - first + 1) / count, losses)

    return time_sampling.TimeSampler(sampler.init, sample, update)
