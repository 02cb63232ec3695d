"""The DDPM system: at initialisation its U-Net is the constant 0, so losses and bounds have closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cfg_digits, cifar10, digits
from diffjax import predictions, zoo
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.zoo.diffusion.denoiser import Denoiser


def small(**diffusion):
    config = digits.get_config()
    config.net.update(channels=8, multipliers=(1,), num_blocks=1, attention=())
    config.diffusion.update(
        schedule="linear", betas=(0.01, 0.3), num_steps=20, loss="simple", variance="forward", clip=False
    )
    config.diffusion.update(diffusion)
    config.sampling.update(sampler="ancestral", steps=20)
    config.evaluation.update(num_terms=0)
    return config


@pytest.fixture(scope="module")
def images():
    return jax.random.randint(jax.random.key(0), (256, 8, 8, 1), 0, 17).astype(jnp.uint8)


def init(model):
    return jax.jit(model.init)(jax.random.key(1))


def unit(images):
    return np.asarray(images, np.float64) / 8 - 1


@pytest.mark.slow
def test_the_loss_of_the_zero_network_is_the_power_of_the_noise(images):
    model = zoo.make(small())
    params = init(model)
    losses = np.asarray(jax.jit(model.loss)(params, jax.random.key(2), images))
    assert losses.shape == (256,)
    standard_error = np.sqrt(2 / losses.size / 64)  # Var eps² = 2, 64 pixels an image
    assert abs(losses.mean() - 1) < 5 * standard_error


def test_the_bound_of_the_zero_network_is_its_closed_form(images):
    """eps̃ = 0 puts x̂_0 at x_t/α_t, so the mean is off by γ σ_t/α_t eps: every KL is a multiple of eps²."""
    model = zoo.make(small())
    params = init(model)
    bound = np.asarray(jax.jit(model.bound)(params, jax.random.key(2), images), np.float64)

    beta = np.linspace(0.01, 0.3, 20)
    alpha_bar = np.concatenate([[1.0], np.cumprod(1 - beta)])
    before, after = alpha_bar[:-1], alpha_bar[1:]
    posterior = beta * (1 - before) / (1 - after)
    pull = np.sqrt(before) * beta / (1 - after)
    power = pull**2 * (1 - after) / after / beta  # E (difference of means)²/β, for E eps² = 1
    kl = 0.5 * (power[1:] + (posterior[1:] / beta[1:] - 1 - np.log(posterior[1:] / beta[1:])))
    x0 = unit(images).reshape(256, -1)
    prior = 0.5 * (after[-1] * x0**2 + (1 - after[-1]) - 1 - np.log(1 - after[-1])).sum(1)
    # The decoder is N(x_1/α_1, β_1) rounded to 17 levels and x_1/α_1 = x_0 + σ_1/α_1 eps: integrate over eps.
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    weights = weights / weights.sum()
    from scipy.special import ndtr

    mean = x0[..., None] + np.sqrt((1 - after[0]) / after[0]) * nodes
    high = np.where(x0 > 1 - 1e-6, np.inf, x0 + 1 / 16)[..., None]
    low = np.where(x0 < -1 + 1e-6, -np.inf, x0 - 1 / 16)[..., None]
    p = ndtr((high - mean) / np.sqrt(beta[0])) - ndtr((low - mean) / np.sqrt(beta[0]))
    reconstruction = -(np.log(np.maximum(p, 1e-300)) * weights).sum(-1).sum(1)
    expected = -(prior + 64 * kl.sum() + reconstruction)
    difference = bound - expected
    assert abs(difference.mean()) < 5 * difference.std() / np.sqrt(256)
    assert difference.std() / np.sqrt(256) < 0.01 * abs(expected.mean())


@pytest.mark.slow
def test_levels_and_floats_in_a_dict_or_alone_are_the_same_batch(images):
    model = zoo.make(small())
    params = jax.tree.map(lambda x: x + 0.02, init(model))
    loss = jax.jit(model.loss)
    floats = jnp.asarray(unit(images), jnp.float32)
    reference = loss(params, jax.random.key(2), images)
    for batch in (floats, {"image": images}, {"image": floats}):
        np.testing.assert_allclose(loss(params, jax.random.key(2), batch), reference, rtol=1e-4)


@pytest.mark.slow
def test_terms_sum_to_minus_the_bound(images):
    model = zoo.make(small())
    params = init(model)
    terms = jax.jit(model.measure(Bound).terms)(params, jax.random.key(2), images[:4])
    np.testing.assert_allclose(
        sum(terms.values()), -jax.jit(model.bound)(params, jax.random.key(2), images[:4]), rtol=1e-6
    )


@pytest.mark.slow
def test_samples_stay_in_the_range_of_the_data_and_depend_on_the_key():
    config = small(clip=True)
    model = zoo.make(config)
    params = jax.tree.map(lambda x: x + 0.05, init(model))
    draw = jax.jit(model.sample, static_argnums=2)
    a, b = draw(params, jax.random.key(3), 4), draw(params, jax.random.key(4), 4)
    assert a.shape == (4, 8, 8, 1)
    assert float(jnp.abs(a).max()) <= 1
    assert float(jnp.abs(a - b).max()) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "heun", "dpmpp_2m"])
def test_every_sampler_of_the_zero_network_gives_the_rescaled_noise(sampler):
    """With eps̃ = 0 a deterministic sampler returns x_1/α_1; ancestral adds noise of known variance on the way."""
    config = small(betas=(0.01, 0.1))
    config.sampling.sampler = sampler
    model = zoo.make(config)
    x = np.asarray(jax.jit(model.sample, static_argnums=2)(init(model), jax.random.key(2), 200), np.float64)
    beta = np.linspace(0.01, 0.1, 20)
    alpha_bar = np.cumprod(1 - beta)
    variance = 1 / alpha_bar[-1]
    if sampler == "ancestral":
        variance += (
            beta[1:] / alpha_bar[:-1]
        ).sum()  # noise of variance β_t enters at t-1 and is divided by α from there
    assert abs(x.var() / variance - 1) < 5 * np.sqrt(2 / x.size)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["hybrid", "vlb"])
def test_learned_variance_trains_and_evaluates(images, loss):
    model = zoo.make(small(variance="learned", loss=loss))
    params = init(model)
    gradient = jax.jit(jax.grad(lambda p: model.loss(p, jax.random.key(2), images).mean()))(params)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(gradient))
    assert float(jnp.abs(gradient["conv_out"]["kernel"][..., 1:]).max()) > 0  # the variance learns
    assert bool(jnp.isfinite(model.bound(params, jax.random.key(3), images[:4])).all())


@pytest.mark.slow
def test_times_of_the_batch_are_used(images):
    """At the given t, min-SNR's loss of the zero network is min(1, 5/SNR(t)) E eps²."""
    model = zoo.make(small(loss="min_snr"))
    params = init(model)
    first = jnp.full(256, 1 / 20)
    loss = jax.jit(model.loss)(params, jax.random.key(2), {"image": images, "t": first})
    snr = 0.99 / 0.01
    assert abs(float(loss.mean()) / (5 / snr) - 1) < 5 * np.sqrt(2 / 256 / 64)


