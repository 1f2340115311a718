"""`zero2_hooks(params, owners)`

ZeRO-2's gradients: averaged to their owner as soon as they are there, and freed everywhere.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.shared import agree_by_entry, bytes_of, place
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "zero2_hooks",
    points=4,
    ranks=True,
    limit=4.0,
    dtypes=[torch.float64],
    strides=False,
    hints=[
        "p.register_post_accumulate_grad_hook(f) calls f(p) once p.grad is complete, while the backward pass runs on. "
        "What has to happen there, on the owner and elsewhere?",
        "dist.reduce(grad, dst=owner) leaves the sum on one rank. There it is divided and added to what is held; on "
        "all ranks p.grad becomes None.",
        "def hook(p): grad = p.grad; p.grad = None; dist.reduce(grad, owners[i]); and on the owner held[i] = held.get"
        "(i, 0) + grad / world. Mind that every hook needs its own i: make it in a function, or with a default.",
    ],
)


@exercise.cases
def hook_cases(g):
    def some(world, sizes, owners, label, passes=1, **options):
        weights = [randn(g, b, a) / a**0.5 for a, b in zip(sizes, sizes[1:], strict=False)]
        x = randn(g, passes, world, pick(g, 2, 3), sizes[0])
        return case(weights, owners, x, ranks=world, label=label, **options)

    a, b, c = pick(g, 3, 4), pick(g, 5, 6), pick(g, 7, 8)
    yield some(2, [a, b, c, a], [1, 0, 1], "three weights on two ranks")
    yield some(2, [a, c, b, a, b], [0, 0, 0, 1], "two backward passes: micro-batches", passes=2)
    yield some(3, [b, a, c, b], [2, 0, 2], "three ranks, of which one owns nothing")
    yield some(2, [b, b, b], [1, 0], "one weight is used twice", tied=True)
    yield some(2, [a, c, b, 1], [0, 1, 0], "a frozen weight, and one of one row", frozen=[1])
    yield some(3, [c, a, b], [1, 2], "three ranks, two backward passes", passes=2)


def _loss(params, x, tied):
    for i, w in enumerate([*params, params[0]] if tied else params):
        x = torch.tanh(x @ w.t()) if i % 2 == 0 else x @ w.t()
    return x.square().mean()


@exercise.oracle
def whole_batches(weights, owners, x, tied=False, frozen=()):
    """One process: the gradients of every rank's loss, averaged over ranks and added up over the passes."""
    world = x.shape[1]
    params = [nn.Parameter(w.clone(), requires_grad=i not in frozen) for i, w in enumerate(weights)]
    for rows in x.flatten(0, 1):
        (_loss(params, rows, tied) / world).backward()
    told = {"kept": True}
    return [
        {"held": [p.grad if owners[i] == r and i not in frozen else None for i, p in enumerate(params)], **told}
        for r in range(world)
    ]


@exercise.probe
def backward_with_hooks(zero2_hooks, weights, owners, x, tied=False, frozen=()):
    """Run backward passes of a small net, and look at every gradient's arrival at what is in .grad."""
    import torch
    import torch.distributed as dist
    from torch import nn

    rank = dist.get_rank()
    params = [nn.Parameter(w.clone(), requires_grad=i not in frozen) for i, w in enumerate(weights)]
    alive, trained = [], [p for p in params if p.requires_grad]

    def arrives(p):
        alive.append(sum(q.grad.untyped_storage().nbytes() for q in params if q is not p and q.grad is not None))

    for p in trained:
        p.register_post_accumulate_grad_hook(arrives)
    held = zero2_hooks(params, owners)
    at_first = all(isinstance(t, torch.Tensor) and not t.any() for t in held.values())
    for rows in x[:, rank]:
        hidden = rows
        for i, w in enumerate([*params, params[0]] if tied else params):
            hidden = torch.tanh(hidden @ w.t()) if i % 2 == 0 else hidden @ w.t()
        hidden.square().mean().backward()
    kept = all(torch.equal(p.detach(), w) for p, w in zip(params, weights, strict=True))
    left = sum(p.grad is not None for p in params)
    empty = all(p.grad is None or not p.grad.any() for p in params)
    tensors = [t for t in held.values() if isinstance(t, torch.Tensor)]
    told = {
        "alive": alive,
        "left": left,
        "empty": empty,
        "kept": kept,
        "extra": sorted(set(held) - set(range(len(params)))),
    }
    told |= {"bytes": sum(t.untyped_storage().nbytes() for t in tensors)}
    told |= {"graph": any(t.requires_grad for t in tensors), "at first": at_first}
    return {"held": [held.get(i) for i in range(len(params))]} | told


