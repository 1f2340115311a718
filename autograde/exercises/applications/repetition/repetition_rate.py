"""`repetition_rate(tokens, n=4)`

The share of a text's n-grams that stood in it before: 1 - distinct n-grams / n-grams.
"""

from __future__ import annotations

from collections import Counter

import torch

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.repetition.shared import some_tokens

exercise = Draft(
    "repetition_rate",
    points=2,
    no_gradient="tokens are whole numbers",
    hints=[
        "Go through the n-grams from left to right. Which of them stood there before?",
        "As many n-grams as are distinct are new, the others are repetitions: 1 - distinct / all, with "
        "length - n + 1 in all.",
        "For one text as a list: `grams = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]` and "
        "`1 - len(set(grams)) / len(grams)`, or 0 without grams. Then one number for each row.",
    ],
)


def _spelled(g, pattern):
    """A pattern of letters as tokens: the same letter is the same token, other letters are others."""
    names = dict(zip(dict.fromkeys(pattern), torch.randperm(40, generator=g).tolist(), strict=False))
    return torch.tensor([names[letter] for letter in pattern])


@exercise.cases
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
    glued = torch.tensor([5, 1, 9, 4, 101, 8, 4, 1001, 7, 1, 5, 3, 101, 4, 2, 1001, 4])
    yield case(glued, 2, label="1000 · 4 + 1001 is 1000 · 5 + 1")
    yield case(49_000 + some_tokens(g, 3, 12), 2, label="large token ids")
    yield case(_spelled(g, "aaaaaaaaa"), label="one token all along")
    yield case(some_tokens(g, 9, 2, 4), 4, label="as long as one n-gram")
    yield case(some_tokens(g, 9, 2, 3), 4, label="shorter than one n-gram")
    yield case(some_tokens(g, 3, 14, 2).t(), 2, label="not contiguous")
    yield case(some_tokens(g, 5, 1, 300), 3, label="300 tokens")
    yield case(some_tokens(g, 4, 130, 9), 2, label="130 texts")
    yield case(some_tokens(g, 9, 2, 1), 1, label="one token")


@exercise.oracle
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


def _n(one):
    return one.args[1] if len(one.args) > 1 else one.kwargs.get("n", 4)


@exercise.law("A text in which no token comes twice has rate 0")
def nothing_twice_is_zero(out, one, call):
    if one.args[0].dim() < 2:
        return None
    fresh = torch.arange(one.args[0].numel()).reshape(one.args[0].shape)
    return same(call(fresh, _n(one)), torch.zeros(fresh.shape[:-1]))


def _is_long(one):
    """Whether a case is one long text. A law costs a call, and the short ones say little more."""
    return one.args[0].dim() == 1 and len(one.args[0]) >= 12


@exercise.law("Of m n-grams that are all alike, m - 1 are repetitions")
def one_token_all_along(out, one, call):
    """m n-grams, all alike: all but the first are repetitions."""
    tokens, n = one.args[0], _n(one)
    m = tokens.shape[-1] - n + 1
    return same(call(torch.zeros_like(tokens), n), torch.tensor(1 - 1 / m)) if _is_long(one) else None


@exercise.law("Other names for the tokens change nothing")
def names_dont_matter(out, one, call):
    return same(call(3 * one.args[0] ** 2 + 5, _n(one)), out) if _is_long(one) else None


@exercise.law("A longer n never gives a higher rate")
def longer_is_rarer(out, one, call):
    if not _is_long(one):
        return None
    shorter, longer = (torch.as_tensor(share) for share in (out, call(one.args[0], _n(one) + 1)))
    return bool((longer <= shorter + 1e-6).all())


@exercise.law("Each text of a batch is counted by itself")
def texts_alone(out, one, call):
    tokens = one.args[0]
    if tokens.dim() < 3:
        return None
    rows = [torch.as_tensor(call(row, _n(one))) for row in tokens.reshape(-1, tokens.shape[-1])]
    return same(out, torch.stack(rows).reshape(tokens.shape[:-1]))