@pytest.mark.slow
def test_class_conditioning_reaches_the_network(images):
    config = small()
    config.net.num_classes = 10
    model = zoo.make(config)
    leaves, tree = jax.tree.flatten(init(model))
    keys = jax.random.split(
        jax.random.key(5), len(leaves)
    )  # away from the start, where the output is 0 whatever comes in
    params = tree.unflatten([x + 0.3 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)])
    loss = jax.jit(model.loss)
    zero, one = (loss(params, jax.random.key(2), {"image": images[:4], "label": jnp.full(4, y)}) for y in (0, 1))
    assert float(jnp.abs(zero / one - 1).min()) > 1e-3
    with pytest.raises(InputError, match="label"):
        model.loss(params, jax.random.key(2), images[:4])
    # -1 is what the network knows as "not given", the last row of its table of classes.
    table = params["label_embedding"]["embedding"]
    same = params | {"label_embedding": {"embedding": table.at[3].set(table[10])}}
    batch = {"image": images[:4], "label": jnp.full(4, -1)}
    as_three = loss(same, jax.random.key(2), batch | {"label": jnp.full(4, 3)})
    np.testing.assert_allclose(loss(params, jax.random.key(2), batch), as_three, rtol=1e-6)


@pytest.mark.parametrize(
    ("label", "says"), [(10, "label 10 is none of"), (-3, "label -3 is none of"), (0.5, "float32")]
)
def test_labels_that_are_no_class_are_refused_before_anything_is_computed(images, label, says):
    config = small()
    config.net.num_classes = 10
    model = zoo.make(config)
    assert model.examples.classes == ("net.num_classes", 10) and zoo.make(small()).examples.classes is None
    for cost in (model.loss, model.bound):
        with pytest.raises(InputError, match=says):
            cost({}, jax.random.key(2), {"image": images[:2], "label": jnp.array([3, label])})


