"""Score-based generative modelling through SDEs (Song et al. 2021) on MNIST, 28x28: configs/sde_digits.py, larger.

Cost: three quarters of an hour an epoch on 2 CPU cores with the small network here. Expected: see
experiments/results/README.md for a run of half an hour. Days of training with
--config.net.channels=64 --config.net.multipliers=1,2,2 give digits that pass for handwriting.
"""

from ml_collections import ConfigDict

from configs import mnist, sde_digits


def get_config() -> ConfigDict:
    config, images = sde_digits.get_config(), mnist.get_config()
    config.data = images.data
    config.net.update(channels=32, multipliers=(1, 2, 2), attention=(7,))
    config.sde.update(sigma_min=0.01, sigma_max=31.5)
    config.sampling.update(steps=500, conditioning_steps=500)
    config.evaluation.update(batch_size=100, num_examples=100, num_terms=100, flow_examples=16)
    config.training.update(steps=2000, batch_size=64, learning_rate=1e-3, log_every=50, eval_every=1000, save_every=500)
    return config
