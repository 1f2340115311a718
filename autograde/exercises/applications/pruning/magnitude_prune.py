"""`magnitude_prune(weight, amount, per_row=False)`

Set the smallest weights to zero: a share of the matrix, or the same share of each row.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.utils import prune

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.pruning.shared import distinct, smallest, unlike_rows
from autograde.exercises.shared import pick, randn
from autograde.judging.comparing import compare

exercise = Draft(
    "magnitude_prune",
    points=3,
    forbid=["torch.nn.utils.prune"],
    fresh=True,
    hints=[
        "How many weights go? Count them first: round(amount * all), or round(amount * columns) in each row.",
        "Sort by absolute value. A threshold (`abs() > t`) takes too many or too few where several weights are equal; "
        "the places of the first ones of a sort are as many as you want.",
        "sizes = weight.abs() if per_row else weight.abs().reshape(1, -1); gone = sizes.argsort(-1)[:, :count]; a mask "
        "of ones.scatter(-1, gone, 0), reshaped like weight, times weight.",
    ],
)


@exercise.cases
def matrices(g):
    columns = pick(g, 4, 5) * 2 + 1
    yield case(distinct(g, 6, columns), 0.5, label="half of a matrix")
    yield case(unlike_rows(g, 4, 7), 0.3, per_row=True, label="30 % of each row, rows of unlike sizes")
    yield case(unlike_rows(g, 4, 7), 0.6, label="60 % of a matrix whose rows are of unlike sizes")
    yield case(-distinct(g, 5, 8).abs(), 0.25, label="all weights negative")
    yield case(distinct(g, 3, 5), 0.5, label="7.5 weights: 8")
    yield case(distinct(g, 3, 5), amount=0.5, per_row=True, label="2.5 weights a row: 2")
    yield case(distinct(g, 2, 7), 0.5, per_row=True, label="3.5 weights a row: 4")
    equal = torch.tensor([2.0, -1.0, 1.0, 1.0, -1.0, 3.0, -2.0, 1.0, 4.0, -1.0])
    yield case(torch.stack([equal, equal[torch.randperm(10, generator=g)]]), 0.3, per_row=True, label="equal weights")
    yield case(torch.stack([equal, 5 * equal])[:, torch.randperm(10, generator=g)], 0.2, label="equal weights, matrix")
    yield case(torch.full((2, 6), -0.5), 0.5, label="all weights the same")
    zeros = distinct(g, 4, 10)
    yield case(torch.where(smallest(zeros.abs(), 4), 0.0, zeros), 0.6, per_row=True, label="40 % are zero already")
    none = distinct(g, 4, 10)
    yield case(torch.where(smallest(none.abs(), 3), 0.0, none), 0.55, label="30 % of a matrix are zero already")
    yield case(distinct(g, 2, 5), 0.25, label="2.5 of ten weights: 2")
    yield case(distinct(g, 3, 4), 0.0, label="amount 0")
    yield case(distinct(g, 3, 4), 1, per_row=True, label="amount 1")
    yield case(distinct(g, 1, 1), 0.6, label="one weight")
    yield case(100 + randn(g, 3, 9) / 10, 0.4, label="weights around 100")
    yield case(distinct(g, 4, 7, scale=1e25), 0.5, label="weights whose squares overflow")
    yield case(distinct(g, 300, 12, scale=1e-4), 0.35, label="300 rows")


@exercise.oracle
def torch_l1_unstructured(weight, amount, per_row=False):
    """torch's own, on a matrix or on each row of it."""
    masks = []
    for part in weight.detach().double() if per_row else [weight.detach().double()]:
        module = nn.Module()
        module.weight = nn.Parameter(part.contiguous())  # it refuses others
        masks.append(prune.l1_unstructured(module, "weight", float(amount)).weight_mask)
    return weight * torch.stack(masks).reshape(weight.shape).to(weight.dtype)


def _by_row(one):
    return one.kwargs.get("per_row", one.args[2] if len(one.args) > 2 else False)


def _sizes(one, out):
    """The absolute values in order, of each row or of the whole matrix."""
    return out.double().abs().reshape(len(out) if _by_row(one) else 1, -1).sort(-1).values


@exercise.agrees
def up_to_ties(expected, got, one):
    """To the last digit. Which ones of equal weights go is open."""
    mismatch = compare(expected, got, rtol=0, atol=0, precise=True)
    if mismatch is None:
        return True
    if mismatch.kind == "value" and torch.equal(_sizes(one, expected), _sizes(one, got)):
        weight = one.args[0].double()
        return bool(((got.double() == weight) | (got == 0)).all()) or "what stays isn't what it was"
    return mismatch.message


