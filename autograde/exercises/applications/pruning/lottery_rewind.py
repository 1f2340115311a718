"""`lottery_rewind(initial, trained, masks, amount)`

One round of the search for a winning ticket: prune what training left small, and go back to the start.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.utils import prune

from autograde.exercise import Draft, case
from autograde.exercises.applications.pruning.shared import distinct, smallest
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "lottery_rewind",
    points=4,
    forbid=["torch.nn.utils.prune"],
    no_gradient="between two trainings nothing is trained",
    fresh=True,
    hints=[
        "Which weights are alive, and may be pruned? Put them all, of all matrices, into one long row, and count.",
        "round(amount * alive) of them go: those whose *trained* value is smallest. What was dead stays dead, whatever "
        "stands there. Then the *initial* values, times the new masks.",
        "sizes = torch.cat([t.abs()[m] for t, m in zip(trained, masks) if t.dim() > 1]); bound = sizes.sort().values["
        "count - 1] if count else -1; a new mask is m & (t.abs() > bound), and m.clone() for a vector.",
    ],
)


def _net(g, *shapes, alive=1.0, scale=None):
    """(initial, trained, masks): trained weights of different sizes, matrix by matrix of another scale."""
    count = sum(torch.Size(shape).numel() for shape in shapes)
    sizes = distinct(g, count).split([torch.Size(shape).numel() for shape in shapes])
    trained = [part.reshape(shape) for part, shape in zip(sizes, shapes, strict=True)]
    trained = [t * s for t, s in zip(trained, scale or [1] * len(shapes), strict=True)]
    initial = [randn(g, *shape) for shape in shapes]
    masks = [
        torch.rand(shape, generator=g) < alive if len(shape) > 1 else torch.ones(shape, dtype=torch.bool)
        for shape in shapes
    ]
    for mask in masks:
        if mask.dim() > 1 and alive < 1:  # some live and some are dead in each, the first one of both kinds
            mask[0, 0], mask[-1, -1] = False, True
    return initial, trained, masks


@exercise.cases
def nets(g):
    yield case(*_net(g, (5, pick(g, 4, 6)), (5,), (3, 5), (3,)), 0.4, label="first round, weights and biases")
    initial, trained, masks = _net(g, (6, 5), (4, 6), alive=0.6)
    yield case(initial, [t * m for t, m in zip(trained, masks, strict=True)], masks, 0.5, label="second round")
    yield case(*_net(g, (6, 5), (4, 6), alive=0.6), 0.5, label="training has moved what was dead")
    # Matrices of unlike scales. No product is a whole number or another product: no two sizes are equal.
    yield case(*_net(g, (4, 4), (5, 3), (3, 7), scale=[1, 16.01, 0.2503]), 0.5, label="layers of unlike sizes")
    initial, trained, masks = _net(g, (4, 5), (5,), (3, 4))
    trained[1] = trained[1] * 1e-3
    yield case(initial, trained, masks, 0.3, label="tiny biases")
    initial, trained, masks = _net(g, (5,), (4, 5), (4,), alive=0.8)
    masks[0][pick(g, 0, 4)] = masks[2][1] = False
    yield case(initial, trained, masks, 0.4, label="dead numbers in the biases")
    yield case(*_net(g, (3, 3), alive=0.7), amount=0.0, label="amount 0")
    yield case(*_net(g, (3, 3), (2, 2), (2,), alive=0.7), 1.0, label="amount 1")
    yield case(*_net(g, (3, 5)), 0.5, label="7.5 weights: 8")
    yield case(*_net(g, (1, 5)), 0.5, label="2.5 weights: 2")
    yield case(*_net(g, (4,), (3, 4)), 0.27, label="a vector first, 3.24 weights: 3")
    yield case(*_net(g, (2, 3, 3, 3), (5, 8), alive=0.8), 0.35, label="a convolution and a matrix")
    yield case(*_net(g, (60, 40), (40,), (10, 60), alive=0.5), 0.2, label="a larger net, fifth round or so")


@exercise.oracle
def torch_global_unstructured(initial, trained, masks, amount):
    """torch.nn.utils.prune over all matrices at once, of what earlier rounds have left."""
    modules = []
    for weight, mask in zip(trained, masks, strict=True):
        module = nn.Module()
        module.weight = nn.Parameter(weight.double().contiguous())
        modules.append(prune.custom_from_mask(module, "weight", mask))
    layers = [(module, "weight") for module in modules if module.weight.dim() > 1]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=float(amount))
    new = [module.weight_mask.bool() for module in modules]
    return [start * mask for start, mask in zip(initial, new, strict=True)], new


def _parts(out):
    ok = isinstance(out, (list, tuple)) and len(out) == 2 and all(isinstance(part, (list, tuple)) for part in out)
    return out if ok else None


@exercise.law("What was dead stays dead")
def dead_stays(out, one, call):
    parts, masks = _parts(out), one.args[2]
    if parts is None or len(parts[1]) != len(masks):
        return False
    return all(
        new.shape == old.shape and not bool((new.bool() & ~old).any()) for new, old in zip(parts[1], masks, strict=True)
    )


@exercise.law("What lives has its initial value again, and the rest is zero")
def rewound(out, one, call):
    parts, initial = _parts(out), one.args[0]
    if parts is None or len(parts[0]) != len(initial) or len(parts[1]) != len(initial):
        return False
    made = zip(*parts, initial, strict=True)
    return all(w.shape == i.shape == m.shape and torch.equal(w.double(), (i * m).double()) for w, m, i in made)


@exercise.law("The weights have the dtypes of initial, the masks are bool")
def dtypes(out, one, call):
    parts = _parts(out)
    if parts is None:
        return False
    right_kind = all(w.dtype == i.dtype for w, i in zip(parts[0], one.args[0], strict=False))
    return right_kind and all(mask.dtype == torch.bool for mask in parts[1])


def ticket(
    size=lambda i, t, m: t.abs(),
    alive=lambda m: m,
    count=round,
    base=lambda alive, whole: alive,
    prunable=lambda t: t.dim() > 1,
    last=False,
    by_layer=False,
    new=lambda old, gone: old & ~gone,
    start=lambda i, t, m: i * m,
):
    """`lottery_rewind` from its parts: what is compared, among which, how many go, and what comes back."""

    def cut(triples, amount):
        sizes = torch.cat([size(*triple)[alive(triple[2])] for triple in triples])
        whole = sum(triple[2].numel() for triple in triples)
        goes = min(max(count(amount * base(len(sizes), whole)), 0), len(sizes))
        places = smallest(-sizes if last else sizes, goes)
        masks, at = [], 0
        for _, _, mask in triples:
            n = int(alive(mask).sum())
            gone = torch.zeros_like(mask).masked_scatter(alive(mask), places[at : at + n])
            masks.append(new(mask, gone))
            at += n
        return masks

    def lottery_rewind(initial, trained, masks, amount):
        triples = list(zip(initial, trained, masks, strict=True))
        of = [triple for triple in triples if prunable(triple[1])]
        made = iter([mask for triple in of for mask in cut([triple], amount)] if by_layer else cut(of, amount))
        masks = [next(made) if prunable(t) else m.clone() for _, t, m in triples]
        return [start(i, t, m) for (i, t, _), m in zip(triples, masks, strict=True)], masks

    return lottery_rewind


right = ticket()


@exercise.mistake("dead numbers of biases come alive again", hint="A vector's mask stays, and what is dead is 0.")
def vectors_revive(initial, trained, masks, amount):
    return right(initial, trained, [m if m.dim() > 1 else torch.ones_like(m) for m in masks], amount)


@exercise.mistake("dead numbers of biases keep their value", hint="0 where a weight is dead, in vectors as well.")
def vectors_unmasked(initial, trained, masks, amount):
    weights, new = right(initial, trained, masks, amount)
    return [w if w.dim() > 1 else i.clone() for w, i in zip(weights, initial, strict=True)], new


@exercise.mistake("biases count, though none of them goes", hint="Only matrices stand in line, and are counted.")
def biases_counted(initial, trained, masks, amount):
    lines = [m.sum().item() for m in masks if m.dim() > 1]
    share = amount * sum(int(m.sum()) for m in masks) / max(sum(lines), 1)
    return right(initial, trained, masks, min(share, 1.0))


exercise.mistake(
    "the weights stay trained, nothing is rewound",
    hint="The ticket is the mask *and* the initial values: initial * mask.",
)(ticket(start=lambda i, t, m: t * m))

exercise.mistake("initial values decide what goes", hint="What training left small goes: trained.abs().")(
    ticket(size=lambda i, t, m: i.abs())
)

exercise.mistake(
    "what moved least in training goes", hint="Another known rule, but not this one: the size of the trained weight."
)(ticket(size=lambda i, t, m: (t - i).abs()))

exercise.mistake("signed weights are compared", hint="Small means near zero: trained.abs().")(
    ticket(size=lambda i, t, m: t)
)

exercise.mistake("the largest weights go", hint="The smallest go.")(ticket(last=True))

exercise.mistake(
    "every layer loses the same share", hint="One order over the living weights of all matrices, not one a layer."
)(ticket(by_layer=True))

exercise.mistake(
    "amount is a share of all weights, dead ones included", hint="Count what is alive: amount of *these* goes."
)(ticket(base=lambda alive, whole: whole))

exercise.mistake(
    "dead weights are counted and compared, though they can't go again",
    hint="Only living weights stand in line: trained.abs()[mask].",
)(ticket(alive=torch.ones_like))

exercise.mistake("what was dead may live again", hint="A new mask is the old one with more zeros: old & ...")(
    ticket(alive=torch.ones_like, new=lambda old, gone: ~gone)
)

exercise.mistake("amount is the share that stays", hint="`amount` of the living weights goes.")(
    lambda initial, trained, masks, amount: right(initial, trained, masks, 1 - amount)
)

exercise.mistake("the count is rounded down", hint="round(amount * alive), not int(...).")(ticket(count=int))

exercise.mistake("halves are rounded up", hint="Python's round takes a half to the even number: 2.5 is 2.")(
    ticket(count=lambda n: int(n + 0.5))
)

exercise.mistake("biases are pruned, too", hint="Vectors aren't pruned: only what has two dimensions or more.")(
    ticket(prunable=lambda t: True)
)


@exercise.mistake("biases aren't rewound", hint="Every tensor goes back to its initial values, vectors as well.")
def biases_stay(initial, trained, masks, amount):
    weights, new = right(initial, trained, masks, amount)
    return [t.clone() if t.dim() == 1 else w for w, t in zip(weights, trained, strict=True)], new


exercise.mistake("the initial values come back whole", hint="initial * mask: what is dead is zero.")(
    ticket(start=lambda i, t, m: i.clone())
)


exercise.mistake("the initial values are masked by the old masks", hint="The weights go with the *new* masks.")(
    lambda initial, trained, masks, amount: (
        [i * m for i, m in zip(initial, masks, strict=True)],
        right(initial, trained, masks, amount)[1],
    )
)


@exercise.mistake("vectors come back as zeros", hint="Biases aren't pruned: their initial values, whole.")
def vectors_die(initial, trained, masks, amount):
    weights, new = right(initial, trained, masks, amount)
    return [w * 0 if w.dim() == 1 else w for w in weights], new


exercise.mistake(
    "only tensors of exactly two dimensions are pruned", hint="Convolutions have more: whatever has two or more."
)(ticket(prunable=lambda t: t.dim() == 2))

exercise.mistake("one too few goes", hint="What is as small as the last one that goes is that one: it goes, too.")(
    ticket(count=lambda n: round(n) - 1)
)

exercise.mistake("the count is rounded up", hint="round(amount * alive), not ceil.")(ticket(count=math.ceil))

exercise.mistake(
    "dead weights are counted and go first, so that fewer living ones go",
    hint="Only living weights are counted, and only they can go: trained.abs()[mask].",
)(ticket(size=lambda i, t, m: (t * m).abs(), alive=torch.ones_like))

exercise.mistake(
    "dead weights stand in line as zeros, which are the smallest",
    hint="Only living weights are counted, and only they can go: trained.abs()[mask].",
)(ticket(size=lambda i, t, m: (t * m).abs(), alive=torch.ones_like, new=lambda old, gone: ~gone))


@exercise.mistake("the masks show what went in this round", hint="True marks what is alive.")
def marks_gone(initial, trained, masks, amount):
    weights, new = right(initial, trained, masks, amount)
    return weights, [old & ~mask for old, mask in zip(masks, new, strict=True)]


@exercise.mistake("the masks hold numbers", hint="Masks are of dtype bool.")
def numbers(initial, trained, masks, amount):
    weights, new = right(initial, trained, masks, amount)
    return weights, [mask.to(weight.dtype) for mask, weight in zip(new, weights, strict=True)]


@exercise.mistake("the masks that came in are changed", hint="New masks: `mask & ...`, not `mask &= ...`.")
def in_place(initial, trained, masks, amount):
    weights, new = right(initial, trained, masks, amount)
    return weights, [old.copy_(mask) for old, mask in zip(masks, new, strict=True)]


@exercise.mistake("masks that lose nothing are the same tensors", hint="New tensors, always: mask.clone().")
def shared_masks(initial, trained, masks, amount):
    weights, new = right(initial, trained, masks, amount)
    return weights, [old if torch.equal(old, mask) else mask for old, mask in zip(masks, new, strict=True)]


@exercise.alternative
def by_threshold(initial, trained, masks, amount):
    living = [t.abs()[m] for t, m in zip(trained, masks, strict=True) if t.dim() > 1]
    sizes = torch.cat(living).sort().values
    count = round(amount * len(sizes))
    bound = sizes[count - 1] if count else -1
    new = [m & (t.abs() > bound) if t.dim() > 1 else m.clone() for t, m in zip(trained, masks, strict=True)]
    return [torch.where(m, i, 0) for i, m in zip(initial, new, strict=True)], new


@exercise.alternative
def by_places(initial, trained, masks, amount):
    """Every living weight with its place, in one sorted list."""
    new = [m.clone() for m in masks]
    line = []
    for k, (weight, mask) in enumerate(zip(trained, masks, strict=True)):
        if weight.dim() > 1:
            flat = weight.abs().reshape(-1).tolist()
            line += [(flat[at], k, at) for at in mask.reshape(-1).nonzero()[:, 0].tolist()]
    for _, k, at in sorted(line)[: round(amount * len(line))]:
        flat = new[k].reshape(-1)
        flat[at] = False
        new[k] = flat.reshape(new[k].shape)
    return tuple(i * m for i, m in zip(initial, new, strict=True)), tuple(new)
