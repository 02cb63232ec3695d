"""The mesh: which devices hold what, what is refused, and functions spread over it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from diffjax.errors import InputError
from diffjax.mesh import divided, here, make_mesh, share, spread, whole


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ((("data", -1), ("model", 1)), (8, 1)),
        ((("data", 1), ("model", -1)), (1, 8)),
        ((("model", 4), ("data", -1)), (2, 4)),  # the order is ours
        ([["data", 2], ["model", 4]], (2, 4)),  # as JSON gives it back
        ((("data", 8),), (8, 1)),
    ],
)
def test_the_sizes_are_of_the_devices(axes, shape):
    mesh = make_mesh(axes)
    assert (mesh.shape["data"], mesh.shape["model"]) == shape
    assert list(mesh.devices.flat) == jax.devices()  # in order: a process holds a contiguous part of a batch


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        ((("data", 3), ("model", -1)), "is for a multiple of 3 devices, but there are 8"),
        ((("data", 2), ("model", 2)), "is for 4 devices, but there are 8"),
        ((("data", 16),), "is for 16 devices, but there are 8"),
        ((("data", -1), ("fsdp", 4)), "has the axes data, fsdp, not data and model"),
        ((("data", 2), ("data", 4)), "has the axes data, data"),
        ((("data", -1), ("model", -1)), "sizes that are not positive"),
        ((("data", 0), ("model", -1)), "sizes that are not positive"),
        ((("data", 2.0), ("model", 4)), "sizes that are not positive"),
        ("data", "is not a sequence"),
        (8, "is not a sequence"),
    ],
)
def test_other_axes_are_refused(axes, says):
    with pytest.raises(InputError, match=says):
        make_mesh(axes)


def test_a_spread_function_gives_what_it_gives_undivided_and_each_device_does_its_part():
    mesh = make_mesh((("data", 2), ("model", 4)))
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(5, 8)).astype(np.float32), rng.normal(size=(16, 5)).astype(np.float32)
    params = jax.device_put(w, NamedSharding(mesh, P(None, "model")))  # as a state holds it

    seen = []

    def fn(params, key, batch):
        jax.debug.inspect_array_sharding(batch["x"], callback=lambda s: seen.append(s.shard_shape(batch["x"].shape)))
        return {"y": batch["x"] @ params, "noise": jax.random.normal(key, (16,))}

    got = spread(fn, mesh)(params, jax.random.key(0), {"x": x})
    np.testing.assert_allclose(got["y"], x @ w, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(got["noise"], jax.random.normal(jax.random.key(0), (16,)))
    assert seen == [(2, 5)]
    assert got["y"].sharding.is_equivalent_to(whole(mesh), 2)
    with pytest.raises(InputError, match="15 examples cannot be divided equally between 8 devices"):
        spread(fn, mesh)(params, jax.random.key(0), {"x": x[:15]})
    assert [share(mesh, n) for n in (1, 8, 9)] == [8, 8, 16]


def test_what_lies_on_many_devices_comes_whole_to_one():
    mesh = make_mesh((("data", 2), ("model", 4)))
    x = np.arange(32.0, dtype=np.float32).reshape(8, 4)
    tree = {"a": jax.device_put(x, NamedSharding(mesh, P("model"))), "b": jax.device_put(x, divided(mesh))}
    for array in jax.tree.leaves(here(mesh, tree)):
        assert len(array.devices()) == 1 and isinstance(jnp.sum(array), jax.Array)
        np.testing.assert_array_equal(array, x)
