"""The types of parameters and outputs of every network, by tracing alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.nets import autoencoders, lista
from diffjax.nets.by_class import ByClass
from diffjax.nets.classifier import Classifier
from diffjax.nets.dit import DiT, TokenDiT
from diffjax.nets.masked import MADE
from diffjax.nets.multiscale import MultiScale
from diffjax.nets.tied import Tied
from diffjax.nets.unet import UNet
from diffjax.nets.vectors import MLP, RBF, TimeMLP

IMAGES, VECTORS, TIMES = (2, 8, 8, 1), (2, 3), (2,)
NETWORKS = {
    "unet": (UNet(8, (1, 2), 1, (4,), out_channels=1, num_classes=3), [IMAGES, TIMES]),
    "unet in bfloat16": (UNet(8, (1, 2), 1, (4,), out_channels=1, dtype=jnp.bfloat16, remat=True), [IMAGES, TIMES]),
    "dit": (DiT(2, 8, 1, 2, out_channels=1, num_classes=3), [IMAGES, TIMES]),
    "dit in bfloat16": (DiT(2, 8, 1, 2, out_channels=1, dtype=jnp.bfloat16, remat=True), [IMAGES, TIMES]),
    "tokens": (TokenDiT(1, 8, 1, 2), [(2, 5, 3), TIMES]),
    "classifier": (Classifier(3, 8), [IMAGES, TIMES]),
    "classifier in bfloat16": (Classifier(3, 8, dtype=jnp.bfloat16), [IMAGES, TIMES]),
    "multiscale": (MultiScale(1, 4, 1, 2, dense_features=5), [IMAGES, TIMES]),
    "one bump": (MultiScale(1, 4, 1, 2, dense_features=5, num_bumps=1), [IMAGES, TIMES]),
    "rbf": (RBF(4, 3, 2, local=True), [VECTORS, TIMES]),
    "mlp": (MLP((4,), 3, 2), [VECTORS, TIMES]),
    "time mlp": (TimeMLP((4, 4), 3), [VECTORS, TIMES]),
    "made": (MADE((4,)), [VECTORS, (2, 5)]),
    "by class": (ByClass(3, (4, 4), 2), [(2, 1, 3)]),
    "tied": (Tied((3, 4, 2)), [VECTORS]),
    "dense": (autoencoders.Dense((4,), 2), [VECTORS]),
    "encoder": (autoencoders.ConvEncoder((2, 3), 4, 2), [IMAGES]),
    "decoder": (autoencoders.ConvDecoder((2, 3), 4, IMAGES[1:]), [VECTORS]),
}


@pytest.mark.slow
@pytest.mark.parametrize("promotion", ["standard", "strict"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_float32_though_x64_is_on(name, promotion):
    """Parameters, activations and gradients; of float32 and of 16-bit examples, at times that are float64."""
    net, shapes = NETWORKS[name]
    with jax.enable_x64(True), jax.numpy_dtype_promotion(promotion):
        for of_x in (jnp.float32, jnp.bfloat16):
            x, *others = (jnp.zeros(shape, dtype) for shape, dtype in zip(shapes, [of_x, jnp.float64], strict=False))
            out, params = jax.eval_shape(net.init_with_output, jax.random.key(0), x, *others)
            grads = jax.eval_shape(jax.grad(lambda p, x=x, others=others: net.apply(p, x, *others).sum()), params)
            types = {leaf.dtype for leaf in jax.tree.leaves((out, params, grads))}
            assert types == {np.dtype(np.float32)}, (name, of_x)


@pytest.mark.parametrize("promotion", ["standard", "strict"])
def test_sparse_codes_are_float32_though_x64_is_on(promotion):
    with jax.enable_x64(True), jax.numpy_dtype_promotion(promotion):
        for of_x in (jnp.float32, jnp.bfloat16):
            x, dictionary = jnp.ones(VECTORS, of_x), jnp.eye(4, 3, dtype=jnp.float32)
            z = jax.eval_shape(lambda x, d: lista.fista(d, 0.1, x, 3), x, dictionary)
            own = jax.eval_shape(lambda x, d: lista.lista(lista.ista_weights(d, 0.1), x, 3), x, dictionary)
            cost = jax.eval_shape(lambda x, d, z: lista.lasso(d, 0.1, x, z), x, dictionary, z)
            assert {z.dtype, own.dtype, cost.dtype} == {np.dtype(np.float32)}


def test_fista_is_not_compiled_anew(compilations):
    def codes(i):
        dictionary = jnp.eye(4, 3) + 0.1 * i
        return lista.fista(dictionary, 0.1 + i, jnp.ones(VECTORS) * i, 3)

    codes(1.0)
    compilations.clear()
    codes(2.0)
    assert not compilations
