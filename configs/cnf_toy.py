"""A continuous normalizing flow (FFJORD, Grathwohl et al. 2019) of eight Gaussians in the plane, by maximum likelihood.

--config.flow.name=continuous | affine | autoregressive | additive | planar | radial
--config.flow.integration.adjoint=backsolve      the paper's: solve the adjoint equation backwards
--config.data.name=two_moons | swiss_roll      other toys

The modes lie on a circle of radius 2, each with standard deviation 0.2. The bound is log p(x) itself, and the density
of the data is known. So their difference is KL(data ‖ model), up to the error of the mean.
Cost: minutes on 2 CPU cores, because a step solves the equation by about 50 calls of the network. Expected: -log p of
1.28 bits/dim, 1.78 nats. The true density has 1.69 nats, 32 planar layers have 1.92, and 8 coupling layers 2.13.
"""

from ml_collections import ConfigDict

from configs import base, fm_toy


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "flow_density"
    config.data = fm_toy.get_config().data
    config.data.update(num_train=200_000, num_test=5_000)
    config.flow = ConfigDict(
        dict(
            name="continuous",
            num_layers=1,
            base_scale=1.0,  # standard deviation of the base at the start
            features=(64, 64),  # hidden units of the velocity, or of conditioners
            limit=3.0,  # of conditioners: the largest log-scale of a layer
            margin=0.0,  # of the logit of levels; 0: none
            integration=dict(  # for continuous layers
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
