"""`zero1_step(params, part, optimizer, max_norm=None)`

One optimizer step of ZeRO-1: every rank steps its own part of the parameters, and all end with all of them.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.distributed as dist
from torch import nn

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.shared import agree_by_entry, place
from autograde.exercises.data_parallel.zero_and_fsdp.shared import (
    GATHERS,
    SCATTERS,
    gathered,
    joined,
    scattered,
    sent,
    share,
)
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "zero1_step",
    points=4,
    ranks=True,
    limit=4.0,
    dtypes=[],
    strides=False,
    hints=[
        "An all-reduce is a reduce-scatter and an all-gather. What can be done between the two, on one part of the "
        "vector, that needs to be done only once in the world?",
        "Join the gradients (zeros where there is none) and pad; reduce_scatter gives the sum of this rank's part: "
        "divide it, make it part.grad, clip, step. Then all_gather the parts and copy them into the parameters.",
        "parts = [torch.empty(len(part), dtype=kind) for _ in range(world)]; dist.all_gather(parts, part.detach()"
        ".to(kind)); flat = torch.cat(parts); then p.data.copy_(…) from flat.split(sizes). For max_norm: all_reduce "
        "part.grad.square().sum(), take the root, multiply by min(1, max_norm / (norm + 1e-6)).",
    ],
)


@exercise.cases
def step_cases(g):
    def some(world, shapes, label, steps=2, scale=1.0, without=(), dtype=torch.float32, **options):
        weights = [randn(g, *shape).to(dtype) for shape in shapes]
        grads = [
            [[None if (r, i) in without else (scale * randn(g, *s)).to(dtype) for i, s in enumerate(shapes)]
             for r in range(world)]
            for _ in range(steps)
        ]  # fmt: skip
        return case(weights, grads, ranks=world, label=label, **options)

    d, h = pick(g, 2, 3), pick(g, 5, 7)
    odd = [(h, d), (h,), (d,), (1 + (h * d + h + d) % 2,)]  # an odd number of numbers
    yield some(2, odd, "two ranks, one number of padding")
    yield some(2, odd, "a gradient that one rank lacks, and one that nobody has", without={(0, 1), (0, 2), (1, 2)})
    yield some(2, odd, "large gradients, clipped", scale=pick(g, 5, 9), steps=3, max_norm=1.0)
    yield some(2, odd, "small gradients, not clipped", scale=0.1, max_norm=5.0)
    yield some(2, odd, "AdamW", adamw=True, steps=3)
    # whole numbers: their sum has no rounding in bfloat16 either
    half = some(2, odd, "bfloat16 parameters, a float32 part", steps=3, dtype=torch.bfloat16)
    grads = [[[x.float().mul(2).round().to(x.dtype) for x in of_rank] for of_rank in step] for step in half.args[1]]
    yield case(half.args[0], grads, ranks=2, label=half.label, adamw=True)
    clipped = [[[10 * x for x in of_rank] for of_rank in step] for step in grads[:2]]
    yield case(half.args[0], clipped, ranks=2, label="bfloat16 parameters, clipped", max_norm=pick(g, 30, 40) / 1.0)
    yield some(2, odd, "max_norm = 0: the weights only decay", steps=1, max_norm=0.0)
    yield some(2, odd, "gradients of zeros, and max_norm is given", steps=1, scale=0.0, max_norm=1.0)
    yield some(3, [(), (3, h), (d, 2), (1 + (3 * h + 2 * d) % 2,)], "three ranks, a scalar", max_norm=pick(g, 2, 4) / 2)
    yield some(4, [(2,), (3,)], "four ranks, five numbers: the last part is all padding", max_norm=0.5)


@exercise.oracle
def one_process(weights, grads, max_norm=None, adamw=False):
    """torch's optimizer on a float32 copy of all parameters, with the mean of the ranks' gradients."""
    world, kind = len(grads[0]), weights[0].dtype
    params = [nn.Parameter(w.float()) for w in weights]
    made = torch.optim.AdamW if adamw else partial(torch.optim.SGD, momentum=0.9)
    optimizer = made(params, lr=0.1, weight_decay=0.05)
    seen = []
    for step in grads:
        for i, p in enumerate(params):
            of_ranks = [torch.zeros_like(p) if of_rank[i] is None else of_rank[i].float() for of_rank in step]
            p.grad = torch.stack(of_ranks).mean(0)
        if max_norm is not None:
            nn.utils.clip_grad_norm_(params, max_norm)
        optimizer.step()
        seen.append(torch.cat([p.detach().flatten() for p in params]))
    rows = joined([seen[-1]], world).view(world, -1)
    told = {"params": torch.stack(seen).to(kind).float(), "kept": True, "cleared": True, "part cleared": True}
    return [{"part": rows[r], **told} for r in range(world)]


@exercise.probe
def train_a_part(zero1_step, weights, grads, max_norm=None, adamw=False):
    """Give this rank its part of the parameters and an optimizer for it; then a step for every set of gradients."""
    import torch
    import torch.distributed as dist
    from torch import nn

    rank, world = dist.get_rank(), dist.get_world_size()
    params = [nn.Parameter(w.clone()) for w in weights]
    flat = torch.cat([w.flatten() for w in weights]).float()
    size = -(-len(flat) // world)
    flat = torch.cat([flat, flat.new_zeros(size * world - len(flat))])
    part = nn.Parameter(flat[rank * size : (rank + 1) * size].clone())
    options = {"lr": 0.1, "weight_decay": 0.05}
    optimizer = torch.optim.AdamW([part], **options) if adamw else torch.optim.SGD([part], momentum=0.9, **options)
    options = {} if max_norm is None else {"max_norm": max_norm}
    seen, kept, cleared, part_cleared, listed = [], True, True, True, list(params)
    for step in grads:
        for p, grad in zip(params, step[rank], strict=True):
            p.grad = None if grad is None else grad.clone()
        zero1_step(params, part, optimizer, **options)
        seen.append(torch.cat([p.detach().flatten() for p in params]).float())
        kept = kept and all(a is b and a.dtype == w.dtype for a, b, w in zip(params, listed, weights, strict=True))
        kept = kept and optimizer.param_groups[0]["params"][0] is part and part.dtype == torch.float32
        cleared, part_cleared = cleared and all(p.grad is None for p in params), part_cleared and part.grad is None
    state = [t for states in optimizer.state.values() for t in states.values()]
    held = sum(t.untyped_storage().nbytes() for t in state if t.dim())
    told = {"params": torch.stack(seen), "part": part.detach().clone(), "state bytes": held}
    return told | {"kept": kept, "cleared": cleared, "part cleared": part_cleared}


def _agrees(expected, got, one):
    if one.args[0][0].dtype != torch.bfloat16 or not isinstance(got, list):
        return _firmly(expected, got, one)
    # What a float32 rounds to may be the neighbor where two summations differ in their last digit.
    step = 2**-8
    rounded = [g if not isinstance(g, dict) else g | {"params": _near(e["params"], g["params"], step)}
               for e, g in zip(expected, got, strict=True)]  # fmt: skip
    return _firmly(expected, rounded, one)


def _near(right, found, step):
    if right.shape != found.shape:
        return found
    return torch.where((right - found).abs() <= step * right.abs(), right, found)


_firmly = agree_by_entry(["params", "part"], one_process)
exercise.agrees(_agrees)


def _padded(one):
    """Bytes of the padded vector in the parameters' type, and how many steps there are."""
    weights, grads = one.args
    world = len(grads[0])
    return share(sum(w.numel() for w in weights), world) * world * weights[0].element_size(), len(grads)


