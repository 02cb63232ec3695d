"""Normalizing flows of scikit-learn's digits, 8x8 of 17 levels: affine coupling (RealNVP), NICE or MAF.

--config.flow.name=affine | additive | autoregressive

The levels are dequantised uniformly, with the exact offset, so the bound is on the log-probability of the levels.
There are only 1500 training images: a few hundred steps are enough, and after a thousand the bound falls again.
Cost: under a minute on 2 CPU cores. Expected: a bound near 2.14 bits/dim, and samples that have the strokes of digits.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "flow_density"
    config.data.update(name="digits", shape=(8, 8, 1), levels=17)
    config.flow = ConfigDict(
        dict(
            name="affine",
            num_layers=8,
            base_scale=1.0,  # standard deviation of the base at the start
            features=(64,),  # hidden units of conditioners
            limit=1.0,  # the largest log-scale of a layer
            margin=0.01,  # of the logit of levels; 0: none
        )
    )
    config.sampling.sampler = "flow"
    config.evaluation.update(
        batch_size=297,
        num_weights=100,  # dequantisations an example, for log P(x) itself
        weighted_examples=0,
        parzen_samples=0,
    )
    config.training.update(steps=700, batch_size=128, warmup=200, grad_clip=100.0, ema_decay=0.998, log_every=100)
    return config
