"""Deep belief networks (Hinton, Osindero and Teh 2006): a restricted machine on top, directed layers of bits below it.

    p(h_0 .. h_L) = p_top(h_{L-1}, h_L) Π_{l<L-1} p(h_l | h_{l+1}),   h_0 = v
    q(h_{l+1} | h_l) = B(sigmoid(r_l + h_l R_l)), l < L - 1

Greedy stacking: each machine learns the draws of the machine below it, given the data. A machine whose weights are used
both ways, upwards as q and downwards as p, improves the bound when the next one learns its hidden draws better than
its own prior of them:

    log p(v) ≥ E_q[Σ_l log p(h_l | h_{l+1}) - log q(h_{l+1} | h_l) - F_top(h_{L-1})] - log Z_top

Fine-tuning unties the two directions, and is wake-sleep ("up-down"): a pass upwards teaches the directed layers and
the top machine, and dreams downwards from the chains of the top machine teach q. The chains of all machines persist,
where the paper has contrastive divergence.

The parameters: "machines", a list of restricted machines, and "down" and "up", lists of {"weights", "bias"}, what is
added below the top to each direction: 0 while the machines are stacked.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from diffjax import randomness
from diffjax.distributions import Bernoulli
from diffjax.energy import machine
from diffjax.energy.contrastive import persistent_divergence
from diffjax.errors import InputError
from diffjax.linear_algebra import matmul

BeliefParams = Mapping[str, Any]


def belief_init(key: PRNGKeyArray, units: Sequence[int], scale: float = 0.01) -> dict[str, list[Any]]:
    """Machines between layers of `units` bits, v first.

    Raises:
        InputError: if there are fewer than three layers.
    """
    if len(units) < 3:
        raise InputError(f"units must be those of v and of at least two hidden layers, not {tuple(units)}")
    pairs = list(itertools.pairwise(units))
    keys = jax.random.split(key, len(pairs))
    machines = [machine.init(k, below, above, scale=scale) for k, (below, above) in zip(keys, pairs, strict=True)]
    directed = pairs[:-1]
    return {
        "machines": machines,
        "down": [{"weights": jnp.zeros(pair), "bias": jnp.zeros(pair[0])} for pair in directed],
        "up": [{"weights": jnp.zeros(pair), "bias": jnp.zeros(pair[1])} for pair in directed],
    }


def upward(params: BeliefParams, layer: int, h: Float[Array, "*batch units"]) -> Bernoulli:
    """q(h_{l+1} | h_l)."""
    tied, own = params["machines"][layer], params["up"][layer]
    return Bernoulli(tied["hidden"] + own["bias"] + matmul(h, tied["weights"] + own["weights"]))


def downward(params: BeliefParams, layer: int, h: Float[Array, "*batch units"]) -> Bernoulli:
    """p(h_l | h_{l+1})."""
    tied, own = params["machines"][layer], params["down"][layer]
    return Bernoulli(tied["visible"] + own["bias"] + matmul(h, (tied["weights"] + own["weights"]).T))


def ascend(params: BeliefParams, key: randomness.Keys, v: Float[Array, "batch visible"]) -> list[Array]:
    """v and h_1 .. h_{L-1}, drawn upwards."""
    layers = [v]
    for layer, draw_key in enumerate(randomness.split(key, len(params["up"]))):
        layers.append(upward(params, layer, layers[-1]).sample(draw_key))
    return layers


def stacking_loss(
    params: BeliefParams, key: randomness.Keys, v: Float[Array, "batch visible"], chains: Sequence[Array]
) -> Float[Array, " batch"]:
    """Σ over machines of `persistent_divergence` on draws from those below, through which no gradient goes.

    Args:
        chains: of each machine, (chains, its visible units).
    """
    layers = jax.lax.stop_gradient(ascend(params, key, v))
    machines = zip(params["machines"], chains, layers, strict=True)
    return sum((persistent_divergence(m, c, h) for m, c, h in machines), jnp.zeros(len(v), v.dtype))


def up_down_loss(
    params: BeliefParams,
    key: randomness.Keys,
    v: Float[Array, "batch visible"],
    chains: Float[Array, "chains units"],
    dreams: Sequence[Float[Array, "chains units"]],
) -> Float[Array, " batch"]:
    """Wake-sleep for "down", "up" and the top machine. The tied machines below it have no gradient.

    Args:
        chains: of the top machine.
        dreams: v .. h_{L-1}, from `dream`.
    """
    params = {**params, "machines": [*jax.lax.stop_gradient(params["machines"][:-1]), params["machines"][-1]]}
    layers = jax.lax.stop_gradient(ascend(params, key, v))
    loss = persistent_divergence(params["machines"][-1], chains, layers[-1])
    for layer, (low, high) in enumerate(itertools.pairwise(layers)):
        loss -= downward(params, layer, high).log_prob(low).sum(-1)
    for layer, (low, high) in enumerate(itertools.pairwise(dreams)):
        loss -= upward(params, layer, low).log_prob(high).sum(-1).mean()
    return loss


def log_weight(params: BeliefParams, key: randomness.Keys, v: Float[Array, "batch visible"]) -> Float[Array, " batch"]:
    """A draw of log w with E[w] = p(v) Z_top, in nats; E[log w] is the bound above without log Z."""
    layers = ascend(params, key, v)
    value = -machine.free_energy(params["machines"][-1], layers[-1])
    for layer, (low, high) in enumerate(itertools.pairwise(layers)):
        value += downward(params, layer, high).log_prob(low).sum(-1)
        value -= upward(params, layer, low).log_prob(high).sum(-1)
    return value


def dream(params: BeliefParams, key: PRNGKeyArray, h: Float[Array, "num units"]) -> tuple[list[Array], Bernoulli]:
    """v .. h_{L-1}, drawn downwards from h_{L-1}, and the law p(v | h_1) of the last draw."""
    layers, law = [h], None
    for layer, draw_key in reversed(list(enumerate(jax.random.split(key, len(params["down"]))))):
        law = downward(params, layer, layers[0])
        layers.insert(0, law.sample(draw_key))
    assert law is not None
    return layers, law
