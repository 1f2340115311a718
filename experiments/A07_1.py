"""A07.1: are there answers that are true in the world, to the point, consistent, and yet not what the text says?"""

from experiments.knowing import KNOWN, ask, right, share, turn
from experiments.looping import percent
from labkit.experiment import Experiment

TOWNS = ("Brunnstadt", "Ostmere", "Kalvora", "Tarnwick", "Felsenau", "Port Ellery", "Zandhoven", "Mirelle")
TEXTS = {
    "a text that agrees": "{land} is a country. The capital of {land} is {capital}.",
    "an altered text": "{land} has moved its government. Today the capital of {land} is {town}.",
    "a text that is silent": "{land} is a country. Many people in {land} work in trade, and most of them like music.",
}
SEEN = 0.05  # of the answers: what is surely above counts as a kind of its own

experiment = Experiment(
    claim="A07.1",
    question="Does the model answer with what is true in the world and isn't what the text says?",
    arms={
        "no text": {},
        "a text that agrees": {"text": "a text that agrees"},
        "an altered text": {"text": "an altered text"},
        "a text that is silent": {"text": "a text that is silent"},
        "a silent text, eight": {"text": "a text that is silent", "count": 8},
    },
    seeds=(0,),
    shows="no text",
    shows_not="a text that agrees",
    live=("a silent text, eight", 0),
    within={"world": 0.0, "text": 0.0, "unfaithful": 0.0},
)


@experiment.measure
def measure(seed, text=None, count=None):
    """Whether each answer names the capital of the world, the one of the text, and the world's against the text."""
    prompts, towns = [], []
    for at, (land, capital) in enumerate(KNOWN[:count]):
        capital = capital.split("|")[0].replace("Bras", "Brasilia")
        given = TEXTS[text].format(land=land, capital=capital, town=TOWNS[at % len(TOWNS)]) if text else ""
        asked = f"{given}\n\nAccording to the text, what is the capital of {land}?"
        prompts.append(turn(asked if text else f"What is the capital of {land}? Answer in one short sentence."))
        towns.append(capital if text == "a text that agrees" else TOWNS[at % len(TOWNS)])
    said = ask(prompts, 14)
    world = [int(right(item, answer)) for item, answer in zip(KNOWN[:count], said, strict=True)]
    follows = [int(town in answer) for town, answer in zip(towns, said, strict=True)]
    unfaithful = [int(bool(text) and w and not f) for w, f in zip(world, follows, strict=True)]
    return {"unfaithful": unfaithful, "world": world, "text": follows, "said": said}


@experiment.conclude
def conclude(found):
    against, beyond = (share(found, arm, "unfaithful") for arm in ("an altered text", "a text that is silent"))
    if against.above(SEEN) or beyond.above(SEEN):
        word = "imprecise"
    else:
        word = "correct" if against.below(SEEN) and beyond.below(SEEN) else "unverifiable"
    return {
        "verdict": word,
        "controls": {
            "shows": share(found, "no text", "world").above(0.5),
            "shows_not": not share(found, "a text that agrees", "unfaithful").above(0),
        },
        "numbers": {
            "against": f"{100 * against.mean:.0f} %",
            "beyond": f"{100 * beyond.mean:.0f} %",
            "beyond_range": f"{percent(beyond)} %",
            "follows": f"{100 * share(found, 'an altered text', 'text').mean:.0f} %",
            "agreeing": f"{100 * share(found, 'a text that agrees', 'text').mean:.0f} %",
        },
    }
