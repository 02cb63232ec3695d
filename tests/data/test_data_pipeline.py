"""The order law of diffjax.data.pipeline. In the sets used here an example's label is its index."""

import collections
import itertools
import json
import time

import numpy as np
import pytest

from diffjax.data import batches, epoch, from_arrays, mean_and_std
from diffjax.data.pipeline import permutation
from diffjax.errors import InputError


def numbered(n):
    return from_arrays("numbered", np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1), np.arange(n))


def order(n, batch_size, count, **options):
    """Indices of the first `count` batches, (count, batch)."""
    return np.stack([b["label"] for b in itertools.islice(batches(numbered(n), batch_size, **options), count)])


def test_batches_hold_the_images_of_their_labels():
    batch = next(batches(numbered(50), 10, seed=3))
    assert batch["image"].shape == (10, 1, 1, 1) and batch["image"].dtype == np.uint8
    assert batch["label"].dtype == np.int32
    np.testing.assert_array_equal(batch["image"].ravel(), batch["label"])


def test_each_epoch_visits_each_example_once_in_its_own_order():
    epochs = order(24, 4, 5 * 6, seed=0).reshape(5, 24)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(24), (5, 1)))
    assert len({tuple(e) for e in epochs}) == 5


def test_remainder_is_dropped_and_every_example_gets_its_turn():
    epochs = order(10, 4, 2 * 200, seed=0).reshape(200, 8)
    assert all(len(set(e)) == 8 for e in epochs)
    # Each example is left out of an epoch with probability 0.2: within five standard errors of 200 epochs.
    seen = np.bincount(epochs.ravel(), minlength=10) / 200
    assert np.abs(seen - 0.8).max() < 5 * np.sqrt(0.8 * 0.2 / 200)


def test_order_depends_on_seed_and_not_on_batch_size():
    a = order(24, 4, 12, seed=0).ravel()
    assert (a != order(24, 4, 12, seed=1).ravel()).any()
    np.testing.assert_array_equal(a, order(24, 8, 6, seed=0).ravel())
    np.testing.assert_array_equal(a, order(24, 4, 12, seed=0).ravel())


def test_permutation_is_uniform_over_epochs_and_seeds():
    draws = 6000
    for keys in (((0, e) for e in range(draws)), ((s, 0) for s in range(draws))):
        counts = collections.Counter(tuple(permutation(s, e, 4).tolist()) for s, e in keys)
        chi2 = sum((counts[p] - draws / 24) ** 2 / (draws / 24) for p in itertools.permutations(range(4)))
        assert abs(chi2 - 23) < 5 * np.sqrt(2 * 23)  # chi-squared with 23 degrees of freedom


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_one_global_order(count):
    parts = [order(26, 8, 7, seed=5, process_index=p, process_count=count) for p in range(count)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), order(26, 8, 7, seed=5))


@pytest.mark.parametrize("start", [1, 5, 6, 17, 6_000_001])
def test_start_is_the_same_as_skipping(start):
    if start < 100:
        np.testing.assert_array_equal(order(26, 4, 4, seed=2, start=start), order(26, 4, start + 4, seed=2)[start:])
    else:  # far on, by the law itself
        e, k = divmod(start, 6)
        expected = permutation(2, e, 26)[4 * k : 4 * k + 4]
        np.testing.assert_array_equal(order(26, 4, 1, seed=2, start=start)[0], expected)


def test_state_resumes_exactly_and_is_the_global_step():
    reference = order(26, 4, 40, seed=7)
    iterator = batches(numbered(26), 4, seed=7, start=3)
    for _ in range(8):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    assert state["next_index"] == 11
    np.testing.assert_array_equal(next(iterator)["label"], reference[11])
    # A fresh iterator, one already on its way, and one elsewhere on two processes.
    fresh, used = batches(numbered(26), 4, seed=7), batches(numbered(26), 4, seed=7, start=30)
    half = batches(numbered(26), 4, seed=7, start=5, process_index=1, process_count=2)
    for _ in range(3):
        next(used), next(half)
    for other, columns in ((fresh, slice(0, 4)), (used, slice(0, 4)), (half, slice(2, 4))):
        other.set_state(state)
        for step in range(11, 20):
            np.testing.assert_array_equal(next(other)["label"], reference[step, columns])
    iterator.set_state(state)  # back in time, after its own prefetching
    np.testing.assert_array_equal(next(iterator)["label"], reference[11])