exercise.agrees(agree_by_entry(["held"], whole_batches))


def _trained(one):
    return [i for i in range(len(one.args[0])) if i not in one.kwargs.get("frozen", ())]


@exercise.law("Each gradient crosses once a pass, by reduce to its owner, while the backward pass runs", essential=True)
def _each_to_its_owner(out, one, call):
    weights, owners, x = one.args
    need = sorted([(owners[i], *bytes_of([weights[i]])) for i in _trained(one)] * len(x))
    for r, messages in enumerate(out.traffic):
        other = sorted({m.op for m in messages} - {"reduce"})
        if other:
            return f"rank {r} calls {', '.join(other)}, where reduce is asked for"
        sent = sorted((m.peer, m.bytes) for m in messages)
        if sent != need:
            return f"{one.label}: rank {r} reduces {len(sent)} times, (root, bytes) {sent}, and should {need}"
    return True


@exercise.law("When a gradient arrives, no other one is in .grad", essential=True)
def _one_at_a_time(out, one, call):
    most = max((b for r in out for b in r["alive"]), default=0)
    return most == 0 or f"{one.label}: {most} bytes of other gradients are alive when one arrives"


@exercise.law("After the backward pass every .grad is None")
def _nothing_left(out, one, call):
    left = {r["left"] for r in out}
    return left == {0} or f"{max(left)} parameters still have a gradient"


@exercise.law("A rank holds the gradients that it owns, and nothing else")
def _owned_only(out, one, call):
    for r, found in enumerate(out):
        need = sum(bytes_of(one.args[0][i] for i in _trained(one) if one.args[1][i] == r))
        if found["bytes"] != need or found["graph"]:
            return f"rank {r} holds {found['bytes']} bytes, and owns {need}"
        if not found["at first"]:
            return f"on rank {r} the dict is neither empty nor full of zeros before the first backward pass"
    return True


class _Hooks:
    """Right as it stands, in small steps that the mistakes below replace one at a time."""

    def trained(self, params):
        return [(i, p) for i, p in enumerate(params) if p.requires_grad]

    def send(self, grad, owner):
        dist.reduce(grad, owner)

    def mean(self, grad):
        return grad / dist.get_world_size()

    def free(self, p):
        p.grad = None

    def keep(self, held, i, grad, owner):
        if dist.get_rank() == owner:
            held[i] = held[i] + grad if i in held else grad

    def hook(self, i, owner, held):
        def arrived(p):
            grad = p.grad
            self.free(p)
            self.send(grad, owner)
            self.keep(held, i, self.mean(grad), owner)

        return arrived

    def __call__(self, params, owners):
        held = {}
        for i, p in self.trained(params):
            p.register_post_accumulate_grad_hook(self.hook(i, owners[i], held))
        return held


def _as_function(hooks):
    def zero2_hooks(params, owners):
        return hooks()(params, owners)

    return zero2_hooks


exercise.alternative(_as_function(_Hooks))


@exercise.alternative
def into_buffers(params, owners):
    """Right: buffers of zeros for what this rank owns; every gradient is divided before it is sent."""
    rank, world = place()
    held = {i: torch.zeros_like(p) for i, p in enumerate(params) if p.requires_grad and owners[i] == rank}
    held = {i: buffer.detach() for i, buffer in held.items()}

    def arrived(p, number):
        flat = p.grad.flatten() / world
        dist.reduce(flat, dst=owners[number], async_op=True).wait()
        if owners[number] == rank:
            held[number] += flat.view_as(p)
        p.grad = None

    for number, p in enumerate(params):
        if p.requires_grad:
            p.register_post_accumulate_grad_hook(lambda p, number=number: arrived(p, number))
    return held


