"""Train a small character model on several processes, the model whole on each: DistributedDataParallel.

    torchrun --standalone --nproc-per-node 2 -m labkit.train_ddp --steps 100

The same command runs on CPUs (gloo) and, where every rank has a GPU, on GPUs (NCCL, bfloat16 if the cards can);
docs/cluster.md has it for several machines. Chapter 03_data_parallel/03_ddp ends on this program. Copy it and change
it: beside torch and a text it needs labkit/training.py and labkit/cluster.py.
"""

from __future__ import annotations

import argparse
import contextlib

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from labkit.cluster import Place, WholeFile, main
from labkit.training import CharGPT, Windows, fit, loss_of, options_of, parsed, prepare, step_if_finite

__all__ = ["CharGPT", "Windows", "arguments", "loss_of", "step_once", "train"]


def step_once(ddp, optimizer, stream, options: argparse.Namespace, place: Place) -> tuple[torch.Tensor, bool]:
    """One optimizer step over `accumulate` micro-batches: this rank's mean loss, and whether the step was taken."""
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=place.device)
    for micro in range(options.accumulate):
        ids, targets = next(stream)
        last = micro == options.accumulate - 1
        with contextlib.nullcontext() if last else ddp.no_sync():  # the ranks talk once a step
            with place.autocast():
                loss = loss_of(ddp(ids), targets) / options.accumulate
            loss.backward()
        total += loss.detach()
    norm = nn.utils.clip_grad_norm_(ddp.parameters(), 1.0)  # after the average, so that all ranks clip alike
    return total, step_if_finite(optimizer, norm)


def train(options: argparse.Namespace, place: Place) -> None:
    """Wrap the model, and train."""
    data, model = prepare(options)
    ddp = DistributedDataParallel(model.to(place.device), [place.device] if place.device.type == "cuda" else None)
    optimizer = torch.optim.AdamW(ddp.parameters(), lr=options.lr)
    share = dist.get_rank(), dist.get_world_size()
    fit(options, place, data, ddp, optimizer, WholeFile(options.checkpoint), step_once, share)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The options, from the command line if none are given."""
    parser = options_of("train_ddp", __doc__.splitlines()[0])
    parser.add_argument("--dropout", type=float, default=0.0)
    return parsed(parser, given)


if __name__ == "__main__":
    main("train_ddp", arguments, train)
