"""`two_four_mask(weight)`: Of every four weights in a row that follow each other, mark the two larger ones."""

from __future__ import annotations

import torch
from torch import nn

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.pruning.shared import distinct, unlike_rows
from autograde.exercises.shared import pick, randn
from autograde.judging.comparing import compare

exercise = Draft(
    "two_four_mask",
    points=2,
    forbid=["torch.ao.pruning"],
    no_gradient="a mask of truth values is chosen, not trained",
    hints=[
        "Cut each row into groups of four. What would you ask of one group?",
        "weight.abs().reshape(*weight.shape[:-1], -1, 4): topk(2) of the last dimension gives places, no truth values.",
        "places = groups.topk(2).indices; torch.zeros_like(groups, dtype=torch.bool).scatter(-1, places, True), in the "
        "shape of weight.",
    ],
)


@exercise.cases
def matrices(g):
    yield case(distinct(g, 5, 4 * pick(g, 2, 3)), label="a matrix")
    yield case(unlike_rows(g, 8, 8), label="a square matrix, rows of unlike sizes")
    yield case(distinct(g, 12, 4), label="one group a row")
    yield case(-distinct(g, 3, 16).abs(), label="all weights negative")
    uneven = distinct(g, 4, 4, 4) * torch.tensor([1e-3, 1.0, 1e2, 1e4])[:, None]
    yield case(uneven.reshape(4, 16), label="groups of unlike sizes")
    yield case(distinct(g, 16), label="one row")
    yield case(distinct(g, 2, 3, 8), label="two leading dimensions")
    equal = torch.tensor([[1.0, -1.0, 1.0, 1.0], [3.0, 2.0, -2.0, 2.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, -5.0, 0.0]])
    yield case(equal[torch.randperm(4, generator=g)].reshape(2, 8), label="equal weights and zeros")
    yield case(torch.full((3, 4), 0.25), label="all weights the same")
    yield case(distinct(g, 4, 8, scale=1e-9), label="weights near zero")
    yield case(50 + randn(g, 3, 8) / 10, label="weights around 50")
    yield case(distinct(g, 300, 40, scale=1e-6), label="300 rows of 40")
    yield case(distinct(g, 1, 8), label="a matrix of one row")


@exercise.oracle
def torch_sparsifier(weight):
    """torch.ao.pruning's: two zeros in every block of 1 × 4."""
    from torch.ao.pruning import WeightNormSparsifier

    linear = nn.Linear(weight.shape[-1], weight[..., 0].numel(), bias=False)
    linear.weight = nn.Parameter(weight.double().reshape(-1, weight.shape[-1]).contiguous())
    sparsifier = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2, norm=1)
    sparsifier.prepare(nn.Sequential(linear), [{"tensor_fqn": "0.weight"}])
    sparsifier.step()
    return linear.parametrizations.weight[0].mask.bool().reshape(weight.shape)


def _kept(one, mask):
    return (one.args[0].double().abs() * mask).reshape(-1, 4).sort(-1).values


@exercise.agrees
def up_to_ties(expected, got, one):
    """Which ones of equal weights stay is open; two of four they are."""
    mismatch = compare(expected, got)
    if mismatch is None:
        return True
    alike = mismatch.kind == "value" and torch.equal(expected.reshape(-1, 4).sum(-1), got.reshape(-1, 4).sum(-1))
    return True if alike and torch.equal(_kept(one, expected), _kept(one, got)) else mismatch.message


@exercise.law("Two of every four stay, neither more nor fewer", essential=True)
def two_of_four(out, one, call):
    if out.shape != one.args[0].shape or out.dtype != torch.bool:
        return "the mask should be bool, of the shape of weight"
    counts = out.reshape(-1, 4).sum(-1)
    return bool((counts == 2).all()) or f"{one.label}: a group keeps {int(counts[counts != 2][0])}"


@exercise.law("Groups are each other's strangers: reversed, they get the same mask, reversed")
def groups_alone(out, one, call):
    weight = one.args[0]
    if weight.abs().unique().numel() < weight.numel() or out.shape != weight.shape:
        return None
    flipped = weight.reshape(-1, 4).flip(0).reshape(weight.shape)
    return same(call(flipped).reshape(-1, 4).flip(0), out.reshape(-1, 4))


def by_groups(choose, size=4):
    """`two_four_mask` from a choice in [groups, size] of absolute values."""
    return lambda weight: choose(weight.abs().reshape(-1, size)).reshape(weight.shape)


def best(groups, count):
    places = groups.topk(count, dim=-1).indices
    return torch.zeros_like(groups, dtype=torch.bool).scatter(-1, places, True)


right = by_groups(lambda groups: best(groups, 2))

