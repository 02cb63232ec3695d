"""Variational auto-encoders (Kingma & Welling 2014), importance-weighted ones (Burda, Grosse & Salakhutdinov 2016).

    p(z_L) = N(0, I),  p(z_l | z_{l+1}) = N(., .) by a decoder each,  p(x | z_1) by the likelihood of `likelihoods.py`
    q(z_1 | x), q(z_{l+1} | z_l) = N(μ, σ²) by an encoder each
    w_k = p(x, z^k)/q(z^k | x),  z^1 .. z^K ~ q

    elbo   (1/K) Σ log w_k,         by gradients through z, or with KL(q(z | x) ‖ p(z)) in closed form
    iwae   L_K = log (1/K) Σ w_k,   the value reported is this bound; estimators in `vi.objective`

A single layer may have a normalizing flow behind its Gaussian, see `flow_posterior.py`.
"""

from typing import Any, get_args

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import bounds, randomness, vi
from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.many_samples import ManySamples
from diffjax.evaluation.probe import Probe
from diffjax.evaluation.reconstruction import Reconstruction
from diffjax.vi.objectives import Estimator
from diffjax.zoo.figures import Figure, Figures, Grid
from diffjax.zoo.latent import likelihoods
from diffjax.zoo.latent import networks as latent
from diffjax.zoo.latent.flow_posterior import amortised
from diffjax.zoo.latent.networks import PRIOR, normal
from diffjax.zoo.model import Batch, Model

Params = dict[str, Any]
OBJECTIVES = ("elbo", "iwae")
MANIFOLD = 20  # images a side


