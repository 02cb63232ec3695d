"""Consistency models (Song et al. 2023; Song & Dhariwal 2024) on scikit-learn's digits, 8x8: samples in few steps.

Network, data and budget are those of configs/digits.py. Noise levels and preconditioning are those of
configs/edm_digits.py.

--config.distillation.teacher=DIR     distil a run of configs/edm_digits.py, instead of consistency training
--mode=sample --config.sampling.steps=1 | 2 | 4 ...     evaluations of the network for a sample

Cost: minutes on 2 CPU cores. Expected: in one step, most digits are readable, and nearly all with distillation.
More steps do not improve them here: experiments/results/README.md has the distances.
"""

from ml_collections import ConfigDict

from configs import edm_digits


def get_config() -> ConfigDict:
    config = edm_digits.get_config()
    config.system = "consistency"
    config.consistency = ConfigDict(
        dict(
            intervals=(10, 1280),  # between noise levels: how many at first and at last; doubled at regular times
            time_mean=-1.1,  # of log(sigma/alpha) in training
            time_std=2.0,
            clip=True,  # clip samples and intermediate estimates to [-1, 1]
        )
    )
    config.distillation = ConfigDict(
        dict(
            teacher="",  # the workdir of a run with the same net and sde; empty: consistency training, no teacher
            order=2,  # of the teacher's step: 2 Heun, 1 DDIM
            target_decay=0.0,  # the target network's weights are a running mean of this decay; 0: the student's weights
        )
    )
    config.sampling.update(sampler="consistency", steps=2)
    config.evaluation.flow_examples = 0  # no likelihood: f does not estimate a mean
    return config
