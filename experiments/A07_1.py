"""A07.1: is there a hallucination that is neither against the facts, nor against itself, nor beside the question?"""

from experiments.knowing import KNOWN, ask, right, share, turn
from experiments.looping import percent
from labkit.experiment import Experiment

TOWNS = ("Brunnstadt", "Ostmere", "Kalvora", "Tarnwick", "Felsenau", "Port Ellery", "Zandhoven", "Mirelle")
TEXTS = {
    "a text that agrees": "{land} is a country. The capital of {land} is {capital}.",
    "an altered text": "{land} has moved its government. Today the capital of {land} is {town}.",
}
SEEN = 0.05  # of the answers: what is surely above counts as a kind of its own. Stated before the run.

experiment = Experiment(
    claim="A07.1",
    question="Does the model answer against the text that it is given, with what is true in the world?",
    arms={
        "no text": {},
        "a text that agrees": {"text": "a text that agrees"},
        "an altered text": {"text": "an altered text"},
        "an altered text, eight": {"text": "an altered text", "count": 8},
    },
    seeds=(0,),
    shows="no text",
    shows_not="a text that agrees",
    live=("an altered text, eight", 0),
    within={"world": 0.0, "text": 0.0, "unfaithful": 0.0},
)


@experiment.measure
def measure(seed, text=None, count=None):
    """Whether each answer names the capital of the world, the one of the text, and the world's against the text."""
    prompts, towns = [], []
    for at, (land, capital) in enumerate(KNOWN[:count]):
        capital = capital.split("|")[0].replace("Bras", "Brasilia")
        given = TEXTS[text].format(land=land, capital=capital, town=TOWNS[at % len(TOWNS)]) if text else ""
        prompts.append(turn(f"{given}\n\nAccording to the text, what is the capital of {land}?".strip() if text else
                            f"What is the capital of {land}? Answer in one short sentence."))  # fmt: skip
        towns.append(capital if text == "a text that agrees" else TOWNS[at % len(TOWNS)])
    said = ask(prompts, 14)
    world = [int(right(item, answer)) for item, answer in zip(KNOWN[:count], said, strict=True)]
    follows = [int(town in answer) for town, answer in zip(towns, said, strict=True)]
    unfaithful = [int(bool(text) and w and not f) for w, f in zip(world, follows, strict=True)]
    return {"unfaithful": unfaithful, "world": world, "text": follows, "said": said}


@experiment.conclude
def conclude(found):
    against = share(found, "an altered text", "unfaithful")
    word = "imprecise" if against.above(SEEN) else "correct" if against.below(SEEN) else "unverifiable"
    return {
        "verdict": word,
        "controls": {
            "shows": share(found, "no text", "world").above(0.5),
            "shows_not": not share(found, "a text that agrees", "unfaithful").above(0),
        },
        "numbers": {
            "unfaithful": f"{percent(against)} %",
            "follows": f"{percent(share(found, 'an altered text', 'text'))} %",
            "agreeing": f"{percent(share(found, 'a text that agrees', 'text'))} %",
        },
    }
