"""`mrr(rankings, relevant, k=None)`: The mean reciprocal rank: how soon the first relevant passage comes."""

from __future__ import annotations

import math
from fractions import Fraction

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.rag.shared import judged_cases
from autograde.exercises.applications.rag.shared import ranking as drawn

exercise = Draft(
    "mrr",
    points=2,
    no_gradient="a metric: nothing is trained through it",
    rtol=1e-5,  # 0.5833 is not 7 / 12
    atol=1e-6,
    hints=[
        "For one question only one place matters. Which?",
        "1 / place of the first relevant passage, with places from 1; 0 if none comes within the first k.",
        "`next((1 / place for place, item in enumerate(ranking[:k], 1) if item in wanted), 0.0)`, and the mean over "
        "the questions that have something relevant.",
    ],
)


@exercise.cases
def mrr_cases(g):
    yield from judged_cases(ks=(None, 2, 1, 9, 5))(g)
    late = drawn(g, range(60), 50), drawn(g, range(60), 50)
    yield case(late, [[late[0][30]], [late[1][11], late[1][40]]], label="the first one comes late, and no k is passed")


@exercise.oracle
def exact_mrr(rankings, relevant, k=None):
    """In exact fractions, one question after the other."""
    total, questions = Fraction(0), 0
    for ranking, wanted in zip(rankings, relevant, strict=True):
        if not wanted:
            continue
        questions += 1
        for place, item in enumerate(ranking, 1):
            if item in wanted:
                if k is None or place <= k:
                    total += Fraction(1, place)
                break
    return float(total / questions) if questions else 0.0


def _asked(one):
    return dict(zip(("rankings", "relevant", "k"), one.args, strict=False)) | one.kwargs


@exercise.law("Only the first relevant passage counts: what comes after it may change")
def only_the_first(out, one, call):
    asked = _asked(one)
    cut = []
    for ranking, wanted in zip(asked["rankings"], asked["relevant"], strict=True):
        place = next((i for i, item in enumerate(ranking) if item in wanted), len(ranking))
        cut.append([*ranking[: place + 1], "somebody", "else"])
    return same(float(call(cut, asked["relevant"], asked.get("k"))), float(out))


@exercise.law("One place further down: from 1 to 1/2, from 1/2 to 1/3")
def one_place_down(out, one, call):
    asked = _asked(one)
    wanted = next((wanted for wanted in asked["relevant"] if wanted), None)
    if wanted is None:
        return None
    found = [float(call([["nobody"] * i + list(wanted)], [wanted])) for i in range(4)]
    return same(found, [1.0, 1 / 2, 1 / 3, 1 / 4])


@exercise.law("It is the mean over the questions that have something relevant, each judged alone")
def questions_stand_alone(out, one, call):
    asked = _asked(one)
    pairs = [pair for pair in zip(asked["rankings"], asked["relevant"], strict=True) if pair[1]]
    alone = [float(call([ranking], [wanted], asked.get("k"))) for ranking, wanted in pairs]
    return same(sum(alone) / max(len(alone), 1), float(out))


def _place(ranking, wanted):
    """The place of the first relevant one, from 1; None if there is none."""
    return next((place for place, item in enumerate(ranking, 1) if item in wanted), None)


def _within(k):
    return float("inf") if k is None else k


def _gain(ranking, wanted, k):
    place = _place(ranking, wanted)
    return 1 / place if place and place <= _within(k) else 0.0


def _made(gain=_gain, keep=lambda ranking, wanted: bool(wanted), finish=lambda gains: sum(gains) / max(len(gains), 1)):
    """MRR in parts: of one question, which questions count, the mean over them."""

    def mrr(rankings, relevant, k=None):
        pairs = zip(rankings, relevant, strict=True)
        return finish([gain(ranking, wanted, k) for ranking, wanted in pairs if keep(ranking, wanted)])

    return mrr


right = _made()


def _texts(lists):
    return [list(map(str, one)) for one in lists]


def _mean_place(gains):
    places = [1 / gain for gain in gains if gain]
    return len(places) / sum(places) if places else 0.0


exercise.mistake("places are counted from 0", hint="The first place is 1: reciprocal 1.")(
    _made(lambda ranking, wanted, k: 1 / (1 + _place(ranking, wanted)) if _gain(ranking, wanted, k) else 0.0)
)

exercise.mistake("a number is taken for its text", hint="Names are compared as they are: 1 is not '1'.")(
    lambda rankings, relevant, k=None: right(_texts(rankings), _texts(relevant), k)
)

exercise.mistake("questions whose ranking holds nothing relevant are left out", hint="They count, with 0.")(
    _made(finish=lambda gains: sum(gains) / max(sum(gain > 0 for gain in gains), 1))
)

