"""Hamiltonian variational inference for the stomach-cancer counts of 20 cities (Salimans, Kingma & Welling 2015).

The target is the posterior of the mean and the precision of a beta-binomial distribution. One run trains approximations
with 0, 1, 2, 4, 8 and 16 leapfrog steps and compares them with the exact posterior, by quadrature. 0 steps are the best
Gaussian of full covariance.
Cost: about 4 minutes on 2 CPU cores, one of them to compile. Expected: log Z = -570.709 nats. The bounds are lower by
0.13 (0 steps), 0.09, 0.07 and, from 4 steps on, 0.05, with R² of 0.84, 0.91, 0.93 and 0.95.
"""

from ml_collections import ConfigDict

from configs import base
from diffjax.data import toys


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "beta_binomial"
    config.data.update(
        name="stomach_cancer",
        shape=(20, 2),
        levels=0,  # counts, as they are
        num_train=10_000,  # copies of the one table: a batch of n asks for n draws
        num_test=20_000,
    )
    config.posterior = ConfigDict(
        dict(
            num_leapfrog=(0, 1, 2, 4, 8, 16),  # one approximate posterior for each number
            location=(-6.8, 7.9),  # rough location of (logit m, log K), and its scale: the units of the chains
            scale=(0.3, 1.4),
            step_size=0.5,  # at the start, in those units,
            time=1.6,  # or less, so that all steps together are no longer than this
            # or reparameterized, doubly_reparameterized: the gradient for the initial distribution and the momenta
            estimator="sticking_the_landing",
            table=tuple((int(deaths), int(at_risk)) for deaths, at_risk in toys.stomach_cancer()),
        )
    )
    config.sampling.update(sampler="hamiltonian", steps=16)
    config.evaluation.update(
        batch_size=20_000,
        grid=2000,
        num_weights=100,  # draws for log p(x) itself
        weighted_examples=200,
        parzen_samples=0,
    )
    config.training.update(
        steps=6_000,
        batch_size=64,
        learning_rate=3e-2,
        grad_clip=0.0,  # no clipping: the approximations are independent, none should shrink the others' gradients
        ema_decay=0.998,
    )
    return config
