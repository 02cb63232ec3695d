"""Diffusion and score-based models."""
