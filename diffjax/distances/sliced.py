"""The sliced Wasserstein distance (Rabin et al. 2012; Bonneel et al. 2015)

    SW² = E_u W²(u·x, u·y),   u uniform on the unit sphere

In one dimension W² = ∫ (F⁻¹(q) - G⁻¹(q))² dq with the quantile functions F⁻¹ and G⁻¹. Sorting gives it exactly. SW² of
N(m1, I) and N(m2, I) is |m1 - m2|² / d.
"""

import numpy as np
from jaxtyping import Float

from diffjax.distances.features import Estimate, matrices
from diffjax.dtypes import AnyArray


def sliced_wasserstein(
    a: Float[AnyArray, "n *d"], b: Float[AnyArray, "m *d"], num_directions: int = 256, seed: int = 0
) -> Estimate:
    """SW, the root, in units of the features. For two samples of one distribution it is above 0, by about 1/√n.

    The standard error is that of the random directions, which depend on `seed`.

    Raises:
        InputError: as `features.matrices`.
    """
    a, b = matrices(a, b)
    directions = np.random.default_rng(seed).standard_normal((a.shape[1], num_directions))
    directions /= np.linalg.norm(directions, axis=0)
    # Both quantile functions are constant between two neighbouring levels q of either side.
    n, m = len(a), len(b)
    levels = np.union1d(np.arange(n + 1) / n, np.arange(m + 1) / m)
    width, middle = np.diff(levels), 0.5 * (levels[1:] + levels[:-1])
    ours, theirs = (np.floor(middle * num).astype(int) for num in (n, m))
    squares = np.array(
        [width @ (np.sort(a @ u)[ours] - np.sort(b @ u)[theirs]) ** 2 for u in directions.T]  # one at a time: no n × k
    )
    value = float(np.sqrt(squares.mean()))
    error = squares.std(ddof=1) / np.sqrt(num_directions)
    return Estimate(value, float(error / (2 * value)) if value else 0.0)
