"""`min_p_filter(logits, min_p)`

Keep the tokens of each row that are at least min_p times as likely as its best token.
"""

from __future__ import annotations

import math

import torch

from autograde.exercise import Draft, case
from autograde.exercises.applications.sampling.shared import (
    INF,
    ONLY_FILTERED,
    ROW_BY_ROW,
    agrees,
    bar,
    fits,
    knob,
    logits,
    many_rows,
    randn,
    right_min_p,
    right_top_p,
    shuffled,
    strided,
    warp,
)
from autograde.exercises.shared import logits_processor

exercise = Draft(
    "min_p_filter",
    points=2,
    forbid=["transformers"],
    no_gradient="it is used while a model writes, where nothing is trained",
    fresh=True,
    dtypes=(torch.float64,),
    hints=[
        "When the model is sure, a token with a twentieth of the best one's probability is noise; when it is unsure, "
        "such a token is a fair choice. Which number does the bar scale with?",
        "Softmax along the last dimension; the bar of a row is min_p times its largest probability.",
        "`probs = logits.softmax(-1)`; drop where `probs < min_p * probs.amax(-1, keepdim=True)`.",
    ],
)


def _clear_of_min_p(g, *shape, dtype=torch.float32):
    """Logits and a min_p that no token's odds against the best one come near."""
    while True:
        x = randn(g, *shape).to(dtype)
        min_p = round(0.03 + 0.3 * torch.rand((), generator=g).item(), 2)
        odds = (x.double() - x.double().amax(-1, keepdim=True)).exp()
        bar = min_p * x.double().softmax(-1).amax()
        split = (odds < min_p).any() and ((odds >= min_p).sum(-1) > 1).any()
        split = split and (x.dim() == 1 or not torch.equal(odds < min_p, x.double().softmax(-1) < bar))
        if split and (odds.log() - math.log(min_p)).abs().min() > 0.06:
            return x, min_p


@exercise.cases
def min_p_cases(g):
    x, min_p = _clear_of_min_p(g, 2, 2, 6)
    masked, min_p_masked = _clear_of_min_p(g, 2, 6)
    masked = torch.cat([torch.full((2, 1), -INF), masked], -1)
    flat = shuffled(g, [0.3, 0.2, 0.1, 0.0, 0.0, -0.1, -0.2, -3.0])
    yield case(*_clear_of_min_p(g, 8), label="one row")
    yield case(*_clear_of_min_p(g, 4, 7), label="four rows")
    yield case(strided(x), min_p=min_p, label="two batch dimensions, not contiguous, by keyword")
    yield case(flat, 0.25, label="nearly flat: every probability below min_p")
    yield case(shuffled(g, [2.0, 2.0, 1.0, -1.0, 0.5]), 1.0, label="min_p = 1 and tied best tokens")
    yield case(shuffled(g, [1e4, 9_999.0, 20.0, -3.0, -1e4]), 0.1, label="huge logits")
    yield case(shuffled(g, [1e4, 50.0, -1e4]), 0.0, label="min_p = 0 and huge logits")
    yield case(-8 + _clear_of_min_p(g, 6)[0], 0.0, label="min_p = 0, all logits negative")
    yield case(masked, min_p_masked, label="-inf among the logits")
    yield case(*_clear_of_min_p(g, 7, dtype=torch.bfloat16), label="bfloat16")
    yield case(torch.tensor([[1.0, -1.0], [0.0, 0.5]]), 0.3, label="a vocabulary of two")
    yield case(randn(g, 1), 0.9, label="a vocabulary of one")
    few, min_p_few = _clear_of_min_p(g, 5, 4)
    yield case(many_rows(g, few, 1100), min_p_few, label="1,100 rows")
    level = torch.randint(2, (2, 1500), generator=g) * math.log(40.0)
    yield case(level + 0.1 * torch.rand(2, 1500, generator=g), 0.2, label="1,500 tokens")


@exercise.oracle
def hf_min_p(logits, min_p):
    return warp(logits_processor("MinPLogitsWarper")(min_p), logits)


exercise.agrees(agrees)

exercise.law(ONLY_FILTERED)


@exercise.law("The best token of each row always stays")
def best_stays(out, one, call):
    return fits(out, one) and bool((out.amax(-1) == logits(one).amax(-1)).all())


@exercise.law("Adding 7 to every logit changes nothing in who stays")
def shift_is_neutral(out, one, call):
    shifted = call(logits(one).double() + 7.0, knob(one, "min_p"))
    return fits(out, one) and fits(shifted, one) and torch.equal(out > -INF, shifted > -INF)


