"""Noise schedules: x_t = alpha(t) x_0 + sigma(t) eps, with t in [0, 1], evaluated at concrete or traced times.

Concrete times outside [0, 1] raise an InputError. `chains` has the discrete ones, `continuous` the others.
"""

from diffjax.schedules.base import (
    Schedule,
    VariancePreserving,
    before_end,
    broadcast_to,
    check_times,
    log,
    no_signal_at_end,
    sqrt,
    time_of,
)
from diffjax.schedules.chains import Discrete, cosine, from_betas, linear, sigmoid, zero_terminal_snr
from diffjax.schedules.continuous import (
    EDM,
    VE,
    VP,
    LogLinear,
    Straight,
    SubVP,
    edm,
    log_linear,
    straight,
    sub_vp,
    ve,
    vp,
)
from diffjax.schedules.registry import CHAINS, CONTINUOUS, SCHEDULES, make

__all__ = [
    "CHAINS",
    "CONTINUOUS",
    "EDM",
    "SCHEDULES",
    "VE",
    "VP",
    "Discrete",
    "LogLinear",
    "Schedule",
    "Straight",
    "SubVP",
    "VariancePreserving",
    "before_end",
    "broadcast_to",
    "check_times",
    "cosine",
    "edm",
    "from_betas",
    "linear",
    "log",
    "log_linear",
    "make",
    "no_signal_at_end",
    "sigmoid",
    "sqrt",
    "straight",
    "sub_vp",
    "time_of",
    "ve",
    "vp",
    "zero_terminal_snr",
]
