"""Gaussian diffusion with learned rates on a texture, as in Sohl-Dickstein et al. 2015 (figure 5: bark).

The paper's bark (Lazebnik et al. 2005) is not packaged: scikit-image's gravel stands in; also "grass", "brick", and
"folder", with data.dir a directory of your own images, whose mean and standard deviation data.mean and data.std take.
Cost: about 7 minutes on 2 CPU cores. The paper's K on bark is -0.55 bits a pixel.
"""

from ml_collections import ConfigDict

from configs import sohl_dickstein_dead_leaves


def get_config() -> ConfigDict:
    config = sohl_dickstein_dead_leaves.get_config()
    config.data.update(name="gravel", mean=126.29, std=38.89)
    config.diffusion.update(num_steps=500, first_beta=1e-3)
    config.sampling.steps = 500
    return config
