"""How the measure and the two penalties of 02_applications/03_repetition are judged: oracles, cases and laws.

The repetition penalty's oracle is transformers' processor, run in float64. transformers has neither the measure nor
OpenAI's penalties: those are plain loops over one text.
"""

from __future__ import annotations

from collections import Counter

import torch
from transformers import RepetitionPenaltyLogitsProcessor

from autograde.exercise import case, same

INF = torch.inf


def by_row(function, logits, ids, *rest):
    """`function(logits [rows, vocab], ids [rows, length], …)` in float64, for any leading dimensions."""
    rows = logits.double().reshape(-1, logits.shape[-1])
    return function(rows, ids.reshape(len(rows), -1), *rest).reshape(logits.shape).to(logits.dtype)


def randn(g, *shape, scale=2.0):
    return torch.randn(*shape, generator=g) * scale


def some_tokens(g, below, *shape):
    return torch.randint(below, shape, generator=g)


# ---- repetition_rate ------------------------------------------------------------------------------------------------


def seq_rep(tokens, n=4):
    """Welleck et al.'s seq-rep-n, one text after the other."""
    shares = []
    for text in tokens.reshape(-1, tokens.shape[-1]).tolist():
        seen, again = set(), 0
        grams = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
        for gram in grams:
            again += gram in seen
            seen.add(gram)
        shares.append(again / len(grams) if grams else 0.0)
    return torch.tensor(shares).reshape(tokens.shape[:-1])


def _spelled(g, pattern):
    """A pattern of letters as tokens: the same letter is the same token, other letters are others."""
    names = dict(zip(dict.fromkeys(pattern), torch.randperm(40, generator=g).tolist(), strict=False))
    return torch.tensor([names[letter] for letter in pattern])


def rate_cases(g):
    yield case(_spelled(g, "abcdefgcdefgcdefgh"), label="a phrase three times")
    yield case(_spelled(g, "abcxyabczwqabc"), 3, label="repetitions far apart")
    yield case(some_tokens(g, 3, 21), 2, label="one text, pairs")
    yield case(some_tokens(g, 2, 3, 16), n=3, label="three texts, triples, by keyword")
    yield case(some_tokens(g, 3, 2, 2, 13), 2, label="two batch dimensions")
    yield case(some_tokens(g, 9, 17), 1, label="single tokens")
    yield case(_spelled(g, "abcxcbaybca"), 3, label="the same tokens in another order")
    yield case(torch.tensor([7, 2, 30, 6, 3, 11, 5, 4, 21, 8, 1]), 2, label="other tokens with the same sum")
    yield case(torch.tensor([1, 23, 40, 12, 3, 44, 11, 1, 41, 1, 11]), 2, label="12 3 is not 1 23")
    yield case(49_000 + some_tokens(g, 3, 12), 2, label="large token ids")
    yield case(_spelled(g, "aaaaaaaaa"), label="one token all along")
    yield case(some_tokens(g, 9, 2, 4), 4, label="as long as one n-gram")
    yield case(some_tokens(g, 9, 2, 3), 4, label="shorter than one n-gram")
    yield case(some_tokens(g, 3, 14, 2).t(), 2, label="not contiguous")


def _n(one):
    return one.args[1] if len(one.args) > 1 else one.kwargs.get("n", 4)


def _is_long(one):
    """Whether a case is one long text. A law costs a call, and the short ones say little more."""
    return one.args[0].dim() == 1 and len(one.args[0]) >= 12


def nothing_twice_is_zero(out, one, call):
    if one.args[0].dim() < 2:
        return None
    fresh = torch.arange(one.args[0].numel()).reshape(one.args[0].shape)
    return same(call(fresh, _n(one)), torch.zeros(fresh.shape[:-1]))


def one_token_all_along(out, one, call):
    """m n-grams, all alike: all but the first are repetitions."""
    tokens, n = one.args[0], _n(one)
    m = tokens.shape[-1] - n + 1
    return same(call(torch.zeros_like(tokens), n), torch.tensor(1 - 1 / m)) if _is_long(one) else None


