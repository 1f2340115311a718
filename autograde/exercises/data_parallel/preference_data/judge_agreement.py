"""`judge_agreement(straight, swapped, people, lengths)`: How far a judge can be trusted, asked in both orders."""

from __future__ import annotations

import math
import warnings

import torch

from autograde.exercise import Draft, case, same

exercise = Draft(
    "judge_agreement",
    points=4,
    forbid=["sklearn"],
    no_gradient="verdicts are counted, not trained through",
    hints=[
        "A verdict names a place. Which answer stood there, in each of the two orders?",
        "Straight, place 0 is answer 0; swapped, place 0 is answer 1. So the answer named when swapped is 1 - swapped, "
        "and the judge is steady where straight == 1 - swapped.",
        "kappa = (agree - by_chance) / (1 - by_chance) over the steady items, with agree the share of equal answers "
        "and by_chance the sum over both answers of (judge's share) * (people's share); 0.0 where 1 - by_chance is 0.",
    ],
)


def _asked(g, n, first=0.35, right=0.75, longer=0.3):
    """A judge who at times names the first place whatever stands there, and at times the longer answer."""
    people = (torch.rand(n, generator=g) < 0.35).long()
    lengths = torch.randint(1, 40, (n, 2), generator=g)
    lengths[::4, 1] = lengths[::4, 0]
    true = torch.where(torch.rand(n, generator=g) < right, people, 1 - people)
    true = torch.where(torch.rand(n, generator=g) < longer, lengths.argmax(1), true)
    blind = torch.rand(2, n, generator=g) < first
    straight = torch.where(blind[0], 0, true)
    return straight, torch.where(blind[1], 0, 1 - true), people, lengths


@exercise.cases
def judges(g):
    few = torch.tensor
    yield case(
        few([0, 0, 1, 0, 1, 0]), few([1, 0, 0, 1, 1, 0]), few([0, 0, 1, 1, 1, 0]),
        few([[5, 3], [4, 4], [2, 6], [7, 7], [3, 9], [8, 1]]), label="six items",
    )  # fmt: skip
    yield case(*_asked(g, 40), label="forty items")
    yield case(*_asked(g, 60, first=0.6), label="a judge who likes the first place")
    straight, swapped, people, lengths = _asked(g, 50)
    yield case(1 - straight, 1 - swapped, people, lengths, label="a judge who likes the second place")
    yield case(*_asked(g, 45, first=0.05, longer=0.9), label="a judge who likes long answers")
    yield case(*_asked(g, 40, first=0.1, right=0.1, longer=0.0), label="a judge who is mostly wrong")
    n = 12
    people, lengths = _asked(g, n)[2:]
    zeros = torch.zeros(n, dtype=torch.int64)
    yield case(zeros, zeros, people, lengths, label="always the first place")
    yield case(zeros, zeros + 1, zeros, lengths, label="always answer 0, and so do people")
    yield case(zeros, zeros + 1, people, torch.full((n, 2), 7), label="all answers equally long")
    yield case(few([1]), few([0]), few([0]), few([[3, 8]]), label="one item")
    yield case(*_asked(g, 800, right=0.9, first=0.2), label="800 items")


@exercise.oracle
def sklearn_kappa(straight, swapped, people, lengths):
    from sklearn.metrics import cohen_kappa_score

    steady = [i for i, (a, b) in enumerate(zip(straight.tolist(), swapped.tolist(), strict=True)) if a != b]
    judge, human = straight[steady].numpy(), people[steady].numpy()
    kappa = 0.0
    if steady:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where there is one class
            kappa = float(cohen_kappa_score(judge, human, labels=[0, 1]))
    sized = [(named, *lengths[i].tolist()) for i, named in zip(steady, judge.tolist(), strict=True)]
    sized = [named == int(second > first) for named, first, second in sized if first != second]
    return {
        "first": sum(verdict == 0 for verdict in [*straight.tolist(), *swapped.tolist()]) / (2 * len(people)),
        "steady": len(steady) / len(people),
        "kappa": 0.0 if math.isnan(kappa) else kappa,
        "longer": sum(sized) / len(sized) if sized else 0.5,
    }


def _is_counted(out, one, call):
    return set(out) == {"first", "steady", "kappa", "longer"}


@exercise.law("If the answers change their numbers, only the numbers change")
def renamed(out, one, call):
    straight, swapped, people, lengths = one.args
    return same(call(swapped, straight, 1 - people, lengths.flip(1)), out)