def _mistake(says, hint, **changes):
    kind = type("Wrong", (_Hooks,), changes)
    exercise.mistake(says, hint=hint)(_as_function(kind))


_mistake("the owner holds the sum over the ranks", "Divide by the number of ranks.", mean=lambda self, grad: grad)
_mistake(
    "the gradients are divided by the number of ranks twice",
    "Divide once, before or after the reduce.",
    mean=lambda self, grad: grad / dist.get_world_size() ** 2,
)
_mistake(
    "nothing is sent: the owner keeps its own gradient",
    "reduce adds what all ranks have onto the owner.",
    send=lambda self, grad, owner: None,
    mean=lambda self, grad: grad,
)
_mistake(
    "every gradient is all-reduced, though one rank needs it",
    "reduce: half the bytes on the wire, and the result on one rank.",
    send=lambda self, grad, owner: dist.all_reduce(grad),
)


def _keep_everywhere(self, held, i, grad, owner):
    held[i] = held[i] + grad if i in held else grad


_mistake(
    "every rank holds every gradient, reduced or not",
    "Only the owner keeps what came; the others have done with it.",
    keep=_keep_everywhere,
)
_mistake(
    "every rank holds the mean of every gradient, as after an all-reduce",
    "Only the owner keeps it.",
    send=lambda self, grad, owner: dist.all_reduce(grad),
    keep=_keep_everywhere,
)


def _keep_last(self, held, i, grad, owner):
    if dist.get_rank() == owner:
        held[i] = grad


_mistake(
    "the second backward pass overwrites what the first has left",
    "Micro-batches: add to what is held.",
    keep=_keep_last,
)


class _LeftInPlace(_Hooks):
    """Frees the gradients elsewhere; the owner's stay in .grad, to which the next pass adds before the reduce."""

    def hook(self, i, owner, held):
        def arrived(p):
            dist.reduce(p.grad, owner)
            if dist.get_rank() == owner:
                p.grad /= dist.get_world_size()
                held[i] = p.grad
            else:
                p.grad = None

        return arrived


exercise.mistake(
    "the owner's mean stays in .grad, so that the next pass adds to it and reduces both once more",
    hint="Keep what is reduced away from .grad: autograd adds the next gradient to whatever is there.",
)(_as_function(_LeftInPlace))
_mistake(
    "the gradients stay in .grad on every rank",
    "p.grad = None frees it, and the next pass starts from nothing.",
    free=lambda self, p: None,
)


class _CopySent(_Hooks):
    """Divides into a new tensor and sends that; nobody frees .grad."""

    def hook(self, i, owner, held):
        def arrived(p):
            grad = self.mean(p.grad)
            self.send(grad, owner)
            self.keep(held, i, grad, owner)

        return arrived


exercise.mistake(
    "a copy is sent, and the gradient itself stays in .grad, where the next pass adds to it",
    hint="p.grad = None frees it, and the next pass starts from nothing.",
)(_as_function(_CopySent))
_mistake(
    "the gradients are set to zeros instead of None, and keep their memory",
    "p.grad = None: zeros weigh as much as any other numbers.",
    free=lambda self, p: setattr(p, "grad", torch.zeros_like(p)),
)


def _keep_flat(self, held, i, grad, owner):
    _Hooks.keep(self, held, i, grad.flatten(), owner)


_mistake("what is held is flat", "Whatever shape is sent: .view_as(p) before you keep it.", keep=_keep_flat)


class _AtTheEnd(_Hooks):
    """Waits until all gradients are there."""

    def __call__(self, params, owners):
        held, trained, there = {}, self.trained(params), []

        def arrived(p):
            there.append(p)
            if len(there) == len(trained):
                there.clear()
                for i, q in reversed(trained):
                    self.hook(i, owners[i], held)(q)

        for _, p in trained:
            p.register_post_accumulate_grad_hook(arrived)
        return held


