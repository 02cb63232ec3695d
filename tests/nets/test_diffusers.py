"""diffusers' UNet2DModel: the mapping against its equations in numpy, and against diffusers where it is installed."""

import json

import jax
import numpy as np
import pytest
import unets_in_numpy as unets
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from diffjax.errors import InputError
from diffjax.nets import diffusers_folder
from diffjax.nets.diffusers import DEFAULTS, config_of, from_diffusers, network_of, to_diffusers
from diffjax.nets.layers import num_groups
from diffjax.nets.published import open_published
from diffjax.nets.unet import Conventions, UNet
from diffjax.zoo.diffusion import networks

SMALL = {"_class_name": "UNet2DModel", "_diffusers_version": "0.42.1"} | DEFAULTS | {
    "sample_size": 8, "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip
CONFIGS = {
    "as google/ddpm-cifar10-32": SMALL | {
        "norm_eps": 1e-6, "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1,
        "attention_head_dim": None,
    },
    "scale and shift": SMALL | {
        "resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4, "attention_head_dim": 4, "out_channels": 6,
        "norm_eps": 0.1, "down_block_types": ["AttnDownBlock2D"] * 2, "up_block_types": ["AttnUpBlock2D"] * 2,
    },
    "by default, two heads": SMALL,
}  # fmt: skip
X, T = np.random.default_rng(1).standard_normal((2, 8, 8, 3)).astype("f4"), np.array([3.0, 700.0], "f4")


def shapes(net, size=8):
    x = jax.ShapeDtypeStruct((1, size, size, 3), "f4")
    return jax.eval_shape(net.init, jax.random.key(0), x, jax.ShapeDtypeStruct((1,), "f4"))["params"]


@pytest.fixture(scope="module")
def theirs():
    """Their tensors and their output, by config."""
    found = {}
    for name, config in CONFIGS.items():
        layers = unets.Layers(config["norm_num_groups"], config["norm_eps"])
        out = unets.unet2d(layers, X.transpose(0, 3, 1, 2), T.astype("f8"), config)
        found[name] = layers.tensors, out.transpose(0, 2, 3, 1)
    return found


@pytest.mark.fast(2)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_network_is_theirs_to_1e_5_and_back(name, theirs):
    (tensors, out), config = theirs[name], CONFIGS[name]
    published = network_of(config, name)
    net = UNet(**published.unet)
    params = from_diffusers(tensors, shapes(net), 2, config["flip_sin_to_cos"])
    apply = jax.jit(net.apply)
    ours = apply({"params": params}, X, T)
    assert np.abs(ours - out).max() < 1e-5 * np.abs(out).max()
    assert np.abs(out).std() > 0.1
    assert (published.size, published.in_channels) == ((8, 8), 3)

    written, described = to_diffusers(params, 2), config_of(net, params, (8, 8, 3))
    assert {n: x.shape for n, x in written.items()} == {n: x.shape for n, x in tensors.items()}
    assert network_of(described, name) == published
    first = "time_embedding.linear_1.weight"
    for key in tensors.keys() - {first}:
        np.testing.assert_array_equal(written[key], tensors[key])
    halves = np.split(written[first], 2, axis=1)[:: -1 if config["flip_sin_to_cos"] else 1]
    np.testing.assert_array_equal(np.concatenate(halves, 1), tensors[first])
    changed = {
        k: v for k, v in described.items() if v != config[k] and not (isinstance(v, list) and v == list(config[k]))
    }
    assert changed.keys() <= {"flip_sin_to_cos"}


def test_names_of_before_0_17_and_widths_of_google_are_read(theirs):
    tensors, _ = theirs["as google/ddpm-cifar10-32"]
    net = UNet(**network_of(CONFIGS["as google/ddpm-cifar10-32"], "").unet)
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for name, value in tensors.items():
        for new, once in older.items():
            name = name.replace(f".{new}.", f".{once}.")
        old[name] = value
    assert old.keys() != tensors.keys()
    found = [from_diffusers(given, shapes(net), 2, False) for given in (tensors, old)]
    assert jax.tree.all(jax.tree.map(np.array_equal, *found))
    # config.json of google/ddpm-celebahq-256 is DDPM's network, without a convention of its own.
    google = CONFIGS["as google/ddpm-cifar10-32"] | {
        "sample_size": 256, "block_out_channels": [128, 128, 256, 256, 512, 512], "layers_per_block": 2,
        "norm_num_groups": 32, "down_block_types": [f"{a}DownBlock2D" for a in ("", "", "", "", "Attn", "")],
        "up_block_types": [f"{a}UpBlock2D" for a in ("", "Attn", "", "", "", "")],
    }  # fmt: skip
    unet = network_of(google, "").unet
    assert unet == dict(
        channels=128,
        multipliers=(1, 1, 2, 2, 4, 4),
        num_blocks=2,
        attention=(16,),
        out_channels=3,
        dropout=0.0,
        conventions=Conventions(),
    )
    params = shapes(UNet(**unet), 256)
    assert sum(x.size for x in jax.tree.leaves(params)) == 113_673_219  # of Ho et al. 2020, appendix B: 114 million
    assert {num_groups(x.shape[0]) for x in jax.tree.leaves(params) if x.ndim == 1 and x.shape[0] != 3} == {32}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"_class_name": "UNet2DConditionModel"}, "_class_name is 'UNet2DConditionModel', and only 'UNet2DModel'"),
        ({"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}, "down_block_types has 'SkipDownBlock2D'"),
        ({"up_block_types": ["UpBlock2D", "AttnUpBlock2D"]}, "attention at different resolutions"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type='fourier' is another network"),
        ({"center_input_sample": True}, "center_input_sample=True"),
        ({"num_class_embeds": 10}, "num_class_embeds=10"),
        ({"downsample_type": "resnet"}, "downsample_type='resnet'"),
        ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups=None"),
        ({"block_out_channels": [8, 12]}, r"block_out_channels=\[8, 12\] must be 2 multiples"),
        ({"sample_size": None}, "sample_size is missing; add --size=N"),
        ({"surprise": 1}, "surprise=1 is unknown"),
    ],
)
def test_other_networks_are_refused(change, words):
    with pytest.raises(InputError, match=f"^here: .*{words}"):
        network_of(SMALL | change, "here")


def test_conventions_that_do_not_fit_are_said_by_name():
    for given, words in (
        (Conventions(groups=3), "groups is 3, which does not divide the 8 channels"),
        (Conventions(head_width=3), "heads=1, head_width=3 do not divide 8 channels"),
        (Conventions(heads=3), "heads=3, head_width=0 do not divide 8 channels"),
    ):
        with pytest.raises(InputError, match=words):
            shapes(UNet(channels=8, multipliers=(1,), num_blocks=1, attention=(), conventions=given))
    net = ConfigDict(dict(channels=8, multipliers=(1,), num_blocks=1, attention=(), conventions={"eps": 1.0}))
    with pytest.raises(InputError, match=r"net\.conventions\.eps is not a convention; they are groups, epsilon"):
        networks.unet(net, 3)


def test_networks_that_diffusers_has_not_are_not_written():
    for fields, words in (
        (dict(channels=32, multipliers=(1, 2)), "channels=32: the norms have 8 or 16 or 24 or 32 groups"),
        (dict(channels=32, multipliers=(2, 2)), "begin with multiplier 1"),
        (dict(num_classes=3), "num_classes=3"),
    ):
        net = UNet(attention=(4,), num_blocks=1, **fields)
        with pytest.raises(InputError, match=words):
            config_of(net, shapes(net), (8, 8, 3))


def test_the_scheduler_says_the_chain_and_back(tmp_path):
    google = {
        "_class_name": "DDPMScheduler", "beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001,
        "clip_sample": True, "num_train_timesteps": 1000, "trained_betas": None, "variance_type": "fixed_large",
    }  # fmt: skip
    chain = diffusers_folder.chain_of(google, "here")
    wanted = dict(
        schedule="linear", betas=(1e-4, 0.02), num_steps=1000, prediction="eps", variance="forward", clip=True
    )
    assert chain.items() >= wanted.items()
    assert diffusers_folder.scheduler_of(chain).items() >= {k: v for k, v in google.items() if v is not None}.items()
    other = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "variance_type": "learned_range"}
    chain = diffusers_folder.chain_of(other, "here")
    assert (chain["schedule"], chain["prediction"], chain["variance"], chain["loss"]) == (
        "cosine",
        "v",
        "learned",
        "hybrid",
    )
    for wrong in ({"num_train_timesteps": 4000}, {"trained_betas": [0.1]}, {"beta_schedule": "sigmoid"}):
        with pytest.raises(InputError, match=f"here: {next(iter(wrong))}=.* is not read"):
            diffusers_folder.chain_of(google | wrong, "here")
    for wrong in ({"num_steps": 250}, {"schedule": "sigmoid"}, {"prediction": "score"}):
        with pytest.raises(InputError, match=f"^diffusion.{next(iter(wrong))}={next(iter(wrong.values()))!r}"):
            diffusers_folder.write_folder(tmp_path / "out", {}, {}, chain | wrong)
        assert not (tmp_path / "out").exists()