@pytest.mark.slow
def test_figures_show_the_reverse_process(images):
    model = zoo.make(small(clip=True))
    figures = model.figures.own(init(model), jax.random.key(2), {"image": images[:8]})
    x0 = unit(images)
    rows = np.asarray(figures["interpolation"].images).reshape(4, 9, 8, 8, 1)
    np.testing.assert_allclose(rows[:, 0], x0[0:8:2], atol=1e-6)  # the ends of a row are the images themselves
    np.testing.assert_allclose(rows[:, -1], x0[1:8:2], atol=1e-6)
    assert np.isfinite(figures["reverse_process"].frames).all()
    rate, _ = (np.asarray(x) for x in figures["rate_distortion"].lines["rate and distortion"])
    assert (np.diff(rate) <= 1e-6).all()  # a receiver who is further from x_1 has paid more


@pytest.mark.parametrize(
    ("section", "field", "value", "says"),
    [
        ("diffusion", "schedule", "quadratic", "diffusion.schedule.*quadratic"),
        ("diffusion", "loss", "hybrid", "variance='learned'"),
        ("diffusion", "loss", "l1", "diffusion.loss"),
        ("diffusion", "variance", "learned", "hybrid"),
        ("diffusion", "variance", "big", "diffusion.variance"),
        ("diffusion", "prediction", "noise", "diffusion.prediction"),
        ("diffusion", "time_sampling", "sobol", "diffusion.time_sampling"),
        ("sampling", "sampler", "eule", "sampling.sampler"),
        ("sampling", "steps", 21, "sampling.steps.*20"),
        ("sampling", "steps", 0, "sampling.steps"),
        ("diffusion", "num_steps", 0, "num_steps"),
        ("diffusion", "betas", ("a", "b"), "two numbers"),
    ],
)
def test_a_choice_that_cannot_be_is_named(section, field, value, says):
    config = small()
    config[section][field] = value
    with pytest.raises(InputError, match=says):
        zoo.make(config)


def test_one_step_has_no_posterior_variance():
    config = small(num_steps=1, variance="posterior")
    config.sampling.steps = 1
    with pytest.raises(InputError, match=r"diffusion.num_steps=1 has no diffusion.variance='posterior': use 'forward'"):
        zoo.make(config)


def test_an_unknown_system_is_named():
    config = small()
    config.system = "wave"
    with pytest.raises(InputError, match=r"system.*wave"):
        zoo.make(config)


@pytest.mark.slow
def test_the_papers_networks_have_the_papers_sizes():
    for config, count in ((cifar10.get_config(), 35_746_307), (_celeba(), 113_673_219)):
        params = jax.eval_shape(zoo.make(config).init, jax.random.key(0))
        assert sum(x.size for x in jax.tree.leaves(params)) == count


def _celeba():
    from configs import celebahq256

    return celebahq256.get_config()


# Classes and guidance --------------------------------------------------------------------------------------------


def guided(**guidance):
    config = small()
    config.net.num_classes = 3
    config.diffusion.label_dropout = 0.25
    config.guidance = cfg_digits.get_config().guidance
    config.guidance.update(guidance)
    config.sampling.update(sampler="ddim", steps=4, spacing="karras")
    return config


@pytest.fixture(scope="module")
def told():
    """Parameters of a network that its label changes."""
    leaves, tree = jax.tree.flatten(init(zoo.make(guided())))
    keys = jax.random.split(jax.random.key(5), len(leaves))
    return tree.unflatten([x + 0.3 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)])


