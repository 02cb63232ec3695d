"""Training losses, per example and unreduced: of diffusion models, and score matching."""

from diffjax.losses.diffusion import Weight, draw, hybrid, min_snr, p2, simple, vlb, weighted

__all__ = ["Weight", "draw", "hybrid", "min_snr", "p2", "simple", "vlb", "weighted"]
