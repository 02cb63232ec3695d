"""Auto-encoders beside scikit-learn (PCA, k-means, the lasso), beside autodiff Jacobians, and beside numpy."""

import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from ml_collections import ConfigDict
from scipy.linalg import subspace_angles
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA, sparse_encode

from diffjax import zoo
from diffjax.errors import InputError
from diffjax.evaluation.probe import Probe
from diffjax.evaluation.reconstruction import Reconstruction
from diffjax.evaluation.table import Table
from diffjax.nets import lista
from diffjax.zoo.autoencoders import kinds

DIGITS = load_digits().images[:400, :, :, None].astype(np.uint8)  # 17 levels
PIXELS = DIGITS.reshape(400, 64) / 16.0


def config(kind, shape=(8, 8, 1), levels=17, **fields):
    autoencoder = {"kind": kind, "code": 4, "features": (6,), **fields}
    return ConfigDict({"system": "autoencoder", "data": {"shape": shape, "levels": levels}, "autoencoder": autoencoder})


def model(kind, **fields):
    return zoo.make(config(kind, **fields))


# Linear --------------------------------------------------------------------------------------------------------------


def test_at_its_minimum_the_linear_one_is_pca():
    """From where nobody put it: only L-BFGS on the loss moves it. Three of eight directions have most variance."""
    rng = np.random.default_rng(0)
    x = (
        0.5
        + rng.normal(size=(200, 8))
        * [0.5, 0.4, 0.3, 0.1, 0.1, 0.05, 0.05, 0.01]
        @ np.linalg.qr(rng.normal(size=(8, 8)))[0]
    )
    pca = PCA(3).fit(x)
    with jax.enable_x64(True):
        linear = model("linear", shape=(8,), levels=2, code=3)
        key = jax.random.key(1)
        start, unravel = ravel_pytree(linear.init(key))
        value = jax.jit(jax.value_and_grad(lambda flat: linear.loss(unravel(flat), key, jnp.asarray(x)).mean()))
        found = minimize(lambda flat: [np.asarray(v) for v in value(flat)], start, jac=True, tol=1e-14)
        params = unravel(jnp.asarray(found.x))
        angles = subspace_angles(np.asarray(params["decoder"]).T, pca.components_.T)
        assert angles.max() < 1e-4
        y = 0.5 * (np.asarray(linear.measure(Reconstruction).reconstruct(params, key, jnp.asarray(x))) + 1)
        np.testing.assert_allclose(y, pca.inverse_transform(pca.transform(x)), atol=1e-4)
        np.testing.assert_allclose(found.fun, ((x - y) ** 2).sum(1).mean(), rtol=1e-6)


# k-means -------------------------------------------------------------------------------------------------------------


