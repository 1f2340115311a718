"""`alibi_bias(n_heads, n)`

ALiBi's bias with the causal mask: what is added to the scores of n tokens, by head.
"""

from __future__ import annotations

import math

import torch

from autograde.borrowed import borrowed
from autograde.exercise import Draft, case, same
from autograde.exercises.shared import integer
from autograde.exercises.transformer.position_encodings.shared import is_wide

exercise = Draft(
    "alibi_bias",
    points=3,
    forbid=["transformers"],
    atol=1e-4,
    no_gradient="nothing enters that could be learned",
    hints=[
        "Three things: a slope for each head, a matrix of distances, and -inf above the diagonal.",
        "offset = torch.arange(n)[None, :] - torch.arange(n)[:, None] is j - i; slopes[:, None, None] * offset is the "
        "bias, since j - i is negative for the past.",
        "For a power of two m: slopes 2 ** (-8h/m), h = 1, …, m. Else m is the largest power of two below n_heads, and "
        "then follow the slopes for 2m heads number 1, 3, 5, … until there are n_heads.",
    ],
)


@exercise.cases
def alibi_cases(g):
    yield case(8, 5, label="eight heads")
    yield case(4, 6, label="four heads")
    yield case(1, 4, label="one head")
    yield case(2, 1, label="one token")
    yield case(6, 4, label="six heads, not a power of two")
    yield case(12, n=7, label="twelve heads")
    yield case(16, 3, label="sixteen heads")
    yield case(9, 5, label="nine heads, as in our model")
    yield case(24, 30, label="24 heads")
    yield case(3, integer(g, 20, 60), label="three heads, a random length")


@exercise.oracle
def bloom_alibi(n_heads, n):
    """BLOOM's slopes, times the distance; -inf for what comes later."""
    build_alibi_tensor = borrowed("transformers.models.bloom.modeling_bloom", "build_alibi_tensor")
    slopes = build_alibi_tensor(torch.ones(1, 2), n_heads, torch.float32)[:, 0, 1]
    offset = torch.arange(n)[None, :] - torch.arange(n)[:, None]
    return (slopes[:, None, None] * offset).masked_fill(offset > 0, -torch.inf)


def _past(out):
    n = out.shape[-1]
    return torch.arange(n)[:, None] >= torch.arange(n)[None, :]


@exercise.law("What comes later gets -inf, and nothing else does")
def later_is_hidden(out, one, call):
    return bool((torch.isneginf(out) == ~_past(out)).all())


@exercise.law("Looking at oneself costs nothing")
def itself_is_free(out, one, call):
    return bool((out.diagonal(dim1=-2, dim2=-1) == 0).all())


@exercise.law("Each step further back costs a head the same, and more than 0")
def straight_lines(out, one, call):
    """One step further back always costs a head the same."""
    last = out[:, -1].double()
    if last.shape[-1] < 3:
        return None
    steps = last.diff(dim=-1)
    return same(steps, steps[:, :1].expand(steps.shape), rtol=1e-3) and bool((steps > 0).all())


@exercise.law("No two heads have the same slope")
def heads_differ(out, one, call):
    n_heads, n = out.shape[0], out.shape[-1]
    return len({round(v, 7) for v in out[:, -1, 0].tolist()}) == n_heads if n > 1 else None


exercise.law("The bias is float32 or float64")(is_wide)


def _power_of_two(n_heads):
    return [2 ** (-8 * h / n_heads) for h in range(1, n_heads + 1)]


def paper_slopes(n_heads):
    below = 2 ** int(math.log2(n_heads))
    return _power_of_two(below) + _power_of_two(2 * below)[0::2][: n_heads - below]


def _lines(slopes=paper_slopes, bias=lambda offset: offset, hidden=lambda offset: offset > 0, fill=-torch.inf):
    def alibi(n_heads, n):
        offset = torch.arange(n)[None, :] - torch.arange(n)[:, None]
        lines = torch.tensor(slopes(n_heads))[:, None, None] * bias(offset)
        return lines.masked_fill(hidden(offset), fill)

    return alibi


exercise.mistake(
    "far keys are preferred to near ones", hint="The bias is a penalty: negative, and growing with the distance."
)(_lines(bias=lambda offset: -offset))

exercise.mistake(
    "the future is penalized like the past instead of hidden",
    hint="Here the causal mask is part of the bias: -inf for later keys.",
)(_lines(bias=lambda offset: -offset.abs(), hidden=lambda offset: torch.zeros_like(offset).bool()))

exercise.mistake("nothing is hidden, and the future gets a bonus", hint="-inf for later keys.")(
    _lines(hidden=lambda offset: torch.zeros_like(offset).bool())
)

