"""Distances between samples and data, from features (n, d) of both. `diffjax.evaluation` measures models by them.

frechet.py      the Frechet distance, from moments of a stream
kernels.py      kernel distance, maximum mean discrepancy, energy distance
neighbours.py   precision and recall, density and coverage, copies of training examples
sliced.py       the sliced Wasserstein distance
classes.py      inception score, distance between class shares
"""

from diffjax.distances.classes import distance_of_shares, inception_score, score_terms
from diffjax.distances.features import Estimate
from diffjax.distances.frechet import Moments, extrapolated, frechet_distance, frechet_distance_of_moments
from diffjax.distances.kernels import energy_distance, kernel_distance, maximum_mean_discrepancy
from diffjax.distances.neighbours import density_coverage, expected_coverage, nearest_training, precision_recall
from diffjax.distances.sliced import sliced_wasserstein

__all__ = [
    "Estimate",
    "Moments",
    "density_coverage",
    "distance_of_shares",
    "energy_distance",
    "expected_coverage",
    "extrapolated",
    "frechet_distance",
    "frechet_distance_of_moments",
    "inception_score",
    "kernel_distance",
    "maximum_mean_discrepancy",
    "nearest_training",
    "precision_recall",
    "score_terms",
    "sliced_wasserstein",
]