@exercise.law("The result is a tensor of the dtype of weight")
def own_dtype(out, one, call):
    weight = one.args[0]
    return out.dtype == weight.dtype or f"{weight.dtype} went in, {out.dtype} came out"


@exercise.law("As many go as the docstring says, no more and no fewer")
def count_is_right(out, one, call):
    weight, amount = one.args[0], one.kwargs.get("amount", one.args[1] if len(one.args) > 1 else None)
    if out.shape != weight.shape or bool((weight == 0).any()):
        return None
    rows, columns = weight.shape
    wanted = rows * round(amount * columns) if _by_row(one) else round(amount * rows * columns)
    found = int((out == 0).sum())
    return found == wanted or f"{one.label}: {found} of {weight.numel()} went, not {wanted}"


@exercise.law("What stays is no smaller than what goes")
def smallest_go(out, one, call):
    weight = one.args[0]
    if out.shape != weight.shape:
        return False
    parts = zip(weight, out, strict=True) if _by_row(one) else [(weight, out)]
    for before, after in parts:
        gone, stays = before[after == 0].abs(), before[after != 0].abs()
        if gone.numel() and stays.numel() and gone.max() > stays.min():
            return False
    return True


@exercise.law("Signs don't matter")
def sign_blind(out, one, call):
    weight = one.args[0]
    if weight.abs().unique().numel() < weight.numel():
        return None
    return same(call(-weight, *one.args[1:], **one.kwargs), -out)


def pruned(sizes=torch.abs, count=round, by_row=lambda per_row: per_row, last=False, finish=lambda w, gone: w * ~gone):
    """`magnitude_prune` from its parts: what is compared, how the count is rounded, in which scope, what is made."""

    def magnitude_prune(weight, amount, per_row=False):
        flat = sizes(weight) if by_row(per_row) else sizes(weight).reshape(1, -1)
        gone = smallest(-flat if last else flat, min(max(count(amount * flat.shape[-1]), 0), flat.shape[-1]))
        return finish(weight, gone.reshape(weight.shape))

    return magnitude_prune


right = pruned()

exercise.mistake(
    "rows are pruned as one matrix, whatever is asked", hint="per_row=True: each row loses its own share."
)(pruned(by_row=lambda per_row: False))

exercise.mistake(
    "each row loses its share, whatever is asked", hint="per_row=False: one order for all weights of the matrix."
)(pruned(by_row=lambda per_row: True))


@exercise.mistake("columns are pruned where rows should be", hint="A row is weight[i]: sort along the last dimension.")
def by_column(weight, amount, per_row=False):
    return right(weight.T, amount, True).T.clone() if per_row else right(weight, amount)


exercise.mistake("the count is rounded down", hint="round(amount * n), not int(amount * n).")(pruned(count=int))

exercise.mistake("zeros don't count", hint="Zeros are the smallest weights: they are among those that go.")(
    lambda weight, amount, per_row=False: right(weight, float((weight != 0).double().mean()) * amount, per_row)
)

exercise.mistake("the count is rounded up", hint="round(amount * n), not ceil.")(pruned(count=math.ceil))

exercise.mistake(
    "halves are rounded up", hint="Python's round takes a half to the even number, as torch's pruning does: 2.5 is 2."
)(pruned(count=lambda n: int(n + 0.5)))

exercise.mistake("the largest weights go", hint="What is near zero adds least: the smallest go, the largest stay.")(
    pruned(last=True)
)

exercise.mistake(
    "signed weights are compared, so that the most negative go", hint="Small means near zero: compare weight.abs()."
)(pruned(sizes=torch.clone))

exercise.mistake("amount is the share that stays", hint="`amount` is what goes.")(
    lambda weight, amount, per_row=False: right(weight, 1 - amount, per_row)
)


@exercise.mistake(
    "all weights as small as the threshold go, also those that are equal to it",
    hint="Where several weights are equal, a comparison takes all of them or none. Count them instead.",
)
def ties_go(weight, amount, per_row=False):
    flat = weight.abs() if per_row else weight.abs().reshape(1, -1)
    count = round(amount * flat.shape[-1])
    if not count:
        return weight.clone()
    return weight * (flat > flat.sort(-1).values[:, count - 1 : count]).reshape(weight.shape)


@exercise.mistake(
    "only weights smaller than the threshold go, so that equal ones all stay",
    hint="Where several weights are equal, a comparison takes all of them or none. Count them instead.",
)
def ties_stay(weight, amount, per_row=False):
    flat = weight.abs() if per_row else weight.abs().reshape(1, -1)
    count = round(amount * flat.shape[-1])
    if count == flat.shape[-1]:
        return torch.zeros_like(weight)
    return weight * (flat >= flat.sort(-1).values[:, count : count + 1]).reshape(weight.shape)