exercise.mistake("it is one over the mean place", hint="The mean of the reciprocals, not the other way round.")(
    _made(finish=_mean_place)
)

exercise.mistake("all relevant passages add their reciprocals", hint="Only the first one that comes counts.")(
    _made(
        lambda ranking, wanted, k: sum(
            1 / place for place, item in enumerate(ranking, 1) if item in wanted and place <= _within(k)
        )
    )
)

exercise.mistake("it is the mean average precision", hint="Only the first relevant passage counts: 1 / place.")(
    _made(
        lambda ranking, wanted, k: (
            sum(
                sum(other in wanted for other in ranking[:place]) / place
                for place, item in enumerate(ranking, 1)
                if item in wanted and place <= _within(k)
            )
            / len({*wanted})
        )
    )
)

exercise.mistake("the reciprocals of all relevant passages are averaged", hint="Only the first one that comes counts.")(
    _made(
        lambda ranking, wanted, k: (
            sum(1 / place for place, item in enumerate(ranking, 1) if item in wanted and place <= _within(k))
            / len({*wanted})
        )
    )
)

exercise.mistake("the last relevant passage counts", hint="The first one that comes.")(
    _made(
        lambda ranking, wanted, k: max(
            ((place, 1 / place) for place, item in enumerate(ranking, 1) if item in wanted and place <= _within(k)),
            default=(0, 0.0),
        )[1]
    )
)

exercise.mistake("questions of which nothing is found are left out", hint="They count as 0.")(
    _made(keep=lambda ranking, wanted: _place(ranking, wanted) is not None)
)

exercise.mistake("a question without anything relevant counts as 0", hint="It can't be judged: leave it out.")(
    _made(keep=lambda ranking, wanted: True)
)

exercise.mistake("k is ignored", hint="Beyond place k nothing counts.")(
    _made(lambda ranking, wanted, k: _gain(ranking, wanted, None))
)

exercise.mistake("only k - 1 places count", hint="Place k still counts.")(
    _made(lambda ranking, wanted, k: _gain(ranking, wanted, None if k is None else k - 1))
)

exercise.mistake("k + 1 places count", hint="Place k is the last that counts.")(
    _made(lambda ranking, wanted, k: _gain(ranking, wanted, None if k is None else k + 1))
)

exercise.mistake("without k, ten places count", hint="None: all places.")(
    _made(lambda ranking, wanted, k: _gain(ranking, wanted, 10 if k is None else k))
)

exercise.mistake(
    "the place of the first listed relevant passage counts", hint="Whichever of them comes first in the ranking."
)(_made(lambda ranking, wanted, k: _gain(ranking, wanted[:1], k)))

exercise.mistake("the place itself is averaged", hint="Its reciprocal: 1 / place.")(
    _made(lambda ranking, wanted, k: 1 / _gain(ranking, wanted, k) if _gain(ranking, wanted, k) else 0.0)
)

exercise.mistake("reciprocals are added up, not averaged", hint="The mean over the questions.")(_made(finish=sum))

exercise.mistake("it is discounted by a logarithm", hint="That is how DCG counts. Here: 1 / place.")(
    _made(
        lambda ranking, wanted, k: (
            math.log(2) / math.log(1 + _place(ranking, wanted)) if _gain(ranking, wanted, k) else 0.0
        )
    )
)

exercise.mistake("the mean is rounded to four decimals", hint="The number as it is: whoever prints it may round.")(
    _made(finish=lambda gains: round(sum(gains) / max(len(gains), 1), 4))
)

exercise.mistake("the best question counts for all", hint="The mean over the questions.")(
    _made(finish=lambda gains: max(gains, default=0.0))
)


@exercise.mistake("repeated passages are taken out before places are counted", hint="The places as they stand.")
def mrr_unique(rankings, relevant, k=None):
    return right([list(dict.fromkeys(ranking)) for ranking in rankings], relevant, k)


@exercise.mistake("without any question to judge, it divides by 0", hint="Then the result is 0.0.")
def mrr_divides(rankings, relevant, k=None):
    gains = [_gain(ranking, wanted, k) for ranking, wanted in zip(rankings, relevant, strict=True) if wanted]
    return sum(gains) / len(gains)


exercise.alternative(right)


@exercise.alternative
def mrr_by_loop(rankings, relevant, k=None):
    gains = []
    for i, wanted in enumerate(relevant):
        if len(wanted) == 0:
            continue
        top = rankings[i] if k is None else rankings[i][:k]
        places = [top.index(item) for item in wanted if item in top]
        gains.append(1.0 / (min(places) + 1) if places else 0)
    return 0.0 if not gains else sum(gains) / len(gains)
