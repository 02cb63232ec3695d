"""Variational auto-encoders (Kingma & Welling 2014) and importance-weighted ones (Burda et al. 2016).

    p(z_L) = N(0, I),  p(z_l | z_{l+1}) = N(., .), each with its decoder,  p(x | z_1) as in `likelihoods.py`
    q(z_1 | x), q(z_{l+1} | z_l) = N(μ, σ²), each with its encoder
    w_k = p(x, z^k)/q(z^k | x),  z^1 .. z^K ~ q

    elbo   (1/K) Σ log w_k,         by gradients through z, or with KL(q(z | x) ‖ p(z)) in closed form
    iwae   L_K = log (1/K) Σ w_k,   which is also the reported bound; its estimators are in `vi.objective`

If there is one layer, a normalizing flow may follow its Gaussian, see `flow_posterior.py`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import bounds, coding, randomness, vi
from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.code import Code
from diffjax.evaluation.many_samples import ManySamples
from diffjax.evaluation.probe import Probe
from diffjax.evaluation.reconstruction import Reconstruction
from diffjax.vi.objectives import Estimator
from diffjax.zoo.figures import Figure, Figures, Grid
from diffjax.zoo.latent import likelihoods
from diffjax.zoo.latent import networks as latent
from diffjax.zoo.latent.flow_posterior import NO_FLOW, Amortised, amortised
from diffjax.zoo.latent.networks import PRIOR, normal
from diffjax.zoo.model import Batch, Model, bound_of, image_of, scaled

Params = dict[str, Any]
OBJECTIVES = ("elbo", "iwae")
MANIFOLD = 20  # images a side


class Layers(NamedTuple):
    """The networks of x and z_1 .. z_L, and their distributions p and q.

    dims: the dimension of each z_l
    encoders: the first maps x to mean, log-variance and the flow's numbers, the others z_l to mean and log-variance of
        z_{l+1}
    decoders: the first maps z_1 to `likelihood.out`, the others z_{l+1} to mean and log-variance of z_l
    flow: applied to draws of the Gaussian q(z_1 | x)
    """

    dims: tuple[int, ...]
    encoders: Sequence[latent.Net]
    decoders: Sequence[latent.Net]
    likelihood: likelihoods.Likelihood
    flow: Amortised = NO_FLOW

    def init(self, key: Array) -> Params:
        keys = iter(jax.random.split(key, 2 * len(self.dims) + 1))
        return {
            "encoder": [net.init(next(keys)) for net in self.encoders],
            "decoder": [net.init(next(keys)) for net in self.decoders],
            "likelihood": self.likelihood.params,
            "flow": self.flow.init(next(keys)),
        }

    def log_likelihood(self, params: Params, x: Array, z: Array) -> Array:
        """log p(x | z_1)."""
        out = self.decoders[0].apply(params["decoder"][0], z)
        return self.likelihood.log_prob(params["likelihood"], out, x)

    def log_joint(self, params: Params, x: Array, z: Array) -> Array:
        """log p(x, z) of one example, for a single layer."""
        return self.log_likelihood(params, x, z) + PRIOR.log_prob(z).sum()

    def posterior(self, params: Params, layer: int, below: Array) -> tuple[Normal, Array]:
        """q of a layer given the one below it, before any flow, and the numbers for the flow. Below the first is x."""
        outputs = self.encoders[layer].apply(params["encoder"][layer], below)
        return normal(outputs[..., : 2 * self.dims[layer]]), outputs[..., 2 * self.dims[layer] :]

    def first(self, params: Params, x: Array) -> Normal:
        """q(z_1 | x) before any flow."""
        return self.posterior(params, 0, x)[0]

    def draw(
        self, theta: Params, phi: Params, density: Params, key: randomness.Keys, x: Array, num: int
    ) -> tuple[Array, Array, Array]:
        """z_1 (num, batch, dim), log p(x | z_1) and log w (num, batch). phi makes the draws, `density` their log q."""
        keys = randomness.split(key, len(self.dims))
        zs: list[Array] = []
        log_w = jnp.zeros((), x.dtype)
        for layer, (layer_key, dim) in enumerate(zip(keys, self.dims, strict=True)):
            below = zs[-1] if zs else x
            (q, numbers), (law, _) = (self.posterior(params, layer, below) for params in (phi, density))
            noise = jnp.moveaxis(randomness.normal(layer_key, (len(x), num, dim), q.mean.dtype), 1, 0)
            z = q.mean + jnp.sqrt(q.variance) * noise
            log_w -= law.log_prob(z).sum(-1)
            if layer == 0:
                z, log_det = self.flow.flow(phi["flow"], numbers).forward_and_log_det(z)
                log_w += log_det
            zs.append(z)
        log_w += PRIOR.log_prob(zs[-1]).sum(-1)
        for layer in range(1, len(self.dims)):
            given = normal(self.decoders[layer].apply(theta["decoder"][layer], zs[layer]))
            log_w += given.log_prob(zs[layer - 1]).sum(-1)
        fit = self.log_likelihood(theta, x, zs[0])
        return zs[0], fit, log_w + fit

    def image(self, params: Params, z: Array) -> Array:
        """The mean of p(x | z_1)."""
        return self.likelihood.image(params["likelihood"], self.decoders[0].apply(params["decoder"][0], z))

    def sample(self, params: Params, key: Array, num: int) -> Array:
        """The means of p(x | z_1), z_1 drawn from the prior."""
        keys = jax.random.split(key, len(self.dims))
        z = jax.random.normal(keys[0], (num, self.dims[-1]))
        for layer in range(len(self.dims) - 1, 0, -1):
            z = normal(self.decoders[layer].apply(params["decoder"][layer], z)).sample(keys[layer])
        return self.image(params, z)


def vae(
    layers: Layers,
    shape: tuple[int, ...],
    levels: int,
    *,
    objective: str = "elbo",
    estimator: Estimator | Literal["analytic_kl"] = "reparameterized",
    num_samples: int = 1,
    annealing: latent.Annealing = latent.ANNEALING,
) -> Model:
    """A variational auto-encoder of examples of `shape`, of `levels` values an element (0: real numbers).

    Args:
        layers: the networks.
        objective: "elbo" or "iwae", the bound of `num_samples` weights.
        estimator: of the objective's gradient, see `vi.objective`. "analytic_kl" is for the "elbo" of one layer.
        annealing: the path of annealed importance sampling, for one layer.
    """
    value = partial(_objective, layers, objective, estimator, num_samples)

    def prepared(key: randomness.Keys, batch: Batch) -> tuple[Array, randomness.Keys]:
        data_key, key = randomness.split(key, 2)
        return layers.likelihood.prepare(data_key, batch), key

    def loss(params: Params, key: randomness.Keys, batch: Batch) -> Array:
        x, key = prepared(key, batch)
        return -value(params, key, x)

    def terms(params: Params, key: Array, batch: Batch) -> dict[str, Array]:
        x, key = prepared(key, batch)
        _, fit, log_w = layers.draw(params, params, params, key, x, num_samples)
        if objective == "iwae":
            return {"free energy": -bounds.importance_weighted(log_w)}
        return {"reconstruction": -fit.mean(0), "latent": (fit - log_w).mean(0)}

    def log_weight(params: Params, key: Array, batch: Batch) -> Array:
        """For "iwae" the log of the mean of its K weights. Its expectation is then the bound, and E w = p(x) holds."""
        x, key = prepared(key, batch)
        num = num_samples if objective == "iwae" else 1
        return bounds.importance_weighted(layers.draw(params, params, params, key, x, num)[2])

    def features(params: Params, batch: Batch) -> Array:
        """The mean of q(z_1 | x) before any flow, for one draw of the noise that makes levels continuous."""
        return layers.first(params, prepared(jax.random.key(0), batch)[0]).mean

    def reconstruct(params: Params, key: Array, batch: Batch) -> Array:
        x, key = prepared(key, batch)
        return layers.image(params, layers.draw(params, params, params, key, x, 1)[0][0])

    def figures(params: Params, key: Array, batch: Batch) -> dict[str, Figure]:
        """For images: rows of x and of its reconstruction. For two latents: the manifold."""
        found: dict[str, Figure] = {}
        if len(shape) == 3:
            x = scaled(image_of(batch), levels)
            found["reconstructions"] = Grid(jnp.concatenate([x, reconstruct(params, key, batch)]), len(x))
        return found | (_manifold(layers, params) if layers.dims == (2,) else {})

    around = (layers.log_joint, layers.first, layers.likelihood.prepare)
    better = ManySamples(log_weight, None, latent.annealed(annealing, *around) if len(layers.dims) == 1 else None)
    codes = (Code(partial(_codec, layers, shape, levels)),) if _can_code(layers) else ()
    measures = (Bound(terms), better, Reconstruction(reconstruct), Probe(features), *codes)
    return Model(layers.init, loss, bound_of(terms), layers.sample, measures=measures, figures=Figures(own=figures))


def _can_code(layers: Layers) -> bool:
    """Whether the latents are independent under q(z | x), and the data levels of which p(x | z) is a table."""
    return len(layers.dims) == 1 and layers.flow is NO_FLOW and layers.likelihood.table is not None


def _codec(layers: Layers, shape: tuple[int, ...], levels: int, params: Params) -> coding.BitsBack:
    def posterior(params: Params, x: Array) -> Normal:
        return layers.first(params, layers.likelihood.prepare(jax.random.key(0), x))

    def table(params: Params, z: Array) -> Array:
        assert layers.likelihood.table is not None
        return layers.likelihood.table(params["likelihood"], layers.decoders[0].apply(params["decoder"][0], z))

    return coding.BitsBack(posterior, table, params, shape, levels)


def _objective(
    layers: Layers, objective: str, estimator: Any, num_samples: int, params: Params, key: randomness.Keys, x: Array
) -> Array:
    """The bound to ascend, (batch,) in nats."""
    if estimator == "analytic_kl":
        _, fit, _ = layers.draw(params, params, params, key, x, num_samples)
        return fit.mean(0) - layers.first(params, x).kl(PRIOR).sum(-1)

    def log_weights(theta: Params, phi: Params, density: Params) -> Array:
        log_w = layers.draw(theta, phi, density, key, x, num_samples)[2]
        return log_w if objective == "iwae" else log_w[None]

    theta, phi = ({name: params[name] for name in names} for names in (("decoder", "likelihood"), ("encoder", "flow")))
    bound = vi.objective(log_weights, theta, phi, estimator)
    return bound if objective == "iwae" else bound.mean(0)


def _manifold(layers: Layers, params: Params) -> dict[str, Figure]:
    """The decoded images of a grid of two latents, at the quantiles of their prior."""
    quantiles = jax.scipy.stats.norm.ppf((jnp.arange(MANIFOLD) + 0.5) / MANIFOLD)
    z = jnp.stack(jnp.meshgrid(quantiles, -quantiles), -1).reshape(-1, 2)
    return {"manifold": Grid(layers.image(params, z), MANIFOLD)}


def make(config: Any) -> Model:
    """The Model of `config.{data, vae, net, evaluation}`, see configs/vae_mnist.py.

    Raises:
        InputError: on a likelihood that does not suit the data, an unknown choice, or choices that do not fit together.
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
    return vae(
        Layers(dims, encoders, decoders, likelihood, behind),
        shape,
        config.data.levels,
        objective=setting.objective,
        estimator=setting.estimator,
        num_samples=setting.num_samples,
        annealing=latent.Annealing(**config.evaluation.annealing),
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
        raise InputError("vae.estimator='analytic_kl' is for the 'elbo' of one layer: choose 'reparameterized'")
    if setting.flow != "none" and (len(dims) > 1 or setting.estimator != "reparameterized"):
        raise InputError(f"vae.flow={setting.flow!r} is for one layer and estimator='reparameterized': choose these")
