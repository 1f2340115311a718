"""`padding_mask(lengths, n, side='right')`: Which keys are tokens, and not padding."""

from __future__ import annotations

import torch
from torch.nn.utils.rnn import pad_sequence

from autograde.exercise import Draft, case, same
from autograde.exercises.transformer.attention.shared import is_bool

exercise = Draft(
    "padding_mask",
    points=2,
    no_gradient="a mask of truth values has no gradient",
    hints=[
        "Compare the positions 0, …, n - 1 with each length.",
        "torch.arange(n) is [n], lengths[..., None, None] is [..., 1, 1]: a comparison broadcasts to [..., 1, n].",
        "Right: torch.arange(n) < lengths[..., None, None]. Left: the same, flipped along the last dimension.",
    ],
)


@exercise.cases
def padding_cases(g):
    def lengths(*shape, n):
        return torch.randint(1, n, shape, generator=g)

    yield case(torch.tensor([3, 1, 4]), 4, label="three sequences")
    yield case(torch.tensor([2, 5, 3, 1]), 5, side="left", label="padded on the left")
    yield case(lengths(2, n=6), 6, label="two sequences")
    yield case(lengths(3, n=7), 9, label="wider than the longest sequence")
    yield case(torch.tensor([2]), 3, label="one sequence")
    yield case(torch.tensor(2), 5, label="lengths without a batch dimension")
    yield case(lengths(2, 3, n=5), 5, side="left", label="two batch dimensions, on the left")
    yield case(torch.tensor([0, 4, 2]), 4, label="an empty sequence")
    yield case(torch.tensor([3, 0, 1], dtype=torch.int32), 6, "left", label="int32, an empty sequence, on the left")
    yield case(torch.tensor([[1, 4, 2], [3, 2, 5]]).T, 5, label="not contiguous")
    yield case(torch.tensor([300, 7, 161]), 300, side="left", label="300 places, on the left")


@exercise.oracle
def torch_padding(lengths, n, side="right"):
    """torch's pad_sequence, which pads sequences of ones up to a row of length n."""
    rows = [torch.ones(min(int(length), n)) for length in lengths.flatten()] + [torch.ones(n)]
    padded = pad_sequence(rows, batch_first=True, padding_side=side)[:-1]
    return padded.bool().reshape(*lengths.shape, 1, n)


@exercise.law("As many keys may be seen as the sequence is long")
def counts(out, one, call):
    """As many keys may be seen as the sequence is long."""
    lengths, n = one.args[:2]
    return same(out.sum((-1, -2)), lengths.clamp(max=n).long())


@exercise.law("The tokens stand together, at one end")
def one_block(out, one, call):
    """Tokens stand together, at one end: the mask changes at most once along a row."""
    changes = (out[..., 1:] != out[..., :-1]).sum(-1)
    return bool((changes <= 1).all())


@exercise.law("There is one row, for all queries")
def one_row_for_all_queries(out, one, call):
    lengths, n = one.args[:2]
    wanted = (*lengths.shape, 1, n)
    return tuple(out.shape) == wanted or f"the mask should have shape {wanted}, and has {tuple(out.shape)}"


@exercise.law("Left is the mirror image of right")
def sides_mirror(out, one, call):
    lengths, n = one.args[:2]
    return same(call(lengths, n, side="left"), call(lengths, n, side="right").flip(-1))


exercise.law("The mask is a bool tensor")(is_bool)


@exercise.alternative
def padding(lengths, n, side="right"):
    places = torch.arange(n) if side == "right" else torch.arange(n).flip(0)
    return (places < lengths[..., None]).unsqueeze(-2)


@exercise.mistake("the mask is inverted: True marks padding", hint="Here True means: may attend.")
def padding_inverted(lengths, n, side="right"):
    return ~padding(lengths, n, side)


@exercise.mistake(
    "one padding token may be seen",
    hint="Positions count from 0: the last token of a sequence of length 3 stands at 2.",
)
def padding_one_too_many(lengths, n, side="right"):
    return padding(lengths + 1, n, side)


