"""`self_consistency(answers, weights=None)`: The answer that most of the samples agree on, and how many do."""

from __future__ import annotations

import collections
import unicodedata

import torch

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.hallucination.shared import shuffled, some

exercise = Draft(
    "self_consistency",
    points=2,
    no_gradient="a vote is counted, not trained",
    hints=[
        "A vote needs two things: when do two answers count as one, and who votes?",
        "key = ' '.join(answer.casefold().split()); add each weight to votes[key]. A dict keeps the order of arrival.",
        "best = max(votes, key=votes.get), which takes the first of equals; its share is of the sum of *all* weights.",
    ],
)


@exercise.cases
def votes(g):
    a, b, c, d = some(g, 4)
    yield case(shuffled(g, [a] * 4 + [b] * 2 + [c]), label="seven samples")
    two = f"{a}n {c}a"
    yield case([b, a.upper(), a.lower(), b, a.title()], label="capital and small letters")
    yield case([b, f" {a}", f"{a}\n", b, a, d], label="white space around an answer")
    yield case([b, two, two.replace(" ", "  "), b, two.replace(" ", "\t")], label="white space within an answer")
    yield case([two.replace(" ", ""), b, two, b, two.replace(" ", "")], label="two words, and both as one word")
    yield case([None, *shuffled(g, [a] * 2 + [b] + [None] * 4)], label="most samples hold no answer")
    yield case([b, a, c, a, b, d], label="a tie: the first to be said")
    early, late = sorted((a, b), key=str.casefold)
    yield case([late, early, early, late], label="a tie, not in the order of the alphabet")
    yield case([None, None, None], label="no answer at all")
    yield case([], label="no sample")
    yield case([f" {a.upper()}  "], label="one sample")
    weights = [round(float(x), 3) for x in 0.2 + torch.rand(6, generator=g)]
    yield case([b, b, b, a, a, None], [0.1, 0.15, 0.1, 0.9 + weights[0], 0.3, weights[1]], label="few, but heavy")
    yield case(shuffled(g, [a, b, c, None, a, d]), weights=weights, label="weights by keyword")
    yield case([b, "Straße", "STRASSE", b, "strasse", "straße"], label="letters that lower() doesn't fold")
    yield case([b, a, a, b], [2.0, 1.0, 1.5, 0.5], label="a tie of weights")
    yield case([a, b, b], [0.0, 0.0, 0.0], label="no sample has weight")
    yield case([f"{a}.", a, f"{b}", f"{b}", f"{a}!"], label="punctuation makes another answer")
    yield case([b, "", None, " ", "", b, "\n", None], label="most answers are empty texts")
    yield case([b, f"{c}2", f"{c}²", b, f"{c}２"], label="digits of other forms")
    spelled = [a.title(), b, a.upper(), a.lower()]
    yield case(spelled, [0.2, 0.5, 0.9, 0.1], label="the heaviest spelling isn't the first")
    yield case(shuffled(g, [a] * 45 + [b] * 70 + [c] * 60 + [None] * 90), label="265 samples")


@exercise.oracle
def numpy_bincount(answers, weights=None):
    import numpy as np

    weights = [1.0] * len(answers) if weights is None else weights
    given = [(a, w) for a, w in zip(answers, weights, strict=True) if a is not None]
    if not given or not sum(weights):
        return None, 0.0
    keys = np.array([" ".join(a.casefold().split()) for a, _ in given])
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    votes = np.bincount(group, weights=[w for _, w in given])
    best = min(np.flatnonzero(votes >= votes.max() - 1e-12), key=lambda i: first[i])
    return given[first[best]][0], float(votes[best] / sum(weights))


def _parts(one):
    return one.args[0], one.args[1] if len(one.args) > 1 else one.kwargs.get("weights")


