"""A score model of two far Gaussians in the plane: the toy of NCSN (Song & Ermon 2019, section 3.2.2 and figure 3).

The data are 1/5 N((-5, -5), I) + 4/5 N((5, 5), I). As in the paper there are ten levels and 100 steps a level. The
paper uses the true score and levels from 20 to 1. Here the score is learned, and the levels go from 50 to 0.2, so the
prior fits better and less noise is left. Training covers all times between, so that every sampler and the likelihood
can be used. (`--config.sde.levels=10` trains at the ten levels only.)

Cost: minutes on 2 CPU cores. Expected: the weight of the first mode is near 0.2 with noise levels, and far off without.
"""

from ml_collections import ConfigDict

from configs import base, ncsn_cifar10


def get_config() -> ConfigDict:
    config, images = base.get_config(), ncsn_cifar10.get_config()
    config.system = "score"
    config.data.update(
        name="mixture",
        shape=(2,),
        levels=0,
        num_train=100_000,
        num_test=2_000,
        weights=(0.2, 0.8),
        means=((-5.0, -5.0), (5.0, 5.0)),
        std=1.0,
    )
    config.sde, config.sampling = images.sde, images.sampling
    config.sde.update(sigma_min=0.2, levels=0)
    config.net = ConfigDict(dict(name="mlp", features=(128, 128, 128)))
    config.sampling.update(steps=10, corrector_steps=100, step_size=0.004)  # sigma_min²/10
    del config.sampling.conditioning_steps  # of images
    config.evaluation.update(
        batch_size=1000,
        bound_steps=1000,  # of the bound's grid, where sde.levels is 0
        grid=2000,
        flow_examples=1000,  # for log p by the probability flow; 0: none
        parzen_samples=0,
    )
    config.training.update(steps=6000, batch_size=512, eval_every=3000, save_every=3000)
    return config
