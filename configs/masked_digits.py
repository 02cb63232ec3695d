"""Masked diffusion (MDLM, MD4: Sahoo, Shi et al. 2024) of scikit-learn's digits, 8x8 of 17 levels, with the U-Net.

Every pixel is masked at a random time, and the network says what was there. Levels are classes: nothing is scaled or
dequantised, and the bound is on the probability of the levels, so that its bits/dim compare with configs/digits.py.

Cost: 6 minutes of CPU time, evaluation and pictures included.
Expected: readable digits; see docs/systems/diffusion/categorical.md for bits/dim.
"""

from ml_collections import ConfigDict

from configs import base, digits


def get_config() -> ConfigDict:
    config, small = base.get_config(), digits.get_config()
    config.system = "categorical_diffusion"
    config.data.update(small.data)
    config.diffusion = ConfigDict(
        dict(
            kind="masked",  # or uniform | gaussian: what a pixel jumps to
            schedule="log_linear",  # or vp; with steps also linear | cosine | sigmoid
            num_steps=0,  # of a chain; 0: continuous time
            beta_min=0.1,  # of schedule vp
            beta_max=20.0,
            zero_terminal_snr=False,  # whether a chain is moved so that it ends without signal
            width=1.0,  # of kind gaussian: the standard deviation of a jump, in levels
            time_sampling="low_discrepancy",  # of a chain: uniform | low_discrepancy | loss_aware
        )
    )
    config.net = small.net
    config.net.class_features = 16  # of the vector of a level
    config.sampling.update(sampler="ancestral", steps=128, eta=0.2)  # eta: of remasking
    config.evaluation.update(batch_size=99, num_terms=100, ngram=0)
    config.training.update(small.training)
    config.training.update(steps=800, decay="cosine", eval_every=0)
    return config
