"""`frequency_presence_penalty(logits, ids, frequency=0.0, presence=0.0)`

OpenAI's penalties: mu[j] - c[j] * frequency - (c[j] > 0) * presence.
"""

from __future__ import annotations

from collections import Counter

import torch

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.repetition.shared import (
    ABSENT_UNTOUCHED,
    ANY_ORDER,
    OWN_DTYPE,
    OWN_HISTORY,
    again,
    occurred,
    randn,
    right_penalty,
    seen,
    shared,
    some_tokens,
    tells,
    texts,
)

exercise = Draft(
    "frequency_presence_penalty",
    points=2,
    no_gradient="it is used while a model writes, where nothing is trained",
    fresh=True,
    dtypes=(torch.float64,),
    hints=[
        "You need the number of times each token of the vocabulary stands in its text.",
        "`torch.zeros_like(logits).scatter_add(-1, ids, ones)` counts. Plain indexing, `counts[ids] += 1`, would count "
        "a token that stands there twice only once.",
        "`counts = torch.zeros_like(logits).scatter_add(-1, ids, torch.ones(ids.shape, dtype=logits.dtype))`, then "
        "`logits - frequency * counts - presence * (counts > 0).to(logits.dtype)`.",
    ],
)


@exercise.cases
def taken_cases(g):
    for i, (logits, ids, special) in enumerate(texts(g)):
        yield case(logits, ids, 0.3 + 0.1 * (i % 4), 0.9 - 0.15 * (i % 3), label=special)
    yield case(randn(g, 2, 5), some_tokens(g, 5, 2, 9), frequency=0.4, label="frequency alone, by keyword")
    yield case(randn(g, 2, 5), some_tokens(g, 5, 2, 9), presence=0.8, label="presence alone, by keyword")
    yield case(randn(g, 2, 5), some_tokens(g, 5, 2, 6), -0.5, -1.5, label="negative: repetition is rewarded")
    yield case(randn(g, 2, 5), some_tokens(g, 5, 2, 6), label="both left at 0")
    yield case(randn(g, 2, 4), some_tokens(g, 4, 2, 0), 0.5, 0.5, label="no text yet")
    yield case(randn(g, 2, 7).bfloat16(), some_tokens(g, 7, 2, 9), 0.5, 1.0, label="bfloat16")


@exercise.oracle
def openai(logits, ids, frequency=0.0, presence=0.0):
    """mu[j] -> mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence, as OpenAI's documentation has it."""
    rows = logits.double().reshape(-1, logits.shape[-1]).clone()
    for mu, text in zip(rows, ids.reshape(len(rows), -1).tolist(), strict=True):
        c = Counter(text)
        for j in range(len(mu)):
            mu[j] = mu[j] - c[j] * frequency - float(c[j] > 0) * presence
    return rows.reshape(logits.shape).to(logits.dtype)


exercise.law(ABSENT_UNTOUCHED)


@exercise.law("Presence takes the same from every token that occurred")
def presence_takes_alike(out, one, call):
    """With presence 2 alone, every token that occurred loses 2 (of which bfloat16 keeps two digits)."""
    logits, ids = one.args[:2]
    if not tells(one):
        return None
    digits = 2e-2 if logits.dtype is torch.bfloat16 else 1e-4
    return same(call(logits, ids, 0.0, 2.0), logits - 2.0 * occurred(logits, ids), rtol=digits, atol=digits)


@exercise.law("Frequency takes twice as much from a text said twice")
def frequency_takes_by_count(out, one, call):
    """A text said twice takes twice as much by frequency."""
    logits, ids = one.args[:2]
    if not tells(one):
        return None
    flat = torch.zeros_like(logits)
    once, twice = (call(flat, text, 0.5, 0.0) for text in (ids, torch.cat([ids, ids], -1)))
    return same(twice, 2 * once) and (ids.numel() == 0 or bool((once < 0).any()))


@exercise.law("Adding 7 to all logits adds 7 to the result")
def level_doesnt_matter(out, one, call):
    logits, ids = one.args[:2]
    if logits.dtype is torch.bfloat16 or not tells(one):
        return None
    return same(again(one, call, logits + 7.0, ids), out + 7.0, atol=1e-3)


exercise.law(ANY_ORDER)

exercise.law(OWN_HISTORY)

exercise.law(OWN_DTYPE)


def _taken(amount, count=seen):
    """A penalty that takes `amount(counts, frequency, presence)` from every logit."""

    def frequency_presence_penalty(logits, ids, frequency=0.0, presence=0.0):
        return logits - amount(count(logits, ids), frequency, presence).to(logits.dtype)

    return frequency_presence_penalty


exercise.mistake(
    "presence is multiplied by the count, too",
    hint="Presence asks whether a token occurred, not how often: once, whatever the count.",
)(_taken(lambda c, f, p: c * f + c * p))

exercise.mistake(
    "frequency is taken once, whatever the count",
    hint="Frequency is taken for every time the token occurred. (`logits[ids] -= f` takes it only once.)",
)(_taken(lambda c, f, p: (c > 0) * (f + p)))

