"""Measure how much memory a computation needs at once, the tensors that it makes and holds; and give memory back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import sys
import weakref
from collections.abc import Iterator

import torch
from torch.utils._pytree import tree_leaves

from labkit.modes import Listener

_MADV_PAGEOUT = 21  # linux/mman.h, since Linux 5.4; an older one refuses it, and nothing happens


class Memory(Listener):
    """`peak` is the most bytes that the tensors made so far held at once. Views share the bytes of their base."""

    def __init__(self):
        super().__init__()
        self.peak = 0
        self._held, self._storages = 0, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = {_place(x) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        out = func(*args, **kwargs)
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._take(tensor, given)
        return out

    def _take(self, tensor: torch.Tensor, given: set[int]) -> None:
        where, size = _place(tensor), tensor.untyped_storage().nbytes()
        known = self._storages.get(where)
        if known is None and where in given:
            return  # a view of something that was there before
        if known is None or known["size"] != size:  # new; or in the place of a tensor that has just gone
            self._held += size - (known["size"] if known else 0)
            self.peak = max(self.peak, self._held)
            known = self._storages[where] = {"size": size, "holders": 0}
        known["holders"] += 1
        weakref.finalize(tensor, self._drop, where, known)

    def _drop(self, where: int, storage: dict) -> None:
        storage["holders"] -= 1
        if not storage["holders"] and self._storages.get(where) is storage:
            self._held -= self._storages.pop(where)["size"]


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@contextlib.contextmanager
def record_memory() -> Iterator[Memory]:
    """Count the bytes of the tensors that are made inside: `with record_memory() as memory: ...; memory.peak`.

    Tensors from outside, and their views, don't count; nor does what a kernel needs for itself while it runs. The same
    on every machine, unlike the memory of the process. Each operation takes some microseconds longer.
    """
    memory = Memory()
    with memory:
        yield memory


def give_back(*models: torch.nn.Module) -> None:
    """Let go of what nobody holds any more, and hand the room back to the system; with it that of `models`' weights.

    The C library of Linux keeps the pieces that were freed for later use, sometimes hundreds of megabytes of them; it
    returns them when asked. Weights as `smollm()` loads them lie in a file: the system reads them again where they are
    used next, which takes a fraction of a second, so a model that rests needs no memory. Nothing is lost: what was
    changed stays in memory. Elsewhere than on Linux this collects garbage, and that is all.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no such library, or none that can be asked
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
        for weights in (weights for model in models for weights in model.parameters()):
            start = -(-weights.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE  # whole pages only
            size = (weights.data_ptr() + weights.nbytes - start) // mmap.PAGESIZE * mmap.PAGESIZE
            if sys.platform == "linux" and weights.device.type == "cpu" and size > 0:
                library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _MADV_PAGEOUT)
