"""The tables and figures of the results page, one command for each."""

from experiments.platform import set_cpu_flags

set_cpu_flags()  # before jax is imported, as in `experiments.main`: convolutions' gradients are much slower without
