"""Diffusion processes: Markov chains q(x_t | x_0) that end in a prior, with every conditional in closed form.

Gaussian, x_t = alpha_t x_0 + sigma_t eps, λ_t = log(alpha_t²/sigma_t²), for s < t (Kingma et al. 2021, appendix A):

    q(x_t | x_s)       N(alpha_{t|s} x_s, sigma²_{t|s}),  alpha_{t|s} = alpha_t/alpha_s,  sigma²_{t|s} = r sigma_t²
    q(x_s | x_t, x_0)  N(exp(λ_t - λ_s) (alpha_s/alpha_t) x_t + alpha_s r x_0,  r sigma_s²)
    with r = -expm1(λ_t - λ_s), the share of the noise at t that was added since s.
    p(x_s | x_t)       N(the mean of q(x_s | x_t, x̂_0), one of four variances), x̂_0 the network's

In Ho et al. (2020) β is sigma²_{t|s} and β̃ is r sigma_s², the variance of q(x_s | x_t, x_0).

Only alpha and sigma at s and t are used: nothing depends on a number of steps, and any s < t is allowed. In a pair
(s, t), s = 0 means the data themselves, even for a schedule with sigma(0) > 0, such as `ve` or a learned one.

Binomial (Sohl-Dickstein et al. 2015, appendix B.2): from s to t a bit keeps its value with probability exp(L_s - L_t);
otherwise it is drawn anew from B(r). L is the schedule's integrated rate, r the prior's probability of a 1:

    q(x_t | x_s)       B(k x_s + (1 - k) r),  k = exp(L_s - L_t)
    q(x_s | x_t, x_0)  log-odds of q(x_s | x_0) plus log q(x_t | x_s = 1) - log q(x_t | x_s = 0), where
                       q(x_t | x_s) = k [x_t = x_s] + (1 - k) π(x_t),  π(1) = r, π(0) = 1 - r
    p(x_s | x_t)       Σ_{x_0} q(x_s | x_t, x_0) p(x_0 | x_t), p(x_0 | x_t) the network's

Categorical (Austin et al. 2021): from s to t a place jumps a Poisson number of times, L_t - L_s on average, each time
by a row-stochastic matrix M, whose stationary law π is the prior:

    q(x_t | x_s)       the row of x_s of Q = exp((L_t - L_s)(M - I))
                       M = 1 πᵀ: Q = k I + (1 - k) 1 πᵀ. π is uniform, the mask alone, or any law, (1 - r, r) of bits
    q(x_s | x_t, x_0)  ∝ q(x_s | x_0) q(x_t | x_s)
    p(x_s | x_t)       Σ_{x_0} q(x_s | x_t, x_0) p(x_0 | x_t), p(x_0 | x_t) the network's where q(x_t | x_0) > 0
"""

from diffjax.processes.base import Process, Variance
from diffjax.processes.bits import Binomial, binomial
from diffjax.processes.classes import Categorical, Jumping, Redrawn, categorical, state
from diffjax.processes.matrices import gaussian_matrix, metropolis
from diffjax.processes.normal import Gaussian, gaussian

__all__ = [
    "Binomial",
    "Categorical",
    "Gaussian",
    "Jumping",
    "Process",
    "Redrawn",
    "Variance",
    "binomial",
    "categorical",
    "gaussian",
    "gaussian_matrix",
    "metropolis",
    "state",
]
