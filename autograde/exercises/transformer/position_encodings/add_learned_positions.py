"""`add_learned_positions(x, table, past=0)`: Adds to each token the row of the table that belongs to its position."""

from __future__ import annotations

import math

import torch
from torch import nn

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import randn

exercise = Draft(
    "add_learned_positions",
    points=2,
    hints=[
        "Which rows of the table belong to n tokens that come after `past` others?",
        "table[past : past + n]. A slice past the end doesn't complain, it only gets shorter: look first.",
        "if past + x.shape[-2] > len(table): raise ValueError(…); return x + table[past : past + x.shape[-2]]",
    ],
)


@exercise.cases
def learned_cases(g):
    yield case(randn(g, 2, 4, 6), randn(g, 9, 6), label="a batch")
    yield case(randn(g, 3, 5), randn(g, 3, 5), label="the whole table, no batch")
    yield case(randn(g, 2, 3, 4), randn(g, 9, 4), past=4, label="four tokens in the cache")
    yield case(randn(g, 1, 1, 4), randn(g, 7, 4), past=6, label="one text of one token, on the last row")
    yield case(randn(g, 4, 4, 4), randn(g, 8, 4), past=1, label="as many sequences as tokens")
    yield case(randn(g, 2, 3, 2, 6) * 50, randn(g, 5, 6), past=2, label="two batch dimensions, large")
    yield case(randn(g, 2, 5, 4), randn(g, 4, 4), label="one token too many")
    yield case(randn(g, 3, 4), randn(g, 6, 4), past=5, label="the cache fills the table")
    yield case(randn(g, 1, 4), randn(g, 5, 4), past=5, label="one token, just past the table")
    yield case(randn(g, 3, 4).double(), randn(g, 5, 4).double(), past=1, label="float64")
    yield case(randn(g, 2, 130, 8), randn(g, 600, 8), past=450, label="130 tokens after 450")
    yield case(randn(g, 5, 2, 4).transpose(0, 1), randn(g, 4, 8).T, label="not contiguous")


@exercise.oracle
def torch_learned(x, table, past=0):
    if past + x.shape[-2] > table.shape[0]:
        return "ValueError"
    positions = past + torch.arange(x.shape[-2])
    return x + nn.functional.embedding(positions, table)


@exercise.probe
def learned_probe(add, x, table, past=0):
    """The sum, or the word "ValueError" where one is raised."""
    try:
        return add(x, table, past=past) if past else add(x, table)
    except ValueError:
        return "ValueError"


@exercise.law("Where x is zero the rows of the table come out")
def zeros_show_the_table(out, one, call):
    x, table = one.args
    if isinstance(out, str):
        return None
    past = one.kwargs.get("past", 0)
    return same(call(0 * x, table, past=past), table[past : past + x.shape[-2]].expand(x.shape))


@exercise.law("A token by itself, with the others in the cache, gets the same")
def token_by_token(out, one, call):
    """The last token by itself, with the others in the cache, gets the same."""
    x, table = one.args
    if isinstance(out, str):
        return None
    past = one.kwargs.get("past", 0) + x.shape[-2] - 1
    return same(call(x[..., -1:, :], table, past=past), out[..., -1:, :])


@exercise.law("Past the table there is no position: ValueError")
def the_table_ends(out, one, call):
    x, table = one.args
    return call(x, table, past=table.shape[0] - x.shape[-2] + 1) == "ValueError" if len(table) >= x.shape[-2] else None


exercise.law("The sum has the dtype of x")(keeps_dtype)


def _checked(rows):
    """Adds `rows(x, table, past)`, and refuses positions that the table doesn't have."""

    def add(x, table, past=0):
        if past + x.shape[-2] > len(table):
            raise ValueError("no such position")
        return rows(x, table, past)

    return add


exercise.mistake(
    "`past` is ignored, and every text starts at row 0", hint="The first of the new tokens stands at position `past`."
)(_checked(lambda x, table, past: x + table[: x.shape[-2]]))

exercise.mistake("the last rows of the table are taken", hint="The rows past, …, past + n - 1.")(
    _checked(lambda x, table, past: x + table[len(table) - x.shape[-2] :])
)

exercise.mistake("all tokens get the same row", hint="Token i gets row past + i.")(
    _checked(lambda x, table, past: x + table[past])
)

