"""Losses of energy models, p(x) = exp(-E(x))/Z, that need neither Z nor its gradient. Per example, (batch,).

    contrastive divergence         E(x) - E(y),  y by k steps of a Markov chain from x, or from chains that persist
    noise-contrastive estimation   -log σ(G(x)) - Σ_{j=1..ν} log σ(-G(y_j)),   y_j ~ p_n,
                                   G = log p̃ - log p_n - log ν
    minimum probability flow       Σ_{x' ~ x} exp(½ [E(x) - E(x')]),  x' all arrays that differ from x in one bit

Contrastive divergence (Hinton 2002; persistent: Tieleman 2008) is a surrogate: only its gradient ∇E(x) - ∇E(y) means
something. It is biased, unless the chain has forgotten x. Noise-contrastive estimation (Gutmann & Hyvärinen 2010) is
consistent, and log Z is one of its parameters: log p̃ = -E + c finds c = -log Z. Minimum probability flow
(Sohl-Dickstein, Battaglino & DeWeese 2011) is for bits; it is 0 in its slope where the data's law is the model's.

Score matching of energies is in `score_matching`, by `energy_score`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax import mcmc, randomness
from diffjax.distributions import Distribution
from diffjax.errors import InputError

Energy = Callable[[Array], Array]  # (batch, *event) -> (batch,), each example by itself


def contrastive_divergence(
    energy: Energy, x: Float[Array, "batch *event"], y: Float[Array, "batch *event"], weight: float = 0.0
) -> Float[Array, " batch"]:
    """E(x) - E(y) + weight [E(x)² + E(y)²]. The gradient with respect to E's parameters takes x and y as given.

    y: the ends of chains, see `langevin_chain`.
    weight: of a term that keeps energies near 0, where nothing else holds them (Du & Mordatch 2019, section 3.3).
    """
    of_data, of_chains = energy(x), energy(jax.lax.stop_gradient(y))
    return of_data - of_chains + weight * (of_data**2 + of_chains**2)


def langevin_chain(
    energy: Energy, key: randomness.Keys, x: Float[Array, "batch *event"], step_size: float, num_steps: int
) -> Float[Array, "batch *event"]:
    """Each example after `num_steps` unadjusted Langevin steps x - h ∇E + √(2h) z. No gradient goes through them."""
    if num_steps < 1:
        raise InputError(f"a chain needs at least 1 step, not {num_steps}")

    def one(key: Array, start: Array) -> Array:
        kernel = mcmc.langevin(lambda x: -energy(x[None])[0], step_size)

        def step(state, key):
            return kernel.step(key, state)[0], None

        end, _ = jax.lax.scan(step, kernel.init(start), jax.random.split(key, num_steps))
        return end.position

    return jax.lax.stop_gradient(jax.vmap(one)(randomness.each(key, len(x)), jax.lax.stop_gradient(x)))


def noise_contrastive(
    log_density: Callable[[Array], Array],
    noise: Distribution,
    key: randomness.Keys,
    x: Float[Array, "batch *event"],
    ratio: int = 1,
) -> Float[Array, " batch"]:
    """-log σ(G(x)) - Σ_j log σ(-G(y_j)), G = log p̃ - log p_n - log ν.

    Args:
        log_density: log p̃ (batch,), with a parameter of its own for -log Z.
        noise: p_n, of the shape of one example: it broadcasts against x.
        ratio: ν, how many y_j ~ p_n are drawn for each example.

    Raises:
        InputError: if ratio is below 1.
    """
    if ratio < 1:
        raise InputError(f"the ratio of noise to data must be at least 1, not {ratio}")

    def excess(x: Array) -> Array:
        log_noise = noise.log_prob(x).reshape(len(x), -1).sum(1)
        return log_density(x) - log_noise - jnp.log(float(ratio))

    draw = jax.vmap(lambda key: jax.vmap(noise.sample)(jax.random.split(key, ratio)))
    y = draw(randomness.each(key, len(x))).reshape(len(x) * ratio, *x.shape[1:])
    of_noise = jax.nn.softplus(excess(y)).reshape(len(x), ratio).sum(1)
    return jax.nn.softplus(-excess(x)) + of_noise


def minimum_probability_flow(energy: Energy, x: Float[Array, "batch dim"]) -> Float[Array, " batch"]:
    """Σ exp(½ [E(x) - E(x')]) over the `dim` neighbours x' of x, with one bit flipped. x has bits, 0 or 1."""
    dim = x.shape[1]
    flips = jnp.eye(dim, dtype=x.dtype)
    neighbours = jnp.abs(x[:, None] - flips).reshape(-1, dim)
    return jnp.exp(0.5 * (energy(x)[:, None] - energy(neighbours).reshape(len(x), dim))).sum(1)
