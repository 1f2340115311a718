"""`no_repeat_ngram(logits, ids, n)`

Forbid every token that would complete an n-gram which stands in the text already.
"""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.applications.repetition.shared import INF, by_row, randn, rows_alone, some_tokens
from autograde.exercises.shared import logits_processor

exercise = Draft(
    "no_repeat_ngram",
    points=3,
    forbid=["transformers"],
    no_gradient="it is used while a model writes, where nothing is trained",
    fresh=True,
    dtypes=(torch.float64, torch.bfloat16),
    hints=[
        "Which n-gram would the next token complete? All of it but the last token stands at the end of the text.",
        "Take the last n - 1 tokens. Wherever they stood before, the token that followed is forbidden. Mind n = 1 and "
        "texts of fewer than n tokens.",
        "ids.unfold(-1, n, 1) is every n-gram, [..., windows, n]. Those whose [..., :-1] equals the last n - 1 tokens "
        "forbid their [..., -1]. A Python loop over the rows is fine, too.",
    ],
)

VOCAB = 12


def _spelled(g, *patterns):
    """Patterns of letters as tokens, one a row: in a row the same letter is the same token."""
    rows = []
    for pattern in patterns:
        names = dict(zip(dict.fromkeys(pattern), torch.randperm(VOCAB, generator=g).tolist(), strict=False))
        rows.append([names[letter] for letter in pattern])
    return torch.tensor(rows if len(rows) > 1 else rows[0])


@exercise.cases
def ngram_cases(g):
    masked = randn(g, 2, VOCAB)
    masked[0, 3] = masked[1, 7] = -INF
    four = _spelled(g, "abcab", "abaab", "ccccc", "abcde").reshape(2, 2, 5)
    yield case(randn(g, VOCAB), _spelled(g, "abcdab"), 3, label="one text: ab was followed by c")
    yield case(randn(g, VOCAB), _spelled(g, "abcabdeab"), 3, label="ab was followed by c and by d")
    yield case(randn(g, VOCAB) - 3, _spelled(g, "abacba"), 2, label="pairs, all logits below 0")
    yield case(randn(g, VOCAB), _spelled(g, "xaa"), 2, label="pairs, the latest of them in the way")
    yield case(randn(g, VOCAB), _spelled(g, "bacdab"), 3, label="ba, and now ab")
    yield case(randn(g, VOCAB), _spelled(g, "abcdefbc"), 4, label="only the last two of three tokens match")
    yield case(randn(g, VOCAB), _spelled(g, "abcdaefabc"), 4, label="abc was followed by d")
    yield case(randn(g, 2, 2, VOCAB), four, n=3, label="two batch dimensions, by keyword")
    yield case(masked, _spelled(g, "abcdabc", "qrstuqr"), 3, label="two texts, -inf among the logits")
    yield case(randn(g, VOCAB), _spelled(g, "abca"), 1, label="n = 1")
    yield case(randn(g, 2, VOCAB), _spelled(g, "ab", "aa"), 4, label="shorter than one n-gram")
    yield case(randn(g, VOCAB), _spelled(g, "aaa"), 3, label="as long as one n-gram")
    yield case(randn(g, VOCAB, 2, scale=2_000.0).t(), _spelled(g, "abcab", "abbab"), 3, label="huge, not contiguous")
    yield case(randn(g, VOCAB).bfloat16(), _spelled(g, "abcabdab"), 3, label="bfloat16")
    start = torch.rand(2, 5, generator=g).argsort(-1)[:, :4]
    yield case(
        randn(g, 2, VOCAB),
        torch.cat([start, 5 + some_tokens(g, 7, 2, 700), start[:, :3]], 1),
        4,
        label="700 tokens between, and then the first three again",
    )
    yield case(randn(g, VOCAB), _spelled(g, "abcdefghixfghjabcdefgh"), 9, label="n = 9")
    yield case(randn(g, VOCAB), _spelled(g, "a"), 1, label="one token, n = 1")
    yield case(randn(g, 1, VOCAB), _spelled(g, "abcab")[None], 3, label="a batch of one text")


@exercise.oracle
def hf_no_repeat(logits, ids, n):
    processor = logits_processor("NoRepeatNGramLogitsProcessor")(n)
    return by_row(lambda rows, texts: processor(texts, rows), logits, ids)


@exercise.law("A logit is left alone or becomes -inf")
def only_banned(out, one, call):
    x = one.args[0]
    return bool(((out == x) | (out == -INF)).all()) or "an entry is neither its logit nor -inf"


def _ngram(one):
    return one.args[2] if len(one.args) > 2 else one.kwargs["n"]