@exercise.mistake(
    "the last token is hidden, too", hint="Positions count from 0, so a sequence of length 3 has 0, 1 and 2."
)
def padding_one_too_few(lengths, n, side="right"):
    return padding(lengths - 1, n, side)


@exercise.mistake(
    "the dimension of the queries is missing",
    hint="[..., n] would meet the scores' rows in the wrong place. The shape is [..., 1, n].",
)
def padding_without_queries(lengths, n, side="right"):
    return padding(lengths, n, side).squeeze(-2)


@exercise.mistake(
    "padding hides queries (rows) instead of keys (columns)", hint="What must not be read are keys: the last dimension."
)
def padding_in_rows(lengths, n, side="right"):
    return padding(lengths, n, side).mT


@exercise.mistake(
    "the padding's own rows are hidden, too",
    hint="One row for all queries: [..., 1, n]. What padding computes, nobody reads.",
)
def padding_both_ways(lengths, n, side="right"):
    row = padding(lengths, n, side)
    return row & row.mT


@exercise.mistake(
    "there is a dimension for the heads already", hint="[..., 1, n]: multi_head_attention puts the heads in."
)
def padding_for_heads(lengths, n, side="right"):
    return padding(lengths, n, side).unsqueeze(-3)


@exercise.mistake("`side` is ignored", hint="With side='left' the padding comes first and the tokens last.")
def padding_side_ignored(lengths, n, side="right"):
    return padding(lengths, n)


@exercise.mistake("padding is always on the left", hint="By default the padding stands on the right.")
def padding_always_left(lengths, n, side="right"):
    return padding(lengths, n, "left")


@exercise.mistake("left and right are swapped", hint="`side` says where the padding is, not where the tokens are.")
def padding_sides_swapped(lengths, n, side="right"):
    return padding(lengths, n, "left" if side == "right" else "right")


@exercise.mistake(
    "with side='left' the first `length` places are hidden", hint="On the left stand n - length padding tokens."
)
def padding_left_counts_padding(lengths, n, side="right"):
    """On the left, hides the first `length` places rather than the first n - length."""
    return padding(lengths, n) if side == "right" else ~padding(lengths, n)


@exercise.mistake("there is a row for each query", hint="[..., 1, n]: one row for all, which broadcasts by itself.")
def padding_row_a_query(lengths, n, side="right"):
    return padding(lengths, n, side).expand(*lengths.shape, n, n)


@exercise.mistake("all sequences have the first one's length", hint="Compare the positions with each length.")
def padding_of_the_first(lengths, n, side="right"):
    return padding(lengths.flatten()[0].expand(lengths.shape), n, side)


@exercise.mistake("an empty sequence shows one token", hint="A length of 0 means no token at all: don't clamp it.")
def padding_never_empty(lengths, n, side="right"):
    return padding(lengths.clamp(min=1), n, side)


@exercise.mistake("the mask is only as wide as the longest sequence", hint="The width is n, whatever the lengths are.")
def padding_as_wide_as_the_longest(lengths, n, side="right"):
    return padding(lengths, int(lengths.max()), side)


@exercise.mistake("the mask holds the numbers 1 and 0", hint="A bool tensor is asked for: a comparison gives one.")
def padding_as_numbers(lengths, n, side="right"):
    return padding(lengths, n, side).float()


@exercise.alternative
def padding_by_loop(lengths, n, side="right"):
    rows = []
    for length in lengths.flatten().tolist():
        seen, unseen = [True] * min(length, n), [False] * (n - min(length, n))
        rows.append(seen + unseen if side == "right" else unseen + seen)
    return torch.tensor(rows).view(*lengths.shape, 1, n)


@exercise.alternative
def padding_by_cumsum(lengths, n, side="right"):
    out = (torch.ones(*lengths.shape, 1, n).cumsum(-1) - 0.5) < lengths[..., None, None]
    return out if side == "right" else out.flip((-1,))
