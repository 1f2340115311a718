"""Does FP8 have the precision of FP16? Weights and inputs of all matrices in 8 bits, as a GPU would multiply them."""

import torch

from experiments.quantized import FORMATS, Integer, loaded, matrices, more, passages, surprise
from labkit.experiment import Experiment

ALIKE = 1  # percent more perplexity: less is as good as FP16
FP16, FP8, COARSE, FINE = "fp16", "fp8, a tensor", "int8, a tensor", "int8, a row"

experiment = Experiment(
    claim="A05.10",
    question="Does FP8 have the precision of FP16?",
    arms={
        "fp32": {"form": "fp32"},
        FP16: {"form": FP16},
        "bf16": {"form": "bf16"},
        FP8: {"form": FP8},
        "fp8, a row": {"form": "fp8, a row"},
        COARSE: {"form": COARSE},
        FINE: {"form": FINE},
        "fp8 inputs, one passage": {"form": FP8, "weights": False, "first": 1},
    },
    seeds=(0,),
    shows=COARSE,
    shows_not=FP16,
    live=("fp8 inputs, one passage", 0),
    within={"nats": 0.05, "off": 0.01},
)


@torch.inference_mode()
def narrowed(form, x):
    """What is left of the inputs of a matrix: one scale for all, or one for each token."""
    rows = x.flatten(0, -2)
    if isinstance(form, Integer):
        return form.rounded(rows).reshape(x.shape)
    return form.decode(form.encode(rows), rows.shape).reshape(x.shape)


@experiment.measure
def measure(seed, form, weights=True, first=None):
    """Nats a token of each passage, and how far the inputs of the matrices are off, relatively, on average."""
    model, _ = loaded()
    form, off, watching, kept = FORMATS[form], [], [], []

    def narrow(layer, given):
        near = narrowed(form, given[0])
        off.append(((near - given[0]).norm() / given[0].norm()).item())
        return (near,)

    for _, layer in matrices(model):
        watching.append(layer.register_forward_pre_hook(narrow))
        if weights:
            kept.append((layer, layer.weight.data))
            layer.weight.data = narrowed(form, layer.weight.data)
    try:
        nats = surprise(passages()[:first])
    finally:
        for watch in watching:
            watch.remove()
        for layer, w in kept:
            layer.weight.data = w
    return {"nats": nats, "off": sum(off) / len(off)}


@experiment.conclude
def conclude(found):
    rise = {arm: more(found, arm) for arm in experiment.arms if "passage" not in arm}
    fp8 = rise[FP8]
    return {
        "verdict": "correct" if fp8.within(-ALIKE, ALIKE) else "wrong" if fp8.above(ALIKE) else "unverifiable",
        "controls": {"shows": rise[COARSE].above(ALIKE), "shows_not": rise[FP16].within(-ALIKE, ALIKE)},
        "numbers": {
            **{arm.replace(",", "").replace(" ", "_"): f"{each.mean:+.1f}" for arm, each in rise.items()},
            "fp8_range": fp8.text("+.1f"),
            "fp8_range_zh": fp8.text("+.1f").replace(" to ", "% 到 "),
        },
    }
