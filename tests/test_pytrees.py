"""Registered dataclasses: structures of their own, leaves and static fields as they were."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import pytrees, schedules
from diffjax.distributions import DiscretizedLogistic, DiscretizedNormal


@pytrees.register
@dataclasses.dataclass(frozen=True)
class Pair:
    unit: str = dataclasses.field(metadata={"static": True})
    left: object
    right: object


def test_two_classes_of_the_same_fields_are_two_structures():
    """Or a compiled function runs, where hashes meet, what was traced for the other class."""
    makes = [schedules.vp, schedules.sub_vp, lambda low, high: schedules.ve(low, high)]
    structures = [jax.tree.structure(make(0.1, 0.2)) for make in makes]
    assert len({str(s) for s in structures}) == 3
    for i, one in enumerate(structures):
        for j, other in enumerate(structures):
            assert (one == other) == (i == j)
    ones = jnp.ones(3)
    assert jax.tree.structure(DiscretizedNormal(ones, ones)) != jax.tree.structure(DiscretizedLogistic(ones, ones))


def test_leaves_come_back_and_static_fields_are_of_the_structure():
    pair = Pair("nats", jnp.arange(3.0), {"a": 2.0})
    leaves, structure = jax.tree.flatten(pair)
    assert len(leaves) == 2 and structure != jax.tree.structure(dataclasses.replace(pair, unit="bits"))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(pair)[0]]
    assert paths == [".left", ".right['a']"]
    twice = jax.jit(lambda p: jax.tree.map(lambda x: 2 * x, p))(pair)
    assert twice.unit == "nats" and float(twice.right["a"]) == 4.0
    np.testing.assert_array_equal(twice.left, [0.0, 2.0, 4.0])
