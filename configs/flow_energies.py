"""Normalizing flows of 2, 8 and 32 layers for the four 2-D energies of Rezende & Mohamed 2015 (section 6.1, figure 3).

--config.flow.name=planar | radial | additive | affine | autoregressive      additive is NICE, affine RealNVP
--config.flow.name=continuous --config.flow.num_layers="(1,)"      minutes for a thousand steps

Twelve flows are trained at once. Each starts from a wide Gaussian with learned mean and diagonal covariance. U2 to U4
have no finite integral on the plane: they are restricted to the box of the paper's figure, and log Z is for this box.
Cost: three minutes on 2 CPU cores. Expected: for every energy, KL(q ‖ p) falls with the number of layers, to below
0.01 nats.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "flow_energies"
    config.data.update(
        name="correlated",
        shape=(2,),
        levels=0,
        num_train=10_000,  # only the batch size matters: it is the number of draws; the examples are not used
        num_test=20_000,
        sigmas=(1.0, 1.0),
    )
    config.flow = ConfigDict(
        dict(
            name="planar",
            num_layers=(2, 8, 32),  # a flow of each length for each energy
            base_scale=2.0,  # standard deviation of the base at the start
            annealing=60.0,  # β rises from 0.01 to 1 until steps times learning rate is this; 0: no annealing
            features=(32, 32),  # hidden units of conditioners
            limit=2.0,  # the largest log-scale of a layer
            integration=dict(rtol=1e-4, atol=1e-4, adjoint="checkpoint"),  # of continuous layers; or "backsolve"
            shown=1,  # the energy whose samples are shown during training, 1 to 4
        )
    )
    config.sampling.update(sampler="flow", steps=32)
    config.evaluation.update(batch_size=20_000, grid=2000, num_weights=0, weighted_examples=0, parzen_samples=0)
    config.training.update(
        steps=40_000,
        batch_size=256,
        learning_rate=3e-3,
        warmup=500,
        grad_clip=0.0,  # no clipping: the flows are independent, none should shrink the gradients of the others
    )
    return config
