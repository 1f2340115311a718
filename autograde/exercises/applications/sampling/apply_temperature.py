"""`apply_temperature(logits, temperature)`: Divide the logits by the temperature; temperature 0 means greedy."""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.sampling.shared import (
    INF,
    agrees,
    fits,
    knob,
    logits,
    randn,
    right_greedy,
    shuffled,
    warp,
)
from autograde.exercises.shared import logits_processor

exercise = Draft(
    "apply_temperature",
    points=2,
    forbid=["transformers"],
    no_gradient="it is used while a model writes, where nothing is trained",
    fresh=True,
    dtypes=(torch.float64, torch.bfloat16),
    hints=[
        "Softmax turns *differences* of logits into *ratios* of probabilities. What must happen to a difference when "
        "the temperature doubles?",
        "Divide the logits by the temperature. For temperature 0 don't divide: start from a tensor full of -inf.",
        "`best = logits.argmax(-1, keepdim=True)`, then `torch.full_like(logits, -inf).scatter(-1, best, "
        "logits.gather(-1, best))`.",
    ],
)


@exercise.cases
def temperature_cases(g):
    huge = shuffled(g, [1e4, 9_990.0, 0.0, -1e4])
    masked = randn(g, 2, 6)
    masked[0, 1] = masked[1, 4] = -INF
    tied = torch.tensor([[0.5, 2.0, -1.0, 2.0], [3.0, -2.0, 3.0, 3.0]]) + randn(g, 1)
    yield case(randn(g, 7), 0.7, label="one row, cooler")
    yield case(randn(g, 3, 5), 2.0, label="three rows, hotter")
    yield case(randn(g, 2, 2, 4), temperature=0.25, label="two batch dimensions, by keyword")
    yield case(randn(g, 5), 1.0, label="temperature 1")
    yield case(randn(g, 3, 5), 0.0, label="temperature 0")
    yield case(tied, 0, label="temperature 0 and tied best tokens")
    yield case(masked, 0.5, label="-inf among the logits")
    yield case(huge, 4.0, label="huge logits")
    yield case(randn(g, 4, 3).t(), 1.7, label="not contiguous")
    yield case(randn(g, 6).bfloat16(), 0.8, label="bfloat16")
    yield case(randn(g, 1), 0.0, label="a vocabulary of one")
    yield case(masked, 0.0, label="temperature 0 and -inf among the logits")
    yield case(randn(g, 3, 4), 3, label="a whole number")
    yield case(randn(g, 5), 0.002, label="nearly cold")
    yield case(randn(g, 2, 5), 1e-7, label="as good as cold")
    yield case(randn(g, 1100, 3), 0.0, label="1,100 rows, temperature 0")


@exercise.oracle
def hf_temperature(logits, temperature):
    if temperature > 0:
        return warp(logits_processor("TemperatureLogitsWarper")(float(temperature)), logits)
    best = logits.argmax(-1, keepdim=True)  # the first of equals
    return torch.full_like(logits, -INF).scatter(-1, best, logits.gather(-1, best))


exercise.agrees(agrees)


@exercise.law("Temperature 1 changes nothing, not even the dtype")
def one_is_neutral(out, one, call):
    x = logits(one)
    return agrees(x, call(x, 1.0), one)


@exercise.law("Every gap to the best logit shrinks or grows by 1/temperature")
def scales_gaps(out, one, call):
    x, t = logits(one), knob(one, "temperature")
    if t == 0 or x.shape[-1] < 2:
        return None
    if not fits(out, one):
        return False
    rounding = 8 * max(torch.finfo(dtype).eps for dtype in (x.dtype, torch.float32))
    before, after = ((z - z.amax(-1, keepdim=True)).double() for z in (x, out))
    return same(after * t, before, rtol=rounding, atol=rounding * float(x[x > -INF].abs().max()))


@exercise.law("A higher temperature never makes the best token likelier")
def flatter_when_hotter(out, one, call):
    x, t = logits(one), knob(one, "temperature")
    if t == 0 or x.shape[-1] < 2:
        return None
    if not fits(out, one):
        return False
    peaks = [z.double().softmax(-1).amax(-1) for z in (out, call(x, 2 * t))]
    return bool((peaks[1] <= peaks[0] + 1e-6).all())


@exercise.law("Temperature 0 leaves one token in each row, the best")
def greedy_at_zero(out, one, call):
    x = logits(one)
    if knob(one, "temperature") > 0:
        return None
    alone = fits(out, one) and bool(((out > -INF).sum(-1) == 1).all() and not torch.isnan(out).any())
    return alone and bool((out.amax(-1) == x.amax(-1)).all())


def _with_greedy(warm):
    """A mistake at temperatures above 0, with 0 treated rightly."""

    def apply_temperature(logits, temperature):
        return right_greedy(logits) if temperature == 0 else warm(logits, temperature)

    return apply_temperature


exercise.mistake(
    "the logits are multiplied by the temperature",
    hint="A high temperature should bring the logits closer together. Does yours?",
)(_with_greedy(lambda x, t: x * t))

exercise.mistake(
    "the probabilities, not the logits, are divided by the temperature",
    hint="Dividing every probability by the same number leaves their ratios as they were.",
)(_with_greedy(lambda x, t: x.softmax(-1) / t))

