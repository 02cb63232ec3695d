"""Consistency models (Song et al. 2023; Song & Dhariwal 2024) on scikit-learn's digits, 8x8: one step, or few.

Network, data and budget are those of configs/digits.py, noise levels and preconditioning of configs/edm_digits.py.

--config.distillation.teacher=DIR     distil a run of configs/edm_digits.py in place of training alone
--mode=sample --config.sampling.steps=1 | 2 | 4 ...     evaluations of the network for a sample

Cost: minutes on 2 CPU cores. Expected: digits, most of which one can read, in one step, by distillation nearly all.
More steps add nothing here: experiments/results/README.md has the distances.
"""

from ml_collections import ConfigDict

from configs import edm_digits


def get_config() -> ConfigDict:
    config = edm_digits.get_config()
    config.system = "consistency"
    config.consistency = ConfigDict(
        dict(
            intervals=(10, 1280),  # between noise levels, at first and at last; doubled at equal distances in training
            time_mean=-1.1,  # of log(sigma/alpha) in training
            time_std=2.0,
            clip=True,  # samples, and estimates on the way, to [-1, 1]
        )
    )
    config.distillation = ConfigDict(
        dict(
            teacher="",  # the workdir of a run with the same net and sde; empty: consistency training, no teacher
            order=2,  # of the teacher's step: 2 Heun, 1 DDIM
            target_decay=0.0,  # of the running mean of the weights that the target has; 0: the student's own
        )
    )
    config.sampling.update(sampler="consistency", steps=2)
    config.evaluation.flow_examples = 0  # f is no estimate of a mean: it has no likelihood
    return config
