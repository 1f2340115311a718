"""Notice when a rank begins to wait for others and when it goes on, without slowing anything else down.

A dispatch mode would see every operator of a training loop. Here only the methods of `ProcessGroup` and `Work.wait`
are wrapped, in the rank's own process. What DistributedDataParallel waits for in C++ is therefore not named.
"""

from __future__ import annotations

import functools
import threading
import weakref
from typing import Any

import torch.distributed as dist

from labkit.status import Board
from labkit.traffic import dtype_name, global_rank, size_of

# The method of ProcessGroup; the function's name in torch.distributed; which argument holds what the rank hands in.
_METHODS = {
    "allreduce": ("all_reduce", 0),
    "allreduce_coalesced": ("all_reduce", 0),
    "broadcast": ("broadcast", 0),
    "reduce": ("reduce", 0),
    "allgather": ("all_gather", 1),
    "allgather_coalesced": ("all_gather", 1),
    "allgather_into_tensor_coalesced": ("all_gather_into_tensor", 1),
    "_allgather_base": ("all_gather_into_tensor", 1),
    "all_gather_single": ("all_gather_into_tensor", 1),
    "reduce_scatter": ("reduce_scatter", 1),
    "reduce_scatter_tensor_coalesced": ("reduce_scatter_tensor", 1),
    "_reduce_scatter_base": ("reduce_scatter_tensor", 1),
    "reduce_scatter_single": ("reduce_scatter_tensor", 1),
    "alltoall": ("all_to_all", 1),
    "alltoall_base": ("all_to_all_single", 1),
    "all_to_all_single": ("all_to_all_single", 1),
    "gather": ("gather", 1),
    "scatter": ("scatter", 0),
    "send": ("send to rank", 0),
    "recv": ("recv from rank", 0),
    "recv_anysource": ("recv from any rank", 0),
    "barrier": ("barrier", None),
    "monitored_barrier": ("monitored_barrier", None),
}


def watch(board: Board) -> None:
    """From now on, write to `board` whatever this thread waits for in torch.distributed."""
    watched = threading.get_ident()
    issued: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()

    def waits(text: str, size: int, function, *args, **kwargs):
        if threading.get_ident() != watched:
            return function(*args, **kwargs)
        # Besides this thread there is the one that listens to the launcher. Any other might end the wait.
        board.write(True, threading.active_count() <= 2, text, size)
        try:
            return function(*args, **kwargs)
        finally:
            board.write(False)

    def wrap_method(name: str, method):
        @functools.wraps(method)
        def wrapper(group, *args, **kwargs):
            text = _describe(name, group, args, kwargs)
            work = waits(text, size_of([*args, *kwargs.values()]), method, group, *args, **kwargs)
            if work is not None:
                issued[work] = text
            return work

        return wrapper

    def wrap_wait(wait):
        @functools.wraps(wait)
        def wrapper(work, *args, **kwargs):
            return waits(issued.get(work, "a collective"), 0, wait, work, *args, **kwargs)

        return wrapper

    for name in _METHODS:
        if method := getattr(dist.ProcessGroup, name, None):
            setattr(dist.ProcessGroup, name, wrap_method(name, method))
    dist.Work.wait = wrap_wait(dist.Work.wait)


def _describe(name: str, group, args: tuple, kwargs: dict[str, Any]) -> str:
    """`recv from rank 1 (float32 [3])`, with the group where it isn't everybody."""
    what, index = _METHODS[name]
    values = [*args, *kwargs.values()]
    if name in ("send", "recv") and len(values) > 1:
        what = f"{what} {global_rank(group, values[1])}"
    tensor = _first_tensor(values[index]) if index is not None and len(values) > index else None
    if tensor is not None:
        what += f" ({dtype_name(tensor)} {list(tensor.shape)})"
    if group.size() < dist.get_world_size():
        what += f" in the group of ranks {dist.get_process_group_ranks(group)}"
    return what


def _first_tensor(value: Any):
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return value if hasattr(value, "dtype") else None
