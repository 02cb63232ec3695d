"""M1, M2 and both against enumeration of classes and quadrature over codes and styles of one dimension."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ssl_digits
from diffjax import data, zoo
from diffjax.data.labels import hide_labels
from diffjax.errors import InputError
from diffjax.evaluation.classification import Classification
from diffjax.evaluation.probe import Probe
from diffjax.nets.by_class import SCALE
from diffjax.training.config import training_config
from diffjax.training.state import init_state, optimizer
from diffjax.training.step import make_step
from diffjax.zoo.latent import m2

SHAPE, CLASSES, DIM = (3, 2, 1), 3, 6
Z = np.linspace(-15.0, 15.0, 801)  # the trapezoid rule on it is exact to rounding, as functions vanish at the ends
STEP = Z[1] - Z[0]


def configuration(model, **setting):
    config = ssl_digits.get_config()
    config.data.update(shape=SHAPE, levels=2, num_classes=CLASSES)
    config.ssl.update(model=model, alpha=0.3, binarize=False)
    config.ssl.update(**setting)
    config.net.update(latent=1, style=1, features=(5, 4), units=(4,))
    return config


@pytest.fixture(scope="module")
def built():
    """Of each model: itself, and parameters none of which is where it starts."""

    def build(name):
        model = zoo.make(configuration(name))
        rng = np.random.default_rng(1)

        def drawn(path, leaf):
            spread = 0.4 / SCALE if path[-1].key == "classes" else 0.4
            return jnp.asarray(spread * rng.normal(size=leaf.shape), float)

        params = jax.tree_util.tree_map_with_path(drawn, jax.eval_shape(model.init, jax.random.key(0)))
        if "m1" in params:  # codes as sharp as those of images: their entropy then counts in the bound
            params["m1"]["encoder"]["Dense_2"]["bias"] += jnp.array([0.0, -5.0])
        return model, params

    return {name: build(name) for name in ("m1", "m2", "m1m2", "supervised")}


def images(num):
    return np.random.default_rng(2).integers(0, 2, (num, *SHAPE)).astype(np.uint8)


def dense(params, x, first=None):
    """A network of `Dense` layers and softplus, in double precision; `first` stands for the first layer's matrix."""
    layers = [params[name] for name in sorted(name for name in params if name.startswith("Dense"))]
    for i, layer in enumerate(layers):
        kernel = np.float64(layer["kernel"]) if first is None or i else first
        x = np.logaddexp(0.0, x) if i else x
        x = x @ kernel + np.float64(layer["bias"])
    return x


def of_pair(params, x, y):
    """The network of x and the one-hot y, as one vector."""
    one_hot = np.broadcast_to(np.eye(CLASSES)[y], (*x.shape[:-1], CLASSES))
    first = np.concatenate([np.float64(params["Dense_0"]["kernel"]), SCALE * np.float64(params["classes"])])
    return dense(params, np.concatenate([x, one_hot], -1), first)


def normal(x, mean, log_variance):
    return -0.5 * ((x - mean) ** 2 / np.exp(log_variance) + log_variance + np.log(2 * np.pi))


def bernoulli(x, logits):
    return np.where(x == 1, -np.logaddexp(0.0, -logits), -np.logaddexp(0.0, logits)).sum(-1)


def log_mean(log_f, axis):
    """log ∫ exp(log_f) dz."""
    return np.logaddexp.reduce(log_f, axis) + np.log(STEP)


def exact(params, x, bits=True):
    """L(x, y) (n, classes), log q(y | x), U(x) and log p(x) of M2, x (n, dim)."""
    x = np.float64(x)
    log_joint, labelled = [], []
    for y in range(CLASSES):
        out = of_pair(params["decoder"], Z[:, None], y)
        log_likelihood = (
            bernoulli(x[:, None], out) if bits else normal(x[:, None], *np.split(out, 2, axis=-1)).sum(-1)
        )  # (n, z)
        joint = log_likelihood + normal(Z, 0.0, 0.0) - np.log(CLASSES)
        log_q = normal(Z, *np.split(of_pair(params["encoder"], x, y), 2, axis=-1))
        log_joint.append(joint)
        labelled.append((np.exp(log_q) * (log_q - joint)).sum(1) * STEP)
    labelled = np.stack(labelled, 1)
    log_class = dense(params["classifier"], x)
    log_class -= np.logaddexp.reduce(log_class, 1, keepdims=True)
    unlabelled = (np.exp(log_class) * (labelled + log_class)).sum(1)
    return labelled, log_class, unlabelled, log_mean(np.concatenate(log_joint, 1), 1)


