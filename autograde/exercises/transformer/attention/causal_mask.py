"""`causal_mask(n, past=0)`: Which keys each of n new tokens may read, where `past` older tokens stand before them."""

from __future__ import annotations

import torch

from autograde.borrowed import borrowed
from autograde.exercise import Draft, case, same
from autograde.exercises.transformer.attention.shared import is_bool

exercise = Draft(
    "causal_mask",
    points=2,
    no_gradient="a mask of truth values has no gradient",
    hints=[
        "Number the keys 0, …, past + n - 1. At which position does the i-th new token stand?",
        "Query i stands at position past + i and sees the keys j <= past + i.",
        "torch.ones(n, past + n, dtype=torch.bool).tril(past), or a comparison of two torch.arange.",
    ],
)


@exercise.cases
def causal_cases(g):
    yield case(1, label="one token")
    yield case(2, label="two tokens")
    yield case(5, label="five tokens")
    yield case(1, past=4, label="one new token, four in the cache")
    yield case(3, past=2, label="three new tokens, two in the cache")
    yield case(4, 4, label="as many new as old")
    yield case(int(torch.randint(6, 40, (), generator=g)), label="a random length")
    yield case(70, past=200, label="far beyond the others")
    yield case(
        int(torch.randint(3, 9, (), generator=g)), past=int(torch.randint(9, 20, (), generator=g)), label="a long cache"
    )


@exercise.oracle
def torch_causal(n, past=0):
    causal_lower_right = borrowed("torch.nn.attention.bias", "causal_lower_right")
    return causal_lower_right(n, past + n)._materialize("cpu").bool()


@exercise.law("Every token sees itself")
def sees_itself(out, one, call):
    n, total = out.shape
    return bool(out[torch.arange(n), torch.arange(total - n, total)].all())


@exercise.law("Each row sees one key more than the row above")
def one_more_each_row(out, one, call):
    """Row i sees past + i + 1 keys."""
    n = out.shape[0]
    return same(out.sum(-1), torch.arange(n) + out.shape[1] - n + 1)


@exercise.law("All that came before is seen")
def whole_past(out, one, call):
    past = out.shape[1] - out.shape[0]
    return bool(out[:, : past + 1].all())


exercise.law("The mask is a bool tensor")(is_bool)


@exercise.alternative
def causal(n, past=0):
    return torch.ones(n, past + n, dtype=torch.bool).tril(past)


@exercise.mistake(
    "no token sees itself", hint="The output at a token predicts the next one, so the token itself may be read."
)
def causal_without_itself(n, past=0):
    return torch.ones(n, past + n, dtype=torch.bool).tril(past - 1)


@exercise.mistake("each token also sees the next one", hint="One diagonal too far: the model could copy the answer.")
def causal_peeks(n, past=0):
    return torch.ones(n, past + n, dtype=torch.bool).tril(past + 1)


@exercise.mistake(
    "tokens see the future instead of the past",
    hint="Rows are queries. A query sees the keys to its left: the lower triangle, tril.",
)
def causal_future(n, past=0):
    return torch.ones(n, past + n, dtype=torch.bool).triu(past)


@exercise.mistake("the mask is inverted", hint="Here True means: may attend.")
def causal_inverted(n, past=0):
    return ~causal(n, past)


@exercise.mistake(
    "`past` moves no diagonal: new tokens start at the left edge",
    hint="The first new token stands at position `past`, so it sees past + 1 keys.",
)
def causal_upper_left(n, past=0):
    return torch.ones(n, past + n, dtype=torch.bool).tril()


@exercise.mistake("`past` is ignored", hint="The keys of the past are still there: the mask has past + n columns.")
def causal_past_forgotten(n, past=0):
    return causal(n)


@exercise.mistake("the past is hidden", hint="What is past may be read, by all new tokens.")
def causal_past_hidden(n, past=0):
    return torch.cat([torch.zeros(n, past, dtype=torch.bool), causal(n)], -1)


@exercise.mistake(
    "the past stands behind the new tokens", hint="Keys stand in order: first the past, then the new ones."
)
def causal_past_behind(n, past=0):
    return torch.cat([causal(n), torch.ones(n, past, dtype=torch.bool)], -1)


@exercise.mistake("the old tokens have rows too", hint="Only the n new tokens ask: n rows, past + n columns.")
def causal_all_rows(n, past=0):
    return causal(past + n)


@exercise.mistake("`past` moves the diagonal the wrong way", hint="The more there is before, the more may be read.")
def causal_past_hides(n, past=0):
    return torch.ones(n, past + n, dtype=torch.bool).tril(-past)


@exercise.mistake("each token reads the last n keys only", hint="Everything before it, however far back.")
def causal_window(n, past=0):
    return causal(n, past).triu(past - n + 1)


@exercise.mistake("nothing is hidden", hint="Hide the keys that come after the query.")
def causal_sees_all(n, past=0):
    return torch.ones(n, past + n, dtype=torch.bool)


@exercise.mistake(
    "the mask holds 0 and -inf, to be added", hint="That is another convention. Here: a bool tensor, True = may attend."
)
def causal_additive(n, past=0):
    return torch.zeros(n, past + n).masked_fill(~causal(n, past), -torch.inf)


@exercise.mistake("the mask holds the numbers 1 and 0", hint="A bool tensor is asked for: dtype=torch.bool.")
def causal_as_numbers(n, past=0):
    return causal(n, past).float()


@exercise.alternative
def causal_by_positions(n, past=0):
    keys = torch.arange(past + n)
    return keys <= keys[past:, None]


@exercise.alternative
def causal_by_loop(n, past=0):
    rows = [[j <= past + i for j in range(past + n)] for i in range(n)]
    return torch.tensor(rows)
