"""DDPM on CIFAR-10 as in Ho et al. 2020 (appendix B): 35.7M parameters, eps-prediction, L_simple, fixed large variance.

Cost: 800,000 steps of batch 128, about 3.6e18 FLOP; the paper took 10.6 hours on a TPU v3-8. On two CPU cores a step
of batch 128 takes minutes: there, narrow the network (`--config.net.channels=32`).
Expected (the paper's): NLL <= 3.75 bits/dim, FID 3.17.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "ddpm"
    config.data.update(name="cifar10", shape=(32, 32, 3), levels=256, train_split="train", test_split="test")
    config.diffusion = ConfigDict(
        dict(
            schedule="linear",  # linear | cosine | sigmoid
            betas=(1e-4, 0.02),  # first and last, of the linear schedule
            zero_terminal_snr=False,  # move and scale alpha so that x_1 is pure noise; for v and x0
            num_steps=1000,
            prediction="eps",  # eps | x0 | v | score | velocity
            variance="forward",  # forward (fixed large) | posterior (fixed small) | learned
            clip=True,  # clip x_0 to [-1, 1], in samples and in the bound
            loss="simple",  # simple | vlb | hybrid, or a weight of losses/weights.py, as min_snr
            time_sampling="uniform",  # uniform | low_discrepancy | loss_aware
            label_dropout=0.0,  # how often the label is hidden from the network, for classifier-free guidance
        )
    )
    config.net = ConfigDict(
        dict(
            name="unet",  # or dit, with its own fields: configs/dit_digits.py
            channels=128,
            multipliers=(1, 2, 2, 2),
            num_blocks=2,
            attention=(16,),
            dropout=0.1,
            num_classes=0,  # 0: not conditioned on the label
            dtype="float32",  # of activations: float32 | bfloat16; parameters are float32
            remat=False,
        )
    )
    # ancestral | ddim | heun | unipc | ..., all of diffjax.samplers.SAMPLERS; eta is ddim's
    config.sampling.update(steps=1000, eta=0.0, **base.SAMPLERS)
    config.evaluation.update(
        batch_size=128,
        flow_examples=0,  # test examples for log p by the probability flow, besides the bound; 0: none
        conditioning=True,  # also denoise and inpaint, see diffjax.conditioning
    )
    config.training.update(
        steps=800_000,
        batch_size=128,
        learning_rate=2e-4,
        warmup=5000,
        ema_decay=0.9999,
        flip=True,
        log_every=100,
        eval_every=10_000,
        save_every=5_000,
        keep_every=100_000,
    )
    return config
