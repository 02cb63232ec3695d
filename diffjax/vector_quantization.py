"""Vector quantisation: a vector z becomes the nearest of K vectors e_k of a codebook (van den Oord et al. 2017).

    k = argmin_j |z - e_j|²
    straight-through   z_q = z + sg(e_k - z): its value is e_k, its gradient with respect to z the identity
    commitment         |z - sg(e_k)|², for the encoder      codebook   |sg(z) - e_k|², for the vectors
    running means      N_k <- γ N_k + (1 - γ) n_k,  m_k <- γ m_k + (1 - γ) Σ_{i: k(i) = k} z_i,  e_k = m_k/N_k
                       in place of the codebook's gradient, n_k how many z the code k got  (appendix A.1)
    dead codes         a code with N_k below a threshold becomes a z of the batch, with N_k = 1  (Dhariwal et al. 2020)
    perplexity         exp H(p), p_k the share of code k: K if all are used equally often, 1 if one is used

With γ = 0 a step of the running means is a step of k-means. sg stops the gradient.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray

from diffjax.errors import InputError
from diffjax.linear_algebra import einsum
from diffjax.special import weigh

SMALL = 1e-5  # of Laplace smoothing


class Codebook(NamedTuple):
    """vectors (K, dim), e_k; counts (K,), N_k; sums (K, dim), m_k."""

    vectors: Float[Array, "codes dim"]
    counts: Float[Array, " codes"]
    sums: Float[Array, "codes dim"]


def codebook(vectors: Float[Array, "codes dim"]) -> Codebook:
    """A codebook that begins with these vectors, each as if it had been used once.

    Raises:
        InputError: if there are fewer than two codes, which would say nothing.
    """
    if len(vectors) < 2:
        raise InputError(f"a codebook of {len(vectors)} says nothing of an example: give at least 2 codes")
    return Codebook(vectors, jnp.ones(len(vectors)), vectors)


def nearest(vectors: Float[Array, "codes dim"], z: Float[Array, "*batch dim"]) -> Int[Array, "*batch"]:
    """The code of each z."""
    distance = (vectors**2).sum(-1) - 2.0 * einsum("...d,kd->...k", z, vectors)  # and |z|², which all have
    return distance.argmin(-1).astype(jnp.int32)


def straight_through(z: Float[Array, "*shape"], quantised: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The quantised vectors, with the gradient of z."""
    return z + jax.lax.stop_gradient(quantised - z)


def updated(book: Codebook, z: Float[Array, "num dim"], codes: Int[Array, " num"], decay: float) -> Codebook:
    """The running means after a batch. Counts are smoothed, (N_k + ε)/(Σ N + K ε) Σ N, so that none is 0."""
    ones = jax.nn.one_hot(codes, len(book.counts), dtype=z.dtype)
    counts = decay * book.counts + (1.0 - decay) * ones.sum(0)
    sums = decay * book.sums + (1.0 - decay) * einsum("nk,nd->kd", ones, z)
    total = counts.sum()
    smoothed = (counts + SMALL) / (total + len(counts) * SMALL) * total
    return Codebook(sums / smoothed[:, None], counts, sums)


def restarted(book: Codebook, key: PRNGKeyArray, z: Float[Array, "num dim"], least: float) -> Codebook:
    """Codes with a count below `least` become random z of the batch."""
    fresh = z[jax.random.randint(key, book.counts.shape, 0, len(z))]
    dead = book.counts < least
    return Codebook(
        jnp.where(dead[:, None], fresh, book.vectors),
        jnp.where(dead, 1.0, book.counts),
        jnp.where(dead[:, None], fresh, book.sums),
    )


def perplexity(shares: Float[Array, " codes"]) -> Float[Array, ""]:
    """exp H of the shares of the codes, which sum to 1."""
    return jnp.exp(-weigh(shares, jnp.log(jnp.where(shares > 0, shares, 1.0))).sum())