exercise.mistake(
    "the softmax is taken as well", hint="The next knob wants logits. The softmax comes once, at the very end."
)(_with_greedy(lambda x, t: (x / t).softmax(-1)))

exercise.mistake(
    "the result is turned into log-probabilities",
    hint="Sampling would be the same, but the task is the logits divided by the temperature, no more.",
)(_with_greedy(lambda x, t: (x / t).log_softmax(-1)))


def _with_warm(cold):
    """A mistake at temperature 0, with those above it treated rightly."""

    def apply_temperature(logits, temperature):
        return logits / temperature if temperature > 0 else cold(logits)

    return apply_temperature


exercise.mistake(
    "a temperature of 0 is divided by", hint="x / 0 is inf, -inf or NaN. Treat 0 as a case of its own: greedy."
)(_with_warm(lambda x: x / 0))

exercise.mistake(
    "a temperature of 0 is replaced by a tiny number",
    hint="That comes close, but tied tokens stay tied. Temperature 0 means: all -inf but the first best.",
)(_with_warm(lambda x: x / 1e-6))

exercise.mistake(
    "temperature 0 keeps every tied best token",
    hint="Greedy picks one token: among equals the lowest index, as argmax does.",
)(_with_warm(lambda x: x.masked_fill(x < x.amax(-1, keepdim=True), -INF)))

exercise.mistake(
    "temperature 0 is read as 'off'", hint="0 is the coldest setting, not no setting: only the best token stays."
)(_with_warm(torch.clone))

exercise.mistake(
    "temperature 0 looks for one best token in the whole batch",
    hint="argmax without a dim runs over everything. Each row has its own best token.",
)(_with_warm(lambda x: right_greedy(x.reshape(-1)).reshape(x.shape)))

exercise.mistake(
    "temperature 0 gives a one-hot row of probabilities",
    hint="Logits again: the best token keeps its logit, and log 0 is -inf.",
)(_with_warm(lambda x: torch.zeros_like(x).scatter(-1, x.argmax(-1, keepdim=True), 1.0)))


exercise.mistake(
    "a small temperature is taken for 0", hint="Only 0 itself is greedy: 0.002 is a number one can divide by."
)(lambda logits, temperature: right_greedy(logits) if temperature < 0.01 else logits / temperature)

exercise.mistake("a temperature below 0.00001 is taken for 0", hint="Only 0 itself is greedy: ask for == 0.")(
    lambda logits, temperature: right_greedy(logits) if temperature < 1e-5 else logits / temperature
)

exercise.mistake(
    "at temperature 1 the logits themselves are handed back", hint="A new tensor, always: logits.clone()."
)(_with_greedy(lambda x, t: x if t == 1 else x / t))

exercise.mistake(
    "the result is left in float32", hint="Computing in float32 is wise; give the result the dtype of the logits."
)(lambda logits, temperature: _with_greedy(torch.div)(logits.float(), temperature))

exercise.mistake(
    "of tied best tokens the last one stays at temperature 0", hint="The one with the lowest index, as argmax has it."
)(_with_warm(lambda x: right_greedy(x.flip(-1)).flip(-1)))

exercise.mistake("the logits are changed in place", hint="The input stays as it was: logits / temperature, not /=.")(
    lambda logits, temperature: logits.copy_(_with_greedy(torch.div)(logits, temperature))
)

exercise.mistake(
    "at temperature 0 the others get a large negative number", hint="-inf, so that their probability is 0 exactly."
)(_with_warm(lambda x: right_greedy(x).clamp(min=-1e9)))

exercise.mistake("temperature 0 gives the best token's id", hint="Logits again, of the same shape.")(
    _with_warm(lambda x: x.argmax(-1))
)

exercise.mistake("at temperature 0 the best token gets the logit 0", hint="It keeps its logit.")(
    _with_warm(lambda x: torch.where(right_greedy(x) > -INF, 0.0, -INF).to(x.dtype))
)

exercise.mistake("at temperature 0 the others get the logit 0", hint="exp(0) = 1: only exp(-inf) is 0.")(
    _with_warm(lambda x: torch.where(right_greedy(x) > -INF, x, 0.0))
)

exercise.mistake(
    "the best logit is subtracted first", hint="Softmax wouldn't notice, but the task is logits / temperature, no more."
)(_with_greedy(lambda x, t: (x - x.amax(-1, keepdim=True)) / t))

exercise.mistake("whole numbers come out", hint="Divide by /, which keeps fractions, and not by //.")(
    _with_greedy(lambda x, t: x // t)
)


@exercise.alternative
def temperature_by_reciprocal(logits, temperature):
    if temperature:
        return logits.mul(1 / temperature)
    index = torch.arange(logits.shape[-1])
    return torch.where(index == logits.argmax(-1, keepdim=True), logits, -INF)


@exercise.alternative
def temperature_by_loop(logits, temperature):
    out = logits.clone().reshape(-1, logits.shape[-1])
    for row in out:
        if temperature:
            row /= temperature
        else:
            best = max(range(len(row)), key=row.tolist().__getitem__)
            row[torch.arange(len(row)) != best] = -INF
    return out.reshape(logits.shape)
