"""DDPM on LSUN Church at 256x256 as in Ho et al. 2020 (appendix B): 113.7M parameters, batch 64, Adam at 2e-5.

Cost: 1,200,000 steps; the paper's 256x256 models ran at 2.2 steps/s on a TPU v3-8, so about 152 hours there.
Expected (the paper's, table 3): FID 7.89.
Data: `python -m diffjax.data.prepare lsun/church_outdoor`; images are cropped about their centre and resized.
"""

from ml_collections import ConfigDict

from configs import celebahq256


def get_config() -> ConfigDict:
    config = celebahq256.get_config()
    config.data.update(name="lsun/church_outdoor", train_split="train", test_split="validation")
    config.training.update(steps=1_200_000)
    return config
