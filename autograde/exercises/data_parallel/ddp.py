"""Exercises of 03_data_parallel/03_ddp: the wrapper DDP, and those that ddp_plan and ddp_averages define.

The judge of the wrapper is one process that sees the whole batch, and torch's own bucket assignment.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

from autograde.exercise import Exercise, Law, Misconception, case
from autograde.exercises.data_parallel import ddp_probes as probes
from autograde.exercises.data_parallel import ddp_wrappers as wrappers
from autograde.exercises.data_parallel.ddp_averages import (
    accumulate,
    agree_first_on,
    average_gradients,
    bytes_of,
    randn,
)
from autograde.exercises.data_parallel.ddp_plan import assign_buckets, pick, shard_indices

__all__ = ["DDP", "accumulate", "assign_buckets", "average_gradients", "shard_indices"]


def _net(layers, start, frozen=(), tied=()):
    """The model of a case in one process: modules, the tensors that training or a broadcast changes."""
    net = nn.ModuleList(getattr(nn, kind)(*sizes) for kind, *sizes in layers).eval()
    for a, b in tied:
        net[b].weight = net[a].weight
    for name in frozen:
        net.get_parameter(name).requires_grad_(False)
    if start is not None:
        net.to(start.dtype)  # this makes new buffers
    tensors = [*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())]
    if start is not None:
        for t, values in zip(tensors, start.split([t.numel() for t in tensors]), strict=True):
            t.data.copy_(values.view_as(t))
    return net, tensors


def _flat(tensors):
    return torch.cat([t.detach().flatten() for t in tensors])


def whole_batch(layers, starts, x, y, bucket_bytes, frozen=(), tied=(), paths=None):
    """One process, rank 0's start, every rank's examples at once."""
    net, tensors = _net(layers, starts[0], frozen, tied)
    params, world = list(net.parameters()), len(starts)
    for inputs, targets in zip(x, y, strict=True):
        net.zero_grad()
        for r in range(world):
            hidden = inputs[r].flatten(0, 1)
            for i in range(len(net)) if paths is None else paths[r]:
                hidden = net[i](hidden)
            ((hidden - targets[r].flatten(0, 1)).square().mean() / world).backward()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
        with torch.no_grad():
            for p, g in zip(params, gradients, strict=True):
                p -= 0.1 * g
    return [{"start": starts[0], "gradient": _flat(gradients), "end": _flat(tensors)}] * world


def ddp_cases(g):
    def some(world, layers, bucket_bytes, label, steps=1, micro=1, rows=4, classes=None, **options):
        tied = options.get("tied", ())
        size = sum(t.numel() for t in _net(layers, None, tied=tied)[1])
        starts = torch.rand(world, size, generator=g) * 0.8 + 0.1
        shape = (steps, world, micro, rows)
        x = torch.randint(classes, shape, generator=g) if classes else randn(g, *shape, layers[0][1])
        y = randn(g, *shape, classes or layers[-1][2])
        return case(layers, starts, x, y, bucket_bytes, ranks=world, label=label, **options)

    d, h = pick(g, 2, 4), pick(g, 5, 7)
    mlp = [["Linear", d, h], ["Tanh"], ["Linear", h, d]]
    normed = [["Linear", d, h], ["BatchNorm1d", h], ["Tanh"], ["Linear", h, d]]
    heads = [["Linear", d, h], ["Linear", h, d], ["Linear", h, d]]
    tied = [["Embedding", h, d], ["Tanh"], ["Linear", d, h]]
    yield some(2, mlp, 4 * (d + 1), "a small MLP, several buckets, two steps", steps=2)
    yield some(2, normed, 2**20, "a model with buffers, one large bucket")
    yield some(2, mlp, 64, "three micro-batches under no_sync", micro=3, rows=2)
    yield some(2, heads, 1, "each rank uses another head", paths=[[0, 1], [0, 2]])
    yield some(3, normed, 4 * h, "three ranks, two steps of two micro-batches", steps=2, micro=2)
    yield some(2, tied, 4 * h, "an embedding tied to the output layer", classes=h, tied=[[0, 2]])
    yield some(3, mlp, 4, "frozen parameters", frozen=["0.weight", "2.bias"])


def _buckets(one):
    """The bytes of each bucket, by torch's own rule on the trainable parameters in reverse."""
    options = {k: v for k, v in one.kwargs.items() if k != "paths"}
    params = list(_net(one.args[0], one.args[1][0], **options)[0].parameters())
    params = [p for p in params if p.requires_grad][::-1]
    groups = dist._compute_bucket_assignment_by_size(params, [one.args[4]])[0]
    return [sum(bytes_of(params[i] for i in group)) for group in groups]


def _starts_from_rank_0(out, one, call):
    return all(torch.equal(r["start"], one.args[1][0]) for r in out)


def _one_message_a_bucket(out, one, call):
    need = _buckets(one)
    for sent in (sent for r in out for sent in r["sent"]):
        if sent != need:
            return f"{one.label}: all-reduces of {sent} bytes, and the buckets are {need}"
    return True


