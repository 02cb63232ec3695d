"""What a wheel without the extra `run` can do: `python library_alone.py`, from elsewhere than the checkout.

Every module that needs no extra is imported, the others say in one sentence what is missing, and the README's examples
run in short.
"""

import importlib
import importlib.resources
import pkgutil
import sys

import jax
import jax.numpy as jnp
import numpy as np

import diffjax as dj

LOADED = set(sys.modules)  # by the lines above
RUN = ("ml_collections", "matplotlib", "grain", "sklearn", "tqdm", "tensorflow_datasets", "PIL", "skimage")
BESIDE = ("flax", "diffrax", "equinox", "optax", "orbax", "absl")  # installed, but not needed by `import diffjax`
KEY = jax.random.key(0)


def sentence(error):
    assert "pip install 'diffjax[run]'" in str(error) and "\n" not in str(error), error
    return str(error)


def imports():
    """Modules that are there, and the sentences of those that are not."""
    here, missing = ["diffjax"], {}
    for module in pkgutil.walk_packages(dj.__path__, "diffjax."):
        try:
            importlib.import_module(module.name)
            here.append(module.name)
        except ImportError as error:
            assert module.name.startswith("diffjax.training"), module.name
            missing[module.name] = sentence(error)
    return here, missing


def mixture():
    """A bound above the exact negative log-likelihood, samples with the mixture's weights, and the flow's density."""
    exact = dj.reference.GaussianMixture(jnp.array([0.3, 0.7]), jnp.array([[-1.0], [1.0]]), 0.05 * jnp.ones((2, 1, 1)))
    schedule = dj.schedules.cosine(100)
    process = dj.processes.gaussian(schedule)
    predict, data = exact.predict(schedule), exact.sample(KEY, 500)
    nll = -exact.log_prob(data).mean()
    bound = dj.bounds.diffusion(process, predict, KEY, data, schedule.times, variance="forward").total
    assert nll - 5 * bound.std() / 500**0.5 < bound.mean() < nll + 0.5
    times = dj.samplers.spaced(schedule.times, 25)
    for stepper in (dj.samplers.ddim(process), dj.samplers.ancestral(process), dj.samplers.dpmpp_2m(process)):
        draws = dj.samplers.sample(stepper, predict, KEY, times, shape=(1000, 1))
        assert abs((draws < 0).mean() - 0.3) < 5 * (0.21 / 1000) ** 0.5 + 0.03  # and a share for so few steps
    process = dj.processes.gaussian(dj.schedules.vp())
    flow = dj.sde.log_prob(process, exact.predict(process.schedule), KEY, data[:50])
    assert abs(flow - exact.log_prob(data[:50])).max() < 0.02
    return data, process


def network(data, process):
    """A flax network learns the mixture's noise by plain gradient descent."""
    import flax.linen as nn

    class Network(nn.Module):
        @nn.compact
        def __call__(self, xt, t):
            h = nn.swish(nn.Dense(32)(jnp.concatenate([xt, t[:, None]], axis=-1)))
            return nn.Dense(1)(nn.swish(nn.Dense(32)(h)))

    net = Network()

    def loss(params, key):
        t = jax.random.uniform(key, (len(data),), minval=1e-3)
        predict = dj.predictions.eps(lambda xt, t: net.apply(params, xt, t))
        return dj.losses.simple(process, predict, key, data, t).mean()

    @jax.jit
    def descend(params, key):
        value, slope = jax.value_and_grad(loss)(params, key)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, slope), value

    params, values = net.init(KEY, data[:1], jnp.ones(1)), []
    for i in range(500):
        params, value = descend(params, jax.random.fold_in(KEY, i))
        values.append(float(value))
    assert sum(values[-20:]) < 0.6 * sum(values[:20]), (values[:20], values[-20:])


def chains():
    """HMC has the mean and the variance of a Gaussian."""
    # A quarter of the period 2π · 0.5, after which a draw knows nothing of the one before.
    kernel = dj.mcmc.hmc(lambda z: dj.distributions.Normal(2.0, 0.25).log_prob(z).sum(), 0.2, 4)
    run = jax.vmap(lambda key, start: dj.mcmc.run(kernel, key, start, 500))
    draws = run(jax.random.split(KEY, 4), jnp.full((4, 1), 2.0))[0].position
    assert (dj.mcmc.rhat(draws) < 1.05).all()
    assert (abs(draws.mean((0, 1)) - 2.0) < 5 * (0.25 / dj.mcmc.ess(draws)) ** 0.5).all()
    spread = (draws - 2.0) ** 2  # of mean 0.25 and variance 2 · 0.25²
    assert (abs(spread.mean((0, 1)) - 0.25) < 5 * (2 * 0.25**2 / dj.mcmc.ess(spread)) ** 0.5).all()


def systems():
    """Functions of explicit arguments make Models; a probe says that it needs scikit-learn."""
    from diffjax.evaluation import probe
    from diffjax.nets.unet import UNet
    from diffjax.zoo.diffusion.ddpm import ddpm
    from diffjax.zoo.flows.density import flow_density
    from diffjax.zoo.flows.layers import stack

    net = UNet(channels=8, multipliers=(1,), num_blocks=1, attention=(), out_channels=1)
    images = jax.random.randint(KEY, (4, 8, 8, 1), 0, 17).astype(jnp.uint8)
    points = jax.random.normal(KEY, (4, 2))
    for model, batch in (
        (ddpm(dj.processes.gaussian(dj.schedules.cosine(5)), net, (8, 8, 1), 17), images),
        (flow_density(stack("affine", (2,), 2, features=(8,)), (2,)), points),
    ):
        params = jax.jit(model.init)(KEY)
        for values in (jax.jit(model.loss)(params, KEY, batch), jax.jit(model.bound)(params, KEY, batch)):
            assert values.shape == (4,) and jnp.isfinite(values).all(), values
        draws = jax.jit(model.sample, static_argnums=2)(params, KEY, 3)
        assert draws.shape == (3, *batch.shape[1:]) and jnp.isfinite(draws).all(), draws

    features, classes = np.asarray(points), np.array([0, 1, 0, 1])
    try:
        probe.linear("logistic", features, classes, features, classes)
    except ImportError as error:
        assert sentence(error).startswith("sklearn is not installed")
    else:
        raise AssertionError("scikit-learn is installed: this environment has the extra")


if __name__ == "__main__":
    assert "site-packages" in dj.__file__, f"the checkout is imported, not the wheel: {dj.__file__}"
    assert not (found := [name for name in (*RUN, *BESIDE) if name in LOADED]), f"import diffjax imports {found}"
    assert importlib.resources.files("diffjax").joinpath("py.typed").is_file()
    here, missing = imports()
    assert "diffjax.training.loop" in missing, missing
    print(*missing.items(), sep="\n")
    network(*mixture())
    chains()
    systems()
    print(f"Python {sys.version.split()[0]}, jax {jax.__version__}: {len(here)} modules without the extra")
