"""Deep belief network of binarised MNIST (Hinton, Osindero & Teh 2006): stacked machines, then wake-sleep.

    --config.dbn.stack_steps=16000                                  no fine-tuning

Cost: not measured; ten minutes of a CPU core or more. Expected: not trained to the end here.
--config.evaluation.parzen_samples=10000 adds the Parzen window of the 2015 paper's Table 2.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "dbn"
    config.data.update(
        name="mnist", shape=(28, 28, 1), levels=2, binarized=True, train_split="train", test_split="test"
    )
    config.dbn = ConfigDict(
        dict(
            hidden=(500, 500),  # bits of the hidden layers, from x up
            stack_steps=8000,  # steps in which machines are stacked; the others fine-tune
            k=3,  # Gibbs steps of the chains after each step
            num_chains=100,  # of each machine
            sample_steps=1000,  # Gibbs steps of the top machine from noise to a sample
        )
    )
    config.evaluation.update(
        annealing_chains=100,
        temperatures=10_000,  # of the annealing that estimates log Z
        density_weights=100,  # draws upwards for each example
        parzen_samples=0,
    )
    config.training.update(
        steps=12_000, learning_rate=1e-3, decay="cosine", grad_clip=0.0, ema_decay=0.999, log_every=1000
    )
    return config
