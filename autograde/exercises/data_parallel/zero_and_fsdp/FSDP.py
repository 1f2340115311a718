"""`FSDP`: A module of which every rank holds a part, and which is whole only while it is used."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.func import functional_call

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
    "FSDP",
    points=6,
    ranks=True,
    forbid=["torch.distributed.fsdp", "torch.nn.parallel.distributed"],
    limit=4.0,
    dtypes=[],
    strides=False,
    hints=[
        "Four moments: built (cut, keep the part), forward (gather, use, free), backward begins (gather again), and "
        "ends (reduce-scatter, free). An autograd.Function can gather in forward and reduce-scatter in backward.",
        "torch.func.functional_call(module, {name: tensor}, args, kwargs) runs a module on tensors not its own; "
        "module.to('meta') makes its own parameters weigh nothing. Then either give back the memory of the gathered "
        "vector with full.untyped_storage().resize_(0) and fill it again in a hook on the output, or compute forward "
        "once more in a Function's backward.",
        "Recomputing: class Unit(autograd.Function): forward(ctx, part, x) gathers and runs the module (no graph is "
        "made in there); backward(ctx, grad) gathers again, runs it under torch.enable_grad() on full.requires_grad_() "
        "and x.detach().requires_grad_(), takes torch.autograd.grad(out, [full, x], grad), and returns the "
        "reduce-scattered gradient / world for part and the other for x.",
    ],
)

SMALL = 64  # numbers: activations have fewer, parts and whole units have more


@exercise.cases
def fsdp_cases(g):
    def some(world, units, label, steps=2, micro=1, rows=2, tokens=None, dtype=torch.float32, **options):
        size = sum(p.numel() for unit in units for p in _unit(unit, torch.float32).parameters())
        shape = (steps, world, micro, rows)
        x = torch.randint(tokens, shape, generator=g) if tokens else randn(g, *shape, units[0][0][1]).to(dtype)
        return case(units, (randn(g, size) / 4).to(dtype), x, ranks=world, label=label, **options)

    a, b = pick(g, 15, 17), pick(g, 20, 23)
    mlp = [["Linear", a, b], ["Tanh"], ["Linear", b, a]]
    yield some(2, [mlp, mlp, mlp], "three units on two ranks, two steps")
    others = [["Embedding", b, a]], mlp, [["Linear", a, b]], [["Linear", b, a]]
    yield some(3, list(others), "an embedding first, units of other sizes, three ranks", tokens=b)
    told = "two micro-batches, whose gradients add up, and a keyword for every unit"
    yield some(2, [mlp, mlp, mlp], told, steps=1, micro=2, dtype=torch.float64, gain=0.5)
    yield some(4, [mlp, mlp], "two units on four ranks, one row", steps=1, rows=1)


def _unit(layers, dtype):
    return nn.Sequential(*[getattr(nn, kind)(*sizes) for kind, *sizes in layers]).to(dtype)


def _filled(units, start):
    nets = [_unit(layers, start.dtype) for layers in units]
    values = list(start.split([p.numel() for net in nets for p in net.parameters()]))
    for net in nets:
        for p in net.parameters():
            p.data.copy_(values.pop(0).view_as(p))
    return nets


@exercise.oracle
def unsharded(units, start, x, gain=None):
    """One process, whole parameters, every rank's rows at once."""
    world = x.shape[1]
    nets = _filled(units, start)
    outputs, inputs, parts = ([[] for _ in range(world)] for _ in range(3))

    def run(rows, wanted):
        hidden = rows.clone().requires_grad_(wanted) if rows.is_floating_point() else rows
        first = hidden
        for net in nets:
            hidden = net(hidden) * (gain or 1)
        return first, hidden

    for step in x:
        for r in range(world):
            outputs[r].append([])
            for rows in step[r]:
                first, out = run(rows, True)
                (out.square().mean() / world).backward()
                outputs[r][-1].append(out.detach())
                inputs[r].append(None if first.grad is None else first.grad * world)
        for net in nets:
            grads = joined([p.grad for p in net.parameters()], world).view(world, -1)
            for r in range(world):
                parts[r].append(grads[r])
            with torch.no_grad():
                for p in net.parameters():
                    p -= 0.1 * p.grad
                    p.grad = None
    with torch.no_grad():
        last = [run(x[0, r, 0], False)[1] for r in range(world)]
    return [
        {
            "outputs": outputs[r],
            "input gradients": inputs[r],
            "part gradients": parts[r],
            "parts": [joined(list(net.parameters()), world).view(world, -1)[r] for net in nets],
            "without a graph": last[r],
        }
        for r in range(world)
    ]


