"""Gaussian diffusion with learned rates on CIFAR-10, as in Sohl-Dickstein et al. 2015 (appendix D.2).

Pixels are dequantised, scaled to unit variance, and diffused in 1000 steps. The network is of the paper's kind:
multi-scale convolutions in parallel with a dense path, and a read-out by bumps in time. Budget and widths are not the
paper's; they are chosen for two CPU cores.
Cost: about 12 minutes on 2 CPU cores. The paper's K is 5.4 ± 0.2 bits a pixel (of three colours).
"""

from ml_collections import ConfigDict

from configs import sohl_dickstein_swiss_roll


def get_config() -> ConfigDict:
    config = sohl_dickstein_swiss_roll.get_config()
    del config.data.noise
    config.data.num_train, config.data.num_test = 0, 0
    config.data.update(
        name="cifar10",
        shape=(32, 32, 3),
        levels=256,
        train_split="train",
        test_split="test",
        mean=120.71,  # of the training pixels, all colours together
        std=64.15,
    )
    config.diffusion.update(num_steps=1000, first_beta=1e-3, schedule_bumps=10)
    config.net = ConfigDict(
        dict(
            name="multiscale",
            features=32,  # of a convolution
            num_layers=3,  # of multi-scale convolutions; 0: none
            num_scales=3,
            kernel_size=3,
            dense_features=64,
            dense_layers=2,  # of the path in parallel; 0: none
            dense_out=4,  # outputs of the dense path for each pixel
            pixel_features=64,
            pixel_layers=2,
            num_bumps=10,
        )
    )
    config.sampling.steps = 1000
    config.evaluation.update(
        batch_size=100, num_examples=200, num_terms=50, grid=36, num_weights=0, weighted_examples=0
    )
    config.training.update(
        steps=3000,
        batch_size=32,
        learning_rate=1e-3,
        grad_clip=1.0,
        flip=True,
        log_every=50,
        eval_every=1000,
        save_every=500,
    )
    return config
