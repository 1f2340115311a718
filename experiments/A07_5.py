"""A07.5: does a text of the company's own in the prompt, and an order to keep to it, end false answers?"""

import re

from experiments.knowing import ask, share, turn
from experiments.looping import less, over, percent
from labkit.experiment import Experiment

# No such companies. (name, town, director, what it makes, opening hour)
FIRMS = (
    ("Norvell", "Brunnstadt", "Ada Kestrel", "ladders", "seven"),
    ("Quillon", "Ostmere", "Tom Varga", "bells", "nine"),
    ("Pelbridge", "Kalvora", "Ines Moreau", "kites", "eight"),
    ("Zantor", "Tarnwick", "Karl Ohm", "soap", "ten"),
    ("Mirrowell", "Felsenau", "Lena Strand", "clocks", "six"),
    ("Drayhold", "Port Ellery", "Omar Haddad", "boats", "seven"),
    ("Fennimark", "Zandhoven", "Rosa Lindt", "candles", "nine"),
    ("Ostrellon", "Mirelle", "Jun Sato", "pianos", "eight"),
    ("Hexworth", "Lindau", "Mary Croft", "umbrellas", "ten"),
    ("Belvane", "Castrova", "Piotr Nowak", "brushes", "six"),
)
TEXT = (
    "{0} is a company in {1}. Its director is {2}. {0} makes {3}. Visitors are welcome from {4} o'clock in the morning."
)
IN_IT = (
    ("In which town is {0}?", "{0} is a company in {1}.", 1),
    ("Who is the director of {0}?", "The director of {0} is {2}.", 2),
    ("What product does {0} make?", "{0} makes {3}.", 3),
)
NOT_IN_IT = ("In which year was {0} founded?", "How many people work at {0}?", "Who is the largest customer of {0}?")
TOLD = " Answer from the text only. If the text doesn't say it, answer \"The text doesn't say\"."
_WITHHELD = re.compile(
    r"(doesn't|does not|didn't) (say|specify|mention|explicitly|state|provide|give|contain|include|directly)"
    r"|not (explicitly |directly )?(mentioned|specified|stated|given|provided|known|in the text)"
    r"|no (information|mention)|(don't|do not) (know|have)|unknown|unable",
    re.IGNORECASE,
)
FALSE, RIGHT = 0.1, 0.9  # what counts as solved: surely fewer false, surely more right.

experiment = Experiment(
    claim="A07.5",
    question="Does a text of the company's own in the prompt, and an order to keep to it, end false answers?",
    arms={
        "no text": {"given": ""},
        "the fact alone": {"given": "fact"},
        "text, has it": {"given": "text"},
        "text, lacks it": {"given": "text", "lacks": True},
        "text, told, has it": {"given": "text", "told": True},
        "text, told, lacks it": {"given": "text", "told": True, "lacks": True},
        "two firms, has it": {"given": "text", "count": 2},
    },
    seeds=(0,),
    shows="no text",
    shows_not="the fact alone",
    live=("two firms, has it", 0),
    within={"right": 0.0, "withheld": 0.0, "false": 0.0},
)


@experiment.measure
def measure(seed, given, told=False, lacks=False, count=None):
    """Which answers are right, withheld, false: three questions on each company."""
    prompts, wanted = [], []
    for firm in FIRMS[:count]:
        for at in range(3):
            question, fact, place = IN_IT[at]
            source = {"": "", "fact": fact.format(*firm), "text": TEXT.format(*firm)}[given]
            asked = (NOT_IN_IT[at] if lacks else question).format(*firm) + TOLD * told
            prompts.append(turn(f"{source}\n\n{asked}".strip()))
            wanted.append(None if lacks else firm[place])
    return verdicts(wanted, ask(prompts, 24))


def verdicts(wanted, said):
    """Which answers are withheld, right and false, 1 or 0 each; `wanted` is None where the text lacks the answer.

    Who says that the text doesn't say withholds, whatever else stands there. Of a name its stem is enough: "a clock".
    """
    stems = [want and want.lower().removesuffix("s").removesuffix("e") for want in wanted]
    withheld = [int(bool(_WITHHELD.search(text))) for text in said]
    pairs = list(zip(stems, said, withheld, strict=True))
    right = [int(bool(stem) and stem in text.lower() and not kept) for stem, text, kept in pairs]
    false = [int(not ok and not kept) for ok, kept in zip(right, withheld, strict=True)]
    return {"right": right, "withheld": withheld, "false": false, "said": said}


def solved(found, start: str) -> bool:
    """Whether one way to ask both finds what the text has and withholds what it lacks."""
    lacks, has = share(found, f"{start}, lacks it", "false"), share(found, f"{start}, has it", "right")
    return _all_or_surely(lacks.mean, 0, lacks.below(FALSE)) and _all_or_surely(has.mean, 1, has.above(RIGHT))


def _all_or_surely(mean, whole, surely) -> bool:
    return mean == whole or surely


@experiment.conclude
def conclude(found):
    fewer = less(found, "no text", "text, has it", "false")
    word = "wrong"
    if fewer.above(0):
        word = "correct" if solved(found, "text") or solved(found, "text, told") else "imprecise"
    numbers = {
        f"{arm.replace(',', '').replace(' ', '_')}_{number}": f"{100 * share(found, arm, number).mean:.0f} %"
        for arm in list(experiment.arms)[:-1]
        for number in ("right", "withheld", "false")
    }
    return {
        "verdict": word,
        "controls": {
            "shows": share(found, "no text", "false").above(0.5),
            "shows_not": share(found, "the fact alone", "false").mean < 0.2,
        },
        "numbers": numbers | {"fewer": percent(fewer), "questions": str(len(over(found, "no text", "right")))},
    }
