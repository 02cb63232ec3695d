"""The worker in PyTorch: the auto-encoder of configs/vae_mnist.py, eager, in an environment without jax."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from experiments.benchmarks.worker import serve

PIXELS, LATENT, UNITS = 784, 32, (300, 300)


def dense(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.Softplus()]
    return nn.Sequential(*layers[:-1])


def make_nets() -> nn.ModuleDict:
    return nn.ModuleDict(
        {"encoder": dense([PIXELS, *UNITS, 2 * LATENT]), "decoder": dense([LATENT, *UNITS[::-1], PIXELS])}
    )


class Worker:
    def __init__(self):
        torch.manual_seed(0)
        self.nets, self.ema = make_nets(), make_nets().requires_grad_(False)
        self.ema.load_state_dict(self.nets.state_dict())
        self.params, self.means = list(self.nets.parameters()), list(self.ema.parameters())
        self.optimizer = torch.optim.Adam(self.params, lr=2e-3, fused=True)  # the fastest of its kinds on CPU

    def train(self, batch: int, count: int) -> None:
        image = torch.randint(2, (batch, PIXELS), dtype=torch.uint8)
        for _ in range(count):
            x = image.float()
            mean, log_variance = self.nets["encoder"](x).chunk(2, -1)
            z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
            fit = -F.binary_cross_entropy_with_logits(self.nets["decoder"](z), x, reduction="none").sum(-1)
            # -log q(z) + log p(z), as drawn: (z - mean)² / variance is the noise's square
            noise = (z - mean) * torch.exp(-0.5 * log_variance)
            latent = 0.5 * (noise**2 + log_variance - z**2).sum(-1)
            loss = -(fit + latent).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(self.means, self.params, 5e-3)

    def parameters(self) -> int:
        return sum(p.numel() for p in self.params)


if __name__ == "__main__":
    serve(Worker())
