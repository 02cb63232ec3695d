"""The mapping is checked against the TensorFlow code's equations, written again in numpy under its variable names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.errors import InputError
from diffjax.nets.published import AVERAGE, from_ddpm
from diffjax.nets.unet import UNet


class Original:
    """The original model in numpy; a variable is drawn at random when the code asks for it, as TensorFlow does."""

    def __init__(self):
        self.tensors, self.rng = {}, np.random.default_rng(0)

    def variable(self, name, shape):
        assert name not in self.tensors
        scale = np.sqrt(1 / np.prod(shape[:-1])) if len(shape) > 1 else 0.5
        self.tensors[name] = (scale * self.rng.standard_normal(shape) + name.endswith("gamma")).astype("f")
        return self.tensors[name]

    def dense(self, x, name, units):
        return x @ self.variable(name + "/W", (x.shape[-1], units)) + self.variable(name + "/b", (units,))

    def conv(self, x, name, units, stride=1):
        weights = self.variable(name + "/W", (3, 3, x.shape[-1], units))
        size = x.shape[1]
        out = -(-size // stride)
        before = max((out - 1) * stride + 3 - size, 0) // 2  # TensorFlow's SAME: the odd row goes to the end
        padded = np.pad(x, ((0, 0), (before, 3), (before, 3), (0, 0)))
        span = stride * out
        taps = [padded[:, i : i + span : stride, j : j + span : stride] @ weights[i, j] for i, j in np.ndindex(3, 3)]
        return sum(taps) + self.variable(name + "/b", (units,))

    def normalize(self, x, name):
        groups = x.reshape(*x.shape[:3], 32, -1)
        mean, var = groups.mean((1, 2, 4), keepdims=True), groups.var((1, 2, 4), keepdims=True)
        y = ((groups - mean) / np.sqrt(var + 1e-6)).reshape(x.shape)
        return y * self.variable(name + "/gamma", x.shape[-1:]) + self.variable(name + "/beta", x.shape[-1:])

    def resnet_block(self, x, temb, name, out_ch):
        h = self.conv(swish(self.normalize(x, name + "/norm1")), name + "/conv1", out_ch)
        h = h + self.dense(swish(temb), name + "/temb_proj", out_ch)[:, None, None, :]
        h = self.conv(swish(self.normalize(h, name + "/norm2")), name + "/conv2", out_ch)
        if x.shape[-1] != out_ch:
            x = self.dense(x, name + "/nin_shortcut", out_ch)
        return x + h

    def attn_block(self, x, name):
        channels = x.shape[-1]
        h = self.normalize(x, name + "/norm")
        q, k, v = (self.dense(h, f"{name}/{part}", channels) for part in "qkv")
        w = np.einsum("bhwc,bHWc->bhwHW", q, k) * channels**-0.5
        w = np.exp(w - w.max((3, 4), keepdims=True))
        w = w / w.sum((3, 4), keepdims=True)
        return x + self.dense(np.einsum("bhwHW,bHWc->bhwc", w, v), name + "/proj_out", channels)

    def model(self, x, t, ch, ch_mult, num_res_blocks, attn_resolutions):
        frequencies = np.exp(np.arange(ch // 2) * -(np.log(10000) / (ch // 2 - 1)))
        temb = np.concatenate([np.sin(t[:, None] * frequencies), np.cos(t[:, None] * frequencies)], axis=1)
        temb = self.dense(temb, "model/temb/dense0", ch * 4)
        temb = self.dense(swish(temb), "model/temb/dense1", ch * 4)
        hs = [self.conv(x, "model/conv_in", ch)]
        for level, mult in enumerate(ch_mult):
            for block in range(num_res_blocks):
                h = self.resnet_block(hs[-1], temb, f"model/down_{level}/block_{block}", ch * mult)
                if h.shape[1] in attn_resolutions:
                    h = self.attn_block(h, f"model/down_{level}/attn_{block}")
                hs.append(h)
            if level != len(ch_mult) - 1:
                hs.append(self.conv(hs[-1], f"model/down_{level}/downsample/conv", hs[-1].shape[-1], stride=2))
        h = self.resnet_block(hs[-1], temb, "model/mid/block_1", hs[-1].shape[-1])
        h = self.attn_block(h, "model/mid/attn_1")
        h = self.resnet_block(h, temb, "model/mid/block_2", h.shape[-1])
        for level, mult in reversed(list(enumerate(ch_mult))):
            for block in range(num_res_blocks + 1):
                h = np.concatenate([h, hs.pop()], axis=-1)
                h = self.resnet_block(h, temb, f"model/up_{level}/block_{block}", ch * mult)
                if h.shape[1] in attn_resolutions:
                    h = self.attn_block(h, f"model/up_{level}/attn_{block}")
            if level != 0:
                h = np.repeat(np.repeat(h, 2, axis=1), 2, axis=2)
                h = self.conv(h, f"model/up_{level}/upsample/conv", h.shape[-1])
        return self.conv(swish(self.normalize(h, "model/norm_out")), "model/conv_out", 3)


def swish(x):
    return x / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def cifar():
    """The CIFAR-10 network: the original's tensors and output, our shapes."""
    x, t = np.random.default_rng(1).standard_normal((1, 32, 32, 3)), np.array([700.0])
    original = Original()
    out = original.model(x, t, ch=128, ch_mult=(1, 2, 2, 2), num_res_blocks=2, attn_resolutions=(16,))
    like = jax.eval_shape(UNet().init, jax.random.key(0), jnp.asarray(x), jnp.asarray(t))
    return x, t, original.tensors, out, like


