"""The Frechet distance between two Gaussians with the moments of two samples (Dowson & Landau 1982)

    d² = |m1 - m2|² + tr(C1 + C2 - 2 (C1^½ C2 C1^½)^½)

It is the squared Wasserstein-2 distance of these Gaussians. With features of Inception it is the FID (Heusel et al.
2017). An estimate from n and m examples is too large, by about a / n + b / m (Chong & Forsyth 2020). So distances from
different numbers of examples are not comparable, unless they are extrapolated to infinitely many.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from diffjax.distances.features import matrices
from diffjax.dtypes import AnyArray
from diffjax.errors import InputError


@dataclass
class Moments:
    """Mean and covariance of a stream of examples (n, d), in memory of order d².

    Chan, Golub & LeVeque's formula joins parts. So neither the order nor the size of batches matters.

    num         the number of examples
    mean        (d,)
    scatter     (d, d), Σ (x - mean)(x - mean)ᵀ
    covariance  (d, d), scatter / (num - 1)
    """

    num: int = 0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(0))
    scatter: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    @property
    def covariance(self) -> np.ndarray:
        return self.scatter / (self.num - 1)

    def add(self, x: Float[AnyArray, "n d"]) -> "Moments":
        """New moments that include the examples of a batch."""
        x = np.asarray(x, np.float64)
        if not len(x):
            return self
        mean = x.mean(0)
        return self.join(Moments(len(x), mean, (x - mean).T @ (x - mean)))

    def join(self, other: "Moments") -> "Moments":
        """The moments of the examples of both."""
        if not self.num or not other.num:
            return self if self.num else other
        num = self.num + other.num
        step = other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(step, step) * (self.num * other.num / num)
        return Moments(num, self.mean + step * (other.num / num), scatter)


def frechet_distance(a: Float[AnyArray, "n *d"], b: Float[AnyArray, "m *d"]) -> float:
    """d² of two samples, in squared units of the features. Biased upwards, see above.

    Raises:
        InputError: as `features.matrices`. Also if a side has no more examples than features. Its covariance then does
            not have full rank, and the distance depends mainly on the number of examples.
    """
    a, b = matrices(a, b)
    return of_samples(Moments().add(a), Moments().add(b))


def of_samples(a: Moments, b: Moments) -> float:
    """The same from moments of a stream."""
    dim = len(a.mean)
    if min(a.num, b.num) <= dim:
        raise InputError(
            f"{min(a.num, b.num)} examples of {dim} features: the covariance of so few has no full rank, and the"
            " Frechet distance would depend more on their number than on their distribution; give more than"
            f" {dim} examples, or features of fewer dimensions"
        )
    return frechet_distance_of_moments(a.mean, a.covariance, b.mean, b.covariance)


def extrapolated(a: tuple[Moments, Moments], b: tuple[Moments, Moments]) -> float:
    """d² without its bias of order 1 / n: the line through d²(n) and d²(n / 2), at 1 / n = 0.

    Both sides are given in two halves of about equal size. d²(n / 2) is the mean over the two pairs of halves. This
    also removes the bias of order 1 / m of the other side.
    """
    whole = of_samples(a[0].join(a[1]), b[0].join(b[1]))
    halves = [of_samples(x, y) for x, y in zip(a, b, strict=True)]
    return 2 * whole - 0.5 * sum(halves)


def frechet_distance_of_moments(
    m1: Float[AnyArray, " d"], c1: Float[AnyArray, "d d"], m2: Float[AnyArray, " d"], c2: Float[AnyArray, "d d"]
) -> float:
    """d² of two Gaussians. One or both may have a singular covariance.

    Raises:
        InputError: if the shapes do not fit, or a covariance is not symmetric and positive semidefinite.
    """
    m1, c1, m2, c2 = (np.asarray(x, np.float64) for x in (m1, c1, m2, c2))
    if m1.ndim != 1 or m2.shape != m1.shape or not c1.shape == c2.shape == 2 * m1.shape:
        raise InputError(f"moments have shapes {m1.shape}, {c1.shape}, {m2.shape}, {c2.shape}: give (d,), (d, d) twice")
    (root, _), _ = _roots(c1), _roots(c2)
    # By rounding, an eigenvalue of the symmetric product may be below 0.
    both = np.sqrt(np.clip(np.linalg.eigvalsh(root @ c2 @ root), 0.0, None)).sum()
    return max(float(((m1 - m2) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2 * both), 0.0)


def standard_error(a: Moments, b: Moments, some_a: Float[AnyArray, "k d"], some_b: Float[AnyArray, "l d"]) -> float:
    """The standard error of d²: the deviation of its influence function over some examples of each side, over √n.

    The influence of an example x of the first side is |x - m2|² - |x - m1|² + (x - m1)ᵀ (I - T) (x - m1), up to a
    constant. T = C1^-½ (C1^½ C2 C1^½)^½ C1^-½ is the optimal map between the Gaussians.
    """
    variance = 0.0
    for near, far, x in ((a, b, some_a), (b, a, some_b)):
        root, inverse = _roots(near.covariance)
        values, vectors = np.linalg.eigh(root @ far.covariance @ root)
        middle = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
        step = np.asarray(x, np.float64) - near.mean
        curved = step @ (np.eye(len(root)) - inverse @ middle @ inverse)
        moved = (curved * step).sum(1) + 2 * step @ (near.mean - far.mean)
        variance += moved.var(ddof=1) / near.num
    return math.sqrt(variance)


def _roots(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """C^½ and its pseudo-inverse, from the eigenvalues of C.

    Raises `InputError` if C is not symmetric and positive semidefinite.
    """
    values, vectors = np.linalg.eigh(covariance)
    largest = abs(values).max()
    if not np.allclose(covariance, covariance.T, atol=1e-8 * largest) or values[0] < -1e-8 * largest:
        raise InputError("a covariance is not symmetric or has eigenvalues below 0: give one as np.cov does")
    root = np.sqrt(np.clip(values, 0.0, None))
    kept = root > 1e-7 * root[-1]
    inverse = np.where(kept, 1 / np.where(kept, root, 1.0), 0.0)
    return (vectors * root) @ vectors.T, (vectors * inverse) @ vectors.T
