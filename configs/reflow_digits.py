"""Reflow (Liu et al. 2023) of a flow of scikit-learn's digits, 8x8: the same law by straighter paths, in fewer steps.

    python -m experiments.main --config=configs/fm_digits.py --workdir=TEACHER
    python -m experiments.main --config=configs/reflow_digits.py --config.distillation.teacher=TEACHER

Cost: half an hour on a CPU core, most of it for the teacher's steps. Expected: readable digits in one Euler step; the
teacher needs ten.
"""

from ml_collections import ConfigDict

from configs import fm_digits, reflow_toy


def get_config() -> ConfigDict:
    config = fm_digits.get_config()
    config.system, config.distillation = "reflow", reflow_toy.get_config().distillation
    return config
