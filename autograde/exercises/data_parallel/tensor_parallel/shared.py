"""What exercises of the chapter tensor_parallel share."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from autograde.exercises.data_parallel.shared import agree_by_entry, place
from autograde.exercises.shared import randn

ROUNDING = 2e-5  # what float32 leaves of sums of numbers of size 1 that are added in another order


def train_layer(layer, whole, xs, pulls, trained=True, options=None):
    """Build the layer on every rank from the whole weights, run it forwards and backwards; see what it holds and sends.

    Rank r reads `xs[r]`, which is trained if `trained`; the gradient that comes back to its result is `pulls[r]`.
    """
    import torch
    import torch.distributed as dist
    from torch.utils._pytree import tree_leaves

    from labkit import record_traffic

    def sent(messages):
        return [f"{m.op} of {m.bytes} bytes" for m in messages]

    rank = dist.get_rank()
    whole = {name: None if t is None else t.clone(memory_format=torch.contiguous_format) for name, t in whole.items()}
    with record_traffic() as building:
        module = layer(**whole, **(options or {}))
    parts = [t for m in module.modules() for t in tree_leaves(vars(m)) if isinstance(t, torch.Tensor)]
    values = [t.detach().clone() for t in parts]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in parts}
    x = xs[rank].requires_grad_(trained)
    with record_traffic() as forwards:
        y = module(x)
    with record_traffic() as backwards:
        if y.requires_grad:
            (y * (pulls[rank] if y.shape == pulls[rank].shape else torch.ones_like(y))).sum().backward()
    result = {"y": y, "gradient of x": x.grad, "gradients": {name: p.grad for name, p in module.named_parameters()}}
    x.requires_grad_(False).grad = None
    result |= {"bytes held": sum(storages.values()), "held": values}
    return result | {"building": sent(building), "forwards": sent(forwards), "backwards": sent(backwards)}


def agree_on_layer(numbers, oracle):
    """As `agree_by_entry`, with a layer's words for its entries."""
    return agree_by_entry(numbers, oracle, ROUNDING, {"y": "the result", "gradients": "gradient of parameter"})


def spread(g, *shape, scale=1.0):
    """A weight with entries small enough that sums over its columns are of size `scale`."""
    return scale * randn(g, *shape) / shape[-1] ** 0.5


def cut(t, dim, rank, world):
    """Rank's part of t: as even as it goes, the first ones larger."""
    return t.tensor_split(world, dim)[rank].clone()


def size(*tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


def leaves(*tensors):
    """Copies that an oracle can train."""
    return [None if t is None else t.clone().requires_grad_() for t in tensors]


def holds_its_shard(shards):
    """A law: the tensors that rank r's layer holds are those of `shards(one, r)`, and take their bytes."""

    def law(out, one, call):
        for rank, told in enumerate(out):
            mine = shards(one, rank)
            need = size(*mine)
            if told["bytes held"] != need:
                more = "a view keeps all that it was cut from" if told["bytes held"] > need else "something is missing"
                return f"{one.label}: rank {rank} holds {told['bytes held']} bytes, and its share is {need} ({more})"
            if not all(any(torch.equal(t, held) for held in told["held"]) for t in mine):
                return f"{one.label}: rank {rank} holds as many bytes as its share has, but other numbers"
        return True

    return law


def talks(need):
    """A law: forwards and backwards rank r hands in the messages of `need(one, r)`; building sends nothing."""

    def law(out, one, call):
        for rank, told in enumerate(out):
            for way, wanted in zip(("building", "forwards", "backwards"), ([], *need(one, rank)), strict=True):
                wanted = [f"{op} of {count} bytes" for op, count in wanted]
                if sorted(told[way]) != sorted(wanted):
                    says, asked = (", ".join(each) or "nothing" for each in (told[way], wanted))
                    return f"{one.label}: {way} rank {rank} sends {says}, and its task is {asked}"
        return True

    return law


class Talk(torch.autograd.Function):
    """x through `forward`, and what comes back through `backward`."""

    @staticmethod
    def forward(ctx, x, forward, backward):
        ctx.through = backward
        return forward(x)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.through(gradient), None, None


def as_it_is(x):
    return x.view_as(x)


def total(x):
    """The sum over the ranks, in a new tensor."""
    x = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x)
    return x


def mean(x):
    return total(x) / dist.get_world_size()


def total_in_place(x):
    dist.all_reduce(x)
    return x


def total_by_gathering(x):
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.stack(parts).sum(0)


def total_at_rank_0(x):
    x = x.clone(memory_format=torch.contiguous_format)
    dist.reduce(x, 0)
    return x


def from_rank_0(x):
    x = x.clone(memory_format=torch.contiguous_format)
    dist.broadcast(x, 0)
    return x