def _grams(tokens, n):
    """Every n-gram of a list, as tuples."""
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def _by_row(measure):
    """A measure of one list of tokens, taken of every row."""

    def repetition_rate(tokens, n=4):
        rows = tokens.reshape(-1, tokens.shape[-1])
        return torch.tensor([float(measure(row.tolist(), n)) for row in rows]).reshape(tokens.shape[:-1])

    return repetition_rate


def _of_grams(measure, grams=_grams):
    """A measure of one list of n-grams; 0 where there is none."""

    def of_tokens(tokens, n):
        found = grams(tokens, n)
        return measure(found, tokens) if found else 0.0

    return _by_row(of_tokens)


exercise.mistake(
    "the share of distinct n-grams is returned",
    hint="That is distinct-n. The rate of repetition is what is missing to 1.",
)(_of_grams(lambda found, tokens: len(set(found)) / len(found)))


def _stated(found, _tokens):
    """The share of n-grams that occur more than once, the first time included."""
    counts = Counter(found)
    return sum(counts[gram] > 1 for gram in found) / len(found)


exercise.mistake(
    "the first occurrence of a repeated n-gram counts as a repetition, too",
    hint="What is said twice is repeated once: only an n-gram that stood there *before* counts.",
)(_of_grams(_stated))


def _kinds_that_recur(found, _tokens):
    counts = Counter(found)
    return sum(count > 1 for count in counts.values()) / len(counts)


exercise.mistake(
    "it is counted how many kinds of n-grams recur, not how often",
    hint="An n-gram that stands there five times is four repetitions among all n-grams of the text.",
)(_of_grams(_kinds_that_recur))

exercise.mistake(
    "the repetitions are divided by the number of tokens",
    hint="Divide by the number of n-grams: a text of `length` tokens has length - n + 1.",
)(_of_grams(lambda found, tokens: (len(found) - len(set(found))) / len(tokens)))

exercise.mistake(
    "the repetitions are divided by the number of distinct n-grams",
    hint="Divide by the number of all n-grams: the rate can't exceed 1.",
)(_of_grams(lambda found, tokens: (len(found) - len(set(found))) / len(set(found))))


def _duplicates(found, _tokens=None):
    return 1 - len(set(found)) / len(found)


exercise.mistake("the rate is given in percent", hint="A share: between 0 and 1.")(
    _of_grams(lambda found, tokens: 100 * _duplicates(found))
)

exercise.mistake(
    "repetitions are counted and not divided by anything", hint="A share: divide by the number of n-grams."
)(_of_grams(lambda found, tokens: len(found) - len(set(found))))

exercise.mistake(
    "the last n-gram of the text is missed",
    hint="A text of `length` tokens has length - n + 1 n-grams. range() stops before its end.",
)(_of_grams(_duplicates, lambda tokens, n: _grams(tokens, n)[:-1]))

exercise.mistake(
    "the text is cut into n-grams that don't overlap", hint="n-grams start at every token, not at every n-th."
)(_of_grams(_duplicates, lambda tokens, n: _grams(tokens, n)[::n]))

exercise.mistake("the n-grams are n + 1 tokens long", hint="text[i : i + n] has n tokens.")(
    _of_grams(_duplicates, lambda tokens, n: _grams(tokens, n + 1))
)

exercise.mistake("the n-grams are n - 1 tokens long", hint="text[i : i + n] has n tokens.")(
    _of_grams(_duplicates, lambda tokens, n: _grams(tokens, n - 1) if n > 1 else _grams(tokens, 1))
)

exercise.mistake("single tokens are counted, whatever n is", hint="Is `n` used anywhere?")(
    _of_grams(_duplicates, lambda tokens, n: _grams(tokens, 1) if len(tokens) >= n else [])
)

exercise.mistake(
    "n-grams with the same tokens in another order count as the same",
    hint="'the cat' and 'cat the' are different: compare tuples, not sets or sorted lists.",
)(_of_grams(_duplicates, lambda tokens, n: [tuple(sorted(gram)) for gram in _grams(tokens, n)]))

