"""`recall_at_k(rankings, relevant, k)`: The share of the relevant passages that are among the first k."""

from __future__ import annotations

import torch

from autograde.exercise import Draft, same
from autograde.exercises.applications.rag.shared import judged_cases

exercise = Draft(
    "recall_at_k",
    points=2,
    no_gradient="a metric: nothing is trained through it",
    forbid=["sklearn"],
    hints=[
        "One question: which of its relevant passages are among the first k? Divide by what?",
        "len(set(ranking[:k]) & set(relevant)) / len(set(relevant)), then the mean over the questions that have any.",
        "`shares = [len({*r[:k]} & {*w}) / len({*w}) for r, w in zip(rankings, relevant) if w]`; "
        "`sum(shares) / len(shares)` or 0.0.",
    ],
)

exercise.cases(judged_cases(ks=(3, 2, 1, 9, 5)))


@exercise.oracle
def sklearn_recall(rankings, relevant, k):
    """Recall of a table of yes and no, the mean over its rows."""
    from sklearn.metrics import recall_score

    asked = [(ranking[:k], wanted) for ranking, wanted in zip(rankings, relevant, strict=True) if wanted]
    if not asked:
        return 0.0
    known = sorted({item for pair in asked for items in pair for item in items}, key=str)
    tables = [torch.tensor([[item in pair[side] for item in known] for pair in asked]).numpy() for side in (1, 0)]
    return float(recall_score(*tables, average="samples", zero_division=0))


def _asked(one):
    return dict(zip(("rankings", "relevant", "k"), one.args, strict=False)) | one.kwargs


@exercise.law("It never falls with k, and reaches 1 if everything relevant is ranked")
def grows(out, one, call):
    asked = _asked(one)
    found = [float(call(asked["rankings"], asked["relevant"], k)) for k in (1, 2, 4, 10**6)]
    pairs = list(zip(asked["rankings"], asked["relevant"], strict=True))
    whole = any(wanted for _, wanted in pairs) and all({*wanted} <= {*ranking} for ranking, wanted in pairs)
    return found == sorted(found) and found[0] >= 0 and found[-1] <= 1 and (not whole or same(found[-1], 1.0))


@exercise.law("It is the mean over the questions that have something relevant, each judged alone")
def questions_stand_alone(out, one, call):
    asked = _asked(one)
    pairs = [pair for pair in zip(asked["rankings"], asked["relevant"], strict=True) if pair[1]]
    alone = [float(call([ranking], [wanted], asked["k"])) for ranking, wanted in pairs]
    return same(sum(alone) / max(len(alone), 1), float(out))


def _share(ranking, wanted, k):
    return len({*ranking[:k]} & {*wanted}) / len({*wanted})


def _made(share=_share, keep=lambda wanted: bool(wanted), mean=lambda shares: sum(shares) / max(len(shares), 1)):
    """Recall in parts: of one question, which questions count, the mean over them."""

    def recall_at_k(rankings, relevant, k):
        pairs = zip(rankings, relevant, strict=True)
        return mean([share(ranking, wanted, k) if wanted else 0.0 for ranking, wanted in pairs if keep(wanted)])

    return recall_at_k


right = _made()

exercise.mistake("hits are divided by k", hint="That is precision. Divide by the number of relevant passages.")(
    _made(lambda ranking, wanted, k: len({*ranking[:k]} & {*wanted}) / k)
)

exercise.mistake(
    "one hit among the first k is enough", hint="That is the hit rate. Recall asks which share of them is found."
)(_made(lambda ranking, wanted, k: float(bool({*ranking[:k]} & {*wanted}))))

exercise.mistake("hits are divided by the smaller of k and the number of relevant ones", hint="By all relevant ones.")(
    _made(lambda ranking, wanted, k: len({*ranking[:k]} & {*wanted}) / min(k, len({*wanted})))
)

exercise.mistake("a number is taken for its text", hint="Names are compared as they are: 1 is not '1'.")(
    _made(lambda ranking, wanted, k: len({*map(str, ranking[:k])} & {*map(str, wanted)}) / len({*map(str, wanted)}))
)