@pytest.mark.slow
def test_network_with_the_original_tensors_gives_the_original_output(cifar):
    x, t, tensors, out, like = cifar
    params = from_ddpm(tensors, like)
    ours = jax.jit(UNet().apply)(params, x, t)
    np.testing.assert_allclose(ours, out, atol=1e-3 * np.abs(out).max())
    assert np.abs(out).std() > 0.1
    averages = {name + AVERAGE: value for name, value in tensors.items()}
    assert jax.tree.all(jax.tree.map(jnp.array_equal, params, from_ddpm(averages, like)))


def test_every_tensor_lands_once(cifar):
    *_, tensors, _, like = cifar
    marks = {name: np.full(value.shape, i, np.float32) for i, (name, value) in enumerate(tensors.items())}
    landed = [float(leaf.reshape(-1)[0]) for leaf in jax.tree.leaves(from_ddpm(marks, like))]
    assert sorted(landed) == list(range(len(tensors)))


@pytest.mark.slow
def test_file_of_plain_arrays_is_enough(cifar, tmp_path):
    *_, tensors, _, like = cifar
    np.savez(tmp_path / "ddpm.npz", **{name + AVERAGE: value for name, value in tensors.items()})
    loaded = from_ddpm(np.load(tmp_path / "ddpm.npz", allow_pickle=False), like)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, loaded, from_ddpm(tensors, like)))


def test_wrong_states_are_named(cifar):
    *_, tensors, _, like = cifar
    name = "model/mid/attn_1/q/W"
    with pytest.raises(InputError, match=f"lacks {name};"):
        from_ddpm({k: v for k, v in tensors.items() if k != name}, like)
    with pytest.raises(InputError, match="has global_step, unknown"):
        from_ddpm({**tensors, "global_step": np.array(1)}, like)
    with pytest.raises(InputError, match=rf"{name} has shape \(1, 256\).*\(256, 256\)"):
        from_ddpm({**tensors, name: tensors[name][:1]}, like)
    with pytest.raises(InputError, match="one of the two"):
        from_ddpm({**tensors, name + AVERAGE: tensors[name]}, like)
    other = jax.eval_shape(UNet(num_blocks=3).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)), jnp.zeros(1))
    with pytest.raises(InputError, match=r"and \d+ more"):
        from_ddpm(tensors, other)
