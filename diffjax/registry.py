"""Choices by name: a registry is a dict from names to values or to factories."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, overload

from diffjax.errors import InputError

T = TypeVar("T")


@overload
def choose(field: str, name: Any, choices: Mapping[str, T]) -> T: ...
@overload
def choose(field: str, name: Any, choices: Collection[str]) -> str: ...
def choose(field: str, name: Any, choices: Any) -> Any:
    """choices[name], or `name` itself if the choices are only names.

    Raises:
        InputError: if `name` is not a choice. The message calls it `field`, the setting of the user.
    """
    if not isinstance(name, str) or name not in choices:
        raise InputError(f"{field} must be one of {', '.join(choices)}, not {name!r}")
    return choices[name] if isinstance(choices, Mapping) else name


def build(factory: Callable[..., T], *args: Any, settings: Mapping[str, Any]) -> T:
    """factory(*args, ...) with the `settings` that its signature names. The other settings are ignored.

    Raises:
        InputError: if a parameter without a default is not in `settings`.
    """
    named = list(inspect.signature(factory).parameters.values())[len(args) :]
    for one in named:
        if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD and one.name not in settings:
            raise InputError(f"{getattr(factory, '__name__', factory)} needs {one.name}: set it")
    return factory(*args, **{one.name: settings[one.name] for one in named if one.name in settings})