@exercise.law("A judge who only looks at the place is never steady")
def place_alone(out, one, call):
    _, _, people, lengths = one.args
    found = call(torch.ones_like(people), torch.ones_like(people), people, lengths)
    return same(found, {"first": 0.0, "steady": 0.0, "kappa": 0.0, "longer": 0.5})


@exercise.law("People who judge people agree with themselves")
def people_as_judge(out, one, call):
    people, lengths = one.args[2:]
    both = people.unique().numel() > 1
    found = call(people, 1 - people, people, lengths)
    return same([found["first"], found["steady"], found["kappa"]], [0.5, 1.0, 1.0 if both else 0.0])


def _agreement(
    named=lambda straight, swapped: (straight, straight == 1 - swapped),
    first=lambda straight, swapped, steady: torch.cat([straight, swapped]) == 0,
    chance=lambda a, b: float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())),
    undefined=0.0,
    longer=lambda judge, lengths: (judge == lengths.argmax(1))[lengths[:, 0] != lengths[:, 1]],
    scale=lambda agree, chance: (agree - chance) / (1 - chance),
    none=0.5,
    counted=lambda steady: steady,
):
    """A report from its parts."""

    def judge_agreement(straight, swapped, people, lengths):
        judge, steady = named(straight, swapped)
        kept = counted(steady)
        kappa = undefined
        if kept.any():
            a, b = judge[kept].double(), people[kept].double()
            agree, by_chance = float((a == b).double().mean()), chance(a, b)
            kappa = scale(agree, by_chance) if by_chance < 1 else undefined
        long = longer(judge[kept], lengths[kept])
        return {
            "first": float(first(straight, swapped, steady).double().mean()) if len(people) else 0.0,
            "steady": float(steady.double().mean()),
            "kappa": kappa,
            "longer": float(long.double().mean()) if len(long) else none,
        }

    return judge_agreement


right = _agreement()
exercise.alternative(right)

exercise.mistake(
    "verdicts are compared as places, not as answers",
    hint="When swapped, place 0 holds answer 1. A judge who says 0 and 0 has named both answers.",
)(_agreement(named=lambda straight, swapped: (straight, straight == swapped)))
exercise.mistake(
    "kappa and length count all items by the straight verdict",
    hint="Only where both orders name the same answer is there a verdict.",
)(_agreement(counted=torch.ones_like))
exercise.mistake(
    "the first place is counted in the straight order alone", hint="All 2n verdicts name a place; count them all."
)(_agreement(first=lambda straight, swapped, steady: straight == 0))
exercise.mistake(
    "the share of the first place is that of answer 0",
    hint="`first` is about places, which stand in straight and swapped as they are.",
)(_agreement(first=lambda straight, swapped, steady: torch.cat([straight, 1 - swapped]) == 0))
exercise.mistake("`first` is the share of the second place", hint="Place 0 is the first.")(
    _agreement(first=lambda straight, swapped, steady: torch.cat([straight, swapped]) == 1)
)
exercise.mistake(
    "plain agreement stands for kappa", hint="Two who toss coins agree half of the time. Take away what chance gives."
)(_agreement(scale=lambda agree, chance: agree))
exercise.mistake(
    "chance is taken to be one half",
    hint="Who nearly always says 0 agrees often with others who do: multiply the two shares, answer by answer.",
)(_agreement(chance=lambda a, b: 0.5))
exercise.mistake(
    "chance comes from both raters' votes pooled (Scott's pi)",
    hint="Cohen's kappa multiplies the judge's own share by people's own share.",
)(_agreement(chance=lambda a, b: float(((a.mean() + b.mean()) / 2) ** 2 + (1 - (a.mean() + b.mean()) / 2) ** 2)))
exercise.mistake("chance comes from people's shares alone", hint="The judge's share times people's share.")(
    _agreement(chance=lambda a, b: float(b.mean() ** 2 + (1 - b.mean()) ** 2))
)
exercise.mistake(
    "chance counts one of the two answers alone", hint="Two can agree by chance on answer 0, too: add both products."
)(_agreement(chance=lambda a, b: float(a.mean() * b.mean())))
exercise.mistake("kappa isn't divided by what chance leaves", hint="Perfect agreement is 1: divide by 1 - by_chance.")(
    _agreement(scale=lambda agree, chance: agree - chance)
)
exercise.mistake("a negative kappa is cut off at 0", hint="Who agrees less often than by chance has a negative kappa.")(
    _agreement(scale=lambda agree, chance: max((agree - chance) / (1 - chance), 0.0))
)
exercise.mistake("an undefined kappa is NaN", hint="The docstring asks for 0.0 where chance alone agrees always.")(
    _agreement(undefined=math.nan)
)
exercise.mistake("an undefined kappa counts as perfect", hint="0.0: nothing beyond chance has been shown.")(
    _agreement(undefined=1.0)
)
exercise.mistake(
    "answers of equal length count, too", hint="There is no longer one. Leave those items out of `longer`."
)(_agreement(longer=lambda judge, lengths: judge == lengths.argmax(1)))
exercise.mistake(
    "answers of equal length count as the longer one", hint="There is no longer one. Leave those items out of `longer`."
)(_agreement(longer=lambda judge, lengths: (judge == lengths.argmax(1)) | (lengths[:, 0] == lengths[:, 1])))
exercise.mistake(
    "answers of equal length count as if the second were longer", hint="There is no longer one. Leave those items out."
)(_agreement(longer=lambda judge, lengths: judge == (lengths[:, 1] >= lengths[:, 0]).long()))
exercise.mistake("`longer` is the share of the shorter answer", hint="How often the longer one is named.")(
    _agreement(longer=lambda judge, lengths: (judge != lengths.argmax(1))[lengths[:, 0] != lengths[:, 1]])
)
exercise.mistake("without answers of different length `longer` is 0", hint="Then it is 0.5: no bias has been seen.")(
    _agreement(none=0.0)
)


