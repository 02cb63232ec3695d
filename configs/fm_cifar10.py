"""Flow matching (Lipman et al. 2023; Liu et al. 2023) on CIFAR-10: the straight path from noise to data.

--config.matching.schedule=vp learns the probability flow of diffusion with the same loss. Logit-normal times are from
Esser et al. (2024). --mode=sample --config.sampling.sampler=probability_flow takes adaptive steps.

Cost: as configs/cifar10.py, days on an accelerator; not run here. Expected (Lipman et al. with a larger U-Net): 2.99
bits/dim and FID 6.35.
"""

from ml_collections import ConfigDict

from configs import base, cifar10


def get_config() -> ConfigDict:
    config = cifar10.get_config()
    del config.diffusion
    config.system = "flow_matching"
    config.matching = ConfigDict(
        dict(
            schedule="straight",  # or vp | sub_vp | ve | edm
            time_sampling="uniform",  # uniform | logit_normal | mode | log_normal
            time_mean=0.0,  # of log(t/(1 - t)), or of log(sigma/alpha)
            time_std=1.0,
            time_scale=1.29,  # of mode
            source="noise",  # where paths begin: noise | data (of data.source) | noisy (the example plus noise)
            source_noise=0.5,  # for noisy: the noise's standard deviation, with images in [-1, 1]
            coupling="independent",  # of the two ends: paired | independent | optimal | sinkhorn
            by_class=False,  # pair only within classes; otherwise the coupling is biased for p(x | class)
            epsilon=1.0,  # for sinkhorn, in units of squared distance
            label_dropout=0.0,  # how often the label is hidden from the network, for classifier-free guidance
        )
    )
    config.sampling = ConfigDict(dict(sampler="heun", steps=50, conditioning_steps=100, eta=0.0, **base.SAMPLERS))
    config.sampling.spacing = "time"
    config.evaluation.update(num_examples=1000, conditioning=False)  # each needs a solution of the flow
    return config