def _overlaps(out, one, call):
    if len(_buckets(one)) < 2 or one.kwargs.get("paths"):
        return None
    return all(min(r["early"]) > 0 for r in out) or "no all-reduce starts before the last gradient is there"


def _never_waits(out, one, call):
    return not any(any(r["waited"]) for r in out) and all(any(r["sent"]) for r in out)


def _silent_in_no_sync(out, one, call):
    if one.args[2].shape[2] == 1:
        return None
    if not any(any(r["sent"]) for r in out):
        return "nothing is sent outside either"
    return not any(r["inside no_sync"] for r in out) or "an all-reduce starts inside no_sync()"


DDP = Exercise(
    name="DDP",
    points=6,
    cases=ddp_cases,
    oracle=whole_batch,
    probe=probes.train_on_rank,
    ranks=True,
    limit=4.0,
    agrees=agree_first_on(["start", "gradient", "end"], whole_batch),
    laws=[
        Law("Every rank starts from rank 0's parameters and buffers", _starts_from_rank_0),
        Law("One all-reduce a bucket in every step, in order", _one_message_a_bucket),
        Law("The first all-reduce starts while the backward pass still runs", _overlaps),
        Law("The backward pass never waits for an all-reduce", _never_waits),
        Law("Nothing is sent inside no_sync()", _silent_in_no_sync),
    ],
    misconceptions=[
        Misconception(
            "the gradients are summed over the ranks and never divided",
            wrappers.SumsGradients,
            "all_reduce adds. The gradient of a mean over the whole batch is the mean of the ranks' gradients.",
        ),
        Misconception(
            "the gradients are divided by the number of ranks twice",
            wrappers.DividesTwice,
            "Divide before the all-reduce or after it, not both.",
        ),
        Misconception(
            "the means stay in the buckets and never reach .grad",
            wrappers.NeverStores,
            "The flat bucket is a copy: cut it up again and put the pieces into the parameters' .grad.",
        ),
        Misconception(
            "nothing is broadcast at the start, so that every rank trains a model of its own",
            wrappers.NoBroadcast,
            "Equal gradients keep replicas equal only if they start equal. Copy rank 0's parameters to all.",
        ),
        Misconception(
            "only the parameters are broadcast, and buffers differ from rank to rank",
            wrappers.ForgetsBuffers,
            "BatchNorm's running mean and variance are buffers: module.buffers().",
        ),
        Misconception(
            "each rank sends its buckets in the order in which they fill up there, and different buckets get added",
            wrappers.LaunchesOutOfOrder,
            "Collectives are matched by order alone. Start bucket i only after bucket i - 1, on every rank.",
        ),
        Misconception(
            "the backward pass waits for each bucket before it goes on",
            wrappers.WaitsAtOnce,
            "all_reduce(…, async_op=True) hands back a `work` at once. Keep it, and wait in finish().",
        ),
        Misconception(
            "all buckets are sent after the backward pass, so that nothing overlaps",
            wrappers.ReducesAtTheEnd,
            "register_post_accumulate_grad_hook calls you as soon as a gradient is there. Start full buckets then.",
        ),
        Misconception(
            "every parameter is sent by itself",
            wrappers.OneMessageAParameter,
            "Copy the gradients of one bucket into one flat tensor, and send that.",
        ),
        Misconception(
            "the second step still finds the buckets of the first",
            wrappers.ForgetsToReset,
            "At the end of finish() set the counters back and forget the works.",
        ),
        Misconception(
            "the gradients are averaged after every micro-batch, also inside no_sync()",
            wrappers.IgnoresNoSync,
            "Inside no_sync() a hook has nothing to do: autograd already adds to .grad.",
        ),
        Misconception(
            "only the last micro-batch's gradient is averaged, and what had piled up before stays local",
            wrappers.ReducesLastMicroBatch,
            "Send p.grad, which holds the sum of all micro-batches, not the gradient that the last one adds.",
        ),
    ],
    alternatives=[wrappers.Bucketed, wrappers.Coalesced],
    dtypes=[torch.float64],
    forbid=["torch.nn.parallel.distributed"],
    hints=[
        "Three moments: at the start (broadcast), when a gradient is ready (count, and start what is full), and in "
        "finish() (wait, and hand out the means).",
        "Keep a counter of missing gradients for each bucket, and a list of what is under way. In the hook: count "
        "down, then, while the next bucket in order has nothing missing, start it with async_op=True.",
        "To start bucket b: flat = torch.cat([p.grad.flatten() …]) (zeros where .grad is None), work = "
        "dist.all_reduce(flat, async_op=True), and keep (flat, work). In finish(): start the rest, wait for each work, "
        "divide by the number of ranks, cut with flat.split(sizes), view_as(p), and reset. no_sync() flips a flag that "
        "the hook looks at.",
    ],
)
