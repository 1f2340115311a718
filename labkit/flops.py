"""Counting operations: with attention's on a CPU, and without torch's compiler.

torch's own counter imports the compiler at the first operator, for seconds, and knows no formula for what computes
attention on a CPU (torch 2.13.0): it counts 0 there, and 0 for a whole encoder layer in evaluation mode.
"""

from __future__ import annotations

import contextlib

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import flop_counter

from labkit.modes import Listener

_WITH_COMPILER = flop_counter._FlopCounterMode.__torch_dispatch__


class _Counting(Listener, flop_counter._FlopCounterMode):
    __torch_dispatch__ = getattr(_WITH_COMPILER, "__wrapped__", _WITH_COMPILER)


class Flops(flop_counter.FlopCounterMode):
    """torch's FlopCounterMode, where attention goes its plain way: two products of matrices, which are counted.

    `get_total_flops()` gives two for each multiplication of a matrix product or a convolution, and nothing for the
    rest: not for sums, nor for a matrix times a vector, nor for nn.LSTM. Memory inside is that of the plain way.
    """

    def __init__(self):
        super().__init__(display=False)

    def __enter__(self) -> Flops:
        self.flop_counts.clear()
        self._plain = contextlib.ExitStack()
        self._plain.enter_context(sdpa_kernel(SDPBackend.MATH))
        self._plain.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        self.mod_tracker.__enter__()
        self.mode = _Counting(self)
        self.mode.__enter__()
        return self

    def __exit__(self, *error):
        self._plain.close()
        return super().__exit__(*error)