def close(draws, expected):
    """Means over draws (num, n), within five standard errors."""
    draws = np.float64(draws)
    error = draws.std(0) / len(draws) ** 0.5
    assert (error < 0.05).all()
    assert (np.abs(draws.mean(0) - expected) < 5 * error + 2e-5).all()


def many(fn, num=3000):
    return jax.jit(jax.vmap(fn))(jax.random.split(jax.random.key(3), num))


@pytest.mark.slow
def test_m2_bounds_log_p(built):
    model, params = built["m2"]
    x = images(4)
    labelled, log_class, unlabelled, log_p = exact(params["m2"], x.reshape(4, DIM))
    np.testing.assert_allclose(
        model.measure(Classification).class_log_probs(params, {"image": x}), log_class, atol=1e-5
    )
    assert (-unlabelled < log_p).all()
    assert (-np.min(labelled, 1) < log_p).all()
    close(many(lambda key: model.bound(params, key, x)), -unlabelled)


@pytest.mark.slow
def test_the_loss_of_a_data_set_is_the_papers_objective(built):
    """J^α / N, over a set of 24 of which 6 keep their labels: with its companions, in one batch."""
    model, params = built["m2"]
    labels = np.arange(24) % CLASSES
    dataset = hide_labels(data.from_arrays("bits", images(24), labels, levels=2), 6, CLASSES, seed=0)
    batch = dataset.gather(np.arange(24))
    labelled, log_class, unlabelled, _ = exact(params["m2"], batch["image"].reshape(24, DIM))
    known = batch["label"] >= 0
    of_label = np.arange(24)[known], labels[known]
    objective = labelled[of_label].sum() + unlabelled[~known].sum() - 0.3 * 24 * log_class[of_label].mean()
    close(many(lambda key: model.loss(params, key, batch).mean())[:, None], objective / 24)
    per_example = many(lambda key: model.loss(params, jax.random.split(key, 24), batch).mean())
    close(per_example[:, None], objective / 24)


def test_labels_of_the_examples_themselves(built):
    """Then every example is its own companion, but for one whose class is not known: no class is learnt from that."""
    model, params = built["m2"]
    batch = {"image": images(4), "label": np.array([0, 2, -1, 1])}
    labelled, log_class, unlabelled, _ = exact(params["m2"], batch["image"].reshape(4, DIM))
    at, known = (np.arange(4), batch["label"]), batch["label"] >= 0
    expected = np.where(known, labelled[at] - 0.3 * log_class[at], unlabelled)
    close(many(lambda key: model.loss(params, key, batch)), expected)
    model, params = built["supervised"]
    _, log_class, _, _ = exact(built["m2"][1]["m2"] | params["m2"], batch["image"].reshape(4, DIM))
    expected = np.where(known, -0.3 * log_class[at], 0.0)
    np.testing.assert_allclose(model.loss(params, jax.random.key(0), batch), expected, atol=1e-5)


def test_m1_bounds_log_p(built):
    model, params = built["m1"]
    x = images(4)
    bound, log_p = chain(params["m1"], x, normal(Z, 0.0, 0.0))
    assert (bound < log_p).all()
    close(many(lambda key: model.bound(params, key, x)), bound)
    means = dense(params["m1"]["encoder"], np.float64(x.reshape(4, DIM)))[:, :1]
    np.testing.assert_allclose(model.measure(Probe).features(params, {"image": x}), means, atol=1e-5)


