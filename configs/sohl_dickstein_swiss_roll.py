"""The swiss roll of Sohl-Dickstein et al. 2015 (figure 1): Gaussian diffusion of 40 steps with learned rates.

The paper has 16 normalised radial basis functions with constant read-outs. Here there are 64 with affine read-outs,
because the paper's lose more against the entropy of the data (`--config.net.units=16 --config.net.local=False`). The
paper does not state the noise of its roll. Ours has a standard deviation of 0.02; the roll's is 1.
Cost: about 4 minutes on 2 CPU cores. Expected: K within 0.15 bits per dimension of the data's negative entropy.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "gaussian_diffusion"
    config.data.update(
        name="swiss_roll",
        shape=(2,),
        levels=0,  # real numbers, of zero mean and unit variance
        num_train=200_000,
        num_test=5_000,
        noise=0.02,  # standard deviation
    )
    config.diffusion = ConfigDict(
        dict(
            num_steps=40,
            first_beta=2e-5,  # β_1, fixed: a twentieth of the noise's variance
            schedule_bumps=20,  # basis functions for the other, learned betas
            time_sampling="low_discrepancy",  # uniform | low_discrepancy | loss_aware
        )
    )
    config.net = ConfigDict(dict(name="rbf", units=64, local=True, num_knots=41))
    config.sampling.steps = 40
    config.evaluation.update(
        batch_size=1000,
        grid=2000,
        num_weights=100,  # forward trajectories an example, for log p(x) itself; 0: none
        weighted_examples=1000,
        parzen_samples=0,
    )
    config.training.update(
        steps=10_000, batch_size=2048, learning_rate=1e-2, grad_clip=10.0, eval_every=5000, save_every=5000
    )
    return config
