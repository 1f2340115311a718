"""`top_p_filter(logits, p)`: Keep the nucleus of each row: the smallest set of likeliest tokens that holds p in all."""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.sampling.shared import (
    BEST_FIRST,
    INF,
    ONLY_FILTERED,
    ROW_BY_ROW,
    agrees,
    before,
    fits,
    knob,
    logits,
    many_rows,
    nucleus,
    only_filtered,
    randn,
    reached,
    right_top_p,
    shuffled,
    strided,
    warp,
)
from autograde.exercises.shared import logits_processor

exercise = Draft(
    "top_p_filter",
    points=3,
    forbid=["transformers"],
    no_gradient="it is used while a model writes, where nothing is trained",
    fresh=True,
    dtypes=(torch.float64,),
    hints=[
        "Imagine handing out places from the likeliest token downwards. At each token one question decides: do those "
        "*before* it hold p already?",
        "Sort descending, softmax, cumsum. `sums - probs` is what the tokens before each one hold: drop where that is "
        ">= p, but never the first. Then undo the sort.",
        "`logits, order = x.sort(-1, descending=True)`; `drop = (sums - probs) >= p`; `drop[..., 0] = False`; "
        "`drop = torch.zeros_like(drop).scatter(-1, order, drop)`; `x.masked_fill(drop, -inf)`. p >= 1: a copy.",
    ],
)


def _clear_of_p(g, *shape, margin=0.02, dtype=torch.float32):
    """Logits and a p that no row's cumulative probability comes near, and that some row's best token stays below."""
    while True:
        x = randn(g, *shape).to(dtype)
        p = round(0.4 + 0.5 * torch.rand((), generator=g).item(), 2)
        sums = x.double().softmax(-1).sort(-1, descending=True).values.cumsum(-1)
        if (sums - p).abs().min() > margin and (sums[..., 0] < p).any() and (sums[..., -2] > p).any():
            return x, p