@pytest.mark.slow
def test_samples_of_classes_are_those_of_the_guided_field(told):
    """Scale 1 is the conditional model, 0 the one told of no class, 2 twice the first less the second, in each x_0."""
    x, t = jax.random.normal(jax.random.key(1), (6, 8, 8, 1)), jnp.linspace(0.1, 0.9, 6)

    @jax.jit
    def estimates(params):
        def of(scale, label, **more):
            model = zoo.make(guided(scale=scale, label=label, **more))
            process, predict = model.kernels(params)
            return predictions.convert(predict(x, t), "x0", process, x, t)

        return of(1.0, 2), of(0.0, 2), of(2.0, 2), of(2.0, -1), of(2.0, 2, limit=0.1)

    conditional, unconditional, twice, no_class, limited = estimates(told)
    assert float(jnp.abs(conditional - unconditional).max()) > 1e-3
    np.testing.assert_allclose(twice, 2 * conditional - unconditional, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(no_class, unconditional, rtol=1e-5, atol=1e-5)
    moved = conditional - unconditional
    size = jnp.sqrt((moved**2).sum((1, 2, 3), keepdims=True))
    assert float(size.max()) > 0.1
    np.testing.assert_allclose(limited, conditional + moved * jnp.minimum(1, 0.1 / size), rtol=1e-3, atol=1e-3)
    # All in turn: sample i is of class i mod 3, and its draw alone is the same.
    every = jax.jit(zoo.make(guided()).sample, static_argnums=2)(told, jax.random.key(2), 6)
    one = jax.jit(zoo.make(guided(label=1)).sample, static_argnums=2)(told, jax.random.key(2), 6)
    np.testing.assert_allclose(every[1::3], one[1::3], rtol=1e-4, atol=1e-4)
    assert float(jnp.abs(every[0::3] - one[0::3]).max()) > 1e-3


@pytest.mark.slow
def test_a_quarter_of_the_labels_is_hidden_in_training():
    denoiser = Denoiser(None, None, (8, 8, 1), 17, "eps", False, False, 3, 0.25)
    label = jnp.arange(4000) % 3
    for key in (jax.random.key(0), jax.random.split(jax.random.key(0), 4000)):
        hidden = np.asarray(denoiser.dropped(key, label)) == 3
        assert abs(hidden.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 4000)
        assert (np.asarray(denoiser.dropped(key, label))[~hidden] == np.asarray(label)[~hidden]).all()
    assert denoiser._replace(label_dropout=0.0).dropped(key, label) is label


@pytest.mark.parametrize(
    ("section", "field", "value", "says"),
    [
        ("guidance", "scale", -1.0, "guidance.scale must be a finite number of at least 0, not -1.0"),
        ("guidance", "label", 3, "guidance.label must be a class below net.num_classes=3, or -1"),
        ("guidance", "interval", (0.5, 1.2), r"guidance.interval=\(0.5, 1.2\) must be two times within \[0, 1\]"),
        ("guidance", "limit", -2.0, "guidance.limit must be a finite number of at least 0, not -2.0"),
        ("guidance", "threshold", 2.0, "guidance.threshold must be a quantile"),
        ("diffusion", "label_dropout", 0.0, "guidance.scale=2.0 needs an unconditional prediction"),
        ("diffusion", "label_dropout", 1.0, "label_dropout must be a probability below 1"),
        ("net", "num_classes", 0, "guidance needs a model that knows classes"),
        ("sampling", "spacing", "even", "sampling.spacing must be one of karras"),
    ],
)
def test_guidance_that_cannot_be_is_named(section, field, value, says):
    config = guided()
    config[section][field] = value
    with pytest.raises(InputError, match=says):
        zoo.make(config)


def test_kernels_of_a_network_that_knows_classes_alone():
    config = guided(scale=1.0)
    config.diffusion.label_dropout = 0.0
    with pytest.raises(InputError, match=r"guidance.label=-1 needs an unconditional prediction.*never learned"):
        zoo.make(config).kernels({})
    config.guidance.label = 2
    zoo.make(config).kernels({})  # of the class


def test_zero_terminal_snr_needs_a_prediction_that_exists_there():
    config = small()
    config.diffusion.zero_terminal_snr = True
    with pytest.raises(InputError, match=r"diffusion.prediction='eps' says nothing about x_0 at zero terminal SNR"):
        zoo.make(config)
    config.diffusion.prediction = "v"
    assert zoo.make(config).kernels is not None
