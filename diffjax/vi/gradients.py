"""Monte-Carlo gradients of an expectation in the parameters φ of the law that it is taken over.

    L(φ) = E_q[f(z) + h(q_φ, z)],  z ~ q_φ;  v = f + h

h is what the integrand has of q itself: with f = log p(x, z) and h = -log q_φ(z), or the entropy of q in closed form, L
is the ELBO, and so it is with f = log p(x | z) and h = -KL(q_φ ‖ p(z)). Four estimators of ∇L, of the same mean, from
the draws z_1 .. z_n:

    score                 mean of (v_i - b) ∇ log q(z_i) + ∇h, b any number these draws had no part in (Williams 1992)
    score_leave_one_out   the same with b_i the mean of the other v: the covariance of v and ∇ log q in the sample,
                          which no constant in v changes (Kool et al. 2019)
    reparameterized       mean of dv_i/dφ through z = g(φ, ε), ε ~ p(ε) (Kingma & Welling 2014, Rezende et al. 2014)
    sticking_the_landing  the same without the term -∂ log q_φ(z)/∂φ at fixed z, whose mean is 0: no variance is left
                          where q is the posterior (Roeder et al. 2017)

The score's estimators need f neither differentiable nor known but at points, and pay for it: of f = z in N(m, s²), the
gradient in m has a variance of (m - b)²/s² + 2 against 0; and in D dimensions it grows with D.

They are gradients of one expression: exp(log q - sg(log q)) is 1 and has the derivatives of q over q, of any order
(Foerster et al. 2018), so that they may be differentiated again.
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
Own = Callable[[Any, Any], Array]  # (law, z) -> h in nats, a scalar


def sampled_entropy(law: Law, z: Any) -> Float[Array, ""]:
    """-log q(z): an `own` whose mean is the entropy of q, in nats."""
    return -_sum("log_prob", law.log_prob(z), z)


def analytic_entropy(law: Any, z: Any) -> Float[Array, ""]:
    """The entropy of q in closed form, in nats, summed over its elements."""
    return _sum("the entropy", law.entropy(), z)


def negative_kl(prior: Any) -> Own:
    """The `own` that is -KL(q ‖ prior) in closed form, in nats: of f = log p(x | z) it makes the ELBO.

    Raises:
        InputError: from the `own`, if the prior has an axis that the draws of q have not.
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
    """v_i of `num` draws; `jax.grad` of their mean is the estimator, in `params` and in whatever else f depends on.

    Args:
        f: z -> scalar; z is what the law draws, an array or a pytree.
        family: params -> q, a Distribution of diffjax, `vi.Factorised`, or anything that has its `sample` and
            `log_prob`; the log-probabilities of its elements are summed.
        own: h(q, z), scalar: `sampled_entropy`, `analytic_entropy`, `negative_kl(prior)`, or yours.
        baseline: b of "score", which alone looks at it; `MovingAverage` makes one of earlier draws.

    Raises:
        InputError: on an estimator that does not exist, fewer draws than it needs, an f that gives no single number, a
            baseline that is none, a log_prob, KL or entropy with an axis that the draws have not, a law whose draws
            have no derivative where the estimator needs one, or "sticking_the_landing" of an `own` other than
            `sampled_entropy`: only of that has the term that it leaves out a mean of 0.
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
        # Its derivative at fixed z is -∇ log q: of mean 0, nothing but noise, and what one more in v takes away.
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
    """A baseline for "score": the mean of earlier values, older ones weighing less. `MovingAverage()` is of none."""

    total: Float[Array, ""] | float = 0.0
    weight: Float[Array, ""] | float = 0.0

    @property
    def value(self) -> Float[Array, ""]:
        """What to subtract from the next values; 0 before there were any."""
        return jnp.asarray(self.total) / jnp.maximum(self.weight, 1e-6)

    def update(self, values: Float[Array, "..."], decay: float = 0.9) -> "MovingAverage":
        """With the mean of new values taken in; all that came before weighs `decay` times what it did."""
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
            "own must be sampled_entropy for estimator='sticking_the_landing', which would be biased with another:"
            " use 'reparameterized'"
        )
    return int(num)


def _check_differentiable(law: Law, z: Any, estimator: str) -> None:
    parts = jax.tree.leaves(law, is_leaf=lambda part: isinstance(part, DISCRETE))
    names = [type(part).__name__ for part in parts if isinstance(part, DISCRETE)]
    names += [f"a law on {leaf.dtype}" for leaf in jax.tree.leaves(z) if not jnp.issubdtype(leaf.dtype, jnp.floating)]
    if names:
        raise InputError(
            f"estimator={estimator!r} needs draws that are differentiable in the parameters, which those of"
            f" {names[0]} are not: use 'score' or 'score_leave_one_out'"
        )