@exercise.law("A text written under the rule has no n-gram twice")
def never_twice(out, one, call):
    """Greedy writing under the rule, four tokens on: no n-gram that is completed stood there before."""
    n, x, text = _ngram(one), *one.args[:2]
    if x.dim() > 1 or n != 3:
        return None
    for _ in range(4):
        allowed = call(x, text, n)
        if bool((allowed == -INF).all()):
            return True
        text = torch.cat([text, allowed.argmax(-1, keepdim=True)])
        grams = [tuple(text[i : i + n].tolist()) for i in range(len(text) - n + 1)]
        if grams and grams[-1] in grams[:-1]:
            return f"a text of {len(text)} tokens got one that completes a {n}-gram for the second time"
    return True


@exercise.law("A text in which no token came twice is free to go on")
def fresh_text_is_free(out, one, call):
    """Where no token stood twice, only n = 1 forbids anything."""
    n, x = _ngram(one), one.args[0]
    if n == 1 or x.dim() != 2:
        return None
    fresh = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(n))[:7].expand(*x.shape[:-1], 7)
    return same(call(x, fresh, n), x)


@exercise.law("n = 1 forbids every token that occurred")
def ones_ban_what_occurred(out, one, call):
    logits, ids = one.args[:2]
    if logits.dim() != 2:
        return None
    banned = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, ids, True)
    return same(call(logits, ids, 1), logits.masked_fill(banned, -INF))


@exercise.law("A text of fewer than n tokens forbids nothing")
def short_text_is_free(out, one, call):
    logits, ids = one.args[:2]
    if logits.dim() != 2:
        return None
    n = max(_ngram(one), 2)
    return same(call(logits, ids[..., : n - 1], n), logits)


exercise.law("Each text of a batch has its own history")(rows_alone)

exercise.law("The result has the dtype of the logits")(keeps_dtype)


def _banning(bans, fill=-INF):
    """A function that fills the logits of the tokens that `bans(text, n)`, of a list, names."""

    def no_repeat_ngram(logits, ids, n):
        out = logits.clone().reshape(-1, logits.shape[-1])
        for row, text in zip(out, ids.reshape(len(out), -1).tolist(), strict=True):
            for token in bans(text, n):
                row[token] = fill
        return out.reshape(logits.shape)

    return no_repeat_ngram


def _grams(text, n):
    return [text[i : i + n] for i in range(len(text) - n + 1)]


def _prefix(text, n):
    """The last n - 1 tokens."""
    return text[len(text) - n + 1 :]


def _right(text, n):
    return [gram[-1] for gram in _grams(text, n) if gram[:-1] == _prefix(text, n)] if len(text) >= n else []


def _window_off(text, n):
    """The last n tokens are looked for, so what is forbidden is n + 1 long."""
    return _right(text, n + 1)


exercise.mistake(
    "the last n tokens are looked up, so that n-grams of n + 1 are forbidden",
    hint="The token to come is itself part of the n-gram: only n - 1 tokens of it stand there already.",
)(_banning(_window_off))


def _window_short(text, n):
    return _right(text, max(n - 1, 1))


exercise.mistake(
    "only the last n - 2 tokens are looked up, so that shorter n-grams are forbidden",
    hint="The next token is one of the n: n - 1 stand there already.",
)(_banning(_window_short))


def _minus_zero(text, n):
    """text[-(n - 1):] is the whole text where n is 1."""
    return [gram[-1] for gram in _grams(text, n) if gram[:-1] == text[-(n - 1) :]] if len(text) >= n else []


exercise.mistake(
    "ids[-(n - 1):] is taken for the last n - 1 tokens, also where n is 1",
    hint="-0 is 0: ids[-0:] is the whole text. Count from the front: ids[length - n + 1:].",
)(_banning(_minus_zero))


def _unordered(text, n):
    return [gram[-1] for gram in _grams(text, n) if sorted(gram[:-1]) == sorted(_prefix(text, n))]


exercise.mistake("the n - 1 tokens are compared without their order", hint="'ab' and 'ba' are different beginnings.")(
    _banning(lambda text, n: _unordered(text, n) if len(text) >= n else [])
)


def _latest_gram_missed(text, n):
    return [gram[-1] for gram in _grams(text, n)[:-1] if gram[:-1] == _prefix(text, n)]


exercise.mistake(
    "the latest n-gram of the text is left out",
    hint="There are length - n + 1 n-grams in a text. After 'xaa' with n = 2, 'a' is forbidden.",
)(_banning(_latest_gram_missed))


def _in_pieces(text, n):
    return [gram[-1] for gram in _grams(text, n)[::n] if gram[:-1] == _prefix(text, n)]


exercise.mistake(
    "the text is cut into n-grams that don't overlap", hint="n-grams start at every token, not at every n-th."
)(_banning(_in_pieces))

exercise.mistake(
    "only what followed the first time is forbidden",
    hint="The beginning may have been continued in several ways: each of them is used up.",
)(_banning(lambda text, n: _right(text, n)[:1]))

exercise.mistake(
    "only what followed the last time is forbidden",
    hint="The beginning may have been continued in several ways: each of them is used up.",
)(_banning(lambda text, n: _right(text, n)[-1:]))


