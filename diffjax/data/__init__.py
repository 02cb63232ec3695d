"""Examples as arrays: where they come from (`load`) and in what order they are seen (`batches`, `epoch`)."""

from diffjax.data.dataset import Dataset, from_arrays, mean_and_std
from diffjax.data.parts import split
from diffjax.data.pipeline import batches, epoch
from diffjax.data.sources import load

__all__ = ["Dataset", "batches", "epoch", "from_arrays", "load", "mean_and_std", "split"]
