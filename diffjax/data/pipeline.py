"""The order in which examples are seen: a pure function of (seed, step), on any number of processes.

Training. An epoch has B = n // batch_size batches, the remainder is dropped, and global batch `step` is

    e, k = divmod(step, B),    indices = permutation(seed, e, n)[k batch_size : (k + 1) batch_size].

Process p of m gathers the p-th contiguous m-th of these indices. Nothing is carried from batch to batch, so a run that
resumes at a step, on any number of processes, sees what an uninterrupted run sees. grain supplies the prefetching and
an iterator whose state is the step.

Evaluation. Batches of 0, 1, 2, ... in order; the last is filled up with repeats whose mask is zero.
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
    """A uniform permutation of 0 .. n - 1 that depends on (seed, epoch, n) only, both at least 0.

    It sorts raw Philox words because numpy keeps a bit generator's stream for ever but may change what
    `Generator.permutation` makes of it, and a run must resume after an upgrade. Two equal 64-bit words, which would
    bias the order, have probability below n² / 2⁶⁵.
    """
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(n)
    return np.argsort(words, kind="stable")


def batches(
    dataset: Dataset, batch_size: int, *, seed: int, start: int = 0, process_index: int = 0, process_count: int = 1
) -> "grain.DatasetIterator[Batch]":
    """Endless training batches dict(image=(batch_size / process_count, *shape), label=int32 (same,)).

    start: the global step of the first batch. The iterator's `get_state()` and `set_state(state)` hold the global step
    too, so a state may be handed to an iterator with another start or process count.
    Raises `InputError` for a batch that is larger than the set or does not divide among the processes, and for a seed
    that is not at least 0 and below 2^32.
    """
    with needs_run():
        import grain  # about a second: not for those who only load a set or read its errors

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

    # One thread gathers ahead while the device computes; a lazy source decodes each batch in threads of its own.
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    iterator = iter(grain.MapDataset.range(sys.maxsize).map(batch).to_iter_dataset(options))
    iterator.set_state({"next_index": start})
    return iterator


def epoch(dataset: Dataset, batch_size: int, process_index: int = 0, process_count: int = 1) -> Iterator[Batch]:
    """Evaluation batches in order, each example once: dict(image, label, mask), each (batch_size / process_count, ...).

    mask: float32, 1 for an example and 0 for the repeats of the last one that fill the last batch. Every process gets
    the same number of batches, and batch_size may exceed the set.
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
