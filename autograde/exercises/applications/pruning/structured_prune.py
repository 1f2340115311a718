"""`structured_prune(first, bias, second, n, size=1)`

Remove whole hidden units, or heads of `size` units, from both layers between which they stand.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import prune

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.applications.pruning.shared import smallest
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "structured_prune",
    points=4,
    forbid=["torch.nn.utils.prune"],
    fresh=True,
    hints=[
        "A hidden unit is a row of the first layer, a number of its bias, and a column of the second layer. A head is "
        "`size` units that follow each other.",
        "Score the groups: first.reshape(-1, size * d).norm(dim=1). Which groups stay? Bring their numbers back into "
        "order, and turn them into the numbers of their units.",
        "stay = scores.argsort()[n:].sort().values; units = (stay[:, None] * size + torch.arange(size)).flatten(); "
        "then first[units], bias[units] if there is one, second[:, units].",
    ],
)


def _layers(g, groups, size, d, out, with_bias=True):
    """Two layers; the groups' norms in the first differ by factors of 1.3, in an order that is drawn."""
    first = randn(g, groups, size * d)
    order = torch.randperm(groups, generator=g)
    if bool((order.diff() > 0).all()) or bool((order.diff() < 0).all()):
        order = order.roll(1)
    first = first / first.norm(dim=1, keepdim=True) * 1.3 ** order[:, None]
    bias = randn(g, groups * size) if with_bias else None
    return first.reshape(groups * size, d), bias, randn(g, out, groups * size)


@exercise.cases
def layers(g):
    yield case(*_layers(g, 7, 1, pick(g, 3, 5), 4), 3, label="3 of 7 neurons go")
    yield case(*_layers(g, 4, 3, 5, 7, with_bias=False), 2, size=3, label="2 of 4 heads of 3 go, no bias")
    yield case(*_layers(g, 6, 1, 6, 6), 2, label="square layers")
    yield case(*_layers(g, 4, 2, 8, 8), 1, 2, label="square layers, heads of 2")
    first, bias, second = _layers(g, 5, 1, 4, 3)
    weak = smallest(first.norm(dim=1), 2)
    yield case(first, torch.where(weak, 50.0, 0.1 * bias), second, 2, label="weak neurons with large biases")
    yield case(first, bias, torch.where(weak, 50.0, 1.0) * second, 2, label="weak neurons that the second layer loves")
    # Of four groups: the smallest L2 norm, L1 norm, largest weight and (signed) sum are each another group's.
    rows = torch.tensor([[4.0, 4.0, 2.0, -1.0], [7.0, -0.1, 0.1, 0.1], [3.5, 3.5, 3.5, -3.5], [9.0, -9.0, -9.0, 8.5]])
    rows = rows[torch.randperm(4, generator=g)]
    yield case(rows, randn(g, 4), randn(g, 2, 4), 1, label="norms that disagree")
    # The smallest norm, sum of norms, weakest unit and first unit are each another head's.
    heads = torch.tensor([9.5, 0.01, 4.0, 4.1, 6.0, 1.5, 3.0, 8.0])[:, None]
    yield case(heads * randn(g, 1, 3).sign(), randn(g, 8), randn(g, 2, 8), 1, size=2, label="weak units, strong heads")
    yield case(*_layers(g, 5, 1, 3, 2), 0, label="nothing goes")
    yield case(*_layers(g, 3, 2, 3, 4), 2, size=2, label="one head is left")
    yield case(*_layers(g, 3, 1, 1, 1), 1, label="one input, one output")
    yield case(*_layers(g, 40, 8, 12, 20), n=23, size=8, label="40 heads of 8")


@exercise.oracle
def torch_ln_structured(first, bias, second, n, size=1):
    """torch masks the groups with the smallest L2 norm; what it masks is left out."""
    module = nn.Module()
    module.weight = nn.Parameter(first.detach().double().reshape(-1, size * first.shape[1]))
    mask = prune.ln_structured(module, "weight", amount=n, n=2, dim=0).weight_mask
    units = mask[:, 0].bool().repeat_interleave(size)
    return first[units], None if bias is None else bias[units], second[:, units]


exercise.law("The results have the dtype of first")(keeps_dtype)


def _through(first, bias, second, x):
    return torch.relu(x @ first.T + (0 if bias is None else bias)) @ second.T


