"""The diffusion of configs/digits.py with a transformer (DiT, Peebles & Xie 2023) instead of the U-Net.

It works in every system of noisy images: give the configuration this section `net`.

Cost: 6 minutes of CPU time, evaluation and pictures included.
Expected: mostly readable digits, and 2.060 ± 0.014 bits/dim. The U-Net has 2.000.
"""

from ml_collections import ConfigDict

from configs import digits


def get_config() -> ConfigDict:
    config = digits.get_config()
    config.net = ConfigDict(
        dict(
            name="dit",
            patch_size=2,
            width=64,
            depth=4,  # blocks
            heads=4,
            mlp_ratio=4.0,  # hidden units of a block's MLP, in widths
            dropout=0.0,
            num_classes=0,  # 0: not conditioned on the label
            dtype="float32",  # of activations: float32 | bfloat16; parameters are float32
            remat=False,
        )
    )
    # It needs more steps than the U-Net, whose convolutions know from the start which pixels are neighbours.
    config.training.update(steps=3000, decay="cosine", log_every=100, eval_every=0, save_every=1000)
    return config
