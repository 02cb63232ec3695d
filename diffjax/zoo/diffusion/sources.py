"""The sources of a flow: where its paths begin, x_1 at t = 1, and which x_1 belongs to which example.

    noise   N(0, I), independent of the data or coupled to it
    data    examples of another set, batch["source"]: `data.source` of the configuration
    noisy   the examples themselves with noise, x_0 + τ N(0, I)

The velocity also gives a score only if x_1 is noise that is independent of the data. For every other x_1 there is only
the flow, for the samplers in `FLOW_SAMPLERS`.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from diffjax import randomness, registry
from diffjax.errors import InputError
from diffjax.interpolants import couplings
from diffjax.interpolants.couplings import Coupling
from diffjax.zoo.model import Batch, dequantised

SOURCES = ("noise", "data", "noisy")
FLOW_SAMPLERS = ("euler", "heun", "midpoint", "rk4", "probability_flow")


class Source(NamedTuple):
    """x_1 of a batch.

    kind: of `SOURCES`
    coupling: None keeps the drawn pairs
    by_class: whether the coupling pairs within classes
    noise: τ of "noisy"
    levels: the number of levels of the data, as in the system
    reflowed: whether another flow makes the pairs of training
    """

    kind: str = "noise"
    coupling: Coupling | None = None
    by_class: bool = False
    noise: float = 0.0
    levels: int = 0
    reflowed: bool = False

    @property
    def scores(self) -> bool:
        """Whether the velocity also gives a score."""
        return self.kind == "noise" and self.coupling is None and not self.reflowed

    @property
    def in_pairs(self) -> bool:
        """Whether each example is the target of its own x_1."""
        return self.kind != "noise" and self.coupling is None

    def draw(self, key: randomness.Keys, x0: Array, batch: Batch) -> Array:
        """x_1 from the flow's source, (batch, *event), of the shape of x_0.

        Raises:
            InputError: if the batch has no source but needs one.
        """
        if self.kind == "data":
            if not isinstance(batch, dict) or "source" not in batch:
                raise InputError("matching.source='data' needs batches with 'source': set data.source to a set")
            return jnp.asarray(dequantised(key, batch["source"], self.levels), x0.dtype)
        z = randomness.normal(key, x0.shape, x0.dtype)
        return z if self.kind == "noise" else x0 + self.noise * z

    def paired(self, key: randomness.Keys, x0: Array, batch: Batch, label: Array | None) -> Array:
        """x_1 of training, coupled to x_0."""
        draw_key, couple_key = randomness.split(key, 2)
        x1 = self.draw(draw_key, x0, batch)
        if self.coupling is None:
            return x1
        return x1[self.coupling(couple_key, x1, x0, label if self.by_class else None)]


NOISE = Source()


def of_config(config: Any) -> Source:
    """The source of `config.matching`.

    Raises:
        InputError: on an unknown choice, or on choices that do not fit together.
    """
    setting, num_classes = config.matching, config.net.get("num_classes", 0)
    kind = registry.choose("matching.source", setting.get("source", "noise"), SOURCES)
    name = setting.get("coupling", "independent")
    make = registry.choose("matching.coupling", name, couplings.COUPLINGS)
    by_class, noise = setting.get("by_class", False), setting.get("source_noise", 0.0)
    if by_class and not num_classes:
        raise InputError("matching.by_class=True needs a network that knows classes: set net.num_classes")
    if (kind == "data") != bool(config.data.get("source")):
        raise InputError("matching.source='data' and data.source, the other set, need each other: set both or neither")
    if kind == "noisy" and not noise > 0:
        raise InputError(f"matching.source_noise={noise} of matching.source='noisy' must be positive")
    if kind != "noise" and setting.schedule != "straight":
        raise InputError(f"matching.source={kind!r} needs matching.schedule='straight', whose x_1 is the source alone")
    coupling = registry.build(make, settings=setting)
    as_drawn = name == "paired" or (kind, name) == ("noise", "independent")
    reflowed = config.system == "reflow"
    source = Source(kind, None if as_drawn else coupling, by_class, noise, config.data.levels, reflowed)
    if not source.scores:
        _check_sampler(config.sampling)
    return source


def _check_sampler(sampling: Any) -> None:
    if sampling.sampler not in FLOW_SAMPLERS or sampling.get("churn", 0.0):
        raise InputError(
            f"sampling.sampler={sampling.sampler!r} with sampling.churn={sampling.get('churn', 0.0)} reads a score, and"
            f" a flow has one from independent noise alone: use {', '.join(FLOW_SAMPLERS)} without churn"
        )
