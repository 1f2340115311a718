"""Counting operations without torch's compiler, which its own counter imports for seconds at the first operator."""

from __future__ import annotations

from torch.utils import flop_counter

from labkit.modes import Listener

_WITH_COMPILER = flop_counter._FlopCounterMode.__torch_dispatch__


class _Counting(Listener, flop_counter._FlopCounterMode):
    __torch_dispatch__ = getattr(_WITH_COMPILER, "__wrapped__", _WITH_COMPILER)


class Flops(flop_counter.FlopCounterMode):
    """torch's FlopCounterMode, which counts the same and says it by `get_total_flops()`."""

    def __init__(self):
        super().__init__(display=False)

    def __enter__(self) -> Flops:
        self.flop_counts.clear()
        self.mod_tracker.__enter__()
        self.mode = _Counting(self)
        self.mode.__enter__()
        return self
