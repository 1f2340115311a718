"""`rouge_l(candidate, reference)`: Precision, recall and F1 of the longest common subsequence."""

from __future__ import annotations

import functools
from collections import Counter
from difflib import SequenceMatcher

from rapidfuzz.distance import LCSseq

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.metrics.shared import WORDS, edited, sentence, share
from autograde.exercises.shared import only

exercise = Draft(
    "rouge_l",
    points=3,
    forbid=["rapidfuzz"],
    no_gradient="a metric: nothing is trained through it",
    hints=[
        "How long is the longest common subsequence of two texts, if you know the answer for all shorter beginnings?",
        "table[i][j] is the length for the first i and j tokens: diagonal + 1 where the tokens agree, else the larger "
        "of above and left. Row 0 and column 0 are 0.",
        "p = l / len(candidate), r = l / len(reference), f = 2 * l / (len(candidate) + len(reference)); if l == 0: "
        "(0.0, 0.0, 0.0).",
    ],
)


@exercise.cases
def rouge_cases(g):
    long = sentence(g, 15)
    yield case(["police", "kill", "the", "gunman"], ["police", "killed", "the", "gunman"], label="Lin's example")
    yield case(["the", "gunman", "kill", "police"], ["police", "killed", "the", "gunman"], label="turned round")
    yield case(sentence(g, 12, WORDS[:5]), sentence(g, 9, WORDS[:5]), label="twelve against nine, few words")
    yield case(edited(g, long, 5), long, label="five of fifteen words are wrong")
    yield case(long[::2], long, label="every second word")
    yield case(candidate=long + sentence(g, 10), reference=long[:6], label="long against short, by keyword")
    # Greedy matching takes the first "b", far to the right, and loses the rest.
    yield case(["b", "a", "c", "d"], ["a", "c", "d", "b"], label="the first word stands last")
    yield case(["a", "a", "a", "b"], ["a", "b", "b", "a", "a"], label="repeated words")
    yield case(["The", "Cat", "sat", "on", "the", "mat"], ["the", "cat", "Sat", "on", "a", "mat"], label="capitals")
    yield case(["up"], ["up"], label="one word")
    yield case(["yes"], ["no"], label="nothing in common")
    yield case([], ["a", "b"], label="an empty candidate")
    yield case([], [], label="both empty")
    yield case(["a", "b", "c"], [], label="an empty reference")
    yield case(sentence(g, 60), sentence(g, 45), label="sixty against forty-five words")


@exercise.oracle
def rapid_rouge(candidate, reference):
    """rapidfuzz finds the longest common subsequence; precision, recall and F1 as in Lin's paper with beta = 1."""
    found = LCSseq.similarity(candidate, reference)
    if not found:
        return 0.0, 0.0, 0.0
    return found / len(candidate), found / len(reference), 2 * found / (len(candidate) + len(reference))


def _texts(one):
    return one.args if one.args else (one.kwargs["candidate"], one.kwargs["reference"])


@exercise.law("Exchanging the texts exchanges precision and recall")
def exchanging_exchanges(out, one, call):
    a, b = _texts(one)
    p, r, f = (float(x) for x in call(b, a))
    whole = call(a + ["q"], a)[1]
    return same([r, p, f], [float(x) for x in out]) and (not a or same(float(whole), 1.0))


@exercise.law("Order counts: a text backwards has one word in common")
def order_counts(out, one, call):
    """Different words backwards have one word in common in order."""
    words = [f"w{i}" for i in range(len(_texts(one)[1]) + 2)]
    return same(float(call(words[::-1], words)[1]), 1 / len(words))


@exercise.law("Words strewn in between cost precision, not recall")
def gaps_are_free(out, one, call):
    """Words strewn in between cost precision, not recall."""
    reference = _texts(one)[1]
    if not reference:
        return None
    strewn = [token for i, word in enumerate(reference) for token in (f"x{i}", word)]
    p, r, _ = (float(x) for x in call(strewn, reference))
    return same(r, 1.0) and same(p, 0.5)


@exercise.law("The third number is the harmonic mean")
@only("Lin's example")
def f_is_harmonic(out, one, call):
    """Four words of a reference of twelve."""
    words = [f"w{i}" for i in range(12)]
    return same([float(x) for x in call(words[:4], words)], [1.0, 1 / 3, 0.5])


def _common(a, b):
    """The length of the longest common subsequence, by the table."""
    above = [0] * (len(b) + 1)
    for x in a:
        row = [0]
        for j, y in enumerate(b):
            row.append(above[j] + 1 if x == y else max(above[j + 1], row[j]))
        above = row
    return above[-1]


def _harmonic(p, r):
    return 2 * p * r / (p + r) if p + r else 0.0


def _rouge(common=_common, f=_harmonic, order=lambda p, r: (p, r)):
    def rouge_l(candidate, reference):
        found = common(candidate, reference)
        p, r = order(share(found, len(candidate)), share(found, len(reference)))
        return p, r, f(p, r)

    return rouge_l


def _substring(a, b):
    return SequenceMatcher(None, a, b, autojunk=False).find_longest_match().size


