"""Dataclasses as pytrees, where each class has a tree structure of its own."""

import dataclasses
from typing import Any, TypeVar

import jax

Class = TypeVar("Class", bound=type)


def register(cls: Class) -> Class:
    """Registers a dataclass as a pytree; fields with `metadata={"static": True}` are part of its structure.

    `jax.tree_util.register_dataclass` is not enough: in jax 0.10 the structures of any two classes with the same number
    of fields are equal. Where their hashes met in a cache, a compiled function ran the trace of the other class.
    """
    names = {f.name: bool(f.metadata.get("static")) for f in dataclasses.fields(cls)}
    dynamic = [name for name, static in names.items() if not static]
    static = [name for name, static in names.items() if static]

    def flatten(value: Any) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        leaves = [(jax.tree_util.GetAttrKey(name), getattr(value, name)) for name in dynamic]
        return leaves, tuple(getattr(value, name) for name in static)

    def unflatten(aux: tuple[Any, ...], leaves: Any) -> Any:
        return cls(**dict(zip(dynamic, leaves, strict=True)), **dict(zip(static, aux, strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
    return cls
