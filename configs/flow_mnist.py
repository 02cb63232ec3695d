"""Normalizing flows of MNIST, 28x28 of 256 levels: configs/flow_digits.py, with wider conditioners.

--config.flow.name=affine | additive | autoregressive

Cost: minutes on 2 CPU cores. Expected: see experiments/results/README.md, "How good the samples are".
"""

from ml_collections import ConfigDict

from configs import flow_digits, mnist


def get_config() -> ConfigDict:
    config = flow_digits.get_config()
    config.data = mnist.get_config().data
    config.flow.features = (512,)
    config.evaluation.update(batch_size=100, num_weights=10)
    config.training.update(steps=5000, warmup=500, ema_decay=0.999, save_every=1000, log_every=500)
    return config