@exercise.mistake(
    "the threshold is a share of the largest weight", hint="amount is a share of the *number* of weights: sort them."
)
def share_of_largest(weight, amount, per_row=False):
    largest = weight.abs().amax(-1, keepdim=True) if per_row else weight.abs().max()
    return weight * (weight.abs() > amount * largest)


@exercise.mistake(
    "amount counts from the weights that aren't zero yet",
    hint="A share of all weights. Zeros are the smallest of them.",
)
def of_nonzero(weight, amount, per_row=False):
    flat = weight if per_row else weight.reshape(1, -1)
    zeros = (flat == 0).sum(-1).tolist()
    rows = [
        smallest(row.abs(), none + round(amount * (len(row) - none))) for row, none in zip(flat, zeros, strict=True)
    ]
    return weight * ~torch.stack(rows).reshape(weight.shape)


exercise.mistake("the mask comes back, not the weights", hint="Multiply the weights by the mask.")(
    pruned(finish=lambda w, gone: (~gone).to(w.dtype))
)

exercise.mistake(
    "what stays is made larger, as dropout does", hint="Nothing is scaled: weights that stay are as they were."
)(lambda weight, amount, per_row=False: right(weight, amount, per_row) / (1 - amount if amount < 1 else 1))

exercise.mistake("the result is float32, whatever came in", hint="The result has the dtype of weight.")(
    lambda weight, amount, per_row=False: right(weight, amount, per_row).float()
)

exercise.mistake("the weights are changed in place", hint="A new tensor: weight * mask.")(
    lambda weight, amount, per_row=False: weight.copy_(right(weight, amount, per_row))
)

exercise.mistake("with amount 0 the weights themselves come back", hint="A new tensor, always: weight.clone().")(
    lambda weight, amount, per_row=False: right(weight, amount, per_row) if amount else weight
)


@exercise.mistake(
    "the threshold is a quantile, which lies between two weights or on several",
    hint="A quantile interpolates and knows no ties. Count the weights that go.",
)
def by_quantile(weight, amount, per_row=False):
    flat = weight.abs() if per_row else weight.abs().reshape(1, -1)
    bound = torch.quantile(flat.detach().double(), float(amount), dim=1, keepdim=True)
    return weight * (flat > bound).reshape(weight.shape)


exercise.mistake("squares are compared, which overflow", hint="Absolute values: abs() changes no weight's order.")(
    pruned(sizes=torch.square)
)

exercise.mistake("at least one weight goes", hint="round(amount * n) may be 0.")(
    pruned(count=lambda n: max(round(n), 1))
)

exercise.mistake("one more goes than asked", hint="The first `count` places of the order: order[:count].")(
    pruned(count=lambda n: round(n) + 1)
)

exercise.mistake("one fewer goes than asked", hint="The first `count` places of the order: order[:count].")(
    pruned(count=lambda n: round(n) - 1)
)


@exercise.mistake(
    "argsort is taken for ranks",
    hint="argsort says where the smallest stands, not how small each is. Scatter along it.",
)
def places_as_ranks(weight, amount, per_row=False):
    flat = weight.abs() if per_row else weight.abs().reshape(1, -1)
    return weight * (flat.argsort(-1) >= round(amount * flat.shape[-1])).reshape(weight.shape)


@exercise.mistake("whole rows go, the smallest first", hint="Single weights go here, wherever they stand.")
def whole_rows(weight, amount, per_row=False):
    gone = smallest(weight.norm(dim=1)[None], round(amount * len(weight)))
    return weight * ~gone.reshape(-1, 1)


exercise.mistake(
    "pruned weights still get a gradient", hint="weight * mask: then zeros stay zeros when what is left is trained."
)(lambda weight, amount, per_row=False: weight + (right(weight, amount, per_row) - weight).detach())


@exercise.alternative
def by_topk(weight, amount, per_row=False):
    """Which of equal ones go is topk's affair."""
    flat = weight.abs() if per_row else weight.abs().reshape(1, -1)
    gone = flat.topk(round(amount * flat.shape[-1]), dim=-1, largest=False).indices
    return weight * torch.ones_like(flat).scatter(-1, gone, 0).reshape(weight.shape)


@exercise.alternative
def by_lists(weight, amount, per_row=False):
    """Of equal ones the last go."""
    keep = torch.ones(weight.shape, dtype=torch.bool)
    places = [(i, j) for i in range(weight.shape[0]) for j in range(weight.shape[1])]
    for group in [[p for p in places if p[0] == i] for i in range(len(weight))] if per_row else [places]:
        values = weight.tolist()
        group = sorted(group, key=lambda p: (abs(values[p[0]][p[1]]), -p[0], -p[1]))
        for i, j in group[: round(amount * len(group))]:
            keep[i, j] = False
    return torch.where(keep, weight, 0.0)