@exercise.mistake(
    "`longer` counts items that aren't steady, too",
    hint="Only where both orders name the same answer is there a verdict.",
)
def longer_of_unsteady(straight, swapped, people, lengths):
    found, other = right(straight, swapped, people, lengths), lengths[:, 0] != lengths[:, 1]
    named = (straight == lengths.argmax(1))[other]
    return found | {"longer": float(named.double().mean()) if len(named) else 0.5}


@exercise.mistake("kappa counts items that aren't steady, too", hint="Over the steady items alone.")
def kappa_of_unsteady(straight, swapped, people, lengths):
    found = _agreement(counted=torch.ones_like)(straight, swapped, people, lengths)
    return right(straight, swapped, people, lengths) | {"kappa": found["kappa"]}


@exercise.mistake("`longer` is about what people name", hint="How often the judge names the longer one.")
def longer_of_people(straight, swapped, people, lengths):
    steady = (straight == 1 - swapped) & (lengths[:, 0] != lengths[:, 1])
    named = (people == lengths.argmax(1))[steady]
    longer = float(named.double().mean()) if len(named) else 0.5
    return right(straight, swapped, people, lengths) | {"longer": longer}


@exercise.mistake("`steady` is the share of items that aren't", hint="Steady: the same answer in both orders.")
def unsteady_share(straight, swapped, people, lengths):
    found = right(straight, swapped, people, lengths)
    return found | {"steady": 1 - found["steady"]}


@exercise.mistake("`longer` is a share of all items", hint="Of the steady items whose answers differ in length.")
def longer_of_all(straight, swapped, people, lengths):
    found = right(straight, swapped, people, lengths)
    steady = straight == 1 - swapped
    named = steady & (lengths[:, 0] != lengths[:, 1]) & (straight == lengths.argmax(1))
    return found | {"longer": float(named.double().mean())}


@exercise.mistake(
    "a judge who isn't steady counts as one who disagrees with people",
    hint="Those items have no verdict: kappa is over the others.",
)
def unsteady_is_wrong(straight, swapped, people, lengths):
    judge = torch.where(straight == 1 - swapped, straight, 1 - people)
    found = _agreement(counted=torch.ones_like, named=lambda *_: (judge, straight == 1 - swapped))
    return right(straight, swapped, people, lengths) | {"kappa": found(straight, swapped, people, lengths)["kappa"]}


@exercise.alternative
def by_table(straight, swapped, people, lengths):
    table, firsts, steady, long, sized = [[0, 0], [0, 0]], 0, 0, 0, 0
    for s, w, p, (x, y) in zip(straight.tolist(), swapped.tolist(), people.tolist(), lengths.tolist(), strict=True):
        firsts += (s == 0) + (w == 0)
        if s + w != 1:
            continue
        steady += 1
        table[s][p] += 1
        if x != y:
            sized += 1
            long += s == (1 if y > x else 0)
    kappa = 0.0
    if steady:
        chance = sum(sum(table[k]) * (table[0][k] + table[1][k]) for k in (0, 1)) / steady**2
        kappa = 0.0 if chance == 1 else ((table[0][0] + table[1][1]) / steady - chance) / (1 - chance)
    n = len(people)
    shares = {"first": firsts / (2 * n), "steady": steady / n, "kappa": kappa}
    return shares | {"longer": torch.tensor(long / sized if sized else 0.5)}