exercise.mistake(
    "all gradients are waited for before the first is sent",
    hint="That is the peak that ZeRO-2 avoids: send and free each one in its own hook.",
)(_as_function(_AtTheEnd))


def _divided_again(self, held, i, grad, owner):
    if dist.get_rank() == owner:
        held[i] = (held[i] + grad) / dist.get_world_size() if i in held else grad / dist.get_world_size()


_mistake(
    "each pass divides what is held as well as what has come",
    "Divide the new gradient, then add it to what is there.",
    mean=lambda self, grad: grad,
    keep=_divided_again,
)


class _OwnerFrees(_Hooks):
    """Elsewhere .grad stays."""

    def hook(self, i, owner, held):
        def arrived(p):
            grad = p.grad.clone()
            dist.reduce(grad, owner)
            self.keep(held, i, self.mean(grad), owner)
            if dist.get_rank() == owner:
                p.grad = None

        return arrived


exercise.mistake(
    "only the owner frees its .grad", hint="The other ranks have even less use for it: p.grad = None on every rank."
)(_as_function(_OwnerFrees))


class _StartsWithNone(_Hooks):
    def keep(self, held, i, grad, owner):
        if dist.get_rank() == owner:
            held[i] = grad if held[i] is None else held[i] + grad

    def __call__(self, params, owners):
        held = {i: None for i, _ in self.trained(params) if owners[i] == dist.get_rank()}
        for i, p in self.trained(params):
            p.register_post_accumulate_grad_hook(self.hook(i, owners[i], held))
        return held


exercise.mistake("the dict begins with None for what a rank owns", hint="At first it is empty, or holds zeros.")(
    _as_function(_StartsWithNone)
)


def _mean_of_passes(self, held, i, grad, owner):
    if dist.get_rank() == owner:
        held[i] = (held[i] + grad) / 2 if i in held else grad


_mistake(
    "the passes are averaged instead of added up",
    "Gradients of micro-batches add up, as in .grad; who wants a mean scales the losses.",
    keep=_mean_of_passes,
)
_mistake(
    "everything goes to rank 0",
    "Each gradient has its owner: owners[i].",
    send=lambda self, grad, owner: dist.reduce(grad, 0),
)
_mistake(
    "rank 0 owns everything, whatever `owners` says",
    "Each gradient has its owner: owners[i].",
    hook=lambda self, i, owner, held: _Hooks.hook(self, i, 0, held),
)


def _nth(self, params):
    return list(enumerate(p for p in params if p.requires_grad))


_mistake(
    "the trainable parameters are counted anew, so that a frozen one shifts the numbers of all after it",
    "i is the place in `params`, frozen ones included.",
    trained=_nth,
)


class _Registered(_Hooks):
    """register_hook sees a gradient before it is accumulated; .grad is still to come."""

    def __call__(self, params, owners):
        held = {}

        def hook(i):
            def arrived(grad):
                grad = grad.clone()
                self.send(grad, owners[i])
                self.keep(held, i, self.mean(grad), owners[i])

            return arrived

        for i, p in self.trained(params):
            p.register_hook(hook(i))
        return held


exercise.mistake(
    "register_hook is used, which comes before .grad is filled, so that nothing is freed",
    hint="register_post_accumulate_grad_hook is called when p.grad is there.",
)(_as_function(_Registered))
_mistake(
    "the ranks meet at a barrier in every hook as well",
    "reduce waits by itself.",
    send=lambda self, grad, owner: (dist.reduce(grad, owner), dist.barrier()),
)
_mistake(
    "everybody's gradients are gathered on every rank and added up there",
    "reduce adds on the way, and hands back one tensor.",
    send=lambda self, grad, owner: _gather_and_add(grad),
)


def _gather_and_add(grad):
    pieces = [torch.empty_like(grad) for _ in range(dist.get_world_size())]
    dist.all_gather(pieces, grad.contiguous())
    grad.copy_(sum(pieces))
