"""What exercises of the chapter scaling share: models and layouts to reckon with."""

from __future__ import annotations

import math

from autograde.exercises.shared import pick


def dense(g, layers=None, heads=None, **other):
    """A GPT-like model: feed-forward parts of four times the width, as many key heads as heads."""
    heads = heads or pick(g, 3, 5)
    width = pick(g, 9, 13)
    hidden = heads * width
    base = {"layers": layers or pick(g, 2, 4), "hidden": hidden, "heads": heads, "kv_heads": heads, "head_dim": width}
    return base | {"ffn": 4 * hidden, "matrices": 2, "experts": 1, "active": 1, "vocab": pick(g, 101, 199)} | other


def grouped(g, **other):
    """A Llama-like model: fewer key heads, a gated feed-forward part, heads wider than hidden / heads."""
    model = dense(g, heads=4, kv_heads=2, matrices=3, ffn=pick(g, 61, 97))
    return model | {"head_dim": model["head_dim"] + pick(g, 3, 5)} | other


def mixture(g, experts=8, active=2, **other):
    """A mixture of experts."""
    return grouped(g, experts=experts, active=active, ffn=pick(g, 17, 29)) | other


def layout(**degrees):
    """One GPU without anything special, but for what is said."""
    alone = {"tp": 1, "pp": 1, "dp": 1, "cp": 1, "ep": 1, "zero": 0, "micro_batch": 1, "micro_batches": 1}
    return alone | {"chunks": 1, "recompute": False, "flash": True, "overlap": False} | degrees


def attention_weights(model):
    return 2 * model["hidden"] * model["head_dim"] * (model["heads"] + model["kv_heads"])


def feed_forward_weights(model):
    return model["matrices"] * model["hidden"] * model["ffn"]


def stage_weights(model, layout):
    """Numbers on a GPU of the pipeline's first stage: those that every data rank has, and those of experts."""
    layers = math.ceil(model["layers"] / layout["pp"])
    ends = model["vocab"] * model["hidden"] * (2 if layout["pp"] == 1 else 1)
    common, own = layers * attention_weights(model) + ends, layers * model["experts"] * feed_forward_weights(model)
    if model["experts"] == 1:
        common, own = common + own, 0
    return common / layout["tp"], own / (layout["tp"] * layout["ep"])


def tokens(layout, seq):
    """Tokens of a micro-batch on one GPU of its context-parallel group."""
    return layout["micro_batch"] * seq / layout["cp"]