exercise.mistake("groups run down the columns", hint="Four weights of one *row*: the inputs that one output adds up.")(
    lambda weight: (
        right(weight.T.contiguous()).T.clone() if weight.dim() == 2 and weight.shape[0] % 4 == 0 else right(weight)
    )
)


@exercise.mistake(
    "a group is made of weights that stand far apart", hint="Neighbors: reshape to [..., -1, 4], not [..., 4, -1]."
)
def far_apart(weight):
    apart = weight.reshape(*weight.shape[:-1], 4, -1).mT
    return right(apart.contiguous()).mT.reshape(weight.shape)


exercise.mistake("the two smaller ones are marked", hint="True means: stays. The larger two stay.")(
    lambda weight: ~right(weight)
)

exercise.mistake("signed weights are compared", hint="Compare absolute values.")(
    lambda weight: best(weight.reshape(-1, 4), 2).reshape(weight.shape)
)

exercise.mistake("half of each row stays, wherever it stands", hint="Two in *every* group of four.")(
    lambda weight: best(weight.abs(), weight.shape[-1] // 2)
)

exercise.mistake("half of the tensor stays, wherever it stands", hint="Two in *every* group of four.")(
    lambda weight: best(weight.abs().reshape(1, -1), weight.numel() // 2).reshape(weight.shape)
)

exercise.mistake("one of every two stays", hint="Both of the two larger ones may be neighbors: groups of four.")(
    by_groups(lambda pairs: best(pairs, 1), size=2)
)

exercise.mistake("four of every eight stay", hint="Groups of four.")(
    lambda weight: (
        by_groups(lambda groups: best(groups, 4), size=8)(weight) if weight.shape[-1] % 8 == 0 else right(weight)
    )
)

exercise.mistake("one of four stays", hint="2:4 means two of four.")(by_groups(lambda groups: best(groups, 1)))

exercise.mistake("three of four stay", hint="2:4 means two of four.")(by_groups(lambda groups: best(groups, 3)))

exercise.mistake(
    "all that are as large as the second stay, also where several are equal",
    hint="Hardware stores two places a group. Where weights are equal a comparison marks three or four: use places.",
)(by_groups(lambda groups: groups >= groups.sort(-1).values[:, 2:3]))

exercise.mistake(
    "only what is larger than the third stays, also where several are equal",
    hint="Where weights are equal a comparison marks too few: use the places that topk gives.",
)(by_groups(lambda groups: groups > groups.sort(-1).values[:, 1:2]))

exercise.mistake("all above the group's mean stay", hint="Two, always: the mean lets one pass, or three.")(
    by_groups(lambda groups: groups > groups.mean(-1, keepdim=True))
)

exercise.mistake("the first two of each group stay, whatever they are", hint="The two larger ones.")(
    by_groups(lambda groups: torch.tensor([True, True, False, False]).expand(len(groups), 4))
)


@exercise.mistake("argsort is taken for ranks", hint="argsort says where the smallest stands. Scatter along it.")
def places_as_ranks(weight):
    return (weight.abs().reshape(-1, 4).argsort(stable=True) >= 2).reshape(weight.shape)


@exercise.mistake("the largest and the most negative one stay", hint="The two of the largest absolute value.")
def both_ends(weight):
    groups = weight.reshape(-1, 4)
    ends = torch.stack([groups.argmax(-1), 3 - groups.flip(-1).argmin(-1)], -1)
    return torch.zeros_like(groups, dtype=torch.bool).scatter(-1, ends, True).reshape(weight.shape)


@exercise.mistake("every row gets the mask of the first", hint="Each row has its own groups.")
def first_for_all(weight):
    rows = weight.reshape(-1, weight.shape[-1])
    return right(rows[:1]).expand(rows.shape).reshape(weight.shape)


exercise.mistake("the weights come back, with zeros", hint="The mask alone, of truth values.")(
    lambda weight: weight * right(weight)
)

exercise.mistake("the mask holds numbers", hint="A mask of dtype bool.")(lambda weight: right(weight).to(weight.dtype))


@exercise.mistake("zeros never stay", hint="Two of every four, also of four zeros: hardware knows no other format.")
def no_zeros(weight):
    return right(weight) & (weight != 0)


@exercise.alternative
def by_double_sort(weight):
    ranks = weight.abs().reshape(-1, 4).argsort(stable=True).argsort()
    return (ranks >= 2).reshape(weight.shape)


@exercise.alternative
def by_duels(weight):
    """A weight stays if it loses at most one of its three duels; of equal ones the first wins."""
    sizes = weight.abs().reshape(-1, 4)
    mine, theirs = sizes[:, :, None], sizes[:, None, :]
    first = torch.ones(4, 4).tril(-1).bool()
    loses = (theirs > mine) | ((theirs == mine) & first)
    return (loses.sum(-1) <= 1).reshape(weight.shape)
