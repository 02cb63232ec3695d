"""Hamiltonian variational inference on binarised MNIST, fully connected (Salimans, Kingma & Welling 2015, section 5).

    --config.hvi.num_leapfrog=0 | 1 | 4 | 8                                 the paper's rows with inference network
    --config.hvi.inference_network=False --config.hvi.num_leapfrog=5 | 10   and without. There q(z_0) is far from the
        posterior, so annealing needs --config.evaluation.annealing.temperatures=1600

The paper does not give the sizes of its dense networks. The sizes here are ours, and so is the budget: 1000 steps of
100 images for every row. Cost on two CPU cores: 10 s of training with 0 leapfrog steps, minutes with 8, and minutes of
evaluation. Expected: more leapfrog steps give a higher bound; see experiments/results/README.md.
"""

from ml_collections import ConfigDict

from configs import vae_mnist


def get_config() -> ConfigDict:
    config = vae_mnist.get_config()
    del config.vae
    config.system = "hvi"
    config.hvi = ConfigDict(
        dict(
            num_leapfrog=4,  # 0: a plain variational auto-encoder
            iterations=1,  # how often momenta are drawn and leapfrog is run
            step_size=0.1,  # at the start, in standard deviations of q(z_0 | x)
            inference_network=True,  # False: q(z_0) is one Gaussian for all x
        )
    )
    config.net = ConfigDict(dict(name="fc", latent=32, features=(300, 300), momentum_units=300))
    config.evaluation.num_weights = 1000  # importance samples come from a Gaussian fitted to each posterior
    # 1.7 epochs, so that every row is affordable on two cores; the paper trained to convergence
    config.training.update(steps=1000, eval_every=500, save_every=500)
    return config