def chain(params, x, log_prior):
    """E[log p(x | z) + log_prior(z) - log q(z | x)] and log ∫ p(x | z) exp(log_prior): of M1's networks."""
    x = np.float64(x.reshape(len(x), DIM))
    log_likelihood = bernoulli(x[:, None], dense(params["decoder"], Z[:, None]))
    log_q = normal(Z, *np.split(dense(params["encoder"], x), 2, axis=-1))
    bound = (np.exp(log_q) * (log_likelihood + log_prior - log_q)).sum(1) * STEP
    return bound, log_mean(log_likelihood + log_prior, 1)


def test_both_bound_log_p(built):
    model, params = built["m1m2"]
    x = images(4)
    _, _, unlabelled, log_code = exact(params["m2"], Z[:, None], bits=False)
    bound, _ = chain(params["m1"], x, -unlabelled)
    _, log_p = chain(params["m1"], x, log_code)
    assert (bound < log_p).all()
    close(many(lambda key: model.bound(params, key, x)), bound)
    log_class = dense(params["m2"]["classifier"], np.float64(model.measure(Probe).features(params, {"image": x})))
    log_class -= np.logaddexp.reduce(log_class, 1, keepdims=True)
    np.testing.assert_allclose(
        model.measure(Classification).class_log_probs(params, {"image": x}), log_class, atol=1e-5
    )


def test_samples_of_both(built):
    """The mean of each pixel is ∫ p(z_1) decoder(z_1), and p(z_1) a sum over classes and styles."""
    model, params = built["m1m2"]
    _, _, _, log_code = exact(params["m2"], Z[:, None], bits=False)
    mean = STEP * (np.exp(log_code)[:, None] / (1 + np.exp(-dense(params["m1"]["decoder"], Z[:, None])))).sum(0)
    samples = jax.jit(lambda key: model.sample(params, key, 4000))(jax.random.key(5))
    close(samples.reshape(4000, DIM), 2 * mean - 1)


def batch_of(num):
    label = np.arange(num) % CLASSES
    return {
        "image": images(num),
        "label": np.where(np.arange(num) < 2, label, -1),
        "labelled_image": images(num)[::-1],
        "labelled_label": label,
    }