def names_dont_matter(out, one, call):
    return same(call(3 * one.args[0] ** 2 + 5, _n(one)), out) if _is_long(one) else None


def longer_is_rarer(out, one, call):
    if not _is_long(one):
        return None
    shorter, longer = (torch.as_tensor(share) for share in (out, call(one.args[0], _n(one) + 1)))
    return bool((longer <= shorter + 1e-6).all())


def texts_alone(out, one, call):
    tokens = one.args[0]
    if tokens.dim() < 3:
        return None
    rows = [torch.as_tensor(call(row, _n(one))) for row in tokens.reshape(-1, tokens.shape[-1])]
    return same(out, torch.stack(rows).reshape(tokens.shape[:-1]))


# ---- what the penalties share ---------------------------------------------------------------------------------------


def occurred(logits, ids):
    """True for every token of the vocabulary that stands in its row's text."""
    return torch.zeros_like(logits, dtype=torch.bool).scatter(-1, ids, True)


def _again(one, call, logits, ids):
    """The same call with other logits or another text."""
    return call(logits, ids, *one.args[2:], **one.kwargs)


def _tells(one):
    """Whether a case is a batch of texts long enough for a law: each law costs a call."""
    return one.args[0].dim() == 2 and one.args[1].shape[-1] >= 4


def absent_untouched(out, one, call):
    logits, ids = one.args[:2]
    return torch.equal(out[~occurred(logits, ids)], logits[~occurred(logits, ids)])


def order_doesnt_matter(out, one, call):
    logits, ids = one.args[:2]
    return same(_again(one, call, logits, ids.flip(-1)), out) if _tells(one) else None


def rows_alone(out, one, call):
    logits, ids = one.args[:2]
    if logits.dim() < 3:
        return None
    texts = logits[..., 0].numel()
    rows = zip(logits.reshape(texts, -1), ids.reshape(texts, -1), strict=True)
    return same(out, torch.stack([_again(one, call, *row) for row in rows]).reshape(logits.shape))


def _texts(g):
    """(logits, ids, what is special) for every shape and kind that both penalties should meet."""
    odd = randn(g, 2, 6)
    odd[0, 1] = odd[1, 3] = -INF
    odd[0, 4] = odd[1, 0] = 0.0
    yield randn(g, 8), some_tokens(g, 8, 5), "one text"
    yield randn(g, 3, 9), some_tokens(g, 9, 3, 6), "three texts"
    yield randn(g, 2, 2, 5), some_tokens(g, 5, 2, 2, 4), "two batch dimensions"
    yield randn(g, 2, 7).abs() + 1, some_tokens(g, 7, 2, 5), "all logits positive"
    yield -randn(g, 2, 7).abs() - 1, some_tokens(g, 7, 2, 5), "all logits negative"
    yield randn(g, 2, 6) + 1, torch.tensor([[2, 2, 2, 5], [0, 4, 0, 0]]), "one token three times"
    yield odd, torch.tensor([[1, 4, 2], [0, 3, 3]]), "-inf and 0 among the logits"
    yield randn(g, 2, 6, scale=3_000.0), some_tokens(g, 6, 2, 3), "huge logits"
    yield randn(g, 6, 2).t(), some_tokens(g, 6, 4, 2).t(), "not contiguous"
    yield randn(g, 1) + 3, torch.tensor([0]), "a vocabulary of one"


# ---- repetition_penalty ---------------------------------------------------------------------------------------------


def hf_penalty(logits, ids, penalty):
    processor = RepetitionPenaltyLogitsProcessor(float(penalty))
    return by_row(lambda rows, texts: processor(texts, rows), logits, ids)


