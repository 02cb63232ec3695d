"""EDM (Karras et al. 2022) on CIFAR-10: preconditioning, log-normal noise levels, 18 of Heun's steps.

The network is DDPM's U-Net, not the paper's DDPM++ or NCSN++. The only augmentation is the flip. For churn, set
--config.sampling.churn=30.

Cost: 200 million images, days on an accelerator; not run here. Expected (the paper's): FID 1.97 (unconditional, 35
evaluations).
"""

from ml_collections import ConfigDict

from configs import ncsn_cifar10


def get_config() -> ConfigDict:
    config = ncsn_cifar10.get_config()
    config.sde.update(
        name="edm",
        sigma_min=0.002,
        sigma_max=80.0,
        levels=0,
        weighting="edm",
        sigma_data=0.5,  # the paper's
        time_sampling="log_normal",
    )
    config.sampling.update(sampler="heun", steps=18, spacing="karras")
    config.net.dropout = 0.13
    config.training.update(
        steps=390_625, batch_size=512, learning_rate=1e-3, warmup=19_531, ema_decay=0.99929, flip=True
    )
    return config