@pytest.mark.slow
def test_gradients_reach_what_they_should_and_no_more(built):
    """All parameters; and those of M1 learn in the pair what they learn alone, those of M2 from given codes."""
    key, batch = jax.random.key(4), batch_of(6)

    def gradient(name, params):
        model, _ = built[name]
        return jax.jit(jax.grad(lambda params: model.loss(params, key, batch).mean()))(params)

    together = built["m1m2"][1]
    params = {name: built[name][1] for name in ("m2", "supervised")} | {"m1m2": together, "m1": {"m1": together["m1"]}}
    grads = {name: gradient(name, params[name]) for name in params}
    for name in grads:
        assert all(np.abs(leaf).sum() > 0 for leaf in jax.tree.leaves(grads[name])), name
    for got, want in zip(jax.tree.leaves(grads["m1m2"]["m1"]), jax.tree.leaves(grads["m1"]["m1"]), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def mixture():
    """M2 of a mixture of three Bernoulli laws, its style without effect, and the exact posterior: bounds are tight."""
    model = zoo.make(configuration("m2"))
    rng = np.random.default_rng(6)
    logits = rng.normal(size=(CLASSES, DIM))
    shapes = jax.eval_shape(model.init, jax.random.key(0))["m2"]
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    # 40 is where softplus is the identity, to rounding.
    table = (80.0 * jnp.eye(CLASSES, 4) - 40.0) / SCALE
    decoder = zero["decoder"] | {"classes": table}
    decoder["Dense_1"] = decoder["Dense_1"] | {"kernel": jnp.zeros((4, DIM)).at[:CLASSES].set(logits / 40.0)}
    classifier = {
        "Dense_0": {
            "kernel": jnp.zeros((DIM, 4)).at[:, :CLASSES].set(logits.T),
            "bias": jnp.full(4, 40.0).at[:CLASSES].add(-np.logaddexp(0.0, logits).sum(1)),
        },
        "Dense_1": {"kernel": jnp.eye(4, CLASSES), "bias": jnp.zeros(CLASSES)},
    }
    return model, {"m2": zero | {"decoder": decoder, "classifier": classifier}}, logits


def test_the_exact_posterior_gives_log_p(mixture):
    model, params, logits = mixture
    x = images(5)
    log_joint = bernoulli(x.reshape(5, 1, DIM), logits) - np.log(CLASSES)
    log_p = np.logaddexp.reduce(log_joint, 1)
    np.testing.assert_allclose(jax.jit(model.bound)(params, jax.random.key(0), x), log_p, atol=3e-5)
    batch = {"image": x, "label": np.array([0, -1, 2, -1, 1]), "labelled_image": x, "labelled_label": np.arange(5) % 3}
    per_example = np.where(batch["label"] >= 0, log_joint[np.arange(5), batch["label"]], log_p)
    named = (log_joint - log_p[:, None])[np.arange(5), batch["labelled_label"]]
    loss = jax.jit(model.loss)(params, jax.random.split(jax.random.key(0), 5), batch)
    np.testing.assert_allclose(loss, -per_example - 0.3 * named, atol=5e-5)


@pytest.mark.slow
def test_samples_and_pictures_of_a_mixture(mixture):
    model, params, logits = mixture
    means = (2 / (1 + np.exp(-logits)) - 1).reshape(CLASSES, *SHAPE)
    samples = jax.jit(lambda key: model.sample(params, key, 3000))(jax.random.key(1))
    close(samples.reshape(3000, DIM), means.mean(0).ravel())
    figures = model.figures.own(params, jax.random.key(2), {"image": images(5)})
    analogies = figures["analogies"].images.reshape(5, CLASSES + 1, *SHAPE)
    np.testing.assert_allclose(analogies[:, 0], 2.0 * images(5) - 1.0)
    np.testing.assert_allclose(analogies[:, 1:], np.broadcast_to(means, (5, *means.shape)), atol=1e-5)
    classes = figures["classes"].images.reshape(-1, CLASSES, *SHAPE)
    np.testing.assert_allclose(classes, np.broadcast_to(means, classes.shape), atol=1e-5)


def test_greys_are_probabilities(mixture):
    """Black and white are bits; a grey of 1/4 is 1 in a quarter of the draws, and the classifier reads it as 1/4."""
    bits_model, params, _ = mixture
    config = configuration("m2", binarize=True)
    config.data.levels = 5
    model = zoo.make(config)
    off, on, grey = images(1), images(1), 4 * images(1)
    off[0, 1, 1, 0], on[0, 1, 1, 0], grey[0, 1, 1, 0] = 0, 1, 1
    low, high = jax.jit(bits_model.bound)(params, jax.random.key(0), np.concatenate([off, on]))
    bounds = np.asarray(many(lambda key: model.bound(params, key, grey)[0]))
    is_high = np.abs(bounds - high) < 1e-4
    assert (is_high | (np.abs(bounds - low) < 1e-4)).all()
    assert abs(high - low) > 0.01
    assert abs(is_high.mean() - 0.25) < 5 * (0.25 * 0.75 / len(bounds)) ** 0.5
    # The classifier of a mixture is linear in x.
    evidence = [np.asarray(bits_model.measure(Classification).class_log_probs(params, {"image": x})) for x in (off, on)]
    linear = 0.75 * evidence[0] + 0.25 * evidence[1]
    got = np.asarray(model.measure(Classification).class_log_probs(params, {"image": grey}))
    np.testing.assert_allclose(got - got[:, :1], linear - linear[:, :1], atol=1e-4)


def test_more_layers_are_the_same_network():
    """Two layers of units, of which the first alone knows the class."""
    model = m2.m2(DIM, CLASSES, 2, (4, 3), bits=True)
    rng = np.random.default_rng(7)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
    x, z = rng.normal(size=(5, DIM)), rng.normal(size=(5, CLASSES, 2))
    q, means = model.style(params, x), model.mean(params, z)
    for y in range(CLASSES):
        want = np.split(of_pair(params["encoder"], x, y), 2, axis=-1)
        np.testing.assert_allclose(q.mean[:, y], want[0], rtol=2e-4, atol=1e-4)
        np.testing.assert_allclose(q.variance[:, y], np.exp(want[1]), rtol=1e-3)
        logits = of_pair(params["decoder"], z[:, y], y)
        np.testing.assert_allclose(means[:, y], 1 / (1 + np.exp(-logits)), atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ssl": {"model": "m3"}}, r"ssl.model must be one of m1, m2, m1m2, supervised, not 'm3'"),
        ({"ssl": {"alpha": -0.1}}, r"ssl.alpha must be a finite number of at least 0, not -0.1"),
        ({"data": {"levels": 256}}, r"data.levels=256 are greys: set data.binarized=True"),
        ({"data": {"levels": 0}}, r"this system is for images"),
        ({"data": {"num_classes": 1}}, r"data.num_classes must be an integer of at least 2, not 1"),
    ],
)
def test_what_cannot_be_is_said(fields, message):
    config = configuration("m2")
    for section, values in fields.items():
        config[section].update(**values)
    with pytest.raises(InputError, match=message):
        zoo.make(config)


