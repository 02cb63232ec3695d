"""The kinds of auto-encoder, on examples (batch, dim) in [0, 1]. Their equations are in autoencoder.py."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from diffjax import mcmc, randomness, registry
from diffjax.errors import InputError
from diffjax.linear_algebra import matmul
from diffjax.nets import lista
from diffjax.nets.tied import Tied

Params = dict[str, Any]
CORRUPTIONS = ("gaussian", "masking")
TARGET = 300  # iterations of FISTA for z*


class Autoencoder(NamedTuple):
    """One kind, as pure functions.

    encode(params, x) -> (batch, code); decode(params, h) -> (batch, dim)
    filters(params) -> (n, dim) in [-1, 1]: the atoms, centres or weights of the first layer, for a figure
    loss(params, key, x) -> (batch,); None means ‖x - decode(encode(x))‖²
    fit(params, x, seed) -> params, see `Examples.fit`; None if all is learned by steps
    table(params, x) -> {row: {column: number}}, see `Table`; None if there is none
    seen(key, x) -> x as the encoder sees it in training, sample(params, key, num) -> (num, dim) in [0, 1]; or None
    """

    init: Callable[[Array], Params]
    encode: Callable[[Params, Array], Array]
    decode: Callable[[Params, Array], Array]
    filters: Callable[[Params], Array]
    loss: Callable[[Params, Any, Array], Array] | None = None
    fit: Callable[[Params, np.ndarray, int], Params] | None = None
    table: Callable[[Params, Array], dict[str, dict[str, float]]] | None = None
    seen: Callable[[Any, Array], Array] | None = None
    sample: Callable[[Params, Array, int], Array] | None = None


def linear(dim: int, code: int) -> Autoencoder:
    """A linear auto-encoder. Params: encoder (dim, code), decoder (code, dim), centre (dim,)."""

    def init(key: Array) -> Params:
        encoder = jax.random.normal(key, (dim, code)) / math.sqrt(dim)
        return {"encoder": encoder, "decoder": encoder.T, "centre": jnp.zeros(dim)}

    return Autoencoder(
        init,
        lambda params, x: (x - params["centre"]) @ params["encoder"],
        lambda params, h: params["centre"] + h @ params["decoder"],
        lambda params: _scaled(params["decoder"]),
    )


def kmeans(dim: int, code: int) -> Autoencoder:
    """k-means. Params: centres (code, dim). A code is one of `code` numbers, so it has log2(code) bits."""

    def encode(params: Params, x: Array) -> Array:
        centres = params["centres"]
        nearest = ((centres**2).sum(-1) - 2 * matmul(x, centres.T)).argmin(-1)
        return jax.nn.one_hot(nearest, code)

    def fit(params: Params, x: np.ndarray, seed: int) -> Params:
        from sklearn.cluster import KMeans

        _enough(code, x)
        # With tolerance 0, Lloyd's steps stop only when they change nothing. There the gradient is 0.
        found = KMeans(code, n_init=10, tol=0.0, random_state=seed).fit(x.astype(np.float64))
        return {"centres": found.cluster_centers_}

    return Autoencoder(
        lambda key: {"centres": jax.random.uniform(key, (code, dim))},
        encode,
        lambda params, h: h @ params["centres"],
        lambda params: 2.0 * params["centres"] - 1.0,
        fit=fit,
    )


def sparse(dim: int, code: int, sparsity: float, iterations: int) -> Autoencoder:
    """Sparse coding by LISTA. `sparsity` is α, `iterations` the number of LISTA's steps.

    Params: centre (dim,), dictionary (code, dim), and the weights of LISTA, which start as those of ISTA.

    Raises:
        InputError: if sparsity or iterations is not positive.
    """
    if not sparsity > 0:
        raise InputError(f"autoencoder.sparsity must be above 0, not {sparsity!r}")
    whole("iterations", iterations)

    def init(key: Array) -> Params:
        atoms = jax.random.normal(key, (code, dim))
        dictionary = atoms / jnp.linalg.norm(atoms, axis=1, keepdims=True)
        return {
            "centre": jnp.zeros(dim),
            "dictionary": dictionary,
            "lista": lista.ista_weights(dictionary, sparsity),
        }

    def fit(params: Params, x: np.ndarray, seed: int) -> Params:
        from sklearn.decomposition import MiniBatchDictionaryLearning

        centre = x.mean(0)
        learner = MiniBatchDictionaryLearning(
            code, alpha=sparsity, max_iter=20, batch_size=64, fit_algorithm="cd", random_state=seed
        )
        dictionary = jnp.asarray(learner.fit((x - centre).astype(np.float64)).components_, float)
        return {"centre": centre, "dictionary": dictionary, "lista": lista.ista_weights(dictionary, sparsity)}

    def encode(params: Params, x: Array) -> Array:
        return lista.lista(params["lista"], x - params["centre"], iterations)

    def loss(params: Params, key: Any, x: Array) -> Array:
        dictionary, centre = jax.lax.stop_gradient((params["dictionary"], params["centre"]))
        target = lista.fista(dictionary, sparsity, x - centre, TARGET)
        return 0.5 * square(lista.lista(params["lista"], x - centre, iterations) - target)

    def table(params: Params, x: Array) -> dict[str, dict[str, float]]:
        """For each code z: the mean of ‖z - z*‖² divided by the mean of ‖z*‖², the mean of the lasso's objective, and
        the fraction of z that is not 0."""
        dictionary, x = params["dictionary"], x - params["centre"]
        ista = lista.ista_weights(dictionary, sparsity)
        best = lista.fista(dictionary, sparsity, x, 10 * TARGET)
        codes = {
            f"LISTA, {iterations} steps": lista.lista(params["lista"], x, iterations),
            f"ISTA, {iterations} steps": lista.lista(ista, x, iterations),
            f"ISTA, {10 * iterations} steps": lista.lista(ista, x, 10 * iterations),
            "optimum": best,
        }
        return {
            name: {
                "code error": float(square(z - best).mean() / square(best).mean()),
                "lasso": float(lista.lasso(dictionary, sparsity, x, z).mean()),
                "not 0": float((z != 0).mean()),
            }
            for name, z in codes.items()
        }

    return Autoencoder(
        init,
        encode,
        lambda params, h: params["centre"] + h @ params["dictionary"],
        lambda params: _scaled(params["dictionary"]),
        loss,
        fit,
        table,
    )


def mlp(dim: int, code: int, features: Sequence[int]) -> Autoencoder:
    """The network `Tied` with hidden layers of `features` units. Params: those of `Tied`."""
    for units in features:
        whole("features", units)
    net = Tied((dim, *features, code))

    return Autoencoder(
        lambda key: net.init(key, jnp.zeros(dim))["params"],
        lambda params, x: jnp.asarray(net.apply({"params": params}, x, method=Tied.encode)),
        lambda params, h: jnp.asarray(net.apply({"params": params}, h, method=Tied.decode)),
        lambda params: _scaled(params["kernel_0"].T),
    )


def denoising(dim: int, code: int, features: Sequence[int], corruption: str, noise: float) -> Autoencoder:
    """`mlp` that learns to reconstruct x from the corrupted x̃. corruption: of `CORRUPTIONS`.

    Raises:
        InputError: on an unknown corruption, or on noise that is negative, not finite, or above 1 for masking.
    """
    plain = mlp(dim, code, features)
    registry.choose("autoencoder.corruption", corruption, CORRUPTIONS)
    if not noise >= 0 or not math.isfinite(noise):
        raise InputError(f"autoencoder.noise must be a finite number of at least 0, not {noise!r}")
    if corruption == "masking" and noise > 1:
        raise InputError(f"autoencoder.noise is the fraction of elements to mask and must be at most 1, not {noise!r}")

    def one(key: Array, x: Array) -> Array:
        if corruption == "gaussian":
            return x + noise * jax.random.normal(key, x.shape)
        return jnp.where(jax.random.bernoulli(key, noise, x.shape), 0.0, x)

    def seen(key: randomness.Keys, x: Array) -> Array:
        return jax.vmap(one)(randomness.each(key, len(x)), x)

    def loss(params: Params, key: randomness.Keys, x: Array) -> Array:
        return square(x - plain.decode(params, plain.encode(params, seen(key, x))))

    return plain._replace(loss=loss, seen=seen)


def contractive(dim: int, code: int, features: Sequence[int], penalty: float) -> Autoencoder:
    """`mlp` with a penalty on how much the code changes with x.

    Raises:
        InputError: if the penalty is negative or not finite.
    """
    plain = mlp(dim, code, features)
    if not penalty >= 0 or not math.isfinite(penalty):
        raise InputError(f"autoencoder.penalty must be a finite number of at least 0, not {penalty!r}")

    def loss(params: Params, key: Any, x: Array) -> Array:
        error = square(x - plain.decode(params, plain.encode(params, x)))
        return error + penalty * contraction(plain.encode, params, x)

    return plain._replace(loss=loss)


def stacked_contractive(
    dim: int, code: int, features: Sequence[int], penalty: float, walk_noise: float, walk_steps: int
) -> Autoencoder:
    """One-layer `contractive` ones, each of the code of the one below, through which no gradient goes.

    So each learns as in a greedy stack, though all learn at once. Samples are places of `mcmc.tangent_walk` on the code
    of the whole stack, after `walk_steps` steps from where a uniform code is decoded to.
    """
    sizes = (dim, *features, code)
    layers = [contractive(below, above, (), penalty) for below, above in itertools.pairwise(sizes)]
    names = [f"layer_{i}" for i in range(len(layers))]
    for units in features:
        whole("features", units)
    whole("walk_steps", walk_steps)
    if not 0 < walk_noise < math.inf:
        raise InputError(f"autoencoder.walk_noise must be a finite number above 0, not {walk_noise!r}")

    def init(key: Array) -> Params:
        keys = jax.random.split(key, len(layers))
        return {name: layer.init(k) for name, layer, k in zip(names, layers, keys, strict=True)}

    def encode(params: Params, x: Array) -> Array:
        for name, layer in zip(names, layers, strict=True):
            x = layer.encode(params[name], x)
        return x

    def decode(params: Params, h: Array) -> Array:
        for name, layer in zip(names[::-1], layers[::-1], strict=True):
            h = layer.decode(params[name], h)
        return h

    def loss(params: Params, key: Any, x: Array) -> Array:
        total = jnp.zeros(len(x), x.dtype)
        for name, layer in zip(names, layers, strict=True):
            assert layer.loss is not None
            total += layer.loss(params[name], key, x)
            x = jax.lax.stop_gradient(layer.encode(params[name], x))
        return total

    def sample(params: Params, key: Array, num: int) -> Array:
        walk = mcmc.tangent_walk(lambda x: encode(params, x), lambda h: decode(params, h), walk_noise)

        def chain(key: Array) -> Array:
            start_key, key = jax.random.split(key)
            state = walk.init(decode(params, jax.random.uniform(start_key, (code,))))
            moved = jax.lax.fori_loop(0, walk_steps, lambda i, s: walk.step(jax.random.fold_in(key, i), s)[0], state)
            return moved.position

        return jax.vmap(chain)(jax.random.split(key, num))

    def filters(params: Params) -> Array:
        return layers[0].filters(params[names[0]])

    return Autoencoder(init, encode, decode, filters, loss, sample=sample)


def contraction(
    encode: Callable[[Params, Array], Array], params: Params, x: Float[Array, "batch dim"]
) -> Float[Array, " batch"]:
    """‖∂h/∂x‖²_F of each example for a `Tied` network. One layer: in closed form; else by forward differentiation."""
    if "kernel_1" in params:
        return jax.vmap(lambda x: (jax.jacfwd(encode, 1)(params, x) ** 2).sum())(x)
    h = encode(params, x)
    return (h * (1 - h)) ** 2 @ (params["kernel_0"] ** 2).sum(0)


def square(x: Float[Array, "*batch dim"]) -> Float[Array, "*batch"]:
    """‖x‖² of each example."""
    return (x**2).sum(-1)


def _scaled(filters: Array) -> Array:
    """Each filter divided by its largest absolute value, so that 0 is grey."""
    return filters / jnp.maximum(jnp.abs(filters).max(-1, keepdims=True), 1e-12)


def whole(name: str, value: Any) -> None:
    """Raises `InputError` if the value of the field `autoencoder.{name}` is not a positive integer."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"autoencoder.{name} must be an integer of at least 1, not {value!r}")


def _enough(code: int, x: np.ndarray) -> None:
    if len(x) < code:
        raise InputError(f"autoencoder.code={code} is more than the {len(x)} training examples; take fewer")
