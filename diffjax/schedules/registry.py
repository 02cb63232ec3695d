"""All schedules by name.

To add a schedule, write a function in one of this package's files, and add a line to `CHAINS` or `CONTINUOUS`.
"""

from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from diffjax import registry
from diffjax.schedules.base import Schedule
from diffjax.schedules.chains import Discrete, cosine, linear, sigmoid
from diffjax.schedules.continuous import edm, log_linear, straight, sub_vp, ve, vp

S = TypeVar("S", bound=Schedule)

CHAINS: dict[str, Callable[..., Discrete]] = {"linear": linear, "cosine": cosine, "sigmoid": sigmoid}
CONTINUOUS: dict[str, Callable[..., Schedule]] = {
    "vp": vp,
    "sub_vp": sub_vp,
    "ve": ve,
    "edm": edm,
    "straight": straight,
    "log_linear": log_linear,
}
# A view of both: a schedule added to one of them is here, too.
SCHEDULES: Mapping[str, Callable[..., Schedule]] = ChainMap[str, Callable[..., Any]](CONTINUOUS, CHAINS)


def make(name: str, settings: Mapping[str, Any], among: Mapping[str, Callable[..., S]], field: str = "schedule") -> S:
    """The schedule called `name`, made with the `settings` that it takes, e.g. of a section of a configuration.

    Args:
        among: the schedules to choose from: `SCHEDULES`, or one of its parts, `CHAINS` (discrete) and `CONTINUOUS`.
        field: what the error message calls the name.

    Raises:
        InputError: on an unknown name, or a setting out of range.
    """
    return registry.build(registry.choose(field, name, among), settings=settings)
