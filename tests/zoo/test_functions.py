"""Each system as other code calls it: a function of networks and numbers, without a configuration.

Their numbers are proven elsewhere, by `make(config)`, which calls them. Here nothing is compiled: the shapes and types
of a Model's functions are those that `Model` promises.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from diffjax import processes, schedules
from diffjax.evaluation.bound import Bound
from diffjax.nets.vectors import MLP, TimeMLP
from diffjax.zoo import Model
from diffjax.zoo.autoencoders import kinds
from diffjax.zoo.autoencoders.autoencoder import autoencoder
from diffjax.zoo.diffusion.binomial import betas, binomial_diffusion
from diffjax.zoo.diffusion.ddpm import ddpm
from diffjax.zoo.diffusion.flow_matching import flow_matching
from diffjax.zoo.diffusion.gaussian import gaussian_diffusion
from diffjax.zoo.diffusion.guided import guided
from diffjax.zoo.diffusion.score import score_model
from diffjax.zoo.diffusion.vdm import vdm
from diffjax.zoo.flows.density import flow_density
from diffjax.zoo.flows.energies import flow_energies
from diffjax.zoo.flows.layers import stack
from diffjax.zoo.latent import likelihoods
from diffjax.zoo.latent.hvi import hvi
from diffjax.zoo.latent.m1 import Coder, Pixels, m1
from diffjax.zoo.latent.m2 import m2
from diffjax.zoo.latent.networks import dense
from diffjax.zoo.latent.semi_supervised import semi_supervised, supervised
from diffjax.zoo.latent.vae import Layers, vae
from diffjax.zoo.markov.beta_binomial import Setting, beta_binomial
from diffjax.zoo.markov.bivariate_gaussian import bivariate_gaussian
from diffjax.zoo.markov.black_box import NormalGamma, black_box

IMAGE, BITS, PAIR = (4, 4, 1), (2, 3, 1), (2,)
TABLE = ((1, 20), (3, 30))


class OfImages(nn.Module):
    """(x, t, label and dropout keys) -> as many numbers as x has, or `out`."""

    out: int = 0

    @nn.compact
    def __call__(self, x, t, *rest):
        h = nn.Dense(self.out or x[0].size)(x.reshape(len(x), -1) + t[:, None])
        return h if self.out else h.reshape(x.shape)


PIXELS, CODER = Pixels(BITS, 2), Coder(2, dense((5,), (6,), (4,)), dense((5,), (2,), (6,)))


def a_ddpm() -> Model:
    return ddpm(processes.gaussian(schedules.linear(5)), OfImages(), IMAGE, 9)


def a_vae() -> Model:
    likelihood = likelihoods.make("bernoulli", BITS, 2)
    return vae(Layers((2,), [dense((5,), BITS, (4,))], [dense((5,), (2,), BITS)], likelihood), BITS, 2)


# name -> the model, the shape of an example, its levels
SYSTEMS = {
    "ddpm": (a_ddpm, IMAGE, 9),
    "score": (lambda: score_model(processes.gaussian(schedules.vp()), TimeMLP((5,), 2), PAIR), PAIR, 0),
    "guided": (lambda: guided(a_ddpm(), OfImages(3), IMAGE, 9, 3, steps=5), IMAGE, 9),
    "flow_matching": (lambda: flow_matching(processes.gaussian(schedules.straight()), OfImages(), IMAGE, 9), IMAGE, 9),
    "vdm": (lambda: vdm(OfImages(), IMAGE, 9, units=3, num_terms=5), IMAGE, 9),
    "gaussian_diffusion": (lambda: gaussian_diffusion(MLP((5,), 4, 3), PAIR, 4), PAIR, 0),
    "binomial_diffusion": (
        lambda: binomial_diffusion(MLP((5,), 8, 3), processes.binomial(betas(4), 0.5), 8, 4),
        (8,),
        2,
    ),
    "vae": (a_vae, BITS, 2),
    "hvi": (lambda: hvi(dense((5,), BITS, (4,)), dense((5,), (2,), BITS), 2, num_leapfrog=2), BITS, 2),
    "m1": (lambda: m1(PIXELS, CODER), BITS, 2),
    "m2": (lambda: semi_supervised(PIXELS, m2(6, 3, 2, (5,), bits=True), 3, 2), BITS, 2),
    "m1m2": (lambda: semi_supervised(PIXELS, m2(2, 3, 2, (5,), bits=False), 3, 2, coder=CODER), BITS, 2),
    "supervised": (lambda: supervised(PIXELS, m2(6, 3, 2, (5,), bits=True), 3), BITS, 2),
    "bivariate_gaussian": (lambda: bivariate_gaussian((1.0, 3.0), (1, 2)), PAIR, 0),
    "beta_binomial": (
        lambda: beta_binomial(TABLE, Setting((1, 2), (-3.0, 3.0), (1.0, 1.0), 0.1, 1.0)),
        (2, 2),
        0,
    ),
    "black_box": (lambda: black_box(NormalGamma(0.0, 1.0, 1.0, 1.0), ("score",)), (5,), 0),
    "flow_density": (lambda: flow_density(stack("affine", PAIR, 2), PAIR), PAIR, 0),
    "flow_energies": (lambda: flow_energies({2: stack("planar", PAIR, 2)}), PAIR, 0),
    "autoencoder": (lambda: autoencoder(kinds.mlp(6, 2, (5,)), BITS, 2), BITS, 2),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_needs_no_configuration(name):
    build, shape, levels = SYSTEMS[name]
    model = build()
    assert isinstance(model, Model)
    key = jax.eval_shape(lambda: jax.random.key(0))
    image = jax.ShapeDtypeStruct((3, *shape), np.uint8 if levels else np.float32)
    batch = {"image": image, "label": jax.ShapeDtypeStruct((3,), np.int32)}
    params = jax.eval_shape(model.init, key)
    by_example = [jax.eval_shape(model.loss, params, key, batch)]
    if model.bound is not None:
        by_example.append(jax.eval_shape(model.bound, params, key, batch))
        by_example.extend(jax.eval_shape(model.measure(Bound).terms, params, key, batch).values())
    assert all((out.shape, out.dtype) == ((3,), jnp.float32) for out in by_example), by_example
    if model.sample is not None:
        samples = jax.eval_shape(lambda params, key: model.sample(params, key, 2), params, key)
        assert samples.shape[0] == 2
        assert jnp.issubdtype(samples.dtype, jnp.floating)
        if len(shape) == 3:
            assert samples.shape[1:] == shape
    assert model.measures or model.sample is None, "a system says what it is measured by"