def _clear_between(g, *shape):
    """Many tokens, and a p in the middle between two sums of the first row, which no other row comes near."""
    while True:
        x = randn(g, *shape)
        sums = x.double().softmax(-1).sort(-1, descending=True).values.cumsum(-1)
        p = float(sums[0, shape[-1] // 8 : shape[-1] // 8 + 2].mean())
        if (sums - p).abs().min() > 5e-5:
            return x, p


@exercise.cases
def top_p_cases(g):
    x, p = _clear_of_p(g, 2, 2, 6)
    masked, p_masked = _clear_of_p(g, 2, 6)
    masked = torch.cat([torch.full((2, 1), -INF), masked, torch.full((2, 1), -INF)], -1)
    level = randn(g, 1).item()
    yield case(*_clear_of_p(g, 8), label="one row")
    yield case(*_clear_of_p(g, 3, 9), label="three rows")
    yield case(strided(x), p=p, label="two batch dimensions, not contiguous, by keyword")
    yield case(shuffled(g, [level] * 4 + [-INF] * 3), 0.5, label="four tokens of 1/4 each and p = 1/2, exactly")
    yield case(shuffled(g, [1e4, 9_900.0, 3.0, -2.0, -1e4]), 1.0, label="p = 1 and huge logits")
    yield case(randn(g, 2, 5), 0.0, label="p = 0")
    yield case(shuffled(g, [6.0, 1.0, 0.5, -1.0, 0.0]), 0.6, label="the best token alone exceeds p")
    yield case(masked, p_masked, label="-inf among the logits")
    yield case(*_clear_of_p(g, 7, margin=0.05, dtype=torch.bfloat16), label="bfloat16")
    yield case(torch.tensor([[1.0, -1.0], [0.0, 0.5]]), 0.7, label="a vocabulary of two")
    yield case(randn(g, 1), 0.3, label="a vocabulary of one")
    yield case(*_clear_between(g, 2, 1500), label="1,500 tokens")
    few, p_few = _clear_of_p(g, 5, 4)
    yield case(many_rows(g, few, 1100), p_few, label="1,100 rows")


@exercise.oracle
def hf_top_p(logits, p):
    # generate() leaves the warper out at p = 1; the warper itself would drop probabilities that round to 0.
    return logits.clone() if p >= 1 else warp(logits_processor("TopPLogitsWarper")(p), logits)


@exercise.agrees
def agrees_up_to_ties(expected, got, one):
    """Where equal tokens straddle the cut, which of them stays is open."""
    verdict = agrees(expected, got, one)
    if verdict is True or only_filtered(got, one, None) is not True:
        return verdict
    return torch.equal(got.sort(-1).values, expected.sort(-1).values) or verdict


exercise.law(ONLY_FILTERED)


def _masses(out, one):
    """The probability that the kept tokens hold in each row, and that of the least of them."""
    kept = out > -INF
    probs = logits(one).double().softmax(-1)
    return (probs * kept).sum(-1), probs.masked_fill(~kept, INF).amin(-1), kept.sum(-1)


@exercise.law("The kept tokens hold at least p of the probability")
def holds_p(out, one, call):
    return fits(out, one) and bool((_masses(out, one)[0] >= knob(one, "p") - 1e-6).all())


@exercise.law("Without its least likely token the set would hold less than p")
def is_smallest(out, one, call):
    p = knob(one, "p")
    if p >= 1:
        return None
    if not fits(out, one):
        return False
    mass, least, count = _masses(out, one)
    return bool(((mass - least < p) | (count == 1)).all())


exercise.law(BEST_FIRST)


@exercise.law("p = 1 keeps every token")
def one_keeps_all(out, one, call):
    x = logits(one)
    return same(call(x, 1.0), x)


exercise.law(ROW_BY_ROW)


def _size(logits, p):
    """How many tokens the nucleus of the first row has."""
    return int((right_top_p(logits, p) > -INF).reshape(-1, logits.shape[-1])[0].sum())


exercise.mistake(
    "the token that crosses p is dropped",
    hint="A sum *up to* p is not enough: the set must reach p. Look at the sum before each token.",
)(nucleus(lambda sums, shares, p: sums > p, best_stays=False))

exercise.mistake(
    "the token that crosses p is dropped, unless the row would be empty",
    hint="Rescuing the best token hides the mistake on confident rows. The set must *reach* p.",
)(nucleus(lambda sums, shares, p: sums > p))

exercise.mistake(
    "the token after the one that crosses p stays, too",
    hint="Once the sum has reached p the set is complete. Shift the mask by one place, not two.",
)(nucleus(lambda sums, shares, p: before(before(sums)) >= p))

exercise.mistake(
    "a token is added although the sum is p already",
    hint="The *smallest* set whose sum is at least p: if the sum before a token is p, the token goes.",
)(nucleus(lambda sums, shares, p: before(sums) > p))


@exercise.mistake(
    "the cumulative sum runs in vocabulary order",
    hint="Sort the tokens by probability first. The vocabulary's order means nothing.",
)
def unsorted(logits, p):
    return logits.masked_fill(before(logits.softmax(-1).cumsum(-1)) >= p, -INF) if p < 1 else logits.clone()


exercise.mistake(
    "the sum starts at the least likely token", hint="The nucleus is made of the most likely tokens: sort descending."
)(nucleus(reached, likeliest_first=False))


@exercise.mistake(
    "the rows come back sorted",
    hint="Carry the decision back to where each token came from: scatter along the sort's indices.",
)
def top_p_sorted(logits, p):
    return right_top_p(logits.sort(-1, descending=True).values, p)


@exercise.mistake(
    "the mask is gathered along the sort's indices instead of scattered",
    hint="`order[i]` is where sorted place i came from: write *to* order[i] (scatter), don't read there.",
)
def mask_gathered(logits, p):
    ordered, order = logits.sort(-1, descending=True)
    dropped = (right_top_p(ordered, p) == -INF) & (ordered > -INF)
    return logits.masked_fill(dropped.gather(-1, order), -INF)


exercise.mistake(
    "dropped tokens get the logit 0", hint="exp(0) = 1: a logit of 0 is a live token. Only exp(-inf) is 0."
)(nucleus(reached, fill=0.0))

exercise.mistake(
    "each token's own probability is compared with p",
    hint="p bounds the *sum* over the likeliest tokens, not a single probability.",
)(nucleus(lambda sums, shares, p: shares < p))

exercise.mistake(
    "p is what is cut away, not what is kept", hint="The nucleus holds at least p; what is left over may be 1 - p."
)(lambda logits, p: right_top_p(logits, 1 - p) if 0 < p < 1 else right_top_p(logits, p))

exercise.mistake("dropped tokens get a large negative number", hint="-inf, so that their probability is 0 exactly.")(
    lambda logits, p: right_top_p(logits, p).clamp(min=-1e9)
)

exercise.mistake("the logits are changed in place", hint="The input stays as it was: masked_fill, not masked_fill_.")(
    lambda logits, p: logits.copy_(right_top_p(logits, p))
)

exercise.mistake("p = 0 leaves no token", hint="At least the best token stays.")(
    lambda logits, p: torch.full_like(logits, -INF) if p == 0 else right_top_p(logits, p)
)

exercise.mistake("at p = 1 the logits themselves are handed back", hint="A new tensor, always: logits.clone().")(
    lambda logits, p: logits if p >= 1 else right_top_p(logits, p)
)

exercise.mistake("every row keeps as many tokens as the first", hint="Each row has a nucleus of its own size.")(
    lambda logits, p: logits.masked_fill(
        logits < logits.sort(-1, descending=True).values[..., _size(logits, p) - 1, None], -INF
    )
)

exercise.mistake("the logits are summed, without a softmax", hint="p is a share of probability, so sum probabilities.")(
    nucleus(reached, shares=torch.clone)
)


@exercise.mistake("the sum runs over the whole batch", hint="Sort, softmax and cumsum all take dim=-1.")
def top_p_flattened(logits, p):
    return right_top_p(logits.reshape(-1), p).reshape(logits.shape)


exercise.mistake(
    "p = 1 is treated like any other p",
    hint="Rounding lets the sum reach 1 before the last token. p = 1 means no filter: keep everything.",
)(nucleus(reached, one_keeps_all=False))


@exercise.mistake(
    "the result is left in float32", hint="Computing in float32 is wise; give the result the dtype of the logits."
)
def top_p_in_float32(logits, p):
    return right_top_p(logits.float(), p)


@exercise.mistake(
    "the survivors come back as probabilities",
    hint="Leave the survivors' logits alone. The softmax comes once, at the very end.",
)
def top_p_probabilities(logits, p):
    return right_top_p(logits, p).softmax(-1)


@exercise.mistake(
    "the survivors come back as renormalized log-probabilities",
    hint="Sampling would be the same, but the task is to leave the survivors' logits alone.",
)
def top_p_log_probabilities(logits, p):
    return right_top_p(logits, p).log_softmax(-1)


@exercise.alternative
def top_p_by_threshold(logits, p):
    """The ascending way: a token goes where it and all less likely ones hold no more than 1 - p."""
    if p >= 1:
        return logits.clone()
    ordered, order = torch.sort(logits)
    drop = ordered.softmax(-1).cumsum(-1) <= 1 - p
    drop[..., -1] = False
    return logits.masked_fill(drop.gather(-1, order.argsort(-1)), -INF)


@exercise.alternative
def top_p_by_loop(logits, p):
    rows = logits.reshape(-1, logits.shape[-1])
    out = torch.full_like(rows, -INF) if p < 1 else rows.clone()
    for row, probs, kept in zip(rows, rows.float().softmax(-1).tolist(), out, strict=True):
        total = 0.0
        for token in sorted(range(len(probs)), key=probs.__getitem__, reverse=True):
            kept[token] = row[token]
            total += probs[token]
            if total >= p:
                break
    return out.reshape(logits.shape)
