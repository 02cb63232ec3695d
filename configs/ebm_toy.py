"""An energy model of eight Gaussians in the plane: one configuration, seven ways to train it without Z.

--config.ebm.objective=exact | sliced | denoising    score matching (Hyvarinen 2005; Song et al. 2019; Vincent 2011)
                       noise_contrastive             finds log Z, too (Gutmann & Hyvarinen 2010)
                       contrastive_divergence        Langevin chains from the data (Hinton 2002)
                       persistent                    chains that go on from step to step (Tieleman 2008)
--config.ebm.model=score                             a network for the score alone, by score matching
configs/ebm_bits.py has the seventh way, minimum_probability_flow.

log Z is a sum on a grid, so the bound is log p itself. The true density has 1.69 nats.
Cost: minutes on 2 CPU cores. Expected: 1.7 to 1.9 nats by noise_contrastive; score matching misses the weights of the
modes.
"""

from ml_collections import ConfigDict

from configs import base, fm_toy


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "energy_model"
    config.data = fm_toy.get_config().data
    config.ebm = ConfigDict(
        dict(
            model="energy",  # energy | score
            objective="noise_contrastive",
            sigma=0.1,  # of denoising: the one noise level
            chain_steps=20,  # Langevin steps of a chain in contrastive divergence
            step_size=0.005,  # of these
            weight=0.0,  # of the squares of the energies
            ratio=4,  # noise samples for each example
            noise_std=1.8,  # of noise_contrastive
            chains=10_000,  # of persistent
            restart=0.01,  # the probability that a chain begins anew
            start_std=1.8,  # chains and samples begin at N(0, start_std²); exp(-E) has this Gaussian as a factor
            half_width=6.0,  # of the grid for log Z
        )
    )
    config.net = ConfigDict(dict(name="mlp", features=(128, 128, 128)))
    config.sampling.update(sampler="langevin", steps=2000, step_size=0.005)
    config.evaluation.update(batch_size=1000, grid=2000, modes=config.data.means)
    config.training.update(steps=4000, batch_size=512, learning_rate=2e-3, decay="cosine")
    return config
