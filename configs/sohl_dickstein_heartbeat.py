"""The binary heartbeat of Sohl-Dickstein et al. 2015 (figure 2): binomial diffusion of 2000 steps.

An example is 20 bits with a 1 at every fifth place, at a uniform phase. So the true log p is log2(1/5) = -2.3219 bits a
sequence. Kernels that treat bits independently reach at best -2.3244, or -2.3683 if the first step is fixed as in the
paper (`diffusion.edge="fixed"`). The paper reached -2.414. The network here predicts x_0, the paper's x_{t-1}: the
kernels are the same, but better conditioned.
Cost: about 5 minutes on 2 CPU cores.
"""

from ml_collections import ConfigDict

from configs import sohl_dickstein_swiss_roll


def get_config() -> ConfigDict:
    config = sohl_dickstein_swiss_roll.get_config()
    config.system = "binomial_diffusion"
    del config.data.noise
    config.data.update(name="heartbeat", shape=(20,), levels=2, num_train=100_000, num_test=2_000)
    config.diffusion = ConfigDict(
        dict(
            num_steps=2000,
            prior=0.2,  # the probability of a 1 at the end of the diffusion
            edge="learned",  # or "fixed": the first step reversed in equilibrium, as in the paper
            time_sampling="low_discrepancy",
        )
    )
    config.net = ConfigDict(dict(features=(50, 50, 50), num_knots=33))
    config.sampling.steps = 2000
    config.evaluation.update(grid=64, batch_size=2000, num_weights=10, weighted_examples=500)
    config.training.update(steps=8000, learning_rate=3e-3, grad_clip=1.0)
    return config
