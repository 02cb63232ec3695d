"""The worker in PyTorch: the CIFAR-10 network and the scheduler of diffusers, eager, in an environment without jax."""

import torch
from diffusers import DDPMScheduler, UNet2DModel

from experiments.benchmarks.worker import serve


def make_net() -> UNet2DModel:
    return UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        act_fn="silu",
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        attention_head_dim=None,
        dropout=0.1,
    )


class Worker:
    def __init__(self):
        torch.manual_seed(0)
        self.net, self.ema = make_net(), make_net().requires_grad_(False)
        self.ema.load_state_dict(self.net.state_dict())
        self.params = list(self.net.parameters())
        self.optimizer = torch.optim.Adam(self.params, lr=2e-4, fused=True)  # the fastest of its kinds on CPU
        self.scheduler = DDPMScheduler(1000, variance_type="fixed_large")

    def train(self, batch: int, count: int) -> None:
        self.net.train()
        x0 = torch.rand(batch, 3, 32, 32) * 2 - 1
        for _ in range(count):
            t, eps = torch.randint(1000, (batch,)), torch.randn_like(x0)
            loss = torch.nn.functional.mse_loss(self.net(self.scheduler.add_noise(x0, eps, t), t).sample, eps)
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.params, 1.0)
            self.optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(list(self.ema.parameters()), self.params, 1e-4)

    @torch.inference_mode()
    def denoise(self, batch: int, count: int) -> None:
        self.ema.eval()
        x = torch.randn(batch, 3, 32, 32)
        for t in range(999, 999 - count, -1):
            x = self.scheduler.step(self.ema(x, t).sample, t, x).prev_sample

    def parameters(self) -> int:
        return sum(p.numel() for p in self.params)


if __name__ == "__main__":
    serve(Worker())
