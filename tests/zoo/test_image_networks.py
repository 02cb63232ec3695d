"""The network of images is a choice of the configuration: every one that makes a U-Net also takes a transformer."""

import importlib
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import digits, dit_digits, guided_digits, sde_digits
from diffjax import zoo
from diffjax.errors import InputError
from diffjax.nets.dit import DiT
from diffjax.nets.unet import UNet
from diffjax.zoo.diffusion import networks

NAMES = sorted({path.stem for path in (Path(__file__).parents[2] / "configs").glob("[a-z]*.py")} - {"base"})
CONFIGS = {name: importlib.import_module(f"configs.{name}").get_config() for name in NAMES}
OF_IMAGES = [name for name in NAMES if CONFIGS[name].get("net", {}).get("name") in networks.OF_IMAGES]


def test_the_configurations_of_images_are_known():
    assert {"cifar10", "digits", "dit_digits", "guided_digits", "lsun_cat", "ncsn_mnist", "sde_digits"} <= {*OF_IMAGES}
    assert not {"ncsn_toy", "sohl_dickstein_mnist", "vae_mnist"} & {*OF_IMAGES}


@pytest.mark.fast(3)
@pytest.mark.parametrize("name", sorted(OF_IMAGES, key=["cifar10", "guided_digits", "sde_digits"].count, reverse=True))
def test_every_configuration_of_images_takes_a_transformer(name):
    """By tracing alone: the loss of each example, and its slope in the transformer's parameters."""
    config = importlib.import_module(f"configs.{name}").get_config()
    net = dit_digits.get_config().net
    net.update(depth=1, num_classes=config.net.get("num_classes", 0))
    with net.unlocked():  # what a system has of its own there: VDM's waves, the vectors of classes
        net.update({field: config.net[field] for field in ("fourier", "class_features") if field in config.net})
    config.net = net
    model = zoo.make(config)
    params = jax.eval_shape(model.init, jax.random.key(0))
    network = str(jax.tree.structure(params.get("model", params.get("network", params))))
    assert "tokens" in network and "conv_in" not in network
    batch = {
        "image": jax.ShapeDtypeStruct((3, *config.data.shape), np.uint8),
        "label": jax.ShapeDtypeStruct((3,), np.int32),
    }
    losses = jax.eval_shape(model.loss, params, jax.random.key(0), batch)
    assert (losses.shape, losses.dtype) == ((3,), np.float32)


def test_a_section_makes_the_network_that_it_names():
    net = dit_digits.get_config().net
    made = networks.of_images(net, 2)
    assert isinstance(made, DiT) and (made.out_channels, made.width, made.num_classes) == (2, net.width, None)
    net.num_classes = 10
    assert networks.of_images(net, 2).num_classes == 10
    assert isinstance(networks.of_images(digits.get_config().net, 2), UNet)


@pytest.mark.parametrize("module", [digits, sde_digits, guided_digits])
@pytest.mark.parametrize(
    "change, words",
    [
        (dict(name="resnet"), "net.name must be .*unet.*dit.*'resnet'"),
        (dict(name=None), "net.name must be .*unet.*dit.*None"),
        (dict(name="dit"), "net.name='dit' needs net.patch_size, net.width, .*configs/dit_digits.py"),
    ],
)
def test_another_name_is_refused_in_one_sentence(module, change, words):
    config = module.get_config()
    with config.net.ignore_type():
        config.net.update(change)
    with pytest.raises(InputError, match=words) as raised:
        zoo.make(config)
    assert "\n" not in str(raised.value)


def test_a_u_net_needs_its_own_section():
    config = dit_digits.get_config()
    config.net.name = "unet"
    with pytest.raises(InputError, match=r"net.name='unet' needs net.channels, .*configs/cifar10.py"):
        zoo.make(config)