def test_at_scikit_learns_centres_the_one_hot_code_has_k_means_loss_and_no_gradient():
    with jax.enable_x64(True):
        kmeans = model("kmeans", code=10)
        params = jax.tree.map(jnp.asarray, kmeans.examples.fit(kmeans.init(jax.random.key(0)), {"image": DIGITS}))
        centres = np.asarray(params["centres"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one iteration, so that it stays where it is
            oracle = KMeans(10, init=centres, n_init=1, max_iter=1).fit(PIXELS)

        def total(params):
            return kmeans.loss(params, None, DIGITS).sum()

        np.testing.assert_allclose(oracle.cluster_centers_, centres, atol=1e-10)  # a fixed point of Lloyd's step
        np.testing.assert_allclose(total(params), oracle.inertia_, rtol=1e-10)
        np.testing.assert_allclose(kmeans.loss(params, None, DIGITS), oracle.transform(PIXELS).min(1) ** 2, rtol=1e-9)
        codes = np.asarray(kmeans.measure(Probe).features(params, DIGITS))
        np.testing.assert_array_equal(codes.argmax(1), oracle.predict(PIXELS))
        np.testing.assert_array_equal(np.sort(codes, 1)[:, -2:], np.tile([0.0, 1.0], (400, 1)))
        assert jnp.abs(jax.grad(total)(params)["centres"]).max() < 1e-9
        elsewhere = jnp.asarray(centres[::-1]) * 0.9
        assert jnp.abs(jax.grad(total)({"centres": elsewhere})["centres"]).max() > 1  # it can tell
        np.testing.assert_allclose(
            kmeans.measure(Reconstruction).reconstruct(params, None, DIGITS).reshape(400, 64),
            2 * centres[oracle.labels_] - 1,
            atol=1e-10,
        )


def test_a_gradient_step_is_a_step_of_lloyd():
    with jax.enable_x64(True):
        kmeans = model("kmeans", code=10)
        start = PIXELS[:10]  # each has an example of its own
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lloyd = KMeans(10, init=start, n_init=1, max_iter=1).fit(PIXELS).cluster_centers_
        params = {"centres": jnp.asarray(start)}
        slope = jax.grad(lambda params: kmeans.loss(params, None, DIGITS).sum())(params)["centres"]
        sizes = np.asarray(kmeans.measure(Probe).features(params, DIGITS)).sum(0)
        assert np.abs(lloyd - start).max() > 0.1
        np.testing.assert_allclose(start - np.asarray(slope) / (2 * sizes[:, None]), lloyd, atol=1e-10)


# Sparse --------------------------------------------------------------------------------------------------------------

SPARSITY = 0.2


@pytest.fixture(scope="module")
def sparse():
    coding = model("sparse", code=12, sparsity=SPARSITY, iterations=2)
    fitted = coding.examples.fit(coding.init(jax.random.key(0)), {"image": DIGITS})
    return coding, jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), fitted)


@pytest.mark.slow
def test_codes_are_scikit_learns(sparse):
    _, params = sparse
    x = PIXELS - np.asarray(params["centre"])
    dictionary = np.asarray(params["dictionary"], np.float64)
    np.testing.assert_allclose(np.linalg.norm(dictionary, axis=1), 1.0, atol=1e-5)
    z = np.asarray(lista.fista(params["dictionary"], SPARSITY, jnp.asarray(x, jnp.float32), kinds.TARGET))
    for algorithm in ("lasso_lars", "lasso_cd"):
        oracle = sparse_encode(x, dictionary, algorithm=algorithm, alpha=SPARSITY, max_iter=10_000)
        np.testing.assert_allclose(z, oracle, atol=2e-3)  # lasso_cd stops at 1e-4 of the objective
    assert 0.1 < (z != 0).mean() < 0.9
    best = 0.5 * ((x - oracle @ dictionary) ** 2).sum(1) + SPARSITY * np.abs(oracle).sum(1)
    np.testing.assert_allclose(lista.lasso(params["dictionary"], SPARSITY, x, z), best, rtol=1e-4)


def test_momentum_has_the_rate_of_beck_and_teboulle():
    """Theorem 4.4: F(z_k) - F* <= 2 λ ‖z*‖² / (k + 1)², which ISTA does not reach where D is badly conditioned."""
    rng = np.random.default_rng(0)
    D = np.diag(0.6 ** np.arange(10)) @ np.linalg.qr(rng.normal(size=(10, 10)))[0]
    x, sparsity = 30 * rng.normal(size=10) @ D, 1e-4

    def objective(z):
        return 0.5 * ((x - z @ D) ** 2).sum() + sparsity * np.abs(z).sum()

    best = sparse_encode(x[None], D, algorithm="lasso_lars", alpha=sparsity, max_iter=1000)[0]
    with jax.enable_x64(True):
        fista = np.asarray(lista.fista(jnp.asarray(D), sparsity, jnp.asarray(x), 100))
        ista = np.asarray(lista.lista(lista.ista_weights(jnp.asarray(D), sparsity), jnp.asarray(x), 100))
    bound = 2 * (best**2).sum() / 101**2  # λ = 1
    assert objective(fista) - objective(best) < bound
    assert objective(ista) - objective(best) > bound