def penalty_cases(g):
    penalties = [1.2, 1.5, 1.1, 1.3, 2.0, 1.2, 1.4, 1.2, 1.25, 1.6]
    for (logits, ids, special), penalty in zip(_texts(g), penalties, strict=True):
        yield case(logits, ids, penalty, label=special)
    yield case(randn(g, 2, 7), some_tokens(g, 7, 2, 4), penalty=0.7, label="a penalty below 1, by keyword")
    yield case(randn(g, 2, 7), some_tokens(g, 7, 2, 4), 1.0, label="penalty 1")
    yield case(randn(g, 2, 7).bfloat16(), some_tokens(g, 7, 2, 4), 1.5, label="bfloat16")


def _penalty(one):
    return one.args[2] if len(one.args) > 2 else one.kwargs["penalty"]


def never_likelier(out, one, call):
    logits, ids = one.args[:2]
    return None if _penalty(one) < 1 else bool((out <= logits)[occurred(logits, ids)].all())


def once_is_enough(out, one, call):
    logits, ids = one.args[:2]
    return same(_again(one, call, logits, torch.cat([ids, ids], -1)), out) if _tells(one) else None


def reciprocal_undoes(out, one, call):
    logits, ids = one.args[:2]
    if logits.dtype is torch.bfloat16 or not _tells(one):
        return None
    return same(call(out, ids, 1 / _penalty(one)), logits)


# ---- frequency_presence_penalty -------------------------------------------------------------------------------------


def openai(logits, ids, frequency=0.0, presence=0.0):
    """mu[j] -> mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence, as OpenAI's documentation has it."""
    rows = logits.double().reshape(-1, logits.shape[-1]).clone()
    for mu, text in zip(rows, ids.reshape(len(rows), -1).tolist(), strict=True):
        c = Counter(text)
        for j in range(len(mu)):
            mu[j] = mu[j] - c[j] * frequency - float(c[j] > 0) * presence
    return rows.reshape(logits.shape).to(logits.dtype)


def taken_cases(g):
    for i, (logits, ids, special) in enumerate(_texts(g)):
        yield case(logits, ids, 0.3 + 0.1 * (i % 4), 0.9 - 0.15 * (i % 3), label=special)
    yield case(randn(g, 2, 5), some_tokens(g, 5, 2, 9), frequency=0.4, label="frequency alone, by keyword")
    yield case(randn(g, 2, 5), some_tokens(g, 5, 2, 9), presence=0.8, label="presence alone, by keyword")
    yield case(randn(g, 2, 5), some_tokens(g, 5, 2, 6), -0.5, -1.5, label="negative: repetition is rewarded")
    yield case(randn(g, 2, 5), some_tokens(g, 5, 2, 6), label="both left at 0")
    yield case(randn(g, 2, 4), some_tokens(g, 4, 2, 0), 0.5, 0.5, label="no text yet")
    yield case(randn(g, 2, 7).bfloat16(), some_tokens(g, 7, 2, 9), 0.5, 1.0, label="bfloat16")


def presence_takes_alike(out, one, call):
    """With presence 2 alone, every token that occurred loses 2 (of which bfloat16 keeps two digits)."""
    logits, ids = one.args[:2]
    if not _tells(one):
        return None
    digits = 2e-2 if logits.dtype is torch.bfloat16 else 1e-4
    return same(call(logits, ids, 0.0, 2.0), logits - 2.0 * occurred(logits, ids), rtol=digits, atol=digits)


def frequency_takes_by_count(out, one, call):
    """A text said twice takes twice as much by frequency."""
    logits, ids = one.args[:2]
    if not _tells(one):
        return None
    flat = torch.zeros_like(logits)
    once, twice = (call(flat, text, 0.5, 0.0) for text in (ids, torch.cat([ids, ids], -1)))
    return same(twice, 2 * once) and (ids.numel() == 0 or bool((once < 0).any()))


def level_doesnt_matter(out, one, call):
    logits, ids = one.args[:2]
    if logits.dtype is torch.bfloat16 or not _tells(one):
        return None
    return same(_again(one, call, logits + 7.0, ids), out + 7.0, atol=1e-3)