@exercise.law("A sample without an answer lowers the share, and changes no answer")
def silence_lowers_the_share(out, one, call):
    answers, weights = _parts(one)
    if weights is not None or out[0] is None or len(answers) > 50:
        return None
    again = call([*answers, None])
    return again[0] == out[0] and same(float(again[1]), float(out[1]) * len(answers) / (len(answers) + 1))


@exercise.law("All weights doubled change nothing")
def scale_of_weights(out, one, call):
    answers, weights = _parts(one)
    if weights is None:
        return None
    again = call(answers, [2 * w for w in weights])
    return again[0] == out[0] and same(float(again[1]), float(out[1]))


def _fold(text):
    return " ".join(text.casefold().split())


def _vote(fold=_fold, tell=lambda first, key: first, share=None, last=False, ignore=False, empty=(None, 0.0)):
    """A vote in parts: how answers are folded, what is told of the best, its share, and which of equals wins."""

    def self_consistency(answers, weights=None):
        weights = [1.0] * len(answers) if weights is None or ignore else weights
        votes, first = collections.defaultdict(float), {}
        for answer, weight in zip(answers, weights, strict=True):
            if answer is not None:
                votes[fold(answer)] += weight
                first.setdefault(fold(answer), answer)
        if not votes or not sum(weights):
            return empty
        order = list(votes)[::-1] if last else list(votes)
        best = max(order, key=votes.get)
        told = share(votes, weights, best) if share else votes[best] / sum(weights)
        return tell(first[best], best), told

    return self_consistency


exercise.mistake(
    "spellings count as different answers", hint="' Oslo' and 'OSLO' are one answer: fold before counting."
)(_vote(fold=lambda text: text))
exercise.mistake("capital letters make another answer", hint="casefold() before you count.")(
    _vote(fold=lambda text: " ".join(text.split()))
)
exercise.mistake("white space within an answer makes another one", hint="' '.join(text.split()), not strip() alone.")(
    _vote(fold=lambda text: text.casefold().strip())
)
exercise.mistake("white space makes another answer", hint="' '.join(text.split()) before you count.")(
    _vote(fold=str.casefold)
)
exercise.mistake("all white space is taken out, and words run together", hint="One space stays between words.")(
    _vote(fold=lambda text: "".join(text.casefold().split()), tell=lambda first, key: " ".join(first.split()))
)
exercise.mistake("punctuation is taken away", hint="Only white space and the case of letters are folded.")(
    _vote(fold=lambda text: _fold(text.rstrip(".!? \n\t")))
)
exercise.mistake("lower() folds the letters", hint="'Straße' and 'STRASSE' are one word to casefold().")(
    _vote(fold=lambda text: " ".join(text.lower().split()))
)
exercise.mistake("the folded answer comes back", hint="Give it as it was first written.")(
    _vote(tell=lambda first, key: key)
)
exercise.mistake(
    "samples without an answer don't count in the share", hint="None is a sample, too: it agrees with nobody."
)(_vote(share=lambda votes, weights, best: votes[best] / (sum(votes.values()) or 1)))
exercise.mistake("the number of votes comes back, not their share", hint="Divide by the sum of all weights.")(
    _vote(share=lambda votes, weights, best: votes[best])
)
exercise.mistake("an empty text counts as no answer", hint="None alone is no answer; '' is one that was given.")(
    lambda answers, weights=None: _vote()([a if a and a.strip() else None for a in answers], weights)
)
exercise.mistake("other forms of a letter are folded, too", hint="casefold() and white space; no unicodedata.")(
    _vote(fold=lambda text: _fold(unicodedata.normalize("NFKC", text)))
)


@exercise.mistake("an answer has the weight of its heaviest sample", hint="The weights of all its samples add up.")
def heaviest_sample(answers, weights=None):
    weights = [1.0] * len(answers) if weights is None else weights
    most = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            most[_fold(answer)] = max(weight, most.get(_fold(answer), 0.0))
    if not most or not sum(weights):
        return None, 0.0
    best = max(most, key=most.get)
    return next(a for a in answers if a is not None and _fold(a) == best), most[best] / sum(weights)


