"""Score-based generative modelling through SDEs (Song et al. 2021) on scikit-learn's digits, 8x8.

--config.sde.name=vp | sub_vp | ve     trained at all times; with sub_vp --config.sde.weighting=likelihood is natural
--mode=sample --config.sampling.sampler=predictor_corrector | ancestral | probability_flow | ...

Cost: minutes on 2 CPU cores, evaluation by bound and by probability flow included. Expected: digits one can read.
"""

from ml_collections import ConfigDict

from configs import ncsn_digits


def get_config() -> ConfigDict:
    config = ncsn_digits.get_config()
    config.sde.update(name="vp", levels=0)
    config.sampling.update(sampler="predictor_corrector", steps=200, corrector_steps=1)
    config.evaluation.update(num_terms=200, conditioning=True)
    return config