@exercise.probe
def train_units(FSDP, units, start, x, gain=None):
    """Wrap units, train them on this rank's rows, and weigh on the way all large tensors that are alive.

    `units[u]` lists the layers of a unit, `start` fills their parameters; `x` is [steps, ranks, micro, rows, …].
    """
    import gc
    import time

    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils._pytree import tree_leaves

    from labkit.modes import Listener

    small = 64 * start.element_size()

    class Scale(Listener):
        """Knows every storage that is made inside, and weighs the large ones of those that are still there."""

        def __init__(self):
            super().__init__()
            self.known, self.asleep = {}, False

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for t in () if self.asleep else tree_leaves(out):
                if isinstance(t, torch.Tensor) and t.device.type == "cpu":
                    storage = t.untyped_storage()
                    self.known.setdefault(storage._cdata, StorageWeakRef(storage))
            return out

        def held(self):
            alive = [ref for ref in self.known.values() if not ref.expired()]
            sizes = [torch.UntypedStorage._new_with_weak_ptr(ref.cdata).nbytes() for ref in alive]
            return sum(size for size in sizes if size >= small)

    rank, forward, backward, patience = dist.get_rank(), [], [], [30]
    scale, steps = Scale(), [[rows.clone() for rows in step] for step in x[:, rank]]
    gc.freeze()  # what was there before needn't be looked through each time

    def noted(t):
        """A copy for the report, which isn't weighed."""
        scale.asleep = True
        copy = None if t is None else t.detach().clone()
        scale.asleep = False
        return copy

    class Unit(nn.Sequential):
        def forward(self, x, gain=1):
            out = super().forward(x)
            forward.append(scale.held() - held_gradients())
            return out * gain

    class Mark(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, grad):
            backward.append(settled(largest))
            return grad

    def held_gradients():
        grads = [p.grad for p in net.parameters() if p.grad is not None] if net is not None else []
        return sum(g.untyped_storage().nbytes() for g in grads)

    def settled(more=0):
        """What is held, without gradients. gloo's threads let go of a tensor a moment after the collective is done."""
        expected = sum(p.untyped_storage().nbytes() for p in net.parameters()) + more
        while (held := scale.held() - held_gradients()) > expected and patience[0]:
            patience[0] -= 1
            time.sleep(0.0015)
        return held

    def run(rows):
        hidden = rows.clone().requires_grad_(torch.is_grad_enabled()) if rows.is_floating_point() else rows
        first = hidden
        for unit in net:
            hidden = unit(hidden, **options)
            hidden = Mark.apply(hidden) if hidden.requires_grad else hidden
        return first, hidden

    options = {} if gain is None else {"gain": gain}
    found = {"outputs": [], "input gradients": [], "part gradients": [], "between": [], "after": []}
    net = None
    with scale:
        values, wrapped = start.clone(), []
        for layers in units:
            unit = Unit(*[getattr(nn, kind)(*sizes) for kind, *sizes in layers]).to(start.dtype)
            for p in unit.parameters():
                p.data.copy_(values[: p.numel()].view_as(p))
                values = values[p.numel() :].clone()
            wrapped.append(FSDP(unit))
        net = nn.ModuleList(wrapped)
        del unit, p, values, wrapped
        gc.collect()
        largest = max(sum(p.untyped_storage().nbytes() for p in u.parameters()) for u in net) * dist.get_world_size()
        found["built"] = settled()
        found["sizes"] = [[p.numel() for p in unit.parameters()] for unit in net]
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for step in steps:
            outputs = []
            for rows in step:
                first, out = run(rows)
                gc.collect()
                found["between"].append(settled())
                out.square().mean().backward()
                outputs.append(noted(out))
                found["input gradients"].append(noted(first.grad))
                del out
                gc.collect()
                found["after"].append(settled())
            found["outputs"].append(outputs)
            found["part gradients"] += [noted(u.part.grad) for u in net]
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            last = run(steps[0][0])[1]
        gc.collect()
        found["between"].append(settled())
    gc.unfreeze()
    ends = {"parts": [noted(unit.part) for unit in net], "without a graph": last}
    return found | ends | {"forward": forward, "backward": backward}


NUMBERS = ["outputs", "input gradients", "part gradients", "parts", "without a graph"]
exercise.agrees(agree_by_entry(NUMBERS, unsharded))


