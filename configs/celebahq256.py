"""DDPM on CelebA-HQ at 256x256 as in Ho et al. 2020 (appendix B): 113.7M parameters, batch 64, Adam at 2e-5,
fixed small variance (as in the published code; its CIFAR-10 models have the large one).

Cost: 500,000 steps; the paper's 256x256 models ran at 2.2 steps/s on a TPU v3-8, so about 63 hours there.
Expected: the paper shows samples (figure 3) and reports no number for this set.
Data: TFDS `celeb_a_hq/256` asks for a manual download; `python -m diffjax.data.prepare celeb_a_hq/256` says which.
"""

from ml_collections import ConfigDict

from configs import cifar10


def get_config() -> ConfigDict:
    config = cifar10.get_config()
    # TFDS has only one split: hold out the last thousand images for the bound.
    splits = dict(train_split="train[:-1000]", test_split="train[-1000:]")
    config.data.update(name="celeb_a_hq/256", shape=(256, 256, 3), in_memory=False, **splits)
    config.diffusion.update(variance="posterior")
    config.net.update(multipliers=(1, 1, 2, 2, 4, 4), dropout=0.0)
    config.evaluation.update(batch_size=32, grid=16, num_terms=20)
    config.training.update(steps=500_000, batch_size=64, learning_rate=2e-5)
    return config
