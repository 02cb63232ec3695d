"""Markov chain variational inference of a bivariate Gaussian (Salimans, Kingma & Welling 2015).

It shows the bound against the number of updates, with learned inverse models, next to the closed forms. There are three
kinds of chains: Gibbs sampling, over-relaxation with the paper's a = -0.76, and over-relaxation with a learned for each
length. The widths are ours: σ = (1, 10), a correlation of 0.98. Chains start from the best factorised Gaussian.
Cost: about 2 minutes on 2 CPU cores. Expected: every bound is within 0.001 nat of its closed form on the same chains.
At 8 steps the learned a is -0.74 (the best is -0.75) and the bound -0.013 nats; Gibbs sampling has -0.285.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "bivariate_gaussian"
    config.data.update(
        name="correlated",
        shape=(2,),
        levels=0,
        num_train=10_000,  # a batch gives the number of chains; what is in it only fills pictures
        num_test=20_000,
        sigmas=(1.0, 10.0),  # of z_1 - z_2 and of z_1 + z_2
    )
    config.chain = ConfigDict(
        dict(
            num_steps=(1, 2, 3, 4, 6, 8, 12, 16),  # updates of one coordinate; a chain of each length
            over_relaxation=-0.76,
            # or reparameterized, doubly_reparameterized: the gradient in a
            estimator="sticking_the_landing",
        )
    )
    config.sampling.update(sampler="chain", steps=16)
    config.evaluation.update(batch_size=20_000, grid=2000, num_weights=0, weighted_examples=0, parzen_samples=0)
    config.training.update(steps=6_000, batch_size=256, learning_rate=1e-2, warmup=0)
    return config