@pytest.mark.slow
def test_before_training_lista_is_ista(sparse):
    """ISTA written out, by the gradient: v = z - ∇(½‖x - zD‖²)/λ, then shrink; its objective never rises."""
    coding, params = sparse
    D, x = np.asarray(params["dictionary"], np.float64), PIXELS - np.asarray(params["centre"])
    largest = np.linalg.norm(D, 2) ** 2
    z, values = np.zeros((400, 12)), []
    for iteration in range(1, 30):
        v = z - (z @ D - x) @ D.T / largest
        z = np.maximum(v - SPARSITY / largest, 0) - np.maximum(-v - SPARSITY / largest, 0)
        if iteration == 2:
            np.testing.assert_allclose(coding.measure(Probe).features(params, DIGITS), z, atol=1e-5)
        values.append(0.5 * ((x - z @ D) ** 2).sum() + SPARSITY * np.abs(z).sum())
    assert (np.diff(values) <= 0).all()
    np.testing.assert_allclose(lista.lista(params["lista"], jnp.asarray(x), 29), z, atol=1e-4)


@pytest.mark.slow
def test_lista_learns_codes_that_ista_takes_longer_for(sparse):
    """On examples it was not trained on; the dictionary stays."""
    coding, params = sparse
    train, test = DIGITS[:300], DIGITS[300:]
    tx = optax.adam(1e-2)

    @jax.jit
    def step(params, opt_state, _):
        grads = jax.grad(lambda params: coding.loss(params, None, train).mean())(params)
        updates, opt_state = tx.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state

    before, learned, opt_state = coding.measure(Table).table(params, None, {"image": test}), params, tx.init(params)
    for i in range(150):
        learned, opt_state = step(learned, opt_state, i)
    np.testing.assert_array_equal(learned["dictionary"], params["dictionary"])
    np.testing.assert_array_equal(learned["centre"], params["centre"])
    table = coding.measure(Table).table(learned, None, {"image": test})
    assert before["LISTA, 2 steps"] == before["ISTA, 2 steps"] == table["ISTA, 2 steps"]
    assert table["LISTA, 2 steps"]["code error"] < 0.5 * table["ISTA, 2 steps"]["code error"]
    assert table["optimum"]["lasso"] <= table["LISTA, 2 steps"]["lasso"]
    x = (test.reshape(100, 64) / 16.0 - np.asarray(params["centre"])).astype(np.float64)
    D = np.asarray(params["dictionary"], np.float64)
    oracle = sparse_encode(x, D, algorithm="lasso_lars", alpha=SPARSITY)
    codes = np.asarray(coding.measure(Probe).features(learned, test))
    error = ((codes - oracle) ** 2).sum() / (oracle**2).sum()
    np.testing.assert_allclose(table["LISTA, 2 steps"]["code error"], error, rtol=1e-2)


@pytest.mark.slow
def test_the_dictionary_is_learnt(sparse):
    """Lower an objective than with as many examples for atoms."""
    _, params = sparse
    x = jnp.asarray(PIXELS - np.asarray(params["centre"]), jnp.float32)

    def objective(dictionary):
        z = lista.fista(dictionary, SPARSITY, x, kinds.TARGET)
        return float(lista.lasso(dictionary, SPARSITY, x, z).mean())

    examples = x[:12] / jnp.linalg.norm(x[:12], axis=1, keepdims=True)
    assert objective(params["dictionary"]) < 0.9 * objective(examples)


