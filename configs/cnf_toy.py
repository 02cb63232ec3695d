"""A continuous normalizing flow (FFJORD, Grathwohl et al. 2019) of eight Gaussians in the plane, by maximum likelihood.

--config.flow.name=continuous | affine | autoregressive | additive | planar | radial
--config.flow.integration.adjoint=backsolve is the paper's adjoint, which solves its own equation backwards

The modes lie on a circle of radius 2 and are 0.2 wide, as far apart as in the paper's figure 2. log p of the data is
known, and -log p of the best of models 0.9... nats.
"""

import math

from ml_collections import ConfigDict

from configs import base

MODES = 8


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "flow_density"
    angles = [2 * math.pi * k / MODES for k in range(MODES)]
    config.data.update(
        name="mixture",
        shape=(2,),
        levels=0,
        num_train=200_000,
        num_test=5_000,
        weights=(1 / MODES,) * MODES,
        means=tuple((2 * math.cos(a), 2 * math.sin(a)) for a in angles),
        std=0.2,
    )
    config.flow = ConfigDict(
        dict(
            name="continuous",
            num_layers=1,
            base_scale=1.0,  # standard deviation of the base at the start
            features=(64, 64),  # of the velocity, or of conditioners
            limit=3.0,  # of conditioners: a layer's log-scale
            margin=0.0,  # of the logit of levels; 0: none
            integration=dict(  # of continuous layers
                rtol=1e-4,
                atol=1e-4,
                adjoint="checkpoint",  # checkpoint | backsolve
                divergence="exact",  # exact | hutchinson
                num_probes=1,  # of hutchinson
            ),
            kinetic=0.0,  # weights of a continuous flow's costs in the loss
            jacobian=0.0,
        )
    )
    config.sampling.sampler = "flow"
    config.evaluation.update(batch_size=1000, grid=2000, num_weights=0, weighted_examples=0, parzen_samples=0)
    config.training.update(steps=2000, batch_size=256, warmup=100, learning_rate=3e-3, decay="cosine", grad_clip=10.0)
    return config
