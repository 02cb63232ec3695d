"""Progressive distillation (Salimans & Ho 2022) on scikit-learn's digits, 8x8: from 128 DDIM steps to 1, by halves.

    python -m experiments.main --config=configs/progressive_digits.py --config.system=ddpm --workdir=TEACHER
    python -m experiments.main --config=configs/progressive_digits.py --config.distillation.teacher=TEACHER

The first command trains the teacher: configs/digits.py, but with prediction v and a chain of 256 steps.

Cost: minutes on 2 CPU cores for each of the two. Expected: mostly readable digits in one step.
"""

from ml_collections import ConfigDict, config_dict

from configs import digits


def get_config() -> ConfigDict:
    config = digits.get_config()
    config.system = "progressive"
    config.diffusion.update(num_steps=256, prediction="v", variance="forward", loss="truncated_snr", clip=True)
    config.distillation = ConfigDict(
        dict(
            teacher=config_dict.placeholder(str),  # required: the workdir of the run to distil
            num_steps=(64, 1),  # of the student, at first and at last
        )
    )
    config.sampling.update(sampler="ddim", steps=1)
    return config
