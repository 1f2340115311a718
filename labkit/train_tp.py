"""Train a small character model on several processes that share every matrix product: tensor parallelism, 2-D.

    torchrun --standalone --nproc-per-node 4 -m labkit.train_tp --tensor-parallel 2 --steps 100

The ranks stand in a grid. A row of --tensor-parallel ranks (on one machine: they talk in every layer) computes one
batch together; the rows of the grid share the batches, and FSDP2 cuts along them what is left. To copy: this file,
labkit/training.py and labkit/cluster.py.
"""

from __future__ import annotations

import argparse
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, loss_parallel, parallelize_module

from labkit.cluster import Place, SharedFolder, main, refuse
from labkit.training import CharGPT, fit, loss_of, mixed_precision, options_of, parsed, prepare, step_if_finite


class Attention(nn.Module):
    """nn.MultiheadAttention with a matrix each for q, k and v: cut by columns, a rank has whole heads of all three."""

    def __init__(self, whole: nn.MultiheadAttention):
        super().__init__()
        width = whole.embed_dim
        self.head, self.out = width // whole.num_heads, whole.out_proj
        parts = zip(whole.in_proj_weight.detach().chunk(3), whole.in_proj_bias.detach().chunk(3), strict=True)
        for name, (weight, bias) in zip("qkv", parts, strict=True):
            linear = nn.Linear(width, width, device=weight.device)
            linear.load_state_dict({"weight": weight, "bias": bias})
            setattr(self, name, linear)

    def forward(self, x, *_, **__):
        q, k, v = (part(x).unflatten(-1, (-1, self.head)).transpose(1, 2) for part in (self.q, self.k, self.v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return (self.out(mixed.transpose(1, 2).flatten(2)),)


def cut(model: CharGPT, grid, place: Place) -> None:
    """Cut each matrix of the model among a row of the grid, and by FSDP2 among the rows what each rank is left with.

    Of a pair of matrices the first is cut by columns and the second by rows: one sum at the end of the pair is all that
    the ranks have to say to each other. Embedding and head are cut by characters.
    """
    for block in model.blocks:
        block.self_attn = Attention(block.self_attn)
        plan = {f"self_attn.{name}": ColwiseParallel() for name in "qkv"}
        plan |= {"self_attn.out": RowwiseParallel(), "linear1": ColwiseParallel(), "linear2": RowwiseParallel()}
        parallelize_module(block, grid["tensor"], plan)
    ends = {
        "tokens": RowwiseParallel(input_layouts=Replicate()),
        "head": ColwiseParallel(output_layouts=Shard(-1), use_local_output=False),  # nobody holds all logits
    }
    parallelize_module(model, grid["tensor"], ends)
    for module in [*model.blocks, model]:
        fully_shard(module, mesh=grid["data"], mp_policy=mixed_precision(place))


def clip(parameters: list[nn.Parameter], most: float) -> torch.Tensor:
    """Clip by the norm over all ranks, and give it. torch's own can't add up norms from the row and from the grid."""
    norms = [p.grad.norm().full_tensor() for p in parameters]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    nn.utils.clip_grads_with_norm_(parameters, most, norm, foreach=False)
    return norm


def step_once(model, optimizer, stream, options: argparse.Namespace, place: Place) -> tuple[torch.Tensor, bool]:
    """One optimizer step over `accumulate` micro-batches: the mean loss of this row, and whether the step was taken."""
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=place.device)
    for micro in range(options.accumulate):
        ids, targets = next(stream)
        model.set_requires_gradient_sync(micro == options.accumulate - 1)
        with loss_parallel():  # cross-entropy of logits that are cut by characters
            loss = loss_of(model(ids), targets) / options.accumulate
            loss.backward()
        total += loss.detach().full_tensor()
    norm = clip(list(model.parameters()), 1.0)
    return total, step_if_finite(optimizer, norm)


def train(options: argparse.Namespace, place: Place) -> None:
    """Set up the grid, cut the model, and train."""
    world = dist.get_world_size()
    row = options.tensor_parallel or int(os.environ.get("LOCAL_WORLD_SIZE", world))
    if world % row or options.heads % row:
        refuse(f"--tensor-parallel {row} must divide the {world} ranks and the --heads {options.heads}.")
    grid = init_device_mesh(place.device.type, (world // row, row), mesh_dim_names=("data", "tensor"))
    data, model = prepare(options)
    cut(model.to(place.device), grid, place)
    # Lists of parameters are stepped together, and for that all of one list must be cut in the same way.
    groups = {}
    for p in model.parameters():
        groups.setdefault(p.device_mesh.ndim, []).append(p)
    optimizer = torch.optim.AdamW([{"params": group} for group in groups.values()], lr=options.lr)
    share = grid["data"].get_local_rank(), world // row
    fit(options, place, data, model, optimizer, SharedFolder(options.checkpoint), step_once, share)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The options, from the command line if none are given."""
    parser = options_of("train_tp", __doc__.splitlines()[0])
    add = parser.add_argument
    # No --dropout: a row would have to draw the same numbers where activations are whole, others where they are cut.
    add("--tensor-parallel", type=int, metavar="N", help="ranks that share one batch (default: those of a machine)")
    options = parsed(parser, given)
    if options.tensor_parallel is not None and options.tensor_parallel < 1:
        parser.error("--tensor-parallel must be at least 1")
    return options


if __name__ == "__main__":
    main("train_tp", arguments, train)
