"""improved-diffusion's U-Net against its equations in numpy, at its own times."""

import jax
import numpy as np
import pytest
import unets_in_numpy as unets

from diffjax.errors import InputError
from diffjax.nets import improved_diffusion
from diffjax.nets.published import open_published
from diffjax.nets.unet import UNet

SIZE, STEPS = 8, 4000


@pytest.fixture(scope="module", params=[True, False], ids=["scale and shift", "plain"])
def original(request, tmp_path_factory):
    """Its tensors, and its output at steps i of 4000, of which it is told 1000 (i - 1)/4000."""
    x, step = np.random.default_rng(1).standard_normal((2, SIZE, SIZE, 3)).astype("f4"), np.array([13, 2801])
    layers = unets.Layers(32, 1e-5)
    out = unets.improved(
        layers,
        x.transpose(0, 3, 1, 2),
        1000 * (step - 1) / STEPS,
        channels=32,
        multipliers=(1, 2),
        num_blocks=1,
        attended=(2,) if request.param else (1, 2),
        heads=4,
        scale_shift=request.param,
        out=6,
    )
    return layers.tensors, x, step, out.transpose(0, 2, 3, 1)


@pytest.mark.fast(1)
def test_the_network_is_theirs_to_1e_5(original):
    tensors, x, step, out = original
    assert improved_diffusion.is_theirs(tensors)
    published = improved_diffusion.network_of(tensors, SIZE, 4, "here")
    net = UNet(**published.unet)
    t = (1000 * step / STEPS - 1).astype("f4")  # what diffjax tells a network of step i
    like = jax.eval_shape(net.init, jax.random.key(0), x, t)["params"]
    params = improved_diffusion.from_improved(tensors, like, published.unet, SIZE, STEPS)
    ours = jax.jit(net.apply)({"params": params}, x, t)
    assert np.abs(ours - out).max() < 2e-5 * np.abs(out).max()
    assert np.abs(out).std() > 0.1
    assert published.in_channels == 3


def test_a_file_of_theirs_says_what_it_lacks(original, tmp_path):
    tensors, *_ = original
    np.savez(tmp_path / "model.npz", **tensors)
    with pytest.raises(InputError, match=r"--image_size and --num_heads: add --size=N and --heads=N"):
        open_published(tmp_path / "model.npz")
    found = open_published(tmp_path / "model.npz", size=SIZE, heads=4)
    assert found.chain == {"variance": "learned", "loss": "hybrid"}
    with pytest.raises(InputError, match="here is of a network of classes"):
        improved_diffusion.network_of(tensors | {"label_emb.weight": np.zeros((10, 128))}, SIZE, 4, "here")
    like = jax.eval_shape(UNet(**found.published.unet).init, jax.random.key(0), np.zeros((1, 8, 8, 3)), np.zeros(1))
    with pytest.raises(InputError, match=r"qkv.weight has (96|192) rows, not three for each of 7 heads"):
        open_published(tmp_path / "model.npz", size=SIZE, heads=7).params(like["params"], STEPS)
    missing = {name: value for name, value in tensors.items() if name != "out.2.bias"}
    with pytest.raises(InputError, match=r"lacks out\.2\.bias"):
        improved_diffusion.from_improved(missing, like["params"], found.published.unet, SIZE, STEPS)