def test_a_folder_and_a_pipeline_are_read_alike(tmp_path, theirs):
    tensors, _ = theirs["by default, two heads"]
    for home in (tmp_path / "flat", tmp_path / "pipeline/unet"):
        home.mkdir(parents=True)
        (home / "config.json").write_text(json.dumps(SMALL))
        save_file(tensors, home / "diffusion_pytorch_model.safetensors")
    scheduler = json.dumps({"_class_name": "DDIMScheduler", "clip_sample": False})
    (tmp_path / "flat/scheduler_config.json").write_text(scheduler)
    (tmp_path / "pipeline/scheduler").mkdir()
    (tmp_path / "pipeline/scheduler/scheduler_config.json").write_text(scheduler)
    found = [open_published(tmp_path / name) for name in ("flat", "pipeline")]
    like = shapes(UNet(**found[0].published.unet))
    params = [each.params(like, 1000) for each in found]
    assert found[0].published == found[1].published
    assert found[0].chain == found[1].chain
    assert not found[0].chain["clip"]
    assert jax.tree.all(jax.tree.map(np.array_equal, *params))
    with pytest.raises(InputError, match="1000 steps, not 250"):
        found[0].params(like, 250)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_diffusers_itself_reads_what_is_written(name, theirs, tmp_path):
    """Where diffusers is installed; experiments/benchmarks/weights.py does so with networks of full size."""
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    (tensors, out), config = theirs[name], CONFIGS[name]
    net = UNet(**network_of(config, name).unet)
    params = from_diffusers(tensors, shapes(net), 2, config["flip_sin_to_cos"])
    chain = diffusers_folder.chain_of({}, "")
    diffusers_folder.write_folder(tmp_path / "out", config_of(net, params, (8, 8, 3)), to_diffusers(params, 2), chain)
    model = diffusers.UNet2DModel.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        found = model(torch.tensor(X.transpose(0, 3, 1, 2)), torch.tensor(T)).sample.numpy().transpose(0, 2, 3, 1)
    assert np.abs(found - out).max() < 1e-5 * np.abs(out).max()