def _wholes(one):
    """Bytes of each unit's padded parameters."""
    units, start, x = one.args
    world = x.shape[1]
    sizes = [sum(p.numel() for p in _unit(layers, torch.float32).parameters()) for layers in units]
    return [share(size, world) * world * start.element_size() for size in sizes]


def _weighed(one):
    """Bytes of this rank's parts, and of the largest unit."""
    wholes = _wholes(one)
    return sum(wholes) // one.args[2].shape[1], max(wholes)


@exercise.law("A rank holds its parts alone: before, between forward and backward, and after", essential=True)
def _holds_parts(out, one, call):
    parts, _ = _weighed(one)
    moments = {"after FSDP(module)": "built", "between forward and backward": "between", "after backward": "after"}
    for r in out:
        for when, key in moments.items():
            held = r[key] if isinstance(r[key], list) else [r[key]]
            wrong = next((h for h in held if h != parts), None)
            if wrong is not None:
                return f"{one.label}: {when} {wrong} bytes are alive, and the parts have {parts}"
    return True


@exercise.law("One unit at a time is whole, forward and backward", essential=True)
def _one_whole(out, one, call):
    parts, largest = _weighed(one)
    for r in out:
        if max(r["forward"]) > parts + 2 * largest:
            return f"{one.label}: {max(r['forward'])} bytes in a forward pass: parts {parts}, largest unit {largest}"
        if max(r["backward"]) > parts + largest:
            return f"{one.label}: {max(r['backward'])} bytes between two units' backward passes, parts have {parts}"
    return True