exercise.mistake(
    "the longest common substring is taken",
    hint="A subsequence may have gaps. If x != y, the table takes the larger of its neighbors, not 0.",
)(_rouge(_substring))

exercise.mistake(
    "common words are counted in any order", hint="That is ROUGE-1. The common words have to stand in the same order."
)(_rouge(lambda a, b: sum((Counter(a) & Counter(b)).values())))

exercise.mistake(
    "different common words are counted", hint="Repetitions count, and order does: the longest common subsequence."
)(_rouge(lambda a, b: len(set(a) & set(b))))


def _greedy(a, b):
    """Walks through a and takes the next place in b where the token stands."""
    found, place = 0, 0
    for x in a:
        if x in b[place:]:
            place, found = b.index(x, place) + 1, found + 1
    return found


exercise.mistake(
    "words are matched greedily from the left",
    hint="An early word that stands late in the reference blocks all others. You need the table.",
)(_rouge(_greedy))

exercise.mistake("words at the same place are counted", hint="One word more at the beginning would shift them all.")(
    _rouge(lambda a, b: sum(x == y for x, y in zip(a, b, strict=False)))
)


def _without_padding(a, b):
    """The table begins with the first pair: a match in the first row or column finds nothing above it."""
    table = [[0] * len(b) for _ in a]
    for i in range(1, len(a)):
        for j in range(1, len(b)):
            table[i][j] = table[i - 1][j - 1] + 1 if a[i] == b[j] else max(table[i - 1][j], table[i][j - 1])
    return table[-1][-1] if a and b else 0


exercise.mistake(
    "the table has no row and column of zeros in front",
    hint="A match of the first words needs a 0 to add to: (len + 1) × (len + 1).",
)(_rouge(_without_padding))


def _either_way(a, b):
    """A match takes the larger neighbor plus one, instead of the diagonal one."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = max(table[i][j + 1], table[i + 1][j]) + (x == y)
    return table[-1][-1]


exercise.mistake(
    "a match adds 1 to the neighbors instead of the diagonal",
    hint="A match uses up both tokens: table[i - 1][j - 1] + 1.",
)(_rouge(_either_way))

exercise.mistake(
    "precision and recall are exchanged", hint="Precision divides by the candidate, recall by the reference."
)(_rouge(order=lambda p, r: (r, p)))

exercise.mistake("F1 is the arithmetic mean", hint="2pr / (p + r)")(_rouge(f=lambda p, r: (p + r) / 2))

exercise.mistake(
    "F weighs recall more (beta = 1.2)", hint="Some older packages do so. Here beta = 1, as in rouge-score."
)(_rouge(f=lambda p, r: (1 + 1.2**2) * p * r / (r + 1.2**2 * p) if p + r else 0.0))

exercise.mistake("recall is returned for F1", hint="2pr / (p + r)")(_rouge(f=lambda p, r: r))


@exercise.mistake("an empty text divides by 0", hint="All three are 0 then.")
def rouge_divides_by_zero(candidate, reference):
    found = _common(candidate, reference)
    p, r = found / len(candidate), found / len(reference)
    return p, r, 2 * p * r / (p + r)


rouge_right = _rouge()


exercise.mistake("F1 is the geometric mean", hint="2pr / (p + r)")(_rouge(f=lambda p, r: (p * r) ** 0.5))

exercise.mistake("words are matched greedily, reference first", hint="You need the table: no greedy walk is right.")(
    _rouge(lambda a, b: _greedy(b, a))
)

exercise.mistake("both are divided by the longer text", hint="Precision by the candidate, recall by the reference.")(
    lambda candidate, reference: (share(_common(candidate, reference), max(len(candidate), len(reference))),) * 3
)

exercise.mistake("they are given in percent", hint="From 0 to 1 here.")(
    lambda candidate, reference: tuple(100 * x for x in rouge_right(candidate, reference))
)

exercise.mistake("F1 comes first", hint="(precision, recall, F1)")(
    lambda candidate, reference: rouge_right(candidate, reference)[2:] + rouge_right(candidate, reference)[:2]
)


@exercise.mistake("two empty texts are a perfect match", hint="0/0 is 0 here.")
def rouge_empty_is_one(candidate, reference):
    return (1.0, 1.0, 1.0) if not candidate and not reference else rouge_right(candidate, reference)


@exercise.mistake("letters are compared instead of tokens", hint="A token is one item.")
def rouge_of_letters(candidate, reference):
    return rouge_right(list("".join(candidate)), list("".join(reference)))


@exercise.mistake("capitals are changed to small letters", hint="Tokens come as they should be compared.")
def rouge_lower_case(candidate, reference):
    return rouge_right([t.lower() for t in candidate], [t.lower() for t in reference])


exercise.alternative(rouge_right)


@exercise.alternative
def rouge_recursive(candidate, reference):
    @functools.cache
    def common(i, j):
        if i == len(candidate) or j == len(reference):
            return 0
        if candidate[i] == reference[j]:
            return 1 + common(i + 1, j + 1)
        return max(common(i + 1, j), common(i, j + 1))

    found = common(0, 0)
    if not found:
        return [0, 0, 0]
    return [found / len(candidate), found / len(reference), 2 * found / (len(candidate) + len(reference))]