@exercise.law("A larger min_p never lets more tokens in")
def stricter_keeps_less(out, one, call):
    stricter = call(logits(one), min(1.0, 2 * knob(one, "min_p")))
    if not (fits(out, one) and fits(stricter, one)):
        return False
    return not bool(((stricter > -INF) & ~(out > -INF)).any())


exercise.law(ROW_BY_ROW)

exercise.mistake(
    "min_p is compared with the probability itself",
    hint="The bar is min_p times the best token's probability: it moves with the model's confidence.",
)(bar(lambda probs, best, min_p: probs < min_p))

exercise.mistake(
    "min_p is compared with the probability itself, and the best token rescued",
    hint="A fixed bar empties flat rows. Scale it: min_p times the best token's probability.",
)(bar(lambda probs, best, min_p: (probs < min_p) & (probs < best)))


@exercise.mistake(
    "the bar is min_p times the largest logit",
    hint="Logits have no zero: adding 7 to all of them changes no probability. Compare probabilities.",
)
def min_p_on_logits(logits, min_p):
    return logits.masked_fill(logits < min_p * logits.amax(-1, keepdim=True), -INF)


exercise.mistake(
    "a token at the bar is dropped",
    hint="Keep what is greater than *or equal to* the bar: at min_p = 1 the best token is just there.",
)(bar(lambda probs, best, min_p: probs <= min_p * best))

exercise.mistake("the tokens below the bar are kept", hint="Turn the comparison round.")(
    bar(lambda probs, best, min_p: probs >= min_p * best)
)

exercise.mistake(
    "dropped tokens get the logit 0", hint="exp(0) = 1: a logit of 0 is a live token. Only exp(-inf) is 0."
)(bar(lambda probs, best, min_p: probs < min_p * best, fill=0.0))

exercise.mistake(
    "the best token is looked for in the whole batch", hint="Take the maximum along dim=-1, and keep that dimension."
)(bar(lambda probs, best, min_p: probs < min_p * best.max()))


exercise.mistake("dropped tokens get a large negative number", hint="-inf, so that their probability is 0 exactly.")(
    lambda logits, min_p: right_min_p(logits, min_p).clamp(min=-1e9)
)

exercise.mistake("the logits are changed in place", hint="The input stays as it was: masked_fill, not masked_fill_.")(
    lambda logits, min_p: logits.copy_(right_min_p(logits, min_p))
)

exercise.mistake("the bar of the first row is used for all rows", hint="Each row has a best token of its own.")(
    bar(lambda probs, best, min_p: probs < min_p * best.reshape(-1)[0])
)

exercise.mistake("with min_p = 0 the logits themselves are handed back", hint="A new tensor, always: logits.clone().")(
    lambda logits, min_p: right_min_p(logits, min_p) if min_p else logits
)

exercise.mistake("the logarithm of min_p = 0 is taken", hint="log 0 is no number: with min_p = 0 every token stays.")(
    lambda logits, min_p: logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(min_p), -INF)
)


@exercise.mistake(
    "min_p is treated as a top-p of 1 - min_p",
    hint="min-p sums nothing. Each token is compared with the best one alone.",
)
def min_p_as_top_p(logits, min_p):
    return right_top_p(logits, 1 - min_p)


@exercise.mistake(
    "min_p is subtracted from the best logit",
    hint="A ratio of probabilities is a difference of logits, but of log(min_p), not of min_p.",
)
def min_p_subtracted(logits, min_p):
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) - min_p, -INF)


@exercise.mistake(
    "the result is left in float32", hint="Computing in float32 is wise; give the result the dtype of the logits."
)
def min_p_in_float32(logits, min_p):
    return right_min_p(logits.float(), min_p)


@exercise.mistake(
    "the survivors come back as probabilities",
    hint="Leave the survivors' logits alone. The softmax comes once, at the very end.",
)
def min_p_probabilities(logits, min_p):
    return right_min_p(logits, min_p).softmax(-1)


@exercise.mistake(
    "the survivors come back as renormalized log-probabilities",
    hint="Sampling would be the same, but the task is to leave the survivors' logits alone.",
)
def min_p_log_probabilities(logits, min_p):
    return right_min_p(logits, min_p).log_softmax(-1)


@exercise.alternative
def min_p_by_log(logits, min_p):
    """A ratio of probabilities is a difference of logits."""
    gap = math.log(min_p) if min_p else -INF
    return torch.where(logits >= logits.amax(-1, keepdim=True) + gap, logits, -INF)


@exercise.alternative
def min_p_by_loop(logits, min_p):
    out = logits.clone().reshape(-1, logits.shape[-1])
    for row in out:
        odds = (row - row.max()).exp()
        row[odds < min_p] = -INF
    return out.reshape(logits.shape)
