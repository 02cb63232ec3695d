"""Gaussian diffusion with learned rates on a texture, as in Sohl-Dickstein et al. 2015 (figure 5: bark).

The paper's bark (Lazebnik et al. 2005) is not packaged: scikit-image's gravel stands in. data.name also takes "grass",
"brick", and "folder", with data.dir a directory of your own images. Each is standardised by its own mean and deviation.
Cost: about 7 minutes on 2 CPU cores. The paper's K on bark is -0.55 bits a pixel.
"""

from ml_collections import ConfigDict

from configs import sohl_dickstein_dead_leaves


def get_config() -> ConfigDict:
    config = sohl_dickstein_dead_leaves.get_config()
    config.data.name = "gravel"
    config.diffusion.update(num_steps=500, first_beta=1e-3)
    config.sampling.steps = 500
    return config