@exercise.mistake("the heaviest spelling comes back", hint="As it was written where it came first.")
def heaviest_spelling(answers, weights=None):
    best, share = _vote()(answers, weights)
    weights = [1.0] * len(answers) if weights is None else weights
    pairs = zip(answers, weights, strict=True)
    spelled = [(a, weight) for a, weight in pairs if None not in (a, best) and _fold(a) == _fold(best)]
    return max(spelled, key=lambda pair: pair[1], default=(best, 0.0))[0], share


exercise.mistake("of equals the last one wins", hint="The one that was said first.")(_vote(last=True))
exercise.mistake("weights are ignored", hint="A sample's weight is its number of votes.")(_vote(ignore=True))
exercise.mistake("answers are counted as they stand, and weights are ignored", hint="Fold first; add up weights.")(
    _vote(fold=lambda text: text, ignore=True)
)
exercise.mistake("the share is of the samples, not of their weights", hint="Divide by the sum of all weights.")(
    _vote(share=lambda votes, weights, best: votes[best] / len(weights))
)
exercise.mistake("the margin over the second answer comes back", hint="The share of the best answer alone.")(
    _vote(share=lambda v, w, best: (v[best] - max([x for k, x in v.items() if k != best], default=0.0)) / sum(w))
)
exercise.mistake("where no sample has weight the first answer wins", hint="(None, 0.0) if all weights are 0.")(
    lambda answers, weights=None: (
        (next((a for a in answers if a is not None), None), 0.0)
        if weights is not None and not sum(weights)
        else _vote()(answers, weights)
    )
)


@exercise.mistake("the answer comes back as it was written last", hint="As it was written where it came first.")
def last_spelling(answers, weights=None):
    best, share = _vote()(answers, weights)
    told = [a for a in answers if a is not None and best is not None and _fold(a) == _fold(best)]
    return (told[-1] if told else None), share


exercise.mistake("no answer gives the empty text", hint="(None, 0.0) where nobody votes.")(_vote(empty=("", 0.0)))


@exercise.mistake("None is counted as an answer", hint="None is a sample that holds no answer: it can't win.")
def none_may_win(answers, weights=None):
    weights = [1.0] * len(answers) if weights is None else weights
    votes = collections.defaultdict(float)
    first = {}
    for answer, weight in zip(answers, weights, strict=True):
        key = answer if answer is None else _fold(answer)
        votes[key] += weight
        first.setdefault(key, answer)
    if not votes or not sum(weights):
        return None, 0.0
    best = max(votes, key=votes.get)
    return first[best], votes[best] / sum(weights)


@exercise.mistake(
    "of equals the first in the alphabet wins", hint="The one that was said first: np.unique, for one, sorts."
)
def alphabetical(answers, weights=None):
    order = sorted(range(len(answers)), key=lambda i: _fold(answers[i] or ""))
    return _vote()([answers[i] for i in order], None if weights is None else [weights[i] for i in order])


@exercise.mistake("the longest answer wins a tie", hint="The one that was said first.")
def longest(answers, weights=None):
    order = sorted(range(len(answers)), key=lambda i: (-len(answers[i] or ""), answers[i] or ""))
    return _vote()([answers[i] for i in order], None if weights is None else [weights[i] for i in order])


@exercise.alternative
def by_counter(answers, weights=None):
    weights = [1] * len(answers) if weights is None else weights
    given = [i for i, a in enumerate(answers) if a is not None]
    keys = [_fold(answers[i]) for i in given]
    if not keys or sum(weights) == 0:
        return (None, 0.0)
    totals = {key: sum(weights[i] for i, k in zip(given, keys, strict=True) if k == key) for key in keys}
    winner = next(i for i, k in zip(given, keys, strict=True) if totals[k] >= max(totals.values()) - 1e-12)
    return (answers[winner], torch.tensor(totals[_fold(answers[winner])] / sum(weights), dtype=torch.float64))


exercise.alternative(_vote())