exercise.mistake("a passage that is ranked twice counts twice", hint="A set: found is found.")(
    _made(lambda ranking, wanted, k: sum(item in wanted for item in ranking[:k]) / len({*wanted}))
)

exercise.mistake("a relevant passage that is listed twice counts twice", hint="set(relevant), above and below.")(
    _made(lambda ranking, wanted, k: sum(item in ranking[:k] for item in wanted) / len(wanted))
)

exercise.mistake("repeated passages are taken out before the first k are", hint="The first k places, as they stand.")(
    _made(lambda ranking, wanted, k: _share(list(dict.fromkeys(ranking)), wanted, k))
)

exercise.mistake("a question without anything relevant counts as 0", hint="It can't be judged: leave it out.")(
    _made(keep=lambda wanted: True)
)

exercise.mistake("a question without anything relevant counts as 1", hint="It can't be judged: leave it out.")(
    lambda rankings, relevant, k: (
        sum(_share(r, w, k) if w else 1.0 for r, w in zip(rankings, relevant, strict=True)) / max(len(rankings), 1)
    )
)

exercise.mistake("a question whose ranking is empty is left out", hint="Nothing found: it counts as 0.")(
    lambda rankings, relevant, k: right(
        *map(list, zip(*[pair for pair in zip(rankings, relevant, strict=True) if pair[0]] or [([], [])], strict=True)),
        k,
    )
)

exercise.mistake("hits are divided by the relevant ones that are ranked", hint="By all relevant ones, found or not.")(
    _made(lambda ranking, wanted, k: len({*ranking[:k]} & {*wanted}) / max(len({*ranking} & {*wanted}), 1))
)

exercise.mistake("all relevant passages have to be found", hint="Each one that is found counts for its share.")(
    _made(lambda ranking, wanted, k: float({*wanted} <= {*ranking[:k]}))
)

exercise.mistake("k is ignored", hint="The first k places count.")(
    _made(lambda ranking, wanted, k: _share(ranking, wanted, len(ranking)))
)

exercise.mistake("only k - 1 places count", hint="ranking[:k].")(
    _made(lambda ranking, wanted, k: _share(ranking, wanted, k - 1))
)

exercise.mistake("k + 1 places count", hint="ranking[:k].")(
    _made(lambda ranking, wanted, k: _share(ranking, wanted, k + 1))
)

exercise.mistake("the last k places count", hint="The best stand first.")(
    _made(lambda ranking, wanted, k: len({*ranking[-k:]} & {*wanted}) / len({*wanted}))
)

exercise.mistake("it is given in percent", hint="From 0 to 1.")(
    _made(mean=lambda shares: 100 * sum(shares) / max(len(shares), 1))
)

exercise.mistake("shares are added up, not averaged", hint="The mean over the questions.")(_made(mean=sum))


@exercise.mistake(
    "hits of all questions are counted together", hint="The mean of each question's share: questions weigh the same."
)
def recall_pooled(rankings, relevant, k):
    found = sum(len({*ranking[:k]} & {*wanted}) for ranking, wanted in zip(rankings, relevant, strict=True))
    return found / max(sum(len({*wanted}) for wanted in relevant), 1)


@exercise.mistake("without any question to judge, it divides by 0", hint="Then the result is 0.0.")
def recall_divides(rankings, relevant, k):
    shares = [_share(ranking, wanted, k) for ranking, wanted in zip(rankings, relevant, strict=True) if wanted]
    return sum(shares) / len(shares)


@exercise.mistake("only the first relevant passage is looked for", hint="All of them.")
def recall_of_first(rankings, relevant, k):
    return right(rankings, [wanted[:1] for wanted in relevant], k)


exercise.alternative(right)


@exercise.alternative
def recall_by_loop(rankings, relevant, k):
    shares = []
    for i in range(len(rankings)):
        wanted = sorted(set(relevant[i]), key=str)
        if wanted:
            shares.append(torch.tensor([float(item in list(rankings[i])[:k]) for item in wanted]).mean())
    return torch.stack(shares).mean() if shares else torch.tensor(0.0)