def _whole_gram(text, n):
    return [token for gram in _grams(text, n) if gram[:-1] == _prefix(text, n) for token in gram]


exercise.mistake(
    "every token of a matching n-gram is forbidden", hint="Only its last token would complete it a second time."
)(_banning(lambda text, n: _whole_gram(text, n) if len(text) >= n else []))


def _prefix_banned(text, n):
    return _prefix(text, n) if _right(text, n) else []


exercise.mistake(
    "the beginning is forbidden instead of what followed it", hint="Forbid the token that would complete the n-gram."
)(_banning(_prefix_banned))


def _after_last_token(text, n):
    return _right(text, 2)


exercise.mistake(
    "only the last token is looked up, whatever n is",
    hint="That is the rule for n = 2. For larger n all of the last n - 1 tokens have to match.",
)(_banning(_after_last_token))


def _first_token_matches(text, n):
    """Only the prefix's first token is compared."""
    return [g[-1] for g in _grams(text, n) if n == 1 or g[0] == _prefix(text, n)[0]] if len(text) >= n else []


exercise.mistake("only the first of the n - 1 tokens is compared", hint="All n - 1 tokens have to match, in order.")(
    _banning(_first_token_matches)
)

exercise.mistake(
    "every token that occurred is forbidden, whatever n is",
    hint="That is the rule for n = 1. A token alone may come again, a whole n-gram may not.",
)(_banning(lambda text, n: text))

exercise.mistake(
    "a text shorter than n forbids its tokens", hint="No n-gram stands there yet, so none can come twice."
)(_banning(lambda text, n: _right(text, n) if len(text) >= n else text))

exercise.mistake(
    "forbidden tokens get the logit 0", hint="exp(0) = 1: a logit of 0 is a live token. Only exp(-inf) is 0."
)(_banning(_right, fill=0.0))

exercise.mistake(
    "forbidden tokens get a large negative number",
    hint="-1e9 may be the best of a row of -inf. Use -inf, as the docstring says.",
)(_banning(_right, fill=-1e9))


@exercise.mistake(
    "what one text of the batch used up is forbidden in all", hint="Each row of ids belongs to its own row of logits."
)
def bans_shared(logits, ids, n):
    out, rows = logits.clone(), ids.reshape(-1, ids.shape[-1]).tolist()
    out[..., [token for text in rows for token in _right(text, n)]] = -INF
    return out


no_repeat = _banning(_right)


@exercise.mistake("the result is left in float32", hint="Give the result the dtype of the logits.")
def ban_in_float32(logits, ids, n):
    return no_repeat(logits.float(), ids, n)


exercise.mistake("a text shorter than n gets the logits themselves back", hint="A new tensor, always: logits.clone().")(
    lambda logits, ids, n: logits if ids.shape[-1] < n else no_repeat(logits, ids, n)
)

exercise.mistake("the logits are changed in place", hint="The input stays as it was: work on logits.clone().")(
    lambda logits, ids, n: logits.copy_(no_repeat(logits, ids, n))
)

exercise.mistake("an n above 4 is treated as 4", hint="All of the last n - 1 tokens have to match, whatever n is.")(
    lambda logits, ids, n: no_repeat(logits, ids, min(n, 4))
)

exercise.mistake("only the latest 64 tokens of the text count", hint="All of the text, however far back.")(
    lambda logits, ids, n: no_repeat(logits, ids[..., -64:], n)
)

exercise.mistake("the text of the first row is used for all rows", hint="Each row of ids belongs to its own logits.")(
    lambda logits, ids, n: no_repeat(logits, ids.reshape(-1, ids.shape[-1])[0].expand(ids.shape), n)
)

exercise.alternative(no_repeat)


@exercise.alternative
def ban_by_unfold(logits, ids, n):
    length = ids.shape[-1]
    if length < n:
        return logits.clone()
    windows, prefix = ids.unfold(-1, n, 1), ids[..., length - n + 1 :]
    hit = (windows[..., :-1] == prefix.unsqueeze(-2)).all(-1)
    counts = torch.zeros_like(logits).scatter_add(-1, windows[..., -1], hit.to(logits.dtype))
    return logits.masked_fill(counts > 0, -INF)


@exercise.alternative
def ban_by_table(logits, ids, n):
    """What followed each (n - 1)-gram, as a dict: fairseq's way."""
    out = logits.clone().reshape(-1, logits.shape[-1])
    for row, text in zip(out, ids.reshape(len(out), -1).tolist(), strict=True):
        after = {}
        for gram in _grams(text, n):
            after.setdefault(tuple(gram[:-1]), set()).add(gram[-1])
        if len(text) >= n - 1:
            row[list(after.get(tuple(_prefix(text, n)), ()))] = -INF
    return out.reshape(logits.shape)
