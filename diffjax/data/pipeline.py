"""The order in which examples are seen: a pure function of (seed, step), for any number of processes.

Training. An epoch of n examples has B = n // batch_size batches; the remainder is dropped. Global batch `step` is

    e, k = divmod(step, B),    indices = permutation(seed, e, n)[k batch_size : (k + 1) batch_size].

These indices are divided into m contiguous parts, and process p of m gathers the p-th part. No state is carried from
batch to batch. So a run that resumes at a step, on any number of processes, sees the same examples as an uninterrupted
run. grain supplies the prefetching and an iterator whose state is the step.

Evaluation. The batches have the examples 0, 1, 2, ... in order. The last batch is filled up with repeats whose mask is
zero.
"""

import functools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from diffjax.data.dataset import Dataset
from diffjax.errors import InputError
from diffjax.extras import needs_run
from diffjax.randomness import check_seed

if TYPE_CHECKING:
    import grain

Batch = dict[str, np.ndarray]


def permutation(seed: int, epoch: int, n: int) -> Int64[np.ndarray, " n"]:
    """A uniform permutation of 0 .. n - 1 that depends on (seed, epoch, n) only. seed and epoch must be at least 0.

    It sorts raw Philox words, because a run must resume after an upgrade of numpy: numpy never changes the stream of a
    bit generator, but may change how `Generator.permutation` uses it. Two equal 64-bit words would bias the order. The
    probability of that is below n² / 2⁶⁵.
    """
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(n)
    return np.argsort(words, kind="stable")


def batches(
    dataset: Dataset, batch_size: int, *, seed: int, start: int = 0, process_index: int = 0, process_count: int = 1
) -> "grain.DatasetIterator[Batch]":
    """Endless training batches dict(image=(batch_size / process_count, *shape), label=int32 (same,)).

    start: the global step of the first batch. The iterator's state, see `get_state()` and `set_state(state)`, is also
    the global step. So an iterator with another start or process count can take it over.
    Raises `InputError` if the batch is larger than the set or does not divide among the processes, and unless
    0 <= seed < 2^32.
    """
    with needs_run():
        import grain  # takes about a second, so only where it is needed

    local = _local_size(batch_size, process_index, process_count)
    if batch_size > len(dataset):
        raise InputError(
            f"batch_size={batch_size} is larger than dataset {dataset.name!r}, which has {len(dataset)} examples:"
            f" use at most {len(dataset)}."
        )
    check_seed("seed", seed)
    if start < 0:
        raise InputError(f"start={start} must be at least 0.")
    per_epoch = len(dataset) // batch_size
    order = functools.lru_cache(maxsize=2)(lambda e: permutation(seed, e, len(dataset)))

    def batch(step: int) -> Batch:
        e, k = divmod(step, per_epoch)
        first = k * batch_size + process_index * local
        return dataset.gather(order(e)[first : first + local])

    # One thread gathers ahead while the device computes. A lazy source decodes each batch in its own threads.
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    iterator = iter(grain.MapDataset.range(sys.maxsize).map(batch).to_iter_dataset(options))
    iterator.set_state({"next_index": start})
    return iterator


def epoch(dataset: Dataset, batch_size: int, process_index: int = 0, process_count: int = 1) -> Iterator[Batch]:
    """Evaluation batches in order, each example once: dict(image, label, mask), each (batch_size / process_count, ...).

    mask: float32, 1 for an example, and 0 for the repeats of the last example that fill the last batch. Every process
    gets the same number of batches. batch_size may be larger than the set.
    Raises `InputError` for a batch that does not divide among the processes.
    """
    local = _local_size(batch_size, process_index, process_count)

    def batch(first: int) -> Batch:
        indices = np.arange(first, first + local)
        mask = (indices < len(dataset)).astype(np.float32)
        return dataset.gather(np.minimum(indices, len(dataset) - 1)) | {"mask": mask}

    return (batch(first + process_index * local) for first in range(0, len(dataset), batch_size))


def _local_size(batch_size: int, process_index: int, process_count: int) -> int:
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size} must be at least 1.")
    if not 0 <= process_index < process_count:
        raise InputError(f"process_index={process_index} must be in 0 .. process_count - 1 = {process_count - 1}.")
    if batch_size % process_count:
        raise InputError(
            f"batch_size={batch_size} does not divide among process_count={process_count} processes:"
            f" use a multiple of {process_count}."
        )
    return batch_size // process_count
