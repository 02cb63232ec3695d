"""Hamiltonian variational inference on binarised MNIST, fully connected (Salimans, Kingma & Welling 2015, section 5).

    --config.hvi.num_leapfrog=0 | 1 | 4 | 8                                 the paper's rows with inference network
    --config.hvi.inference_network=False --config.hvi.num_leapfrog=5 | 10   and without; there q(z_0) is far from the
        posterior, and annealing takes --config.evaluation.annealing.temperatures=1600

The paper does not give the sizes of its dense networks; these are ours. So is the budget: 1000 steps of 100 images, the
same for every row. Cost on two CPU cores: 10 s of training with 0 leapfrog steps, minutes with 8, and minutes of
evaluation. Expected: see experiments/results/README.md; more leapfrog steps, a higher bound.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            system="hvi",
            parallel="jit",
            mesh=(("data", -1), ("model", 1)),
            data=dict(
                name="mnist",
                dir="",  # of TFDS; empty: $TFDS_DATA_DIR, else TFDS's own default
                shape=(28, 28, 1),
                levels=2,
                binarized=True,
                train_split="train",
                test_split="test",
                in_memory=True,
            ),
            hvi=dict(
                num_leapfrog=4,  # 0: a plain variational auto-encoder
                iterations=1,  # of momentum and leapfrog
                step_size=0.1,  # to begin with, in standard deviations of q(z_0 | x)
                inference_network=True,  # False: q(z_0) is one Gaussian for all x
            ),
            net=dict(name="fc", latent=32, features=(300, 300), momentum_units=300),
            sampling=dict(sampler="ancestral", steps=1),  # z from the prior, x from the decoder
            evaluation=dict(
                batch_size=100,
                num_examples=0,
                num_terms=0,
                grid=64,
                num_weights=1000,  # for log p(x) by importance sampling from a Gaussian fitted to each posterior
                weighted_examples=100,
                annealed_weights=16,  # and by annealed importance sampling; 0: not
                annealing=dict(temperatures=400, num_leapfrog=3, step_size=0.2),
                parzen_samples=0,
            ),
            training=dict(
                steps=1000,  # 1.7 epochs, so that every row fits two cores; the paper trained to convergence
                batch_size=100,
                learning_rate=2e-3,
                warmup=100,
                grad_clip=0.0,
                ema_decay=0.995,
                flip=False,
                seed=0,
                log_every=100,
                eval_every=500,
                save_every=500,
                keep_every=0,
                accumulate=1,
                on_bad_step="stop",
                grad_limit=0.0,
                data_timeout=600.0,
            ),
        )
    )
