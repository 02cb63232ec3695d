"""Semi-supervised learning with deep generative models on MNIST (Kingma, Mohamed, Rezende & Welling 2014, section 4.1).

--config.ssl.model=m1m2 | m2 | m1 | supervised    the paper's models, and its classifier without the unlabelled images
--config.data.labelled=100 | 600 | 1000 | 3000    how many images keep their labels, as many of each class
--config.data.label_seed=0 | 1 | ...              which ones
--config.init_from=DIR --config.ssl.freeze_m1=True     M2 on the codes of a run with ssl.model=m1, in half the time
--config.net.style=50 --config.net.units="(500,)"      sizes for M2 of pixels; those below are for M2 of codes

A linear support vector machine classifies M1's codes (evaluation.probe). The other models classify by q(y | x). M1 has
the paper's sizes. The sizes of M2 on its codes are ours (the paper: 50 and 500, which learn more slowly). The weight of
classification, the batch size and the learning rate are also ours, for a budget of minutes; the paper trained for
thousands of epochs.

Cost on two CPU cores: 10 minutes for M1, 9 for 24,000 steps of M2 on its codes. Expected: 5.5 to 7.5% wrong.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "semi_supervised"
    config.data.update(
        name="mnist",
        shape=(28, 28, 1),
        levels=256,
        binarized=False,  # True, with levels=2: bits drawn once and for all
        train_split="train",
        test_split="test",
        num_classes=10,
        labelled=100,  # 0: all of them
        label_seed=0,
    )
    config.ssl = ConfigDict(
        dict(
            model="m1m2",
            alpha=5.0,  # weight of the classifier's loss, relative to the generative model's; 0.1 in the paper
            binarize=True,  # bits drawn anew each time an image is seen
            freeze_m1=False,  # True: m1m2 trains M2 only, on the M1 of init_from, in half the time
        )
    )
    config.net = ConfigDict(
        dict(
            latent=50,  # M1: dimensions of the code
            features=(500, 500),  # M1: hidden units
            style=10,  # M2: dimensions of z
            units=(200,),  # M2: hidden units of its three networks
        )
    )
    # Samples are ancestral: y and z from the prior, x from the decoder.
    config.evaluation.update(
        batch_size=500,
        num_weights=0,
        parzen_samples=0,
        probe="",  # "svm": a linear classifier of M1's codes, for ssl.model=m1
    )
    config.training.update(
        steps=10_000,
        learning_rate=3e-3,
        grad_clip=0.0,  # no clipping: of two networks in one, neither should shrink the other's gradient
        save_every=5_000,
    )
    return config
