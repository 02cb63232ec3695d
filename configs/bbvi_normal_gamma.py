"""Black-box variational inference of the mean and precision of ten numbers, with known closed forms (Bishop 2006).

The data are the differences in sleep of Student (1908), the prior is Normal-Gamma. A factorised posterior is trained
with each of four gradient estimators, from draws alone. The evidence, the posterior and the best factorised posterior
are known in closed form.
Cost: half a minute. Expected: log p(x) = -19.1346 nats, and a best factorised bound of -19.1757. Every estimator
reaches it to 0.0001, except the score function without a baseline, which is 0.01 below. There the variances of the
gradients are 1074 (score function), 0.98 (with the other draws as a baseline), 3.3 (reparameterised) and 0.34 (sticking
the landing).
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "black_box"
    config.data.update(
        name="given",
        shape=(10,),
        levels=0,
        example=(1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4),  # hours
        num_train=10_000,  # copies of the example: a batch of n asks for n times num_draws draws
        num_test=20_000,
    )
    config.posterior = ConfigDict(
        dict(
            prior=(0.0, 0.1, 1.0, 1.0),  # location, strength, concentration and rate
            estimators=("score", "score_leave_one_out", "reparameterized", "sticking_the_landing"),
            num_draws=8,  # draws for one gradient
            baseline=0.0,  # of the score function's estimator; -19 reduces its variance from 1074 to 1.2
        )
    )
    config.sampling.sampler = "posterior"
    config.evaluation.update(
        batch_size=5_000,
        grid=2000,
        num_weights=100,  # draws for log p(x) itself
        weighted_examples=200,
        parzen_samples=0,
    )
    config.training.update(
        batch_size=8,
        learning_rate=2e-2,
        warmup=0,
        grad_clip=0.0,  # no clipping: the posteriors are independent, none should shrink the gradients of the others
        ema_decay=0.995,
    )
    return config
