"""The diffusers side of weights.py: networks with random weights, in an environment without jax.

    python -m experiments.benchmarks.torch_weights write NAMES DIR    DIR/NAME/theirs, a pipeline, and theirs.npz
    python -m experiments.benchmarks.torch_weights read NAMES DIR     DIR/NAME/ours, which we wrote: ours.npz

NAMES are separated by commas.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel

# As google/ddpm-cifar10-32 and google/ddpm-celebahq-256 have them.
DDPM = dict(norm_eps=1e-6, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, attention_head_dim=None)


def blocks(attention: str) -> dict:
    """The types of blocks. attention: an "A" for each resolution with attention, from the finest."""
    down = tuple("AttnDownBlock2D" if a == "A" else "DownBlock2D" for a in attention)
    up = tuple("AttnUpBlock2D" if a == "A" else "UpBlock2D" for a in reversed(attention))
    return {"down_block_types": down, "up_block_types": up}


MODELS = {
    "small": dict(sample_size=16, block_out_channels=(32, 64), norm_num_groups=8, **DDPM, **blocks("-A")),
    "defaults": dict(sample_size=16, block_out_channels=(32, 64), norm_num_groups=8, **blocks("AA")),
    "scale_shift": dict(
        sample_size=16,
        block_out_channels=(64, 128),
        resnet_time_scale_shift="scale_shift",
        attn_norm_num_groups=32,
        **blocks("-A"),
    ),
    "cifar10": dict(sample_size=32, block_out_channels=(128, 256, 256, 256), **DDPM, **blocks("-A--")),
    "celebahq256": dict(sample_size=256, block_out_channels=(128, 128, 256, 256, 512, 512), **DDPM, **blocks("----A-")),
}
STEPS = {"celebahq256": 0}  # of DDIM; 50 for all others


def random_net(name: str) -> UNet2DModel:
    """A network with random weights of fan-in scale, also where diffusers starts with zeros or ones."""
    net = UNet2DModel(**MODELS[name])
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn_like(parameter)
            matrix = parameter.ndim > 1
            parameter.copy_(noise * parameter[0].numel() ** -0.5 if matrix else parameter + 0.2 * noise)
    return net.eval()


@torch.inference_mode()
def outputs(net: UNet2DModel, name: str) -> dict[str, np.ndarray]:
    """The network's outputs for two images at two times, and DDIM's sample from one of them as x_1; channels last."""
    size = MODELS[name]["sample_size"]
    x, t = torch.randn(2, 3, size, size), torch.tensor([3, 700])
    found = {"x": x, "t": t, "out": net(x, t).sample}
    if steps := STEPS.get(name, 50):
        scheduler = DDIMScheduler.from_config(DDPMScheduler().config)
        scheduler.set_timesteps(steps)
        sample = x[:1]
        for step in scheduler.timesteps:
            # eps is recomputed after x_0 was clipped, as in the original code of DDIM.
            sample = scheduler.step(net(sample, step).sample, step, sample, use_clipped_model_output=True).prev_sample
        found |= {"timesteps": scheduler.timesteps, "sample": sample}
    return {key: (value.permute(0, 2, 3, 1) if value.ndim == 4 else value).numpy() for key, value in found.items()}


def main(job: str, names: str, directory: str) -> None:
    for name in names.split(","):
        place = Path(directory) / name
        torch.manual_seed(0)
        if job == "write":
            net = random_net(name)
            DDPMPipeline(net, DDPMScheduler()).save_pretrained(place / "theirs")
        else:
            net = UNet2DModel.from_pretrained(place / "ours", low_cpu_mem_usage=False).eval()
            pipeline = DDPMPipeline.from_pretrained(place / "ours", low_cpu_mem_usage=False)
            assert type(pipeline.scheduler) is DDPMScheduler
        torch.manual_seed(1)
        np.savez(place / ("theirs.npz" if job == "write" else "ours.npz"), **outputs(net, name))


if __name__ == "__main__":
    main(*sys.argv[1:])