exercise.mistake("later keys get a large negative number instead of -inf", hint="float('-inf').")(_lines(fill=-1e9))

exercise.mistake("the future gets 0, the best bias of all", hint="-inf for later keys.")(_lines(fill=0.0))

exercise.mistake(
    "the past is hidden instead of the future",
    hint="Rows are queries, columns keys: what lies above the diagonal is later.",
)(_lines(bias=lambda offset: -offset, hidden=lambda offset: offset < 0))

exercise.mistake("a token can't see itself", hint="At distance 0 the bias is 0.")(
    _lines(hidden=lambda offset: offset >= 0)
)

exercise.mistake(
    "the keys are counted from the start of the text",
    hint="After a softmax it comes to the same (each row is shifted), but asked is 0 on the diagonal.",
)(_lines(bias=lambda offset: torch.arange(offset.shape[0]).expand(offset.shape)))

exercise.mistake("the penalty grows with the logarithm of the distance", hint="A straight line.")(
    _lines(bias=lambda offset: -torch.log1p(offset.abs()))
)

exercise.mistake("the penalty grows with the square of the distance", hint="A straight line.")(
    _lines(bias=lambda offset: -offset.square())
)

exercise.mistake(
    "head counts that aren't powers of two use 2 ** (-8h/n_heads) as well",
    hint="There the paper's code mixes two geometric sequences: read the docstring once more.",
)(_lines(_power_of_two))

exercise.mistake(
    "the slopes are 1/2, 1/4, 1/8, …, whatever the number of heads",
    hint="That is right for eight heads. In general the ratio is 2 ** (-8/n_heads).",
)(_lines(lambda heads: [2.0**-h for h in range(1, heads + 1)]))

exercise.mistake("the first head has slope 1", hint="Heads count from 1 here: the first slope is the ratio itself.")(
    _lines(lambda heads: [2 ** (-8 * h / heads) for h in range(heads)])
)

exercise.mistake("the slopes come in the reverse order", hint="The first head has the steepest slope.")(
    _lines(lambda heads: paper_slopes(heads)[::-1])
)

exercise.mistake("all heads have the same slope", hint="Each head has its own.")(
    _lines(lambda heads: [2.0**-8] * heads)
)

exercise.mistake(
    "the slopes are sorted",
    hint="Where n_heads isn't a power of two the additional slopes are appended, not sorted in.",
)(_lines(lambda heads: sorted(paper_slopes(heads), reverse=True)))


def wrong_extra_slopes(n_heads):
    below = 2 ** int(math.log2(n_heads))
    return _power_of_two(below) + _power_of_two(2 * below)[1::2][: n_heads - below]


exercise.mistake(
    "the additional slopes are the 2nd, 4th, 6th, … of the longer sequence",
    hint="Those are in the shorter sequence already. Take the 1st, 3rd, 5th, …",
)(_lines(wrong_extra_slopes))


def _first_of_twice(n_heads):
    below = 2 ** int(math.log2(n_heads))
    return _power_of_two(below) + _power_of_two(2 * below)[: n_heads - below]


exercise.mistake(
    "the additional slopes are the first ones of the longer sequence", hint="Take the 1st, 3rd, 5th, … of them."
)(_lines(_first_of_twice))

exercise.mistake(
    "the slopes are those for the next larger power of two, cut off",
    hint="First come all slopes for the largest power of two below n_heads.",
)(_lines(lambda heads: _power_of_two(2 ** math.ceil(math.log2(heads)))[:heads]))


@exercise.mistake("the bias comes in float16", hint="It is added to float32 scores: keep the digits.")
def half_bias(n_heads, n):
    return _lines()(n_heads, n).half()


exercise.alternative(_lines())


@exercise.alternative
def alibi_by_loop(n_heads, n):
    below = 1
    while 2 * below <= n_heads:
        below *= 2
    slopes = [2 ** (-8 * (h + 1) / below) for h in range(below)]
    slopes += [2 ** (-4 * (2 * h + 1) / below) for h in range(n_heads - below)]
    rows = [[[-s * (i - j) if j <= i else -math.inf for j in range(n)] for i in range(n)] for s in slopes]
    return torch.tensor(rows, dtype=torch.float64)


@exercise.alternative
def alibi_by_steps(n_heads, n):
    """Adds up the cost of each step back."""
    total = torch.zeros(n, n)
    for back in range(1, n):
        total = total - torch.ones(n, n).tril(-back)
    causal = torch.full((n, n), -math.inf).triu(1)
    return torch.tensor(paper_slopes(n_heads)).view(-1, 1, 1) * total + causal
