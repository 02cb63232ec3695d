"""Monte-Carlo gradients of an expectation, in the parameters φ of its distribution.

    L(φ) = E_q[f(z) + h(q_φ, z)],  z ~ q_φ;  v = f + h

h is the part of the integrand that depends on q. L is the ELBO if f = log p(x, z) and h = -log q_φ(z), or h is the
entropy of q in closed form. It is also the ELBO if f = log p(x | z) and h = -KL(q_φ ‖ p(z)). Four estimators of ∇L have
the same mean. They use draws z_1 .. z_n:

    score                 mean of (v_i - b) ∇ log q(z_i) + ∇h, with b independent of these draws (Williams 1992)
    score_leave_one_out   the same with b_i the mean of the other v: the covariance of v and ∇ log q in the sample,
                          which no constant in v changes (Kool et al. 2019)
    reparameterized       mean of dv_i/dφ through z = g(φ, ε), ε ~ p(ε) (Kingma & Welling 2014, Rezende et al. 2014)
    sticking_the_landing  the same without the term -∂ log q_φ(z)/∂φ at fixed z, whose mean is 0: the variance is 0
                          if q is the posterior (Roeder et al. 2017)

The score estimators need only values of f, no derivative. Their variance is larger. For f = z and q = N(m, s²), the
gradient in m has the variance (m - b)²/s² + 2; that of the reparameterized one is 0. It grows with the dimension D.

All are gradients of one expression. exp(log q - sg(log q)) is 1, and its derivatives of any order are those of q over q
(Foerster et al. 2018). So they can be differentiated again.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient
from jax.typing import ArrayLike
from jaxtyping import Float, PRNGKeyArray

from diffjax import eager
from diffjax.distributions import DISCRETE
from diffjax.dtypes import as_float
from diffjax.errors import InputError
from diffjax.mcmc.integrators import is_whole, promoted
from diffjax.vi.markov_chain import Law, check_event

GradientEstimator = Literal["score", "score_leave_one_out", "reparameterized", "sticking_the_landing"]
Own = Callable[[Any, Any], Array]  # (q, z) -> h in nats, a scalar


def sampled_entropy(law: Law, z: Any) -> Float[Array, ""]:
    """-log q(z) in nats. As `own`, its mean is the entropy of q."""
    return -_sum("log_prob", law.log_prob(z), z)


def analytic_entropy(law: Any, z: Any) -> Float[Array, ""]:
    """The entropy of q in closed form, in nats, summed over its elements."""
    return _sum("the entropy", law.entropy(), z)


def negative_kl(prior: Any) -> Own:
    """The `own` -KL(q ‖ prior) in closed form, in nats. With f = log p(x | z) the expectation is the ELBO.

    Raises:
        InputError: from the `own`, if the prior has an axis that the draws of q do not have.
    """

    def own(law: Any, z: Any) -> Float[Array, ""]:
        return -_sum("the KL", law.kl(prior), z)

    return own


def expectation(
    f: Callable[[Any], Array],
    family: Callable[[Any], Law],
    params: Any,
    key: PRNGKeyArray,
    num: int,
    estimator: GradientEstimator = "reparameterized",
    own: Own | None = None,
    baseline: ArrayLike = 0.0,
) -> Float[Array, " num"]:
    """v_i of `num` draws. `jax.grad` of their mean is the estimator, in `params` and everything else f depends on.

    Args:
        f: z -> scalar. z is a draw of q, an array or a pytree.
        family: params -> q, a Distribution of diffjax, `vi.Factorised`, or anything with their `sample` and `log_prob`.
            The log-probabilities of its elements are summed.
        own: h(q, z), a scalar: `sampled_entropy`, `analytic_entropy`, `negative_kl(prior)`, or your own function.
        baseline: b of "score". The other estimators ignore it. `MovingAverage` makes one of earlier draws.

    Raises:
        InputError: on an unknown estimator, fewer draws than it needs, an f that gives no single number, a baseline
            that is no number, or a log_prob, KL or entropy with an axis that the draws do not have. Also if the
            estimator needs draws with a derivative and q has none, and on "sticking_the_landing" with an `own` other
            than `sampled_entropy`, because the term that it leaves out has mean 0 only for this one.
    """
    num = _check(num, estimator, own)
    if jnp.ndim(baseline):
        raise InputError(f"baseline must be a number, not an array of shape {jnp.shape(baseline)}")

    def program(params: Any, key: PRNGKeyArray, baseline: Array) -> Float[Array, " num"]:
        return _values(f, family, promoted(params), key, num, estimator, own, baseline)

    return eager.once(program, params, key, jnp.asarray(baseline))


def _values(
    f: Callable[[Any], Array],
    family: Callable[[Any], Law],
    params: Any,
    key: PRNGKeyArray,
    num: int,
    estimator: GradientEstimator,
    own: Own | None,
    baseline: Array,
) -> Float[Array, " num"]:
    law, frozen = family(params), family(stop_gradient(params))
    scored = estimator in ("score", "score_leave_one_out")
    z = jax.vmap((frozen if scored else law).sample)(jax.random.split(key, num))
    if not scored:
        _check_differentiable(law, z, estimator)
    of_own = frozen if estimator == "sticking_the_landing" else law

    def value(z: Any) -> Array:
        total = as_float(f(z))
        if own is not None:
            total = total + jnp.asarray(own(of_own, z), total.dtype)
        if total.shape:
            raise InputError(f"f and own must give a single number for each draw, not an array of shape {total.shape}")
        return total

    values = jax.vmap(value)(z)
    if not scored:
        return values
    baseline = jnp.asarray(baseline, values.dtype)
    if estimator == "score_leave_one_out":
        baseline = (values.sum() - values) / (num - 1)
    if own is sampled_entropy:
        # Its derivative at fixed z is -∇ log q. This has mean 0 and only adds noise, so it is taken away here.
        baseline = baseline - 1.0
    log_q = jax.vmap(lambda z: _sum("log_prob", law.log_prob(z), z))(z).astype(values.dtype)
    return jnp.exp(log_q - stop_gradient(log_q)) * (values - baseline) + baseline


def value_and_gradient(
    f: Callable[[Any], Array],
    family: Callable[[Any], Law],
    params: Any,
    key: PRNGKeyArray,
    num: int,
    estimator: GradientEstimator = "reparameterized",
    own: Own | None = None,
    baseline: ArrayLike = 0.0,
) -> tuple[Float[Array, " num"], Any]:
    """The values of `num` draws, and an unbiased estimate of ∇ E_q[f + own], a pytree like `params`.

    Arguments and errors as in `expectation`.
    """

    def program(params: Any, key: PRNGKeyArray, baseline: Array) -> tuple[Array, Any]:
        def mean(params: Any) -> tuple[Array, Array]:
            values = expectation(f, family, params, key, num, estimator, own, baseline)
            return values.mean(), values

        gradient, values = jax.grad(mean, has_aux=True)(params)
        return values, gradient

    return eager.once(program, params, key, jnp.asarray(baseline))


def gradient(
    f: Callable[[Any], Array],
    family: Callable[[Any], Law],
    params: Any,
    key: PRNGKeyArray,
    num: int,
    estimator: GradientEstimator = "reparameterized",
    own: Own | None = None,
    baseline: ArrayLike = 0.0,
) -> Any:
    """An unbiased estimate of ∇ E_q[f + own], a pytree like `params`; arguments and errors as in `expectation`."""
    return value_and_gradient(f, family, params, key, num, estimator, own, baseline)[1]


class MovingAverage(NamedTuple):
    """A baseline for "score": the mean of earlier values, where older ones weigh less. `MovingAverage()` is empty."""

    total: Float[Array, ""] | float = 0.0
    weight: Float[Array, ""] | float = 0.0

    @property
    def value(self) -> Float[Array, ""]:
        """The number to subtract from the next values. It is 0 if there were none before."""
        return jnp.asarray(self.total) / jnp.maximum(self.weight, 1e-6)

    def update(self, values: Float[Array, "..."], decay: float = 0.9) -> "MovingAverage":
        """Includes the mean of new values. The weights of all earlier ones are multiplied by `decay`."""
        total = decay * self.total + (1.0 - decay) * stop_gradient(values).mean()
        return MovingAverage(total, decay * self.weight + (1.0 - decay))


def _sum(name: str, terms: Array, z: Any) -> Float[Array, ""]:
    check_event(name, terms, z)
    return as_float(terms).sum()


def _check(num: int, estimator: str, own: Own | None) -> int:
    if estimator not in get_args(GradientEstimator):
        raise InputError(f"estimator must be one of {', '.join(get_args(GradientEstimator))}, not {estimator!r}")
    least = 2 if estimator == "score_leave_one_out" else 1
    if not is_whole(num) or num < least:
        raise InputError(f"num must be a whole number of at least {least} for estimator={estimator!r}, not {num!r}")
    if estimator == "sticking_the_landing" and own not in (None, sampled_entropy):
        raise InputError(
            "own must be sampled_entropy for estimator='sticking_the_landing', which is biased with any other own:"
            " use 'reparameterized'"
        )
    return int(num)


def _check_differentiable(law: Law, z: Any, estimator: str) -> None:
    parts = jax.tree.leaves(law, is_leaf=lambda part: isinstance(part, DISCRETE))
    names = [type(part).__name__ for part in parts if isinstance(part, DISCRETE)]
    names += [f"type {leaf.dtype}" for leaf in jax.tree.leaves(z) if not jnp.issubdtype(leaf.dtype, jnp.floating)]
    if names:
        raise InputError(
            f"estimator={estimator!r} needs draws that are differentiable in the parameters, which those of"
            f" {names[0]} are not: use 'score' or 'score_leave_one_out'"
        )