@exercise.law("The smaller network computes what the large one does with the weakest units silenced", essential=True)
def same_function(out, one, call):
    first, bias, second, n, size = _given(*one.args, **one.kwargs)
    if first.dtype not in (torch.float32, torch.float64):
        return None
    hidden = len(first)
    if not isinstance(out, (list, tuple)) or len(out) != 3 or not all(torch.is_tensor(out[i]) for i in (0, 2)):
        return False
    if len(out[0]) != hidden - n * size or out[2].shape[-1] != hidden - n * size:
        return f"{len(out[0])} rows and {out[2].shape[-1]} columns are left, not {hidden - n * size}"
    gone = smallest(first.reshape(-1, size * first.shape[1]).norm(dim=1), n).repeat_interleave(size)
    x = torch.randn(5, first.shape[1], generator=torch.Generator().manual_seed(0)).to(first.dtype)
    try:
        return same(_through(*out, x), _through(first, bias, second * ~gone, x), 1e-3, 1e-3)
    except RuntimeError:
        return "the three don't fit together"


def _given(first, bias, second, n, size=1):
    return first, bias, second, n, size


def l2(groups):
    return groups.norm(dim=1)


def units_of(stay, size, hidden):
    return (stay[:, None] * size + torch.arange(size)).flatten()


def cut(score=l2, left=None, order=lambda stay: stay.sort().values, units=units_of, scores=None, make=None):
    """`structured_prune` from its parts.

    `score` rates the groups, or `scores(first, bias, second, size)` does; `left(order, n)` says which stay; `make` puts
    the three together.
    """
    left = left or (lambda ranked, n: ranked[n:])
    make = make or (lambda first, bias, second, u: (first[u], None if bias is None else bias[u], second[:, u]))

    def structured_prune(first, bias, second, n, size=1):
        rated = scores(first, bias, second, size) if scores else score(first.reshape(-1, size * first.shape[1]))
        stay = order(left(rated.argsort(), n))
        return make(first, bias, second, units(stay, size, len(first)))

    return structured_prune


right = cut()


@exercise.mistake(
    "weak units are set to zero instead of removed",
    hint="Zeros are multiplied like any number. Index with the units that stay: fewer rows, fewer columns.",
)
def zeroed(first, bias, second, n, size=1):
    gone = smallest(first.reshape(-1, size * first.shape[1]).norm(dim=1), n).repeat_interleave(size)
    return first * ~gone[:, None], None if bias is None else bias * ~gone, second * ~gone


exercise.mistake(
    "rows of the second layer go instead of columns",
    hint="What the hidden units feed are the *inputs* of the second layer: its columns. In a square layer both fit.",
)(cut(make=lambda first, bias, second, u: (first[u], None if bias is None else bias[u], second[u[u < len(second)]])))

exercise.mistake("the bias keeps its length", hint="Every hidden unit has its number in the bias: bias[units].")(
    cut(make=lambda first, bias, second, u: (first[u], None if bias is None else bias.clone(), second[:, u]))
)

exercise.mistake(
    "the bias is cut to length, without looking which units stay", hint="bias[units], with the same units as the rows."
)(cut(make=lambda first, bias, second, u: (first[u], None if bias is None else bias[: len(u)].clone(), second[:, u])))

exercise.mistake("the bias is dropped", hint="What stays keeps its bias: bias[units].")(
    cut(make=lambda first, bias, second, u: (first[u], None, second[:, u]))
)

exercise.mistake(
    "the second layer loses its last columns, whichever units went", hint="The same units in both layers."
)(cut(make=lambda first, bias, second, u: (first[u], None if bias is None else bias[u], second[:, : len(u)].clone())))

exercise.mistake("the strongest units go", hint="The smallest norms go.")(
    cut(left=lambda ranked, n: ranked[: len(ranked) - n])
)

exercise.mistake("n units or heads stay, instead of going", hint="n is how many go.")(
    cut(left=lambda ranked, n: ranked[len(ranked) - n :])
)

exercise.mistake(
    "what stays is sorted by its norm", hint="The same function, but in another order: sort the numbers of what stays."
)(cut(order=lambda stay: stay))

exercise.mistake("the score is the L1 norm", hint="The root of the sum of *squares*.")(
    cut(score=lambda groups: groups.abs().sum(1))
)

