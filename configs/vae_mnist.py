"""Variational auto-encoder of binarised MNIST (Kingma & Welling 2014), importance-weighted too (Burda et al. 2016).

    --config.net.latents='(2,)'                                     2, 5, 10, 20: the paper's latent sizes
    --config.vae.objective=iwae --config.vae.num_samples=50 --config.evaluation.num_weights=100
                                                                    the importance-weighted one; 100 times 50 weights
    --config.net.latents='(100,50)' --config.net.features='((200,200),(100,100))'   its two stochastic layers
    --config.vae.estimator=doubly_reparameterized                   | sticking_the_landing | analytic_kl
    --config.vae.flow=planar --config.vae.flow_length=40            | radial | iaf: normalizing flows in the posterior

The networks are those of configs/hvi_mnist_fc.py, so the results of both can be compared.

Cost on two CPU cores: a minute of training and two of evaluation, with 50 samples 25 minutes. Expected: -bound of 102.5
nats, and of 95.3 for IWAE with 50 samples.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "vae"
    config.data.update(
        name="mnist", shape=(28, 28, 1), levels=2, binarized=True, train_split="train", test_split="test"
    )
    config.vae = ConfigDict(
        dict(
            objective="elbo",  # elbo | iwae
            num_samples=1,  # K draws of z for each example
            estimator="reparameterized",
            flow="none",  # none | planar | radial | iaf, applied after the encoder's Gaussian
            flow_length=10,
            flow_units=128,  # for iaf
        )
    )
    config.net = ConfigDict(
        dict(
            name="fc",  # fc | conv
            latents=(32,),  # of the stochastic layers, from x up
            features=((300, 300),),  # units between them
            channels=(16, 32, 32),  # of conv
            units=450,
            likelihood="bernoulli",  # bernoulli | gaussian | isotropic_gaussian | discretized_logistic
        )
    )
    # Samples are ancestral: z from the prior, x from the decoder.
    config.evaluation.update(
        num_weights=5000,  # for log p(x) by importance sampling from the encoder; for iwae times num_samples
        weighted_examples=100,
        annealed_weights=16,  # for log p(x) by annealed importance sampling; 0: none
        annealing=ConfigDict(dict(temperatures=400, num_leapfrog=3, step_size=0.2)),
        parzen_samples=0,
    )
    # 5 epochs, so that every row of the table is affordable on two cores; the papers train for thousands.
    config.training.update(
        steps=3000, learning_rate=2e-3, grad_clip=0.0, ema_decay=0.995, log_every=100, eval_every=1000, save_every=1000
    )
    return config