def test_labels_and_pixels_out_of_range(built):
    model, params = built["m2"]
    key, batch = jax.random.key(0), batch_of(6)
    with pytest.raises(InputError, match=r"label 3 is none of data.num_classes=3 classes"):
        model.loss(params, key, batch | {"label": np.array([0, 1, 3, -1, -1, -1])})
    with pytest.raises(InputError, match=r"label -1 is none of"):
        model.loss(params, key, batch | {"labelled_label": np.array([0, 1, -1, 1, 1, 1])})
    with pytest.raises(InputError, match=r"label must be an integer for each image, .* not float32"):
        jax.eval_shape(model.loss, params, key, batch | {"label": np.float32([0, 1, 1, 1, 1, 1])})
    with pytest.raises(InputError, match=r"must be a dict with 'image' and 'label'"):
        model.loss(params, key, {"image": images(2)})
    with pytest.raises(InputError, match=r"other than 0 .. data.levels - 1 = 1"):
        model.bound(params, key, images(2) + 1)


def wrong(name, seeds, steps):
    """Which of the 297 test digits are misread, (seeds, 297), by models with 30 labels of 1500 digits."""
    config = ssl_digits.get_config()
    config.ssl.model = name
    config.data.labelled = 30
    settings = training_config(config.training)
    model, tx = zoo.make(config), optimizer(settings)
    step = jax.jit(make_step(model, tx, settings), donate_argnums=0)
    start = jax.jit(lambda key: init_state(key, model, tx))
    log_probs = jax.jit(model.measure(Classification).class_log_probs)
    test = data.load(config.data, "test").gather(np.arange(297))
    rows = []
    for seed in range(seeds):
        config.data.label_seed = seed
        batches = data.batches(data.load(config.data, "train"), settings.batch_size, seed=seed)
        state = start(jax.random.key(seed))
        for _ in range(steps):
            state, _ = step(state, jax.random.key(seed), next(batches))
        rows.append(np.asarray(log_probs(state.ema, test)).argmax(1) != test["label"])
    return np.stack(rows)


@pytest.mark.slow
@pytest.mark.trains
def test_unlabelled_digits_help():
    """Eight draws of 30 labels each; the errors of the difference are over test digits, and over draws."""
    alone, helped = wrong("supervised", 8, 800), wrong("m2", 8, 800)
    gain = 100.0 * (alone.astype(float) - helped)
    error = np.hypot(gain.mean(0).std() / 297**0.5, gain.mean(1).std(ddof=1) / 8**0.5)
    print(
        f"supervised {100 * alone.mean():.1f} %, M2 {100 * helped.mean():.1f} %, gain {gain.mean():.2f} ± {error:.2f} %"
    )
    assert gain.mean() > 3 * error
    assert gain.mean() > 2
