"""Normalizing flows of scikit-learn's digits, 8x8 of 17 levels: affine coupling (RealNVP), NICE or MAF.

--config.flow.name=affine | additive | autoregressive

Uniformly dequantised, with the exact offset: the bound is one on the log-probability of the levels.
There are only 1500 images to learn from: a few hundred steps are enough, and after a thousand the bound falls again.
Cost: under a minute on 2 CPU cores. Expected: a bound near 2.14 bits/dim, and samples that have the strokes of digits.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            system="flow_density",
            parallel="jit",
            mesh=(("data", -1), ("model", 1)),
            data=dict(
                name="digits",
                dir="",
                shape=(8, 8, 1),
                levels=17,
                train_split="",
                test_split="",
                in_memory=True,
            ),
            flow=dict(
                name="affine",
                num_layers=8,
                base_scale=1.0,  # standard deviation of the base at the start
                features=(64,),  # of conditioners
                limit=1.0,  # of a layer's log-scale
                margin=0.01,  # of the logit of levels; 0: none
            ),
            sampling=dict(sampler="flow", steps=1),
            evaluation=dict(
                batch_size=297,
                num_examples=0,
                num_terms=0,
                grid=64,
                num_weights=100,  # dequantisations an example, for log P(x) itself
                weighted_examples=0,
                parzen_samples=0,
            ),
            training=dict(
                steps=700,
                batch_size=128,
                learning_rate=1e-3,
                warmup=200,
                grad_clip=100.0,
                ema_decay=0.998,
                flip=False,
                seed=0,
                log_every=100,
                eval_every=0,
                save_every=0,
                keep_every=0,
                accumulate=1,
                on_bad_step="stop",
                grad_limit=0.0,
                data_timeout=600.0,
            ),
        )
    )
