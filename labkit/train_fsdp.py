"""Train a small character model on several processes, each of which holds a part of every weight: FSDP2.

    torchrun --standalone --nproc-per-node 2 -m labkit.train_fsdp --steps 100 --checkpoint run

Weights, gradients and optimizer state are cut among the ranks; a block's weights are whole only while it computes. The
checkpoint is a folder into which each rank writes its part, and any other number of ranks resumes from it. To copy:
this file, labkit/training.py and labkit/cluster.py.
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from labkit.cluster import Place, SharedFolder, main
from labkit.training import fit, loss_of, mixed_precision, options_of, parsed, prepare, step_if_finite


def step_once(model, optimizer, stream, options: argparse.Namespace, place: Place) -> tuple[torch.Tensor, bool]:
    """One optimizer step over `accumulate` micro-batches: this rank's mean loss, and whether the step was taken."""
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=place.device)
    for micro in range(options.accumulate):
        ids, targets = next(stream)
        # Before the last, each rank keeps whole gradients: fewer messages for more memory, as no_sync() of DDP.
        model.set_requires_gradient_sync(micro == options.accumulate - 1)
        loss = loss_of(model(ids), targets) / options.accumulate
        loss.backward()
        total += loss.detach()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    return total, step_if_finite(optimizer, norm.full_tensor())


def train(options: argparse.Namespace, place: Place) -> None:
    """Cut the model, and train."""
    data, model = prepare(options)
    model.to(place.device)
    for module in [*model.blocks, model]:
        fully_shard(module, mp_policy=mixed_precision(place))
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr)  # only now: before, they were other parameters
    share = dist.get_rank(), dist.get_world_size()
    fit(options, place, data, model, optimizer, SharedFolder(options.checkpoint), step_once, share)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The options, from the command line if none are given."""
    parser = options_of("train_fsdp", __doc__.splitlines()[0])
    parser.add_argument("--dropout", type=float, default=0.0)
    return parsed(parser, given)


if __name__ == "__main__":
    main("train_fsdp", arguments, train)