exercise.mistake("frequency and presence are swapped", hint="Frequency goes with the count, presence with count > 0.")(
    _taken(lambda c, f, p: c * p + (c > 0) * f)
)


def _openai(c, frequency, presence):
    return c * frequency + (c > 0) * presence


exercise.mistake("the penalties are added", hint="A positive penalty makes repetition less likely.")(
    _taken(lambda c, f, p: -_openai(c, f, p))
)

exercise.mistake(
    "presence is taken from every token",
    hint="The same number off all logits changes no probability. Only tokens that occurred.",
)(_taken(lambda c, f, p: c * f + p))

exercise.mistake(
    "presence is taken from the tokens that did not occur", hint="Only tokens that occurred lose anything."
)(_taken(lambda c, f, p: c * f + (c == 0) * p))

exercise.mistake("presence is forgotten", hint="Is `presence` used anywhere?")(_taken(lambda c, f, p: c * f))

exercise.mistake("frequency is forgotten", hint="Is `frequency` used anywhere?")(_taken(lambda c, f, p: (c > 0) * p))

exercise.mistake(
    "negative penalties are treated as 0", hint="Negative ones reward repetition: the same formula, no limit."
)(_taken(lambda c, f, p: _openai(c, max(f, 0.0), max(p, 0.0))))

exercise.mistake("the count is divided by the length of the text", hint="Frequency counts occurrences, not a share.")(
    _taken(lambda c, f, p: _openai(c / c.sum(-1, keepdim=True).clamp(min=1), f, 0) + (c > 0) * p)
)

exercise.mistake("the logarithm of the count is taken", hint="Frequency grows with the count itself.")(
    _taken(lambda c, f, p: c.log1p() * f + (c > 0) * p)
)

exercise.mistake("the first occurrence goes unpunished", hint="A token that stands there once has the count 1.")(
    _taken(lambda c, f, p: (c - 1).clamp(min=0) * f + (c > 1) * p)
)

exercise.mistake(
    "what one text of the batch said is counted in all", hint="Each row of ids belongs to its own row of logits."
)(_taken(_openai, lambda x, ids: seen(x, shared(ids))))

exercise.mistake("the last token of the text isn't counted", hint="Every token of the text, the last one too.")(
    _taken(_openai, lambda x, ids: seen(x, ids[..., :-1]))
)


@exercise.mistake(
    "presence divides or multiplies instead of being subtracted",
    hint="Both penalties are subtracted. (Dividing is what CTRL's repetition penalty does.)",
)
def as_factor(logits, ids, frequency=0.0, presence=0.0):
    return right_penalty(logits, ids, 1 + presence) - seen(logits, ids) * frequency


@exercise.mistake(
    "the penalties are taken from probabilities", hint="From the logits: a probability less a penalty can be negative."
)
def taken_from_probabilities(logits, ids, frequency=0.0, presence=0.0):
    return logits.softmax(-1) - _openai(seen(logits, ids), frequency, presence)


taken = _taken(_openai)


@exercise.mistake("the result is left in float32", hint="Give the result the dtype of the logits.")
def taken_in_float32(logits, ids, frequency=0.0, presence=0.0):
    return taken(logits.float(), ids, frequency, presence)


exercise.mistake("with both at 0 the logits themselves are handed back", hint="A new tensor, always: logits.clone().")(
    lambda logits, ids, frequency=0.0, presence=0.0: (
        taken(logits, ids, frequency, presence) if frequency or presence else logits
    )
)

exercise.mistake("the logits are changed in place", hint="The input stays as it was: work on logits.clone().")(
    lambda logits, ids, frequency=0.0, presence=0.0: logits.copy_(taken(logits, ids, frequency, presence))
)

exercise.mistake("counts end at 100", hint="Every time counts, however often.")(
    _taken(lambda c, f, p: _openai(c.clamp(max=100), f, p))
)

exercise.mistake("the text of the first row is used for all rows", hint="Each row of ids belongs to its own logits.")(
    lambda logits, ids, frequency=0.0, presence=0.0: taken(
        logits, ids.reshape(-1, ids.shape[-1])[0].expand(ids.shape) if ids.numel() else ids, frequency, presence
    )
)

exercise.alternative(taken)


@exercise.alternative
def taken_by_one_hot(logits, ids, frequency=0.0, presence=0.0):
    counts = torch.nn.functional.one_hot(ids, logits.shape[-1]).sum(-2)
    return logits - counts.to(logits.dtype) * frequency - counts.clamp(max=1).to(logits.dtype) * presence


@exercise.alternative
def taken_by_loop(logits, ids, frequency=0.0, presence=0.0):
    out = logits.clone().reshape(-1, logits.shape[-1])
    for row, tokens in zip(out, ids.reshape(len(out), -1).tolist(), strict=True):
        for token, count in Counter(tokens).items():
            row[token] -= count * frequency + presence
    return out.reshape(logits.shape)