# Networks ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_decoders_take_the_encoders_weights_transposed():
    plain, key = model("mlp", features=(6, 5)), jax.random.key(0)
    rng = np.random.default_rng(0)  # biases too
    params = jax.tree.map(lambda x: x + rng.normal(0, 0.3, x.shape).astype(np.float32), plain.init(key))
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    h = np.logaddexp(0, PIXELS @ p["kernel_0"] + p["up_0"])
    code = expit(np.logaddexp(0, h @ p["kernel_1"] + p["up_1"]) @ p["kernel_2"] + p["up_2"])
    h = np.logaddexp(0, code @ p["kernel_2"].T + p["down_2"])
    y = expit(np.logaddexp(0, h @ p["kernel_1"].T + p["down_1"]) @ p["kernel_0"].T + p["down_0"])
    np.testing.assert_allclose(plain.measure(Probe).features(params, DIGITS), code, atol=1e-5)
    np.testing.assert_allclose(
        plain.measure(Reconstruction).reconstruct(params, key, DIGITS).reshape(400, 64), 2 * y - 1, atol=1e-5
    )
    np.testing.assert_allclose(plain.loss(params, key, DIGITS), ((PIXELS - y) ** 2).sum(1), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("features", [(), pytest.param((6,), marks=pytest.mark.slow)])
def test_the_contraction_is_that_of_the_jacobian(features):
    key = jax.random.key(0)
    systems = [model("contractive", penalty=penalty, features=features) for penalty in (0.0, 0.7)]
    params = jax.tree.map(lambda x: x + 0.1, systems[0].init(key))
    batch = DIGITS[:9]
    without, penalised = (np.asarray(system.loss(params, key, batch)) for system in systems)
    np.testing.assert_allclose(without, model("mlp", features=features).loss(params, key, batch), rtol=1e-6)

    def code(x):
        return systems[0].measure(Probe).features(params, 16 * x[None])[0]

    jacobians = jax.vmap(jax.jacobian(code))(jnp.asarray(PIXELS[:9], jnp.float32))
    assert jacobians.shape == (9, 4, 64)
    np.testing.assert_allclose(penalised - without, 0.7 * (jacobians**2).sum((1, 2)), rtol=1e-3)


def test_noise_is_as_much_as_was_asked_for():
    x = jnp.asarray(np.random.default_rng(0).uniform(0.1, 1.0, (200, 64)), jnp.float32)

    def seen(corruption, noise):
        kind = kinds.denoising(64, 8, (16,), corruption, noise)
        return np.asarray(kind.seen(jax.random.key(1), x))

    masked = seen("masking", 0.3)
    assert set(np.unique(masked[masked != x])) == {0.0}
    assert abs((masked == 0).mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / x.size)
    errors = seen("gaussian", 0.3) - x
    assert abs(errors.mean()) < 5 * 0.3 / np.sqrt(x.size)
    assert abs(errors.std() / 0.3 - 1) < 5 / np.sqrt(2 * x.size)


def test_denoising_asks_for_the_clean_example():
    key, plain = jax.random.key(0), model("mlp")
    params = plain.init(key)
    all_masked = model("denoising", corruption="masking", noise=1.0)
    nothing = 0.5 * (np.asarray(plain.measure(Reconstruction).reconstruct(params, key, np.zeros((1, 64)))).ravel() + 1)
    want = ((PIXELS - nothing) ** 2).sum(1)
    np.testing.assert_allclose(all_masked.loss(params, key, DIGITS), want, rtol=1e-4)
    for corruption in kinds.CORRUPTIONS:
        noiseless = model("denoising", corruption=corruption, noise=0.0)
        np.testing.assert_allclose(noiseless.loss(params, key, DIGITS), plain.loss(params, key, DIGITS), rtol=1e-6)


def test_an_examples_noise_does_not_depend_on_its_neighbours():
    denoising = model("denoising", corruption="gaussian", noise=0.5)
    params, keys = denoising.init(jax.random.key(0)), jax.random.split(jax.random.key(1), 6)
    whole = denoising.loss(params, keys, DIGITS[:6])
    np.testing.assert_allclose(denoising.loss(params, keys[3:], DIGITS[3:6]), whole[3:], rtol=1e-6)
    assert len(np.unique(denoising.loss(params, keys, np.repeat(DIGITS[:1], 6, 0)))) == 6


# Pictures and what is refused ----------------------------------------------------------------------------------------


@pytest.mark.fast(1)
@pytest.mark.parametrize("kind", ["linear", "kmeans", "denoising"])
def test_pictures(kind):
    system, key = model(kind, corruption="masking", noise=1.0), jax.random.key(0)
    params = system.init(key)
    pictures = system.figures.own(params, key, {"image": DIGITS[:3]})
    rows = np.asarray(pictures["reconstructions"].images).reshape(-1, 3, 8, 8, 1)
    np.testing.assert_allclose(rows[0], DIGITS[:3] / 8.0 - 1, atol=1e-6)
    if kind == "denoising":
        assert (rows[1] == -1).all()
    shown = rows[1] if kind == "denoising" else rows[0]
    np.testing.assert_allclose(
        rows[-1], system.measure(Reconstruction).reconstruct(params, key, 8.0 * (shown + 1)), atol=1e-5
    )
    assert np.abs(pictures["filters"].images).max() <= 1 + 1e-6
    vectors = model(kind, shape=(64,), corruption="masking", noise=1.0)
    assert vectors.figures.own(params, key, {"image": DIGITS[:3].reshape(3, 64)}) == {}


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        ("quadratic", {}, "autoencoder.kind must be one of linear, kmeans, .*, not 'quadratic'"),
        ("linear", {"code": 0}, "autoencoder.code must be an integer of at least 1, not 0"),
        ("kmeans", {"code": 2.5}, "autoencoder.code .* not 2.5"),
        ("mlp", {"features": (8, 0)}, "autoencoder.features .* not 0"),
        ("denoising", {"corruption": "salt", "noise": 0.1}, "autoencoder.corruption must be one of gaussian, masking"),
        ("denoising", {"corruption": "gaussian", "noise": -0.1}, "autoencoder.noise .* at least 0, not -0.1"),
        ("denoising", {"corruption": "masking", "noise": 1.5}, "autoencoder.noise .* at most 1, not 1.5"),
        ("denoising", {"corruption": "gaussian", "noise": float("nan")}, "autoencoder.noise .* finite"),
        ("contractive", {"penalty": -1.0}, "autoencoder.penalty .* at least 0, not -1.0"),
        ("sparse", {"sparsity": 0.0, "iterations": 3}, "autoencoder.sparsity must be above 0, not 0.0"),
        ("sparse", {"sparsity": 0.1, "iterations": 0}, "autoencoder.iterations .* at least 1, not 0"),
        ("linear", {"levels": 0}, "data.levels=0"),
    ],
)
def test_bad_input(kind, fields, says):
    with pytest.raises(InputError, match=says):
        model(kind, **fields)


