"""Is a false answer a form of repetition?

The model writes about a country, with its loops or without, and is asked for the capital only then. If false answers
came of repeating, they would go when the loops go. What repetition can do to an answer is seen where a sentence was
planted.
"""

from experiments import looping
from experiments.looping import CAPITALS, less, loaded, over, padded, percent, repeated, without_repeats, write
from labkit.experiment import Experiment, interval

WRITTEN, PLANTED = 200, 4
IN_FULL = {"Ulaan": "Ulaanbaatar", "Bogot": "Bogota", "Addis": "Addis Ababa", "Reykjav": "Reykjavik"}

experiment = Experiment(
    claim="A12.2",
    question="Is a false answer a form of repetition?",
    arms={
        "asked at once": {},
        "after a greedy text": {"writes": "greedy"},
        "after a text without repeats": {"writes": "no 4-gram twice"},
        "a false sentence four times": {"plants": "false"},
        "a true sentence four times": {"plants": "true"},
    },
    seeds=(0,),
    shows="a false sentence four times",
    shows_not="a true sentence four times",
    live=("asked at once", 0),
    within={"false": 0.0},
)


@experiment.measure
def measure(seed, writes=None, plants=None):
    """Whether each country's capital is said wrong, 1 or 0, and how much the text before it repeats itself."""
    _, tokenizer = loaded()
    begun = [tokenizer(f"{country} is a country").input_ids for country in CAPITALS]
    found, asks = {}, "\n\nThe capital of {} is"
    if writes:
        ids, mask = padded(begun)
        choose = looping.greedy if writes == "greedy" else without_repeats(4)
        texts = write(ids, choose, WRITTEN, mask=mask)[0].tolist()
        found = {"repeated": [repeated(text) for text in texts], "pairs": [repeated(text, 2) for text in texts]}
        begun = [[*start, *text] for start, text in zip(begun, texts, strict=True)]
    elif plants:
        cities = [IN_FULL.get(city, city) for city in CAPITALS.values()]
        said = cities if plants == "true" else [*cities[1:], cities[0]]
        asks = " The capital of {} is"
        told = (f"The capital of {country} is {city}." for country, city in zip(CAPITALS, said, strict=True))
        begun = [tokenizer(" ".join([sentence] * PLANTED)).input_ids for sentence in told]
    asked = [[*start, *tokenizer(asks.format(land)).input_ids] for start, land in zip(begun, CAPITALS, strict=True)]
    ids, mask = padded(asked)
    answers = tokenizer.batch_decode(write(ids, looping.greedy, 6, mask=mask)[0])
    return {"false": [int(city not in said) for city, said in zip(CAPITALS.values(), answers, strict=True)]} | found


@experiment.conclude
def conclude(found):
    once, loops, none, planted, true = experiment.arms
    false = {arm: interval(over(found, arm, "false")) for arm in experiment.arms}
    mended, half = less(found, loops, none, "false"), false[loops].mean / 2
    looped = interval(over(found, loops, "repeated")).above(looping.LOOPING)
    if looped and mended.above(half):
        word = "correct"
    elif looped and mended.below(half) and false[none].above(0.1):
        word = "wrong"
    else:
        word = "unverifiable"
    by_answer = {
        kind: interval([rate for rate, wrong in zip(*_both(found, loops), strict=True) if wrong == is_wrong])
        for kind, is_wrong in (("right", 0), ("false", 1))
    }
    return {
        "verdict": word,
        "controls": {
            "shows": less(found, planted, once, "false").above(0.2),
            "shows_not": false[true].below(0.1),
        },
        "numbers": {
            **{arm.replace(" ", "_"): f"{100 * each.mean:.0f} %" for arm, each in false.items()},
            **{f"{arm.replace(' ', '_')}_range": f"{percent(each)} %" for arm, each in false.items()},
            **{f"repeated_where_{kind}": f"{percent(each)} %" for kind, each in by_answer.items()},
            "mended": percent(mended),
            "half": f"{100 * half:.0f}",
            "countries": str(len(CAPITALS)),
        },
    }


def _both(found, arm):
    return over(found, arm, "repeated"), over(found, arm, "false")