exercise.mistake("the rows are added in reverse", hint="Token i gets row past + i.")(
    _checked(lambda x, table, past: x + table[past : past + x.shape[-2]].flip(0))
)

exercise.mistake(
    "the positions run the other way when `past` grows",
    hint="With `past` tokens before it a token moves up in the table, not down.",
)(_checked(lambda x, table, past: x + table.roll(past, 0)[: x.shape[-2]]))

exercise.mistake("the rows are multiplied instead of added", hint="x plus the row.")(
    _checked(lambda x, table, past: x * table[past : past + x.shape[-2]])
)

learned = _checked(lambda x, table, past: x + table[past : past + x.shape[-2]])


@exercise.mistake("the rows are set beside x", hint="Add them: the shape of x stays.")
def concatenated(x, table, past=0):
    rows = learned(torch.zeros_like(x), table, past)
    return torch.cat([x, rows], -1)


exercise.mistake(
    "x is multiplied by sqrt(d) first",
    hint="The first Transformer did that to its embeddings, before this step. Here: x plus the row.",
)(_checked(lambda x, table, past: x * math.sqrt(x.shape[-1]) + table[past : past + x.shape[-2]]))

exercise.mistake("the mean is taken instead of the sum", hint="x plus the row.")(
    _checked(lambda x, table, past: (x + table[past : past + x.shape[-2]]) / 2)
)


@exercise.mistake(
    "past the table it starts again from row 0",
    hint="Two places with one code can't be told apart. Raise a ValueError.",
)
def wraps(x, table, past=0):
    return x + table[(past + torch.arange(x.shape[-2])) % len(table)]


@exercise.mistake(
    "nothing asks where the table ends",
    hint="A slice past the end only gets shorter: compare past + n with its length.",
)
def unchecked(x, table, past=0):
    return x + table[past : past + x.shape[-2]]


@exercise.mistake("past the table an IndexError is raised", hint="The docstring asks for a ValueError.")
def another_error(x, table, past=0):
    if past + x.shape[-2] > len(table):
        raise IndexError("no such position")
    return learned(x, table, past)


@exercise.mistake("tokens past the table are left out", hint="No token may get lost. Raise a ValueError.")
def cut_short(x, table, past=0):
    rows = table[past : past + x.shape[-2]]
    return x[..., : len(rows), :] + rows


@exercise.mistake("the sum comes in another dtype than x", hint="x and the table have one dtype, and so has the sum.")
def in_float32(x, table, past=0):
    return learned(x.float(), table.float(), past)


@exercise.mistake("past the table the last row is repeated", hint="The model never learned that. Raise a ValueError.")
def sticks_to_the_last(x, table, past=0):
    return x + table[(past + torch.arange(x.shape[-2])).clamp(max=len(table) - 1)]


@exercise.mistake(
    "past the table nothing is added",
    hint="A token without a position looks like no token of the training. Raise a ValueError.",
)
def nothing_past_the_end(x, table, past=0):
    padded = torch.cat([table, torch.zeros(past + x.shape[-2], table.shape[-1], dtype=table.dtype)])
    return x + padded[past : past + x.shape[-2]]


@exercise.mistake(
    "only the new tokens are compared with the table's length",
    hint="The tokens in the cache have used rows, too: past + n must not exceed the table.",
)
def length_alone_checked(x, table, past=0):
    """Asks whether the new tokens fit, and forgets those in the cache: what doesn't fit starts over."""
    if x.shape[-2] > len(table):
        raise ValueError("too long")
    return wraps(x, table, past)


@exercise.mistake(
    "the last row of the table can't be used", hint="A table of 8 rows has the positions 0 to 7: past + n may be 8."
)
def one_too_strict(x, table, past=0):
    if past + x.shape[-2] >= len(table):
        raise ValueError("no such position")
    return learned(x, table, past)


exercise.alternative(learned)


@exercise.alternative
def learned_by_index(x, table, past=0):
    n = x.shape[-2]
    if not past + n <= table.shape[0]:
        raise ValueError(f"the table has {table.shape[0]} positions")
    return torch.stack([x[..., i, :] + table[past + i] for i in range(n)], -2)


@exercise.alternative
def learned_by_product(x, table, past=0):
    """One-hot rows times the table."""
    places = past + torch.arange(x.shape[-2])
    if (places >= len(table)).any():
        raise ValueError("past the table")
    return (places[:, None] == torch.arange(len(table))).to(table.dtype) @ table + x
