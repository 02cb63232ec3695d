"""DDPM on LSUN Bedroom at 256x256 as in Ho et al. 2020 (appendix B): 113.7M parameters, batch 64, Adam at 2e-5.

Cost: 2,400,000 steps; the paper's 256x256 models ran at 2.2 steps/s on a TPU v3-8, so about 303 hours there.
Expected (the paper's, table 3): FID 6.36 (4.90 with the 256M network).
Data: `python -m diffjax.data.prepare lsun/bedroom`; images are cropped about their centre and resized.
The paper mirrors images of every set but this one.
"""

from ml_collections import ConfigDict

from configs import celebahq256


def get_config() -> ConfigDict:
    config = celebahq256.get_config()
    config.data.update(name="lsun/bedroom", train_split="train", test_split="validation")
    config.training.update(steps=2_400_000, flip=False)
    return config