def make(config: Any) -> Model:
    """The Model of `config.{data, vae, net, evaluation}`, see configs/vae_mnist.py.

    Raises:
        InputError: on a likelihood that does not suit the data, or a choice that does not exist or go together.
    """
    _check(config)
    setting, net, shape = config.vae, config.net, tuple(config.data.shape)
    dims, features = tuple(net.latents), tuple(tuple(sizes) for sizes in net.features)
    likelihood = likelihoods.make(net.likelihood, shape, config.data.levels)
    behind = amortised(setting.flow, setting.flow_length, dims[0], setting.flow_units)
    outputs = 2 * dims[0] + behind.outputs
    encoder, decoder = latent.networks(net, features[0], shape, outputs, dims[0], likelihood.out)
    encoders, decoders = [encoder], [decoder]
    for sizes, below, dim in zip(features[1:], dims, dims[1:], strict=False):
        encoders.append(latent.dense(sizes, (below,), (2 * dim,)))
        decoders.append(latent.dense(sizes[::-1], (dim,), (2 * below,)))

    def init(key: Array) -> Params:
        keys = iter(jax.random.split(key, 2 * len(dims) + 1))
        return {
            "encoder": [net.init(next(keys)) for net in encoders],
            "decoder": [net.init(next(keys)) for net in decoders],
            "likelihood": likelihood.params,
            "flow": behind.init(next(keys)),
        }

    def log_likelihood(params: Params, x: Array, z: Array) -> Array:
        return likelihood.log_prob(params["likelihood"], decoder.apply(params["decoder"][0], z), x)

    def posterior(params: Params, layer: int, below: Array) -> tuple[Normal, Array]:
        """q of a layer given the one below it, x below the first, before any flow; and the numbers for the flow."""
        outputs = encoders[layer].apply(params["encoder"][layer], below)
        return normal(outputs[..., : 2 * dims[layer]]), outputs[..., 2 * dims[layer] :]

    def draw(
        theta: Params, phi: Params, density: Params, key: randomness.Keys, x: Array, num: int
    ) -> tuple[Array, Array, Array]:
        """z_1 (num, batch, dim), log p(x | z_1) and log w (num, batch), of draws by phi and densities by `density`."""
        keys = randomness.split(key, len(dims))
        zs: list[Array] = []
        log_w = jnp.zeros((), x.dtype)
        for layer, (layer_key, dim) in enumerate(zip(keys, dims, strict=True)):
            below = zs[-1] if zs else x
            (q, numbers), (law, _) = (posterior(params, layer, below) for params in (phi, density))
            noise = jnp.moveaxis(randomness.normal(layer_key, (len(x), num, dim), q.mean.dtype), 1, 0)
            z = q.mean + jnp.sqrt(q.variance) * noise
            log_w -= law.log_prob(z).sum(-1)
            if layer == 0:
                z, log_det = behind.flow(phi["flow"], numbers).forward_and_log_det(z)
                log_w += log_det
            zs.append(z)
        log_w += PRIOR.log_prob(zs[-1]).sum(-1)
        for layer in range(1, len(dims)):
            given = normal(decoders[layer].apply(theta["decoder"][layer], zs[layer]))
            log_w += given.log_prob(zs[layer - 1]).sum(-1)
        fit = log_likelihood(theta, x, zs[0])
        return zs[0], fit, log_w + fit

    def value(params: Params, key: randomness.Keys, x: Array) -> Array:
        """The bound to ascend, (batch,) in nats."""
        if setting.estimator == "analytic_kl":
            _, fit, _ = draw(params, params, params, key, x, setting.num_samples)
            return fit.mean(0) - posterior(params, 0, x)[0].kl(PRIOR).sum(-1)

        def log_weights(theta: Params, phi: Params, density: Params) -> Array:
            log_w = draw(theta, phi, density, key, x, setting.num_samples)[2]
            return log_w if setting.objective == "iwae" else log_w[None]

        theta, phi = (
            {name: params[name] for name in names} for names in (("decoder", "likelihood"), ("encoder", "flow"))
        )
        bound = vi.objective(log_weights, theta, phi, setting.estimator)
        return bound if setting.objective == "iwae" else bound.mean(0)

    def prepared(key: randomness.Keys, batch: Batch) -> tuple[Array, randomness.Keys]:
        data_key, key = randomness.split(key, 2)
        return likelihood.prepare(data_key, batch), key

    def loss(params: Params, key: randomness.Keys, batch: Batch) -> Array:
        x, key = prepared(key, batch)
        return -value(params, key, x)

    def terms(params: Params, key: Array, batch: Batch) -> dict[str, Array]:
        x, key = prepared(key, batch)
        _, fit, log_w = draw(params, params, params, key, x, setting.num_samples)
        if setting.objective == "iwae":
            return {"free energy": -bounds.importance_weighted(log_w)}
        return {"reconstruction": -fit.mean(0), "latent": (fit - log_w).mean(0)}

    def bound(params: Params, key: Array, batch: Batch) -> Array:
        return -sum(terms(params, key, batch).values(), jnp.zeros(()))

    def log_weight(params: Params, key: Array, batch: Batch) -> Array:
        """Of "iwae" the mean of its K weights, E w = p(x) too, so that what it is a draw of is the bound."""
        x, key = prepared(key, batch)
        num = setting.num_samples if setting.objective == "iwae" else 1
        return bounds.importance_weighted(draw(params, params, params, key, x, num)[2])

    def image(params: Params, z: Array) -> Array:
        return likelihood.image(params["likelihood"], decoder.apply(params["decoder"][0], z))

    def sample(params: Params, key: Array, num: int) -> Array:
        """The means of p(x | z_1), z_1 drawn from the prior."""
        keys = jax.random.split(key, len(dims))
        z = jax.random.normal(keys[0], (num, dims[-1]))
        for layer in range(len(dims) - 1, 0, -1):
            z = normal(decoders[layer].apply(params["decoder"][layer], z)).sample(keys[layer])
        return image(params, z)

    def features_of(params: Params, batch: Batch) -> Array:
        """The mean of q(z_1 | x) before any flow, of one draw of the noise that levels get."""
        x, _ = prepared(jax.random.key(0), batch)
        return posterior(params, 0, x)[0].mean

    def reconstruct(params: Params, key: Array, batch: Batch) -> Array:
        x, key = prepared(key, batch)
        return image(params, draw(params, params, params, key, x, 1)[0][0])

    def figures(params: Params, key: Array, batch: Batch) -> dict[str, Figure]:
        """Of images: rows x and its reconstruction; of a plane of latents the manifold."""
        found: dict[str, Figure] = {}
        if len(shape) == 3:
            x = likelihoods.scaled(batch, config.data.levels)
            found["reconstructions"] = Grid(jnp.concatenate([x, reconstruct(params, key, batch)]), len(x))
        if dims == (2,):
            quantiles = jax.scipy.stats.norm.ppf((jnp.arange(MANIFOLD) + 0.5) / MANIFOLD)
            z = jnp.stack(jnp.meshgrid(quantiles, -quantiles), -1).reshape(-1, 2)
            found["manifold"] = Grid(image(params, z), MANIFOLD)
        return found

    def log_joint(params: Params, x: Array, z: Array) -> Array:
        return log_likelihood(params, x, z) + PRIOR.log_prob(z).sum()

    around = (log_joint, lambda params, x: posterior(params, 0, x)[0], likelihood.prepare)
    annealed = latent.annealed(config.evaluation.annealing, *around) if len(dims) == 1 else None
    return Model(
        init,
        loss,
        bound,
        sample,
        measures=(
            Bound(terms),
            ManySamples(log_weight, None, annealed),
            Reconstruction(reconstruct),
            Probe(features_of),
        ),
        figures=Figures(own=figures),
    )


def _check(config: Any) -> None:
    setting, net = config.vae, config.net
    estimators = (*get_args(Estimator), "analytic_kl")
    for name, choices in (("objective", OBJECTIVES), ("estimator", estimators)):
        if setting[name] not in choices:
            raise InputError(f"vae.{name} must be one of {', '.join(choices)}, not {setting[name]!r}")
    if not isinstance(setting.num_samples, int) or setting.num_samples < 1:
        raise InputError(f"vae.num_samples must be an integer of at least 1, not {setting.num_samples!r}")
    dims = tuple(net.latents)
    if not dims or not all(isinstance(dim, int) and dim > 0 for dim in dims) or len(net.features) != len(dims):
        raise InputError(
            "net.latents must be the sizes of the stochastic layers, net.features the units between them, as many, "
            f"not {dims} and {net.features!r}"
        )
    if setting.estimator == "analytic_kl" and (setting.objective != "elbo" or len(dims) > 1):
        raise InputError("vae.estimator='analytic_kl' is of the 'elbo' of one layer: choose 'reparameterized'")
    if setting.flow != "none" and (len(dims) > 1 or setting.estimator != "reparameterized"):
        raise InputError(f"vae.flow={setting.flow!r} is of one layer and estimator='reparameterized': choose those")
