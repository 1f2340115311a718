"""Does INT4 distort the model? Perplexity with the weights in other formats, each with the bytes of its file."""

from experiments.quantized import (
    FORMATS,
    calibrated,
    encoder_surprise,
    more,
    passages,
    restore,
    size,
    stored_as,
    surprise,
)
from labkit.experiment import Experiment

DISTORTED = 10  # percent more perplexity
OWN = "Q4_1 again"  # the grid on which the file's numbers lie
FOUR = ["int4, a tensor", "int4, a row", "int4, groups of 64", "int4, groups of 32", "NF4", "MXFP4", "NVFP4"]
CALIBRATED = [f"{method} {form}" for form in ("int4, a row", "int4, groups of 64") for method in ("GPTQ", "AWQ")]
ENCODER = "encoder, "

experiment = Experiment(
    claim="A05.12",
    question="Does INT4 distort the model?",
    arms={
        **{name: {"form": name} for name in FORMATS},
        **{name: {"by": name.split()[0], "form": name.split(" ", 1)[1]} for name in CALIBRATED},
        "GPTQ, the manual": {"by": "GPTQ", "form": "int4, groups of 64", "what": "manual"},
        "GPTQ, random tokens": {"by": "GPTQ", "form": "int4, groups of 64", "what": "random tokens"},
        **{ENCODER + name: {"form": name, "encoder": True} for name in ("fp32", "int8, a row", *FOUR)},
        "fp32, four passages": {"form": "fp32", "first": 4},
    },
    seeds=(0,),
    shows="int4, a tensor",
    shows_not=OWN,
    live=("fp32, four passages", 0),
    within={"nats": 0.02},
)


@experiment.measure
def measure(seed, form, by=None, what="plays", first=None, encoder=False):
    """Nats a token of each passage, and the bytes of a file with all weights; of the encoder, nats a question."""
    if encoder:
        return {"nats": encoder_surprise(form)}
    restore()
    if first:
        return {"nats": surprise(passages()[:first])}
    if by:
        stored, exponents = calibrated(by, FORMATS[form], what)
        found = {"nats": surprise(passages()), "bytes": size(stored)} | ({"alpha": exponents} if exponents else {})
    else:
        taken = stored_as(form)
        found = {"nats": surprise(passages()), "bytes": taken}
    restore()
    return found


@experiment.conclude
def conclude(found):
    from experiments.quantized import PLAYS

    def told(percent):
        return f"{percent:+,.0f}" if percent > 100 else f"{percent:+.1f}"

    rise = {arm: more(found, arm) for arm in (*FORMATS, *CALIBRATED)}
    encoder = {name: more(found, ENCODER + name, ENCODER + "fp32") for name in FOUR}
    tried = [*(rise[arm] for arm in (*FOUR, *CALIBRATED)), *encoder.values()]
    distorted, spared = (sum(getattr(each, side)(DISTORTED) for each in tried) for side in ("above", "below"))
    gained = {
        _key(f"{arm} on the {name}"): more(found, arm, arm.split(" ", 1)[1], text)
        for arm in CALIBRATED
        for name, text in (("plays", slice(0, PLAYS)), ("manual", slice(PLAYS, None)))
    }
    word = "correct" if distorted == len(tried) else "wrong" if spared == len(tried) else "unverifiable"
    return {
        "verdict": "imprecise" if distorted and spared else word,
        "controls": {"shows": rise["int4, a tensor"].above(DISTORTED), "shows_not": rise[OWN].within(-1, 1)},
        "numbers": {
            **{_key(arm): told(each.mean) for arm, each in rise.items()},
            **{_key(f"encoder {arm}"): told(each.mean) for arm, each in encoder.items()},
            **{key: each.text("+.0f") for key, each in gained.items()},
            **{key + "_zh": each.text("+.0f").replace(" to ", "% 到 ") for key, each in gained.items()},
        },
    }


def _key(arm):
    return arm.replace(",", "").replace(" ", "_").lower()
