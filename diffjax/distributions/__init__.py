"""Distributions, as pytrees of their parameters.

`sample(key)`, `log_prob(x)`, `kl(other)`, `entropy()`, `mean` and `variance` are elementwise and in nats. The caller
sums over event axes, because only the caller knows which axes are events.

    Normal               log N(x; m, v) = -½ [(x - m)²/v + log 2πv]
                         KL(m₁, v₁ ‖ m₂, v₂) = ½ [(m₁ - m₂)²/v₂ + g(v₁/v₂)],  g(u) = u - 1 - log u
    Gamma                log G(x; a, b) = a log b - log Γ(a) + (a - 1) log x - b x
                         KL(a₁, b₁ ‖ a₂, b₂) = a₂ g(a₁b₂/a₂b₁) + ½ g(a₂/a₁) + r(a₂) - r(a₁) - (a₂ - a₁) r'(a₁)
    DiscretizedNormal    Φ((x + w/2 - m)/√v) - Φ((x - w/2 - m)/√v), the outermost bins open (Ho et al. 2020, eq. 13)
    DiscretizedLogistic  the same with σ((x ± w/2 - m)/s) (Kingma et al. 2016, section 5.2), from

        σ(b) - σ(a) = σ(b) σ(-a) (1 - exp(a - b))

    Categorical          log p_x with p = softmax(logits), on the integers 0 .. K - 1, the last axis of the logits

r is the remainder of log Γ in Stirling's formula. `special` computes g and r without cancellation. This matters because
the two variances are almost equal at every step of a diffusion: a naive KL is a small difference of large numbers.

Outside the support log_prob is -inf, and its gradients are 0. Samples of Normal and Gamma are differentiable in the
parameters (Gamma implicitly: Figurnov et al. 2018); samples of the others, `DISCRETE`, are not. Parameters and x
together determine the floating type of a result (`dtypes`). A sample has the type of the parameters.
"""

from diffjax.distributions.classes import Categorical
from diffjax.distributions.elementwise import (
    LARGE,
    LOG_2PI,
    NARROW,
    Bernoulli,
    DiscretizedLogistic,
    DiscretizedNormal,
    Distribution,
    Gamma,
    Normal,
)

DISCRETE = (Bernoulli, DiscretizedNormal, DiscretizedLogistic, Categorical)

__all__ = [
    "DISCRETE",
    "LARGE",
    "LOG_2PI",
    "NARROW",
    "Bernoulli",
    "Categorical",
    "DiscretizedLogistic",
    "DiscretizedNormal",
    "Distribution",
    "Gamma",
    "Normal",
]