exercise.mistake("the score is the largest weight", hint="All weights of a unit count: the L2 norm.")(
    cut(score=lambda groups: groups.abs().amax(1))
)

exercise.mistake("the score is a sum of signed weights", hint="Plus and minus would cancel: the L2 norm.")(
    cut(score=lambda groups: groups.sum(1))
)

exercise.mistake("the bias is part of the score", hint="Only the rows of `first` are measured.")(
    cut(
        scores=lambda first, bias, second, size: l2(
            (first if bias is None else torch.cat([first, bias[:, None]], 1)).reshape(len(first) // size, -1)
        )
    )
)

exercise.mistake("the second layer is part of the score", hint="Only the rows of `first` are measured.")(
    cut(
        scores=lambda first, bias, second, size: (
            l2(first.reshape(len(first) // size, -1)) * l2(second.T.reshape(len(first) // size, -1))
        )
    )
)

exercise.mistake(
    "a head is taken for every so many-th unit",
    hint="The units of a head follow each other: reshape to [heads, size, d], not [size, heads, d].",
)(
    cut(
        scores=lambda first, bias, second, size: first.reshape(size, -1, first.shape[1]).norm(dim=(0, 2)),
        units=lambda stay, size, hidden: (
            (stay + torch.arange(size)[:, None] * (hidden // size)).flatten().sort().values
        ),
    )
)


exercise.mistake("the second layer comes back transposed", hint="[d_out, hidden]: columns are taken, rows stay.")(
    cut(make=lambda first, bias, second, u: (first[u], None if bias is None else bias[u], second[:, u].T.clone()))
)


@exercise.mistake(
    "single units go where whole heads should", hint="A head goes as a whole: one score for its `size` units."
)
def single_units(first, bias, second, n, size=1):
    return right(first, bias, second, n * size)


exercise.mistake("n units go, whatever `size` says", hint="n counts heads: n * size units go.")(
    lambda first, bias, second, n, size=1: right(first, bias, second, n)
)

exercise.mistake("a head is as weak as its weakest unit", hint="One norm over all size * d weights of a head.")(
    cut(scores=lambda first, bias, second, size: first.norm(dim=1).reshape(-1, size).amin(1))
)

exercise.mistake(
    "the norms of a head's units are added",
    hint="One norm over all size * d weights of a head: add squares, not norms.",
)(cut(scores=lambda first, bias, second, size: first.norm(dim=1).reshape(-1, size).sum(1)))

exercise.mistake("a head is as weak as its first unit", hint="One norm over all size * d weights of a head.")(
    cut(scores=lambda first, bias, second, size: first.norm(dim=1)[::size])
)

exercise.mistake("the columns of the second layer decide", hint="The rows of `first` are measured.")(
    cut(scores=lambda first, bias, second, size: second.T.reshape(-1, size * len(second)).norm(dim=1))
)

exercise.mistake("the last heads go, whatever they are", hint="The smallest norms go.")(
    cut(scores=lambda first, bias, second, size: -torch.arange(len(first) // size))
)

exercise.mistake(
    "numbers of heads are taken for numbers of units",
    hint="Head 2 is units 2 * size to 3 * size - 1: all of them stay.",
)(cut(units=lambda stay, size, hidden: stay))

exercise.mistake("where nothing goes, the inputs themselves come back", hint="New tensors, always.")(
    lambda first, bias, second, n, size=1: right(first, bias, second, n, size) if n else (first, bias, second)
)


@exercise.alternative
def by_mask(first, bias, second, n, size=1):
    squares = first.double().square().sum(1).reshape(-1, size).sum(1)
    stays = (squares >= squares.sort().values[n]).repeat_interleave(size)
    return first[stays], bias if bias is None else bias[stays], second[:, stays]


@exercise.alternative
def by_loop(first, bias, second, n, size=1):
    groups = [range(i, i + size) for i in range(0, len(first), size)]
    ranked = sorted(groups, key=lambda group: sum(float(first[i].detach().double().square().sum()) for i in group))
    units = sorted(i for group in ranked[n:] for i in group)
    rows = torch.stack([first[i] for i in units])
    columns = torch.stack([second[:, i] for i in units], 1)
    return [rows, None if bias is None else torch.stack([bias[i] for i in units]), columns]
