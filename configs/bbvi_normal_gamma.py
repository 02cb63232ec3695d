"""Black-box variational inference of the mean and the precision of ten numbers, beside its closed form (Bishop 2006).

The differences in sleep of Student (1908), a Normal-Gamma prior, and a factorised posterior trained with each of four
gradient estimators from draws alone; evidence, posterior and the best of the family are known in closed form.
Cost: half a minute. Expected: log p(x) = -19.1346 nats and a best factorised bound of -19.1757, which every
estimator reaches to 0.0001 but the score function without a baseline, 0.01 below: the variance of its gradient there is
1074, with the other draws as a baseline 0.98, reparameterised 3.3, sticking the landing 0.34.
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
        num_train=10_000,  # copies: a batch of n asks for n times num_draws draws
        num_test=20_000,
    )
    config.posterior = ConfigDict(
        dict(
            prior=(0.0, 0.1, 1.0, 1.0),  # location, strength, concentration and rate
            estimators=("score", "score_leave_one_out", "reparameterized", "sticking_the_landing"),
            num_draws=8,  # that one gradient is made of
            baseline=0.0,  # of score; -19 brings its 1074 down to 1.2
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
        grad_clip=0.0,  # the posteriors are independent: no one's gradient should shrink the others'
        ema_decay=0.995,
    )
    return config
