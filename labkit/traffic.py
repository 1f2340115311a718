"""Record what a rank says to the others: every collective, send and receive, with its size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from labkit.modes import Listener


@dataclass(frozen=True)
class Message:
    """One collective, send or receive, as the rank that issued it sees it.

    `op` is the function's name in torch.distributed: all_reduce, broadcast, reduce, all_gather, all_gather_into_tensor,
    reduce_scatter, reduce_scatter_tensor, all_to_all, all_to_all_single, gather, scatter, send, recv, barrier.
    `shape` and `dtype` ("float32") are those of the first tensor that this rank hands in. `bytes` is the payload: the
    size of all tensors that this rank hands in, whatever the algorithm then sends over the wire. A receiver (recv, and
    scatter away from its source) hands in nothing, so there it is what comes in. `peer` is the global rank at the other
    end of a send or recv, and the root of a broadcast, reduce, gather or scatter; None otherwise.
    """

    op: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    peer: int | None = None


# c10d's and the functional operators' names, and the argument that holds what the rank hands in.
_OPS = {
    "allreduce_": ("all_reduce", "tensors"),
    "broadcast_": ("broadcast", "tensors"),
    "reduce_": ("reduce", "tensors"),
    "allgather_": ("all_gather", "input_tensors"),
    "_allgather_base_": ("all_gather_into_tensor", "input_tensor"),
    "allgather_coalesced_": ("all_gather", "input_list"),
    "allgather_into_tensor_coalesced_": ("all_gather_into_tensor", "inputs"),
    "reduce_scatter_": ("reduce_scatter", "input_tensors"),
    "_reduce_scatter_base_": ("reduce_scatter_tensor", "input_tensor"),
    "reduce_scatter_tensor_coalesced_": ("reduce_scatter_tensor", "inputs"),
    "allreduce_coalesced_": ("all_reduce", "tensors"),
    "alltoall_": ("all_to_all", "input_tensors"),
    "alltoall_base_": ("all_to_all_single", "input"),
    "gather_": ("gather", "input_tensors"),
    "scatter_": ("scatter", "input_tensors"),
    "send": ("send", "tensors"),
    "recv_": ("recv", "tensors"),
    "recv_any_source_": ("recv", "tensors"),
    "barrier": ("barrier", None),
    "monitored_barrier_": ("barrier", None),
    "all_reduce": ("all_reduce", "input"),
    "all_reduce_": ("all_reduce", "input"),
    "all_reduce_coalesced": ("all_reduce", "inputs"),
    "all_reduce_coalesced_": ("all_reduce", "inputs"),
    "broadcast": ("broadcast", "input"),
    "all_gather_into_tensor": ("all_gather_into_tensor", "input"),
    "all_gather_into_tensor_out": ("all_gather_into_tensor", "input"),
    "all_gather_into_tensor_coalesced": ("all_gather_into_tensor", "inputs"),
    "reduce_scatter_tensor": ("reduce_scatter_tensor", "input"),
    "reduce_scatter_tensor_out": ("reduce_scatter_tensor", "input"),
    "reduce_scatter_tensor_coalesced": ("reduce_scatter_tensor", "inputs"),
    "all_to_all_single": ("all_to_all_single", "input"),
    "isend": ("send", "tensor"),
    "irecv": ("recv", "tensor"),
}
_PEERS = ("dst", "src", "root_rank")


@contextlib.contextmanager
def record_traffic() -> Iterator[list[Message]]:
    """Give a list that fills with a `Message` for everything this rank issues inside.

    A message is added when the operation is issued, so `async_op=True`, isend, batch_isend_irecv and coalesced
    collectives (one message a tensor) are there whether or not they are waited for. So are collectives in backward
    hooks, and those that DistributedDataParallel issues from C++: on the CPU, backward runs in the calling thread.
    Collectives that another thread issues are not seen. Object collectives (all_gather_object …) appear as the tensor
    collectives they are made of. Nothing is added for making a process group.
    """
    messages: list[Message] = []
    with _Recorder(messages):
        yield messages


class _Recorder(Listener):
    def __init__(self, messages: list[Message]):
        super().__init__()
        self.messages = messages

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if getattr(func, "namespace", "") in ("c10d", "_c10d_functional"):
            self.messages += _messages(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _messages(func, args: tuple, kwargs: dict[str, Any]) -> list[Message]:
    name = func._schema.name.partition("::")[2]
    if name not in _OPS:
        return []  # wait_tensor and the like: they move nothing
    op, source = _OPS[name]
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    peer = _peer(given)
    handed = _flat(given.get(source)) or _flat(given.get("output_tensors"))
    parts = [[tensor] for tensor in handed] if "coalesced" in name else [handed]
    return [_message(op, tensors, peer) for tensors in parts]


def _message(op: str, tensors: list[torch.Tensor], peer: int | None) -> Message:
    if not tensors:
        return Message(op, (), "", 0, peer)
    return Message(op, tuple(tensors[0].shape), dtype_name(tensors[0]), size_of(tensors), peer)


def size_of(value: Any) -> int:
    """Bytes of all tensors in a value, in lists and tuples, too."""
    return sum(tensor.numel() * tensor.element_size() for tensor in _flat(value))


def _flat(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for part in value for tensor in _flat(part)] if isinstance(value, (list, tuple)) else []


def _peer(given: dict[str, Any]) -> int | None:
    """The other end as a global rank. c10d counts inside the process group."""
    peer = next((given[name] for name in _PEERS if name in given), None)
    group = given.get("process_group")
    if peer is None or group is None:
        return peer
    return global_rank(dist.ProcessGroup.unbox(group), peer)


def global_rank(group, rank: int) -> int:
    """The global rank of the member `rank` of `group`; `rank` itself where the group is not registered."""
    try:
        return dist.get_global_rank(group, rank)
    except (ValueError, RuntimeError, KeyError):
        return rank


def dtype_name(tensor: torch.Tensor) -> str:
    """`float32` for torch.float32."""
    return str(tensor.dtype).removeprefix("torch.")
