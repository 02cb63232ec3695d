"""NCSNv2 on CIFAR-10 (Song & Ermon 2020): denoising score matching at 232 noise levels, annealed Langevin sampling.

The paper's techniques compute the noise levels from the data (`diffjax.sde.noise_levels`). sigma_max is about the
largest distance between two images. The number of levels keeps the overlap of neighbouring levels near ½. The step size
brings the variance closest to that of each level in five steps. NCSN (Song & Ermon 2019) is
--config.sde.sigma_max=1 --config.sde.levels=10 --config.sampling.steps=10 --config.sampling.corrector_steps=100
--config.sampling.step_size=2e-5. The network is DDPM's U-Net with the level as its time, not the paper's RefineNet.

Cost: as configs/cifar10.py, days on an accelerator; not run here. Expected (the paper's): FID 10.87 (NCSN: 25.32).
"""

from ml_collections import ConfigDict

from configs import base, cifar10


def get_config() -> ConfigDict:
    config = cifar10.get_config()
    del config.diffusion
    config.system = "score"
    config.sde = ConfigDict(
        dict(
            name="ve",  # ve | vp | sub_vp | edm | straight
            sigma_min=0.01,  # of ve and edm
            sigma_max=50.0,
            beta_min=0.1,  # of vp and sub_vp
            beta_max=20.0,
            levels=232,  # number of noise levels of ve to train on; 0: train at all times
            weighting="simple",  # simple: sigma² | likelihood: g² | a weight of losses/weights.py, as edm
            sigma_data=0.0,  # the data's standard deviation, for preconditioning; 0: the network gives the score
            learned_uncertainty=False,  # divide the loss by its size at t, which is also learned (Karras et al. 2024)
            time_sampling="uniform",  # at all times: uniform | log_normal | logit_normal | mode
            time_mean=-1.2,  # of log(sigma/alpha), or of log(t/(1 - t))
            time_std=1.2,
            time_scale=1.29,  # of mode
        )
    )
    del config.net.num_classes
    config.sampling = ConfigDict(
        dict(
            sampler="annealed_langevin",  # or predictor_corrector | probability_flow, or a predictor by itself
            steps=232,  # of annealed_langevin the number of levels
            corrector_steps=5,  # Langevin steps at a level
            step_size=6.2e-6,  # of annealed_langevin at the lowest level, x + h s + √(2h) z
            predictor="reverse_diffusion",  # ancestral | euler_maruyama | reverse_diffusion | ddim | heun | none
            snr=0.16,  # of predictor_corrector
            conditioning_steps=1000,  # of the denoising and inpainting in the figures
            **base.SAMPLERS,
        )
    )
    config.evaluation.update(bound_steps=1000, flow_examples=1000)
    config.training.update(steps=300_000, learning_rate=1e-4, warmup=0, grad_clip=0.0, ema_decay=0.999)
    return config
