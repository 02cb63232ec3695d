"""The plan's numbers against bytes counted by hand, arrays that really lie on 8 devices, and programs whose
collectives are known."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from diffjax.data.dataset import from_arrays
from diffjax.mesh import make_mesh
from diffjax.training import plan
from diffjax.training.config import training_config
from diffjax.training.loop import abstract_state
from diffjax.training.sharding import parallelize
from diffjax.training.state import init_state, optimizer
from diffjax.training.step import make_step

IN, HIDDEN, OUT = 8, 128, 16
MESHES = ((("data", -1),), (("data", 2), ("model", 4)), (("model", -1),))


class Mlp(NamedTuple):
    """Two layers without biases, and an array that four devices cannot share."""

    init: object
    loss: object
    memory: object = None


def _mlp(remat=False, dtype=jnp.float32):
    def hidden(w, x):
        return jnp.sin(x @ w)

    def init(key):
        shapes = {"first": (IN, HIDDEN), "last": (HIDDEN, OUT), "odd": (33, 35)}
        return {name: jnp.ones(shape, dtype) for name, shape in shapes.items()}

    def loss(params, keys, batch):
        h = (jax.checkpoint(hidden) if remat else hidden)(params["first"], batch["image"])
        return jnp.sum((h @ params["last"]) ** 2, axis=1) + jnp.sum(params["odd"])

    return Mlp(init, loss)


@functools.cache
def planned(axes, batch_size=64, remat=False, accumulate=1, dtype=jnp.float32, widths=()):
    config = training_config({"batch_size": batch_size, "mesh": axes, "accumulate": accumulate, "ema_widths": widths})
    model = _mlp(remat, dtype)
    layout = parallelize(make_step(model, optimizer(config), config), axes=axes)
    state = abstract_state(layout, model, config)
    batch = plan.abstract_batch(layout.mesh, (IN,), 0, batch_size)
    return layout, state, batch, plan.costs(layout.mesh, model, config, state, batch)


@functools.cache
def program(axes):
    layout, state, batch, _ = planned(axes)
    return plan.compile_step(layout, state, batch)


def test_bytes_by_hand_on_two_by_four():
    *_, costs = planned(MESHES[1])
    divided, odd = 4 * (IN * HIDDEN + HIDDEN * OUT), 4 * 33 * 35
    held = divided // 4 + odd
    assert (costs.parameters, costs.ema) == (held, held)
    assert costs.optimizer == 2 * held + 3 * 4  # and three counters: Adam's, its schedule's, the step
    assert costs.batch == 64 // 8 * (4 * IN + 4)
    assert costs.gathered == costs.gradients == divided + odd
    *_, more = planned(MESHES[1], widths=(0.05, 0.1))
    assert more == costs._replace(ema=3 * held)


def test_bytes_by_hand_of_parameters_of_16_bits():
    """Their mean, the moments and the sum of the gradients of the parts have 32."""
    *_, costs = planned(MESHES[0], accumulate=2, dtype=jnp.bfloat16)
    elements = IN * HIDDEN + HIDDEN * OUT + 33 * 35
    assert (costs.parameters, costs.ema, costs.optimizer) == (2 * elements, 4 * elements, 8 * elements + 3 * 4)
    assert costs.gradients == (2 + 4) * elements


@pytest.mark.fast(1)
@pytest.mark.parametrize("axes", MESHES)
def test_bytes_are_those_of_arrays_on_the_devices(axes):
    layout, _, batch, costs = planned(axes)
    config = training_config({})
    state = layout.place_state(init_state(jax.random.key(0), _mlp(), optimizer(config)))
    placed = layout.place_batch({name: np.zeros(x.shape, x.dtype) for name, x in batch.items()})

    def on_first(tree):
        shards = [s for x in jax.tree.leaves(tree) for s in x.addressable_shards]
        return sum(s.data.nbytes for s in shards if s.device == jax.devices()[0])

    assert (costs.parameters, costs.ema, costs.batch) == tuple(map(on_first, (state.params, state.ema, placed)))
    assert costs.optimizer == on_first((state.opt_state, state.step))
    compiled = program(axes)
    assert compiled.arguments == pytest.approx(on_first((state, placed)), abs=64)  # and the key
    assert compiled.aliased == pytest.approx(on_first(state), abs=64)
    assert compiled.peak == compiled.arguments + compiled.temporary + (compiled.outputs - compiled.aliased)
    assert compiled.outputs - compiled.aliased < 256  # the metrics


def test_activations_by_hand():
    """Of n examples a device: the hidden layer, for the gradient of the last weights; the cosine that is the sine's
    derivative, which remat does not keep; and the output, for that of the square."""
    for batch_size, remat, accumulate in ((64, False, 1), (64, True, 1), (128, False, 1), (128, False, 2)):
        *_, costs = planned(MESHES[0], batch_size, remat, accumulate)
        n = batch_size // 8 // accumulate
        assert costs.activations == 4 * n * (HIDDEN * (1 if remat else 2) + OUT), (batch_size, remat, accumulate)
        assert costs.recomputed == (4 * n * HIDDEN if remat else 0)  # the cosine
    assert costs.gradients == 2 * costs.parameters


def test_data_parallelism_reduces_the_gradients_and_fsdp_gathers_the_parameters():
    gradients = 4 * (IN * HIDDEN + HIDDEN * OUT)  # that of "odd" needs no message: it is known
    divided = program(MESHES[0]), program(MESHES[2])
    assert set(divided[0].collectives) == {"all-reduce"}
    assert divided[0].collectives["all-reduce"][1] >= gradients
    count, moved = divided[1].collectives["all-gather"]
    assert count >= 2 and moved >= gradients
    assert divided[1].arguments < divided[0].arguments / 2


@pytest.mark.parametrize(
    ("function", "out", "kind", "moved"),
    [
        (lambda x: jax.lax.psum(x, "data"), P(), "all-reduce", 4 * 64),
        (lambda x: jax.lax.all_gather(x, "data", tiled=True), P("data"), "all-gather", 4 * 8 * 64),
        (lambda x: jax.lax.psum_scatter(x.reshape(8, 8), "data"), P("data"), "reduce-scatter", 4 * 64),
        (lambda x: jax.lax.all_to_all(x.reshape(8, 8), "data", 0, 0), P("data"), "all-to-all", 4 * 64),
        (lambda x: jax.lax.ppermute(x, "data", [(0, 1)]), P("data"), "collective-permute", 4 * 64),
        (lambda x: x + 1, P("data"), None, 0),
    ],
)
def test_collectives_of_known_programs(function, out, kind, moved):
    mapped = jax.shard_map(function, mesh=make_mesh(), in_specs=P("data"), out_specs=out)
    text = jax.jit(mapped).lower(jax.ShapeDtypeStruct((8 * 64,), jnp.float32)).compile().as_text()
    assert plan.collectives(text) == ({} if kind is None else {kind: (1, moved)})


def test_collectives_that_start_here_and_end_there_count_once():
    text = """
  %p.1 = f32[2,4]{1,0:T(8,128)} parameter(0)
  %q.1 = (bf16[3]{0}, pred[5]{0}, /*index=2*/s4[6]{0}) parameter(1)
  %all-reduce-start.1 = f32[2,4]{1,0} all-reduce-start(%p.1), channel_id=1, to_apply=%add
  %all-reduce-done.1 = f32[2,4]{1,0} all-reduce-done(%all-reduce-start.1)
  %gather = (f32[2,4]{1,0:T(8,128)}, f32[8,4]{1,0:T(8,128)S(1)}) all-gather-start(%p.1), channel_id=2, dimensions={0}
  %all-gather-done.1 = f32[8,4]{1,0} all-gather-done(%gather)
  %all-reduce.7 = (bf16[3]{0}, pred[5]{0}, /*index=2*/s4[6]{0}) all-reduce(%q.1), channel_id=3, to_apply=%add
  %all-gather.8 = f32[16]{0} all-gather(%p.1), channel_id=4
  %all-gather.9 = f32[16]{0} all-gather(%p.1), channel_id=4
  ROOT %a2a = f32[2,4]{1,0} all-to-all(f32[2,4]{1,0:T(8,128)} %p.1), replica_groups={{0,1}}