@exercise.law("Every step sends one vector of gradients by reduce_scatter, and one part by all_gather", essential=True)
def _what_is_sent(out, one, call):
    whole, steps = _padded(one)
    world = len(out)
    for r, messages in enumerate(out.traffic):
        other = {m.op for m in messages} - GATHERS - SCATTERS - {"all_reduce"}
        reduced = [m.bytes for m in messages if m.op == "all_reduce"]
        if other or max(reduced, default=0) > 8 or len(reduced) != (steps if "max_norm" in one.kwargs else 0):
            return f"{one.label}: rank {r} calls {', '.join(sorted(other or {m.op for m in messages}))}"
        counted = sent(messages, SCATTERS), sent(messages, GATHERS)
        if counted != (steps * whole, steps * whole // world):
            told = f"{steps} steps on {world} ranks with {whole} bytes of padded parameters"
            return f"{told}: rank {r} hands {counted[0]} bytes to reduce_scatter and {counted[1]} to all_gather"
    return True


@exercise.law("All ranks end with the same bits")
def _same_bits(out, one, call):
    start = torch.cat([w.flatten() for w in one.args[0]]).float()
    if torch.equal(out[0]["params"][-1], start):
        return "the parameters are what they were"
    return all(torch.equal(out[0]["params"], r["params"]) for r in out)


@exercise.law("A rank's optimizer holds states of its own part only")
def _own_state(out, one, call):
    need = (2 if one.kwargs.get("adamw") else 1) * 4 * share(sum(w.numel() for w in one.args[0]), len(out))
    held = {r["state bytes"] for r in out}
    return held == {need} or f"{sorted(held)} bytes of moments, and a part needs {need}"


def _flat_grads(params):
    return joined([torch.zeros_like(p) if p.grad is None else p.grad for p in params], dist.get_world_size())


def _norm_of_all(grad):
    total = grad.square().sum()
    dist.all_reduce(total)
    return total.sqrt()


def _store(params, flat):
    sizes = [p.numel() for p in params]
    for p, values in zip(params, flat[: sum(sizes)].split(sizes), strict=True):
        p.data.copy_(values.view_as(p))


class _Step:
    """Right as it stands, in small steps that the mistakes below replace one at a time."""

    def flat(self, params):
        return _flat_grads(params)

    def reduce(self, flat):
        return scattered(flat).float() / dist.get_world_size()

    def norm(self, grad):
        return _norm_of_all(grad)

    def factor(self, norm, max_norm):
        return (max_norm / (norm + 1e-6)).clamp(max=1)

    def gather(self, part, params):
        return gathered(part.detach().to(params[0].dtype))

    def store(self, params, flat):
        _store(params, flat)

    def clear(self, params, part):
        for p in [*params, part]:
            p.grad = None

    def before(self, params, part):
        pass

    def take(self, part, grad):
        part.grad = grad

    def step(self, optimizer, params):
        optimizer.step()

    def __call__(self, params, part, optimizer, max_norm=None):
        self.before(params, part)
        grad = self.reduce(self.flat(params))
        if max_norm is not None:
            grad = grad * self.factor(self.norm(grad), max_norm)
        self.take(part, grad)
        self.step(optimizer, params)
        self.store(params, self.gather(part, params))
        self.clear(params, part)


def _as_function(step):
    def zero1_step(params, part, optimizer, max_norm=None):
        return step()(params, part, optimizer, max_norm)

    return zero1_step


exercise.alternative(_as_function(_Step))


@exercise.alternative
def step_in_place(params, part, optimizer, max_norm=None):
    """Right: one buffer for the gradients and then for the parameters, torch's own clipping on the part's norm."""
    rank, world = place()
    flat = _flat_grads(params)
    size = len(flat) // world
    mine = flat.new_empty(size)
    dist.reduce_scatter(mine, [flat[r * size : (r + 1) * size].clone() for r in range(world)])
    part.grad = mine.to(part.dtype).div_(world)
    if max_norm is not None:
        norm = part.grad.norm() ** 2
        dist.all_reduce(norm)
        nn.utils.clip_grads_with_norm_([part], max_norm, norm.sqrt())
    optimizer.step()
    optimizer.zero_grad()
    views = list(flat.chunk(world))
    dist.all_gather(views, part.detach().to(flat.dtype))
    with torch.no_grad():
        start = 0
        for p in params:
            p.copy_(flat[start : start + p.numel()].view(p.shape))
            p.grad = None
            start += p.numel()


def _mistake(says, hint, **changes):
    kind = type("Wrong", (_Step,), changes)
    exercise.mistake(says, hint=hint)(_as_function(kind))


_mistake(
    "the gradients are summed over the ranks and never divided",
    "reduce_scatter adds. What is still missing for a mean?",
    reduce=lambda self, flat: scattered(flat).float(),
)
_mistake(
    "the gradients are divided by the number of ranks twice",
    "Divide once.",
    reduce=lambda self, flat: scattered(flat).float() / dist.get_world_size() ** 2,
)


def _own_slice(self, flat):
    rank, world = place()
    return flat.chunk(world)[rank].float().clone()


_mistake(
    "every rank steps with its own gradient: nothing is added up over the ranks",
    "A rank's own gradient knows its own rows only. reduce_scatter first.",
    reduce=_own_slice,
)


def _all_reduced(self, flat):
    dist.all_reduce(flat)
    return _own_slice(self, flat) / dist.get_world_size()


_mistake(
    "the whole gradient is all-reduced, and then all but one part of it thrown away",
    "This rank needs the sum of its own part only: that is reduce_scatter, at half the bytes.",
    reduce=_all_reduced,
)
_mistake(
    "every rank copies only its own part into the parameters: the all_gather is missing",
    "The next forward pass needs all parameters, and each part was stepped elsewhere.",
    gather=lambda self, part, params: _with_part(params, part),
)


def _with_part(params, part):
    rank, world = place()
    flat = joined(params, world)
    flat.chunk(world)[rank].copy_(part.detach())
    return flat


def _in_order(params):
    flat = torch.cat([p.grad.flatten() for p in params if p.grad is not None])
    world = dist.get_world_size()
    size = share(sum(p.numel() for p in params), world) * world
    return torch.cat([flat, flat.new_zeros(size - len(flat))])


_mistake(
    "a parameter without a gradient is left out of the vector, so that all after it shift",
    "Zeros in its place: every number has its fixed place in the vector.",
    flat=lambda self, params: _in_order(params),
)
_mistake(
    "each rank clips by the norm of its own part",
    "The norm of a vector that is cut: all_reduce the sums of squares, then the root. Else parts shrink differently.",
    norm=lambda self, grad: _no_norm(grad),
)


def _no_norm(grad):
    dist.all_reduce(torch.zeros(1))
    return grad.norm()


def _added_norms(grad):
    total = grad.norm()
    dist.all_reduce(total)
    return total


_mistake(
    "the norms of the parts are added up", "Squares add up, roots don't.", norm=lambda self, grad: _added_norms(grad)
)
_mistake(
    "small gradients are scaled up to max_norm",
    "The factor is at most 1.",
    factor=lambda self, norm, max_norm: max_norm / (norm + 1e-6),
)
_mistake("max_norm is ignored", "Clip before the step.", factor=lambda self, norm, max_norm: 1.0)
_mistake(
    "the norm is taken in the parameters' own type, which for bfloat16 has two or three digits",
    "Turn the mean gradient into float32 first, then square and add up.",
    norm=lambda self, grad: _norm_of_all(grad).to(self.kind).float(),
    before=lambda self, params, part: setattr(self, "kind", params[0].dtype),
)


class _Falsy(_Step):
    """Asks `if max_norm`, which is false for 0."""

    def __call__(self, params, part, optimizer, max_norm=None):
        super().__call__(params, part, optimizer, max_norm or None)


exercise.mistake(
    "a max_norm of 0 is taken for none", hint="`if max_norm` is false for 0, too: ask `max_norm is not None`."
)(_as_function(_Falsy))


class _LocalClip(_Step):
    """Clips this rank's own gradient before it is averaged."""

    def __call__(self, params, part, optimizer, max_norm=None):
        self.max_norm = max_norm
        super().__call__(params, part, optimizer, max_norm)

    def flat(self, params):
        flat = _flat_grads(params)
        return flat if self.max_norm is None else flat * super().factor(flat.norm(), self.max_norm)

    def factor(self, norm, max_norm):
        return 1.0


exercise.mistake(
    "each rank clips its own gradient before the average",
    hint="What is clipped is the gradient that the optimizer sees: the mean. Average first.",
)(_as_function(_LocalClip))


def _accumulating(self, part, grad):
    part.before = grad + getattr(part, "before", 0)
    part.grad = part.before.clone()


_mistake(
    "the last step's gradient is still in part.grad, and this one is added to it",
    "part.grad is this step's gradient alone. Clear it afterwards.",
    take=_accumulating,
)


def _not_cleared(self, params, part):
    part.grad = None


_mistake(
    "the parameters keep their gradients after the step",
    "Set every .grad to None: the next backward pass would add to them, and they take memory.",
    clear=_not_cleared,
)
_mistake(
    "nothing is freed after the step: every .grad is still a tensor",
    "Set .grad to None for all of params and for part.",
    clear=lambda self, params, part: None,
)
_mistake(
    "the part keeps its gradient after the step",
    "Set part.grad to None as well.",
    clear=lambda self, params, part: [setattr(p, "grad", None) for p in params],
)


def _refill(self, params, part):
    rank, world = place()
    part.data.copy_(joined(params, world).chunk(world)[rank])


_mistake(
    "the float32 part is filled anew from the parameters before the step, which have few digits",
    "The part is the one copy with all its digits. A step that is smaller than bfloat16's rounding gets lost else.",
    before=_refill,
)
_mistake(
    "what travels is float32, twice the bytes of the parameters' own type",
    "Send the gradients as they are, and the parts in the parameters' type.",
    flat=lambda self, params: _flat_grads(params).float(),
    gather=lambda self, part, params: gathered(part.detach()),
)


class _Whole(_Step):
    """Gives the optimizer all parameters on every rank, beside this rank's part."""

    def take(self, part, grad):
        part.grad = grad
        self.part = part

    def step(self, optimizer, params):
        if len(optimizer.param_groups) == 1:
            self.part.whole = nn.Parameter(gathered(self.part.detach()))
            optimizer.add_param_group({"params": [self.part.whole]})
        self.part.whole.grad = gathered(self.part.grad)
        optimizer.step()

    def gather(self, part, params):
        return part.whole.detach()


exercise.mistake(
    "every rank steps all parameters, with the optimizer states of all of them",
    hint="That is what ZeRO-1 saves: the optimizer gets this rank's part, and nothing else.",
)(_as_function(_Whole))


def _replace(params, flat):
    parts = flat[: sum(p.numel() for p in params)].split([p.numel() for p in params])
    params[:] = [nn.Parameter(x.view_as(p).clone()) for p, x in zip(params, parts, strict=True)]


_mistake(
    "new parameters take the place of the old ones, which the model still uses",
    "Copy the values into the tensors that are there.",
    store=lambda self, params, flat: _replace(params, flat),
)


def _rank_0s(self, part, params):
    world = dist.get_world_size()
    gathered(part.detach().to(params[0].dtype))
    flat = joined(params, world).float()
    flat[: len(part)] = part.detach()
    dist.broadcast(flat, 0)
    return flat


_mistake(
    "every rank takes what rank 0 has, with the new values of rank 0's part only",
    "Each rank has one new part: all_gather brings all of them to all.",
    gather=_rank_0s,
)


def _rest_lost(params, flat):
    size, world = len(flat) // dist.get_world_size(), dist.get_world_size()
    order = torch.cat([flat[r * size : (r + 1) * size] for r in reversed(range(world))])
    _store(params, order)


_mistake(
    "the parts are joined in the wrong order",
    "Rank 0's part comes first.",
    store=lambda self, params, flat: _rest_lost(params, flat),
)