@pytest.mark.parametrize(("n", "batch_size", "count"), [(10, 4, 1), (12, 4, 2), (13, 8, 4), (3, 8, 2), (1, 4, 4)])
def test_epoch_gives_each_example_once_over_processes(n, batch_size, count):
    parts = [list(epoch(numbered(n), batch_size, p, count)) for p in range(count)]
    assert {len(part) for part in parts} == {-(-n // batch_size)}
    rows = [np.concatenate([part[k][key] for part in parts]) for k in range(len(parts[0])) for key in ("label", "mask")]
    labels, mask = np.concatenate(rows[::2]), np.concatenate(rows[1::2])
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(labels[mask == 1], np.arange(n))
    assert set(labels[mask == 0]) <= {n - 1}
    for batch in itertools.chain(*parts):
        assert len(batch["image"]) == batch_size // count
        np.testing.assert_array_equal(batch["image"].ravel(), batch["label"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: batches(numbered(5), 6, seed=0), ["batch_size=6", "larger", "5 examples"]),
        (
            lambda: batches(numbered(9), 6, seed=0, process_count=4),
            ["batch_size=6", "process_count=4", "multiple of 4"],
        ),
        (lambda: batches(numbered(9), 0, seed=0), ["batch_size=0"]),
        (lambda: batches(numbered(9), 4, seed=-1), ["seed = -1"]),
        (lambda: batches(numbered(9), 4, seed=0, start=-1), ["start=-1"]),
        (lambda: batches(numbered(9), 4, seed=0, process_index=2, process_count=2), ["process_index=2"]),
        (lambda: epoch(numbered(9), 3, 0, 2), ["batch_size=3", "process_count=2"]),
        (lambda: epoch(numbered(9), 0), ["batch_size=0"]),
        (lambda: numbered(0), ["'numbered'", "no examples"]),
    ],
)
def test_errors_come_at_once_and_name_the_field(call, words):
    with pytest.raises(InputError) as error:
        call()
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_batch_gather_is_faster_than_a_loop_over_examples():
    rng = np.random.default_rng(0)
    dataset = from_arrays("noise", rng.integers(0, 256, (20_000, 28, 28, 1), np.uint8), np.zeros(20_000, int))
    iterator = batches(dataset, 1000, seed=0)
    next(iterator)

    def rate(run, images):
        begin = time.perf_counter()
        run()
        return images / (time.perf_counter() - begin)

    batched = rate(lambda: [next(iterator) for _ in range(60)], 60_000)
    single = rate(lambda: [dataset.gather(np.array([i])) for i in range(10_000)], 10_000)
    print(f"images a second: {batched:.0f} in batches of 1000, {single:.0f} one by one")
    assert batched > 2 * single


def test_mean_and_deviation_are_numpys():
    """In exact arithmetic, of whole sets that are read in parts."""
    rng = np.random.default_rng(0)
    for shape, levels in (((2500, 3, 4, 3), 256), ((1024, 7), 17), ((1, 5), 2)):
        examples = rng.integers(0, levels, shape, np.uint8)
        examples[0, 0] = np.arange(examples[0, 0].size).reshape(examples[0, 0].shape) % levels
        examples.reshape(-1)[:2] = 0, 1
        found = mean_and_std(from_arrays("mine", examples, levels=levels))
        np.testing.assert_allclose(found, (examples.mean(dtype=float), examples.std(dtype=float)), rtol=1e-12)


@pytest.mark.parametrize(
    ("examples", "levels", "says"),
    [
        (np.full((3, 4), 7, np.uint8), 256, "the value 7 everywhere"),
        (np.zeros((3, 4), np.float32), 0, "real values, not levels"),
    ],
)
def test_what_cannot_be_standardised_is_said(examples, levels, says):
    with pytest.raises(InputError, match=says):
        mean_and_std(from_arrays("mine", examples, levels=levels))