"""
    assert plan.collectives(text) == {
        "all-reduce": (2, 32 + 6 + 5 + 3),
        "all-gather": (2, 128 + 64),
        "all-to-all": (1, 32),
    }


@pytest.mark.fast(1)
@pytest.mark.parametrize("first", [1, 8, 100])
@pytest.mark.parametrize(
    "peak",
    [
        lambda n: 3 + 2 * n,
        lambda n: 3 + 2 * n if n < 17 else np.inf,
        lambda n: 3 + n + n * n / 10,
        lambda n: 3 + 20 * n**0.3,
        lambda n: 3 + 10 * np.ceil(n / 7),
    ],
)
def test_the_largest_is_that_of_trying_all(peak, first):
    for memory in (2.0, 4.0, 5.0, 24.0, 60.0):
        calls = []
        found = plan.largest(lambda n: calls.append(n) or peak(n), memory, 3, first)  # noqa: B023
        assert found == max(n for n in range(10**5) if n == 0 or peak(n) <= memory)
        assert len(calls) == len(set(calls)) <= 20


def test_a_linear_peak_needs_few_looks():
    calls = []
    assert plan.largest(lambda n: calls.append(n) or 1e6 + 777 * n, 2e6, 1e6, 4) == 1287
    assert len(calls) <= 3


@pytest.mark.parametrize(("dtype", "levels"), [(np.uint8, 256), (np.float32, 0)])
def test_the_batch_is_what_a_dataset_gives(dtype, levels):
    real = from_arrays("some", np.zeros((16, 3, 2, 1), dtype), levels=levels).gather(np.arange(16))
    abstract = plan.abstract_batch(make_mesh(), (3, 2, 1), levels, 16)
    assert {k: (x.shape, x.dtype) for k, x in abstract.items()} == {k: (x.shape, x.dtype) for k, x in real.items()}
