"""Reflow (Liu et al. 2023) of the flow of configs/fm_toy.py: the same law by straighter paths, so in fewer steps.

    python -m experiments.main --config=configs/fm_toy.py --workdir=TEACHER
    python -m experiments.main --config=configs/reflow_toy.py --config.distillation.teacher=TEACHER

The student can be the teacher of a second round.

Cost: minutes on 2 CPU cores, most of them for the teacher's steps. Expected: a straightness near 0, and one Euler step
about as good as ten of the teacher.
"""

from ml_collections import ConfigDict, config_dict

from configs import fm_toy


def get_config() -> ConfigDict:
    config = fm_toy.get_config()
    config.system = "reflow"
    config.distillation = ConfigDict(
        dict(
            teacher=config_dict.placeholder(str),  # required: the workdir of the run to straighten
            num_steps=20,  # Heun steps of the teacher to make a pair
        )
    )
    config.training.update(steps=3000)
    return config