def test_more_centres_than_examples():
    kmeans = model("kmeans", code=401)
    with pytest.raises(InputError, match=r"autoencoder\.code=401 is more than the 400 training examples"):
        kmeans.examples.fit(None, {"image": DIGITS})


def with_seed(kind, seed, **fields):
    setting = config(kind, **fields)
    setting.training = {"seed": seed}
    system = zoo.make(setting)
    return system.examples.fit(system.init(jax.random.key(0)), {"image": DIGITS[:100]})


@pytest.mark.slow
def test_the_seed_of_the_run_is_that_of_the_fit():
    """As scikit-learn finds it with that seed; more centres than k-means++ finds in the same way each time."""
    found = [with_seed("kmeans", seed, code=20)["centres"] for seed in (1, 2, 2**32 + 2)]
    for seed, centres in zip((1, 2, 2), found, strict=True):
        oracle = KMeans(20, n_init=10, tol=0.0, random_state=seed).fit(np.float64(np.float32(PIXELS[:100])))
        np.testing.assert_allclose(centres, oracle.cluster_centers_, atol=1e-12)
    assert np.abs(np.sort(found[0], 0) - np.sort(found[1], 0)).max() > 0.01  # not the same in another order
    atoms = [np.asarray(with_seed("sparse", seed, sparsity=SPARSITY, iterations=2)["dictionary"]) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(atoms[0], atoms[1])
    assert np.abs(atoms[0] @ atoms[2].T).max(1).min() < 0.99  # nor with another sign


@pytest.mark.parametrize("kind", ["linear", "kmeans", "sparse", "mlp", "denoising", "contractive"])
def test_configurations_differ_in_the_kind_alone(kind):
    """Same data, code size and budget, but for k-means, which is fitted."""
    base = importlib.import_module("configs.ae_linear_digits").get_config()
    own = importlib.import_module(f"configs.ae_{kind}_digits").get_config()
    assert own.autoencoder.kind == kind
    assert own.autoencoder.code == base.autoencoder.code
    differ = {name for name in base.training if own.training[name] != base.training[name]}
    assert differ == ({"steps"} if kind == "kmeans" else set())
    assert {name for name in base if own[name] != base[name]} <= {"autoencoder", "training"}
    zoo.make(own)
