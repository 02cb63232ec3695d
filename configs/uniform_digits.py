"""Uniform diffusion of categories (D3PM: Austin et al. 2021) in continuous time, data of configs/masked_digits.py.

A pixel jumps to any of the 17 levels. The bound is the score entropy of Lou et al. 2024.

Cost: 6 minutes of CPU time, evaluation and pictures included.
Expected: readable digits; see docs/systems/diffusion/categorical.md for bits/dim.
"""

from ml_collections import ConfigDict

from configs import masked_digits


def get_config() -> ConfigDict:
    config = masked_digits.get_config()
    config.diffusion.kind = "uniform"
    return config