exercise.mistake(
    "n-grams with the same sum count as the same",
    hint="Different n-grams can have the same sum: compare all their tokens.",
)(_of_grams(_duplicates, lambda tokens, n: [sum(gram) for gram in _grams(tokens, n)]))

exercise.mistake(
    "the ids of an n-gram are glued to one text without a separator",
    hint="'1' and '23' glued are '123', and so are '12' and '3'. A tuple of ids keeps them apart.",
)(_of_grams(_duplicates, lambda tokens, n: ["".join(map(str, gram)) for gram in _grams(tokens, n)]))


def _next_to_it(tokens, n):
    """Repetitions count only where they follow at once."""
    found = _grams(tokens, n)
    return sum(i >= n and found[i] == found[i - n] for i in range(len(found))) / len(found) if found else 0.0


exercise.mistake(
    "only repetitions that follow at once are counted", hint="It doesn't matter how far back an n-gram stood."
)(_by_row(_next_to_it))

exercise.mistake("a text shorter than n has rate 1", hint="No n-gram, no repetition: 0.")(
    _by_row(lambda tokens, n: _duplicates(_grams(tokens, n)) if len(tokens) >= n else 1.0)
)

exercise.mistake(
    "a text shorter than n is divided by zero",
    hint="A text of fewer than n tokens has no n-gram. The docstring says what its rate is.",
)(_by_row(lambda tokens, n: _duplicates(_grams(tokens, n))))

rate = _of_grams(_duplicates)


@exercise.mistake(
    "the rates of a batch are averaged",
    hint="One rate for each text: the shape of `tokens` without its last dimension.",
)
def rows_averaged(tokens, n=4):
    return rate(tokens, n).mean()


@exercise.mistake(
    "all texts of a batch are counted together",
    hint="What another text says is no repetition: count each row by itself.",
)
def rows_pooled(tokens, n=4):
    rows = tokens.reshape(-1, tokens.shape[-1]).tolist()
    found = [gram for row in rows for gram in _grams(row, n)]
    return torch.full(tokens.shape[:-1], _duplicates(found) if found else 0.0)


exercise.mistake(
    "the ids of an n-gram are made one number, in base 1000",
    hint="Ids may be larger than that, and then two n-grams share a number. A tuple of ids keeps them apart.",
)(
    _of_grams(
        _duplicates,
        lambda tokens, n: [sum(token * 1000**i for i, token in enumerate(gram)) for gram in _grams(tokens, n)],
    )
)

exercise.mistake("every text gets the rate of the first", hint="One rate for each text.")(
    lambda tokens, n=4: rate(tokens, n).reshape(-1)[0].expand(tokens.shape[:-1])
)

exercise.mistake("the last two n-grams are missed", hint="range(length - n + 1) starts an n-gram at every place.")(
    _of_grams(_duplicates, lambda tokens, n: _grams(tokens, n)[:-2])
)

exercise.mistake("n is 2 if nobody says otherwise", hint="The default is 4.")(lambda tokens, n=2: rate(tokens, n))

exercise.alternative(rate)


@exercise.alternative
def rate_by_unfold(tokens, n=4):
    """Every n-gram beside every other: a repetition equals one of those before it."""
    if tokens.shape[-1] < n:
        return torch.zeros(tokens.shape[:-1])
    grams = tokens.unfold(-1, n, 1)
    same = (grams.unsqueeze(-2) == grams.unsqueeze(-3)).all(-1)
    return same.tril(-1).any(-1).float().mean(-1)


@exercise.alternative
def rate_by_unique(tokens, n=4):
    windows = tokens.unfold(-1, n, 1).reshape(-1, tokens.shape[-1] - n + 1, n) if tokens.shape[-1] >= n else []
    shares = [1 - len(torch.unique(row, dim=0)) / len(row) for row in windows]
    return torch.tensor(shares or [0.0] * tokens[..., 0].numel()).reshape(tokens.shape[:-1])