def gathered(x, dim=-1, world=None):
    """The parts of all ranks in one tensor; they may differ in size along `dim`."""
    rank, n = place()
    own = torch.tensor([x.shape[dim]])
    counts = [torch.empty_like(own) for _ in range(n)]
    dist.all_gather(counts, own)
    most = max(int(c) for c in counts)
    padded = torch.zeros(*x.movedim(dim, 0).shape[1:], most, dtype=x.dtype)
    padded[..., : x.shape[dim]] = x.movedim(dim, -1)
    parts = [torch.empty_like(padded) for _ in range(n)]
    dist.all_gather(parts, padded)
    return torch.cat([p[..., : int(c)] for p, c in zip(parts, counts, strict=True)], -1).movedim(-1, dim)


def enter(x, backward=total):
    return Talk.apply(x, as_it_is, backward)


def leave(x, forward=total, backward=as_it_is):
    return Talk.apply(x, forward, backward)


def parameter(t):
    return None if t is None else nn.Parameter(t)


def plain_tensors(exercise, layer):
    """Adds the mistake that `layer`, right as it stands, holds its parts as tensors that are no parameters."""

    @exercise.mistake(
        "the parts are plain tensors, which nobody trains",
        hint="What is learned is a nn.Parameter: only then is it among parameters(), and only then does it get a "
        "gradient.",
    )
    class Plain(layer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            for name, p in list(self.named_parameters()):
                delattr(self, name)
                setattr(self, name, p.detach())


def gate_wrongly(exercise, layer):
    """Adds the mistakes that `layer`, right as it stands, makes in `gated(gate x, up x)`."""
    asked = "y = down(silu(gate x) * up x)."
    mistakes = (
        ("silu is applied to up instead of gate", asked, lambda a, b: a * F.silu(b)),
        ("silu is applied to the product of gate and up", asked, lambda a, b: F.silu(a * b)),
        ("gate has no activation", asked, lambda a, b: a * b),
        ("silu(gate x) and up x are added", f"{asked} A gate multiplies.", lambda a, b: F.silu(a) + b),
        ("up is left out", asked, lambda a, b: F.silu(a) + 0 * b),
        ("GELU is applied instead of SiLU", "LLaMA's MLP gates with F.silu(gate x).", lambda a, b: F.gelu(a) * b),
        ("ReLU is applied instead of SiLU", "LLaMA's MLP gates with F.silu(gate x).", lambda a, b: a.relu() * b),
        (
            "gate goes through a sigmoid, not through silu",
            "silu(a) = a * sigmoid(a): F.silu.",
            lambda a, b: a.sigmoid() * b,
        ),
    )
    for says, hint, formula in mistakes:

        @exercise.mistake(says, hint=hint)
        class Gates(layer):
            def gated(self, a, b, formula=formula):
                return formula(a, b)


def cut_wrongly(exercise, layer, whose):
    """Adds the mistakes that `layer`, right as it stands, makes where it cuts by `part(t, dim=0)`."""
    even = "Parts differ by at most one, and the first are the larger ones: as tensor_split cuts."
    mistakes = (
        (
            f"the number of {whose} is divided and rounded down, and the last rank gets what is left",
            even,
            lambda n, rank, world: (rank * (n // world), n if rank == world - 1 else (rank + 1) * (n // world)),
        ),
        (
            f"the number of {whose} is divided and rounded down, and what is left is nobody's",
            even,
            lambda n, rank, world: (rank * (n // world), (rank + 1) * (n // world)),
        ),
        (
            f"the first {whose} belong to the last rank",
            "They stand in the order of the ranks: rank 0 has the first.",
            _reversed,
        ),
    )
    for says, hint, span in mistakes:

        @exercise.mistake(says, hint=hint)
        class Cuts(layer):
            def part(self, t, dim=0, span=span):
                first, end = span(t.shape[dim], *place())
                return t.narrow(dim, first, end - first).clone()


def _reversed(n, rank, world):
    of = torch.arange(n).tensor_split(world)[world - 1 - rank]
    return int(of[0]), int(of[-1]) + 1


def leave_wrongly(exercise, layer, products="the products"):
    """Adds the mistakes that `layer`, right as it stands, makes where the ranks' products leave the region."""
    terms = "Each rank has some terms of every output. Region.leave adds them up."
    back = "All ranks hold the same result and get the same gradient: Region.leave hands it on, as it is."
    mistakes = (
        (f"{products} aren't added up over the ranks", terms, as_it_is),
        (f"{products} are averaged, not added up", terms, lambda y: leave(y, mean)),
        (
            f"the sum of {products} is divided by the number of ranks, and so are all gradients",
            terms,
            lambda y: leave(y) / place()[1],
        ),
        (
            "the gradient is all-reduced where the result leaves, too, and comes out as many times as there are ranks",
            back,
            lambda y: leave(y, total, total),
        ),
        (
            "the gradient is divided by the number of ranks on its way back",
            back,
            lambda y: leave(y, total, lambda g: g / place()[1]),
        ),
        (
            "the sum is cut off from the graph",
            "autograd doesn't know all_reduce. Region.leave is made for this.",
            lambda y: total(y.detach()),
        ),
    )
    for says, hint, through in mistakes:

        @exercise.mistake(says, hint=hint)
        class Leaves(layer):
            def leave(self, y, through=through):
                return through(y)
