"""Train a small character model on several processes, each of which has some of its layers: a pipeline.

    torchrun --standalone --nproc-per-node 2 -m labkit.train_pp --steps 100 --accumulate 4

Each rank is a stage. The micro-batches of a step follow one another through the stages, in the order of --schedule. To
copy: this file, labkit/training.py and labkit/cluster.py.
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from labkit.cluster import Place, SharedFolder, main, refuse
from labkit.training import CharGPT, fit, loss_of, options_of, parsed, prepare, step_if_finite

SCHEDULES = {"1f1b": Schedule1F1B, "gpipe": ScheduleGPipe}


class Stage(CharGPT):
    """Some blocks of a CharGPT, under the names that they have there; the first also embeds, the last reads off."""

    def __init__(self, model: CharGPT, number: int, stages: int, place: Place):
        nn.Module.__init__(self)
        self.place, self.is_first, self.is_last = place, number == 0, number == stages - 1
        count = len(model.blocks)
        mine = range(count * number // stages, count * (number + 1) // stages)
        self.blocks = nn.ModuleDict({str(i): model.blocks[i] for i in mine})
        if self.is_first:
            self.tokens, self.positions = model.tokens, model.positions
        if self.is_last:
            self.norm, self.head = model.norm, model.head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with self.place.autocast():
            x = self.through(self.blocks.values(), self.embed(x) if self.is_first else x)
            return self.read_off(x) if self.is_last else x


def step_once(stage, optimizer, stream, options: argparse.Namespace, place: Place) -> tuple[torch.Tensor, bool]:
    """One optimizer step over `accumulate` micro-batches: the mean loss, and whether the step was taken."""
    optimizer.zero_grad(set_to_none=True)
    micro = [next(stream) for _ in range(options.accumulate)]
    ids, targets = (torch.cat(parts) for parts in zip(*micro, strict=True))
    losses = []
    given = (ids,) if stage.is_first else ()
    asked = {"target": targets, "losses": losses} if stage.is_last else {}
    stage.schedule.step(*given, **asked, return_outputs=False)
    # One number says how the step went on each stage, so all clip alike; another carries the loss from the last.
    norms = torch.stack([p.grad.norm() for p in stage.parameters()])
    both = torch.stack([norms.square().sum(), sum(losses) / len(losses) if losses else norms.new_zeros(())])
    dist.all_reduce(both)
    norm = both[0].sqrt()
    nn.utils.clip_grads_with_norm_(stage.parameters(), 1.0, norm)
    return both[1], step_if_finite(optimizer, norm)


def train(options: argparse.Namespace, place: Place) -> None:
    """Take this rank's layers, and train."""
    rank, stages = dist.get_rank(), dist.get_world_size()
    if options.layers < stages:
        refuse(f"--layers {options.layers} are too few for {stages} ranks: each stage needs one.")
    if options.schedule == "1f1b" and options.accumulate < stages:
        refuse(f"1F1B needs a micro-batch a stage: give --accumulate {stages} or more, or --schedule gpipe.")
    data, model = prepare(options)
    stage = Stage(model, rank, stages, place).to(place.device)
    pipe = PipelineStage(stage, rank, stages, place.device)
    stage.schedule = SCHEDULES[options.schedule](pipe, options.accumulate, loss_fn=loss_of)
    optimizer = torch.optim.AdamW(stage.parameters(), lr=options.lr)
    share = 0, 1  # every stage has a hand in the same rows
    fit(options, place, data, stage, optimizer, SharedFolder(options.checkpoint), step_once, share)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The options, from the command line if none are given."""
    parser = options_of("train_pp", __doc__.splitlines()[0])
    parser.add_argument("--schedule", choices=SCHEDULES, default="1f1b", help="order of forward and backward passes")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.set_defaults(accumulate=4, layers=4)
    return parsed(parser, given)


if __name__ == "__main__":
    main("train_pp", arguments, train)
