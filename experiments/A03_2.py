"""A03.2: do the same pages give the same answer, whatever their order?"""

from __future__ import annotations

from experiments.retrieving import answers, asked, names, page, some, texts
from labkit.experiment import Experiment, interval

COUNT, PAGES, CUT = 6, 5, 16  # questions a seed, pages a prompt, words a page
FEW, MANY = 0.05, 0.5  # of the answers: changes below count as stable, above as unstable. Stated before the run.

experiment = Experiment(
    claim="A03.2",
    question="Do the same pages in another order give the same answer?",
    arms={
        "first of five": {"place": 0},
        "in the middle": {"place": 2},
        "last of five": {"place": 4},
        "the right page is missing": {"place": None},
    },
    seeds=range(8),
    shows="the right page is missing",
    shows_not="Asking again with the same order is the same computation: the model answers greedily.",
    live=("in the middle", 0),
    within={"right": 0.26, "code": 1e12},
)


@experiment.measure
def measure(seed, place):
    """The share of right answers, and every answer as a number, so that answers can be held against each other."""
    questions = some(seed, COUNT)
    others = some(seed + 15, COUNT + PAGES)
    prompts = []
    for i, question in enumerate(questions):
        opened = [other.answers[0] for other in others[i : i + PAGES - (place is not None)]]
        if place is not None:
            opened.insert(place, question.answers[0])
        prompts.append(asked(question.text, [page(name, " ".join(texts()[name].split()[:CUT])) for name in opened]))
    given = answers(prompts)
    right = [names(text, *question.answers) for text, question in zip(given, questions, strict=True)]
    return {"right": sum(right) / COUNT, "code": [int.from_bytes(text.encode()[-6:]) for text in given]}


def changes(found, arm):
    """Seed by seed, the share of answers that differ from those with the right page first."""
    pairs = zip(found.each("first of five", "code"), found.each(arm, "code"), strict=True)
    return interval([sum(a != b for a, b in zip(*pair, strict=True)) / len(pair[0]) for pair in pairs])


@experiment.conclude
def conclude(found):
    """Correct if surely few answers change with the order, wrong if surely most do, else imprecise."""
    moved = changes(found, "last of five")
    word = "correct" if moved.below(FEW) else "wrong" if moved.above(MANY) else "imprecise"
    return {
        "verdict": word,
        "controls": {
            "shows": changes(found, "the right page is missing").mean > MANY,
        },
        "numbers": {
            "moved": f"{100 * moved.mean:.0f} %",
            "questions": f"{COUNT * len(found.each('last of five', 'code'))}",
            "moved_interval": f"{100 * max(moved.low, 0):.0f} to {100 * min(moved.high, 1):.0f} %",
        }
        | {
            key: f"{100 * found.interval(arm, 'right').mean:.0f} %"
            for key, arm in (("first", "first of five"), ("middle", "in the middle"), ("last", "last of five"))
        },
    }