@exercise.law("Each unit sends its part twice by all_gather, and its gradient once by reduce_scatter", essential=True)
def _what_is_sent(out, one, call):
    steps, world, micro = one.args[2].shape[:3]
    wholes, passes = _wholes(one), steps * micro
    parts = [w // world for w in wholes]
    need = parts * (2 * passes + 1), wholes * passes
    # The backward pass of a table doesn't read it: it need not be gathered again.
    looked_up = [w for w, layers in zip(parts, one.args[0], strict=True) if layers[0][0] == "Embedding"]
    fewer = sorted(need[0])
    for w in looked_up * passes:
        fewer.remove(w)
    for r, messages in enumerate(out.traffic):
        other = {m.op for m in messages} - GATHERS - SCATTERS
        if other:
            return f"rank {r} calls {', '.join(sorted(other))} as well"
        for ops, sizes in zip((GATHERS, SCATTERS), need, strict=True):
            found = sorted(m.bytes for m in messages if m.op in ops)
            if found != sorted(sizes) and not (ops is GATHERS and found == fewer):
                told = f"{len(found)} times with {sent(messages, ops)} bytes, and should {len(sizes)} times"
                return f"{one.label}: rank {r} calls {min(ops)} {told} with {sum(sizes)}"
    return True


@exercise.law("`part` is a unit's only parameter")
def _only_part(out, one, call):
    parts = [w // len(out) // one.args[1].element_size() for w in _wholes(one)]
    return all(r["sizes"] == [[n] for n in parts] for r in out) or f"parameters of {out[0]['sizes']} numbers"


class _Gather(torch.autograd.Function):
    """Whole parameters from parts; backward, the part of the mean gradient."""

    @staticmethod
    def forward(ctx, part, unit):
        ctx.unit = unit
        return unit.gather(part)

    @staticmethod
    def backward(ctx, grad):
        ctx.unit.used()
        return ctx.unit.reduce(grad.contiguous()), None


class _Unit(nn.Module):
    """Right as it stands: the gathered vector's memory is given back and taken again, as torch's FSDP does it."""

    def __init__(self, module):
        super().__init__()
        rank, world = place()
        self.names, tensors = zip(*module.named_parameters(), strict=True)
        self.shapes = [p.shape for p in tensors]
        self.part = nn.Parameter(self.cut(tensors, rank, world))
        self.body = [self.lighten(module)]

    def cut(self, tensors, rank, world):
        return joined(tensors, world).chunk(world)[rank].clone()

    def lighten(self, module):
        return module.to("meta")

    def gather(self, part):
        return gathered(part.detach())

    def arrives(self, grad, kwargs):
        return grad, kwargs

    def reduce(self, grad):
        return scattered(grad) / dist.get_world_size()

    def views(self, full):
        parts = full[: sum(s.numel() for s in self.shapes)].split([s.numel() for s in self.shapes])
        return {n: x.view(s) for n, x, s in zip(self.names, parts, self.shapes, strict=True)}

    def whole(self):
        return _Gather.apply(self.part, self)

    def forward(self, *args, **kwargs):
        full = self.whole()
        out = functional_call(self.body[0], self.views(full), args, kwargs)
        self.free(full, out)
        return out

    def free(self, full, out):
        storage, data = full.untyped_storage(), full.data
        size = storage.nbytes()
        storage.resize_(0)

        def again(grad):
            storage.resize_(size)
            data.copy_(self.gather(self.part))
            self.used = lambda: storage.resize_(0)

        if out.requires_grad:
            out.register_hook(again)

    def used(self):
        pass


@exercise.alternative
class Resized(_Unit):
    pass


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, part, unit, kwargs, *args):
        ctx.unit, ctx.kwargs = unit, kwargs
        ctx.save_for_backward(*args)
        return functional_call(unit.body[0], unit.views(unit.gather(part)), args, kwargs)

    @staticmethod
    def backward(ctx, grad):
        unit = ctx.unit
        grad, kwargs = unit.arrives(grad, ctx.kwargs)
        with torch.enable_grad():
            full = unit.gather(unit.part).requires_grad_()
            args = [x.detach().requires_grad_(x.is_floating_point()) for x in ctx.saved_tensors]
            out = functional_call(unit.body[0], unit.views(full), tuple(args), kwargs)
        of_full, *of_args = torch.autograd.grad(out, [full, *(x for x in args if x.requires_grad)], grad)
        return unit.reduce(of_full), None, None, *(of_args.pop(0) if x.requires_grad else None for x in args)


@exercise.alternative
class Recomputed(_Unit):
    """Right: forward keeps its inputs only; backward gathers, and computes forward once more."""

    def forward(self, *args, **kwargs):
        return _Recomputed.apply(self.part, self, kwargs, *args)


@exercise.alternative
class Unpacked(_Unit):
    """Right: what autograd saves of the whole vector is noted as a place in it, and gathered again when asked for."""

    def forward(self, *args, **kwargs):
        full, again = self.whole(), []
        where, kind = full.untyped_storage().data_ptr(), full.dtype
        self.used = again.clear

        def pack(t):
            if t.untyped_storage().data_ptr() != where:
                return t
            return t.storage_offset(), t.shape, t.stride()

        def unpack(kept):
            if isinstance(kept, torch.Tensor):
                return kept
            if not again:
                again.append(self.gather(self.part).to(kind))
            offset, shape, stride = kept
            return again[0].as_strided(shape, stride, offset)

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            return functional_call(self.body[0], self.views(full), args, kwargs)


def _mistake(says, hint, base=_Unit, **changes):
    exercise.mistake(says, hint=hint)(type("Wrong", (base,), changes))


_mistake("the gradients are summed over the ranks and never divided", "reduce_scatter adds.",
         reduce=lambda self, grad: scattered(grad))  # fmt: skip
_mistake("the gradients are divided by the number of ranks twice", "Divide once.",
         reduce=lambda self, grad: scattered(grad) / dist.get_world_size() ** 2)  # fmt: skip


_mistake(
    "every rank takes the first part, rank 0's",
    "Which part is yours says dist.get_rank().",
    cut=lambda self, tensors, rank, world: _Unit.cut(self, tensors, 0, world),
)
_mistake(
    "each parameter is cut by itself, and the pieces are joined",
    "Join the parameters first, pad the whole once at its end, and cut that: as shard_flat does.",
    cut=lambda self, tensors, rank, world: torch.cat([_Unit.cut(self, [t], rank, world) for t in tensors]),
)
_mistake(
    "the gradient that arrives is taken for ones",
    "backward is given the gradient of the output: what comes after this module has its say in all others.",
    Recomputed,
    arrives=lambda self, grad, kwargs: (torch.ones_like(grad), kwargs),
)
_mistake(
    "keywords are left out where the output is computed again",
    "Keep them from forward to backward: ctx.kwargs = kwargs.",
    Recomputed,
    arrives=lambda self, grad, kwargs: (grad, {}),
)


def _own(self, grad):
    rank, world = place()
    return grad.chunk(world)[rank].clone()


_mistake(
    "every rank keeps its part of its own gradient: nothing is added up over the ranks",
    "reduce_scatter in the backward pass.",
    reduce=_own,
)


def _all_reduced(self, grad):
    dist.all_reduce(grad)
    return _own(self, grad) / dist.get_world_size()


_mistake(
    "the gradient is all-reduced whole, and then cut",
    "This rank needs the sum of its own part: reduce_scatter, at half the bytes.",
    reduce=_all_reduced,
)


def _kept(self, full, out):
    pass


_mistake(
    "the whole parameters stay alive from forward to backward, where nothing is gathered again",
    "That is ZeRO-2's memory. Free after use; gather once more when the gradient arrives.",
    free=_kept,
)


class _Stays(_Unit):
    """The module keeps its own parameters beside the part."""

    def lighten(self, module):
        return module


exercise.mistake(
    "the module's own parameters stay alive beside the part",
    hint="module.to('meta') keeps names and shapes, and no memory.",
)(_Stays)


class _Registered(_Unit):
    """The module is a child with parameters of its own."""

    def __init__(self, module):
        super().__init__(module)
        self.module = self.body[0]

    def lighten(self, module):
        return module


exercise.mistake(
    "the module is a child, whose whole parameters are parameters of FSDP, too",
    hint="parameters() must give the part alone. A list hides a module from nn.Module; meta makes it weigh nothing.",
)(_Registered)


class _Stale(_Unit):
    """Gathers at the first forward pass and never again."""

    def gather(self, part):
        if not hasattr(self, "cache"):
            self.cache = gathered(part.detach())
        return self.cache.clone()


exercise.mistake(
    "the parameters are gathered once and kept: after the optimizer's step they are old",
    hint="The step changes the parts. Gather in every forward pass.",
)(_Stale)


def _without_others(self, part):
    rank, world = place()
    full = part.new_zeros(len(part) * world)
    full.chunk(world)[rank].copy_(part.detach())
    return full


_mistake("a rank sees its own part only, and zeros for the others'", "all_gather.", gather=_without_others)
_mistake(
    "the parts are joined in the wrong order",
    "Rank 0's part comes first.",
    gather=lambda self, part: torch.cat(gathered(part.detach()).chunk(dist.get_world_size())[::-1]),
)


def _by_all_reduce(self, part):
    full = _without_others(self, part)
    dist.all_reduce(full)
    return full


_mistake(
    "the parts are put together by an all-reduce of vectors of zeros",
    "all_gather sends what a rank has, not as many zeros.",
    gather=_by_all_reduce,
)


class _Overwrites(_Unit):
    """Each backward pass clears what is in part.grad."""

    def reduce(self, grad):
        self.part.grad = None
        return super().reduce(grad)


exercise.mistake(
    "the second micro-batch's gradient overwrites the first's",
    hint="Gradients add up in .grad until somebody clears them, as with any module.",
)(_Overwrites)


class _NoInputGradient(_Unit):
    """The input is cut off, as whoever recomputes may do."""

    def forward(self, *args, **kwargs):
        return super().forward(*(x.detach() for x in args), **kwargs)


exercise.mistake(
    "no gradient flows to the input, so that units before this one learn nothing",
    hint="backward has to give back a gradient for x as well.",
)(_NoInputGradient)


class _NoKeywords(_Unit):
    """Drops keywords."""

    def forward(self, *args, **kwargs):
        return super().forward(*args)


exercise.mistake("keywords are not handed on to the module", hint="forward(self, *args, **kwargs).")(_NoKeywords)


class _KeepsGradient(_Unit):
    """The whole gradient stays alive."""

    def reduce(self, grad):
        self.grad = grad
        return super().reduce(grad)


exercise.mistake(
    "the whole gradient stays alive after the backward pass",
    hint="After reduce_scatter a rank needs its part of it only.",
)(_KeepsGradient)


class _KeepsAgain(_Unit):
    """What was gathered for the backward pass stays."""

    def free(self, full, out):
        super().free(full, out)
        self.full = full

    @property
    def used(self):
        return lambda: None

    @used.setter
    def used(self, value):
        pass


exercise.mistake(
    "what is gathered for the backward pass is never freed",
    hint="When the gradient of the whole vector is there, its values have done their work.",
)(_KeepsAgain)


class _FreesInBackward(_Unit):
    """Frees only what a backward pass will need, so that evaluation fills the memory."""

    def free(self, full, out):
        if out.requires_grad:
            super().free(full, out)
        else:
            self.full = full


exercise.mistake(
    "under no_grad nothing is freed",
    hint="Free after forward in any case; only the hook needs a graph.",
)(_FreesInBackward)


class _WholePart(_Unit):
    """Cuts a view: the vector stays alive behind it."""

    def __init__(self, module):
        tensors = list(module.parameters())
        super().__init__(module)
        rank, world = place()
        self.part = nn.Parameter(joined(tensors, world).chunk(world)[rank])


exercise.mistake(
    "the part is a view of the whole vector, which stays alive behind it",
    hint="clone() the part, and let go of the rest.",
)(_WholePart)
