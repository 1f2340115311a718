"""What chapter 08_scaling_out builds on: published training runs, and two messages that gradients travel back through.

`published_runs.json` holds the runs, with paper and table of each. What a source doesn't say is listed in `assumed`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

__all__ = ["exchange", "machines", "models", "published_runs", "seconds_of", "shift", "sources"]


def machines() -> dict[str, dict[str, Any]]:
    """GPUs by name: peak (FLOP/s), memory, fast and slow (bytes a second), node (GPUs in one), bytes (of memory)."""
    return _file()["machines"]


def models() -> dict[str, dict[str, int]]:
    """Models by name: layers, hidden, heads, kv_heads, head_dim, ffn, matrices, experts, active, vocab."""
    return _file()["models"]


def sources() -> dict[str, dict[str, str]]:
    """Sources by name: title, where to find it, and a note on what was read out of it and what was not."""
    return _file()["sources"]


def published_runs() -> list[dict[str, Any]]:
    """The runs, in the order of their sources.

    Each is a dict: name, gpus, seq, batch (sequences a step), layout (degrees of parallelism and the like), published
    (what the source measured), source, table, assumed; machine and model are the dicts of `machines` and `models`.
    """
    return [
        {**run, "machine": {"name": run["machine"], **machines()[run["machine"]]}, "model": models()[run["model"]]}
        for run in _file()["runs"]
    ]


def seconds_of(run: dict[str, Any], training_flops: Callable[..., float]) -> float:
    """The published seconds of one step of a run.

    training_flops(model, seq, recompute): operations of one step for one sequence. It is asked where a source gives
    FLOP/s, with `recompute` as the source counts.
    """
    told = run["published"]
    if "seconds" in told:
        return told["seconds"]
    tokens = run["batch"] * run["seq"]
    if "tokens_per_second" in told:
        return tokens / told["tokens_per_second"]
    if "gpu_hours_per_trillion" in told:
        return tokens / 1e12 * told["gpu_hours_per_trillion"] * 3600 / run["gpus"]
    work = run["batch"] * training_flops(run["model"], run["seq"], told["counts"] == "recompute")
    return work / (run["gpus"] * told["tflops"] * 1e12)


@functools.cache
def _file() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("published_runs.json").read_text(encoding="utf-8"))


def exchange(rows: torch.Tensor, sent: list[int], received: list[int]) -> torch.Tensor:
    """All-to-all of rows: the first sent[0] of them go to rank 0, the next sent[1] to rank 1, and so on.

    rows: [sum(sent), d]. received[r]: how many come from rank r. Returns [sum(received), d], in the order of the ranks.
    All ranks have to call it, and gradients travel back the same way, if all ranks have the result in their graph.
    """
    return _Exchange.apply(rows, list(sent), list(received))


def shift(block: torch.Tensor, rows: int) -> torch.Tensor:
    """Send `block` to the right neighbor in a ring of all ranks; give what comes from the left one.

    block: [heads, n, d]. rows: the n of the block that comes. Returns [heads, rows, d]. All ranks have to call it, and
    gradients travel back the other way, if all ranks have the result in their graph.
    """
    return _Shift.apply(block, rows)


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, sent, received):
        ctx.sizes = sent, received
        came = rows.new_empty(sum(received), *rows.shape[1:])
        dist.all_to_all_single(came, rows.contiguous(), received, sent)
        return came

    @staticmethod
    def backward(ctx, gradient):
        sent, received = ctx.sizes
        return _Exchange.apply(gradient, received, sent), None, None


class _Shift(torch.autograd.Function):
    @staticmethod
    def forward(ctx, block, rows, step=1):
        ctx.rows, ctx.step = block.shape[1], step
        rank, n = dist.get_rank(), dist.get_world_size()
        came = block.new_empty(block.shape[0], rows, block.shape[2])
        sending = dist.isend(block.contiguous(), (rank + step) % n)
        dist.recv(came, (rank - step) % n)
        sending.wait()
        return came

    @staticmethod
    def backward(ctx, gradient):
        return _Shift.apply(gradient, ctx.rows, -ctx.step), None, None
