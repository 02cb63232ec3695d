"""Masked diffusion of Bach's chorales: 16 quarters of four voices, of 48 pitches, with a transformer (DiT).

The scores come with the package music21: `pip install 'diffjax[chorales]'`. Reading them takes two minutes, once.
No chorale of the test windows is trained on. The same command reports n-grams of the training windows as a baseline.

Cost: 15 minutes of CPU time, evaluation and pictures included.
Expected: see docs/systems/diffusion/categorical.md for bits a note.
"""

from ml_collections import ConfigDict

from configs import dit_digits, masked_digits


def get_config() -> ConfigDict:
    config = masked_digits.get_config()
    config.data.update(name="chorales", shape=(16, 4, 1), levels=48)
    config.net = dit_digits.get_config().net
    config.net.update(patch_size=1, width=96, depth=4, heads=4, dropout=0.1, class_features=32)
    config.sampling.steps = 64
    config.evaluation.update(batch_size=100, num_terms=64, ngram=6)
    config.training.update(steps=3000, learning_rate=1e-3)
    return config
