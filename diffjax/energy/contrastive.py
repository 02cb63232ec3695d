"""Contrastive divergence (Hinton 2002) and persistent chains (Younes 1989; Tieleman 2008).

    ∇ log p(v_0) = -∇F(v_0) + E_{v ~ p} ∇F(v)

CD-k takes for the draw from p the place v_k of a Gibbs chain after k steps from v_0: biased, less so with more steps.
Persistent chains go on from step to step while the parameters move slowly. Both are the gradient of a loss

    F(v_0) - F(v_k),   no gradient through v_k.

The value of such a loss says nothing: it is near 0 before and after training.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from diffjax import randomness
from diffjax.energy.machine import Params, check_visible, free_energy, is_real, kernel
from diffjax.errors import InputError
from diffjax.memory import Memory


def run_chains(
    params: Params, key: randomness.Keys, v: Float[Array, "num visible"], k: int
) -> tuple[Float[Array, "num visible"], Float[Array, "num visible"]]:
    """v after k steps of block Gibbs, and the means of the law from which it was drawn.

    Raises:
        InputError: if k is no integer of at least 1, or v holds no chain.
    """
    check_count("k", k, "Gibbs steps")
    if jnp.ndim(v) != 2 or not len(v):
        raise InputError(f"v must be (chains, visible) with at least one chain, not of shape {jnp.shape(v)}")
    moves = kernel(params)

    def chain(key: PRNGKeyArray, v: Array) -> tuple[Array, Array]:
        state = moves.init((jnp.zeros(params["hidden"].shape, params["weights"].dtype), v))

        def body(i: Array, carry: tuple) -> tuple:
            state, info = moves.step(jax.random.fold_in(key, i), carry[0])
            return state, info.laws[1].mean

        state, mean = jax.lax.fori_loop(0, k, body, (state, state.position[1]))
        return state.position[1], mean

    return jax.vmap(chain)(randomness.each(key, len(v)), v.astype(params["weights"].dtype))


def contrastive_divergence(
    params: Params, key: randomness.Keys, v: Float[Array, "batch visible"], k: int
) -> Float[Array, " batch"]:
    """F(v_0) - F(v_k), whose gradient is that of CD-k.

    Args:
        key: one, or one for each example.
        v: v_0, the data.
        k: Gibbs steps.

    Raises:
        InputError: if k is no integer of at least 1; if bits have other values.
    """
    check_visible(params, v)
    drawn, _ = jax.lax.stop_gradient(run_chains(params, key, v, k))
    return free_energy(params, v) - free_energy(params, drawn)


def persistent_divergence(
    params: Params, chains: Float[Array, "chains visible"], v: Float[Array, "batch visible"]
) -> Float[Array, " batch"]:
    """F(v_0) less the mean of F over the chains, of `persistent`."""
    check_visible(params, v)
    return free_energy(params, v) - free_energy(params, jax.lax.stop_gradient(chains)).mean()


def persistent(visible: int, num_chains: int, k: int, *, real: bool = False) -> Memory:
    """Chains (num_chains, visible) that move by k Gibbs steps after each step of training, from a fair coin each.

    Raises:
        InputError: if num_chains or k is no integer of at least 1.
    """
    check_count("num_chains", num_chains, "chains")
    check_count("k", k, "Gibbs steps")

    def init(params: Params) -> Array:
        key = jax.random.key(0)  # forgotten after a few steps
        draw = jax.random.normal if real else (lambda key, shape: jax.random.bernoulli(key, 0.5, shape).astype(float))
        return draw(key, (num_chains, visible))

    return Memory(
        init=init,
        draw=lambda memory, key, num: {},
        update=lambda memory, key, params, batch, losses: run_chains(params, key, memory, k)[0].astype(memory.dtype),
    )


def check_count(name: str, value: object, what: str) -> None:
    """Raises `InputError` unless the value is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} must be an integer of at least 1, the number of {what}, not {value!r}")


def centre_of(params: Params, v: Float[Array, "num visible"]) -> Float[Array, " visible"]:
    """The visible biases of a machine without weights that has the means of v, one example added of each value."""
    if is_real(params):
        return v.mean(0)
    mean = (v.sum(0) + 1.0) / (len(v) + 2.0)
    return jnp.log(mean) - jnp.log1p(-mean)
