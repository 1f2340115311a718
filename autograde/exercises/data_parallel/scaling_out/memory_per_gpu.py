"""`memory_per_gpu(model, layout, seq)`: Bytes on the fullest GPU, one of the pipeline's first stage, by kind."""

from __future__ import annotations

import itertools
import math

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.scaling_out.shared import (
    attention_weights,
    dense,
    feed_forward_weights,
    grouped,
    layout,
    mixture,
    stage_weights,
    tokens,
)
from autograde.exercises.shared import pick

exercise = Draft(
    "memory_per_gpu",
    points=4,
    rtol=1e-9,
    atol=1e-6,
    no_gradient="a count of bytes",
    hints=[
        "First the numbers that a GPU holds: which of its layers' matrices, and which part of each? Experts are cut "
        "more often than the rest. Then the bytes of each number, and who shares them.",
        "Activations: tokens of this rank * bytes of a token and layer * layers of the stage * micro-batches in "
        "flight, divided by tp. In flight on the first stage are pp of them, or all if there are fewer.",
        "data = dp * cp; common, own = numbers / tp, numbers of experts / (tp * ep); optimizer = 12 * (common / data + "
        "own / (data / ep)) if zero >= 1. With recompute: in_flight * layers * 2 * t * hidden / tp, and once a whole "
        "layer's t * (18 * hidden + 2 * matrices * active * ffn [+ 5 * heads * seq]) / tp.",
    ],
)


@exercise.cases
def held(g):
    def some(label, model, seq=None, **degrees):
        return case(model, layout(**degrees), seq or 8 * pick(g, 5, 9), label=label)

    yield some("one GPU", dense(g), micro_batch=3)
    yield some("ZeRO 1 on three", dense(g), dp=3, zero=1)
    yield some("ZeRO 2 on two times two", grouped(g), dp=2, cp=2, zero=2)
    yield some("ZeRO 3, more micro-batches than stages", grouped(g, layers=6), dp=5, pp=3, zero=3, micro_batches=7)
    yield some("tensor parallel, scores kept", dense(g, heads=4), tp=2, flash=False, micro_batch=2)
    yield some("layers that don't divide", dense(g, layers=7), pp=3, micro_batches=2)
    yield some("computed again", dense(g, layers=6), pp=2, tp=2, recompute=True, micro_batches=5, flash=False)
    yield some("context parallel, scores kept", grouped(g), cp=2, dp=3, flash=False)
    yield some("an expert-parallel degree, and one expert", dense(g), dp=6, ep=2, zero=1)
    yield some("experts", mixture(g), dp=4, ep=4, zero=1)
    yield some("experts, ZeRO 3", mixture(g, layers=4), dp=3, cp=4, ep=2, pp=2, zero=3, micro_batches=9, recompute=True)
    yield some("experts, ZeRO 2, tensor parallel", mixture(g, experts=6, active=3), tp=2, dp=6, ep=3, zero=2)


def _matrices(model, layers, ends):
    """(numbers of one matrix, whether it belongs to an expert), one by one."""
    wide, narrow = (model[name] * model["head_dim"] for name in ("heads", "kv_heads"))
    for _ in range(layers):
        yield from ((model["hidden"] * cols, False) for cols in (wide, narrow, narrow, wide))
        for _ in range(model["experts"]):
            yield from ((model["hidden"] * model["ffn"], model["experts"] > 1) for _ in range(model["matrices"]))
    yield from ((model["vocab"] * model["hidden"], False) for _ in range(ends))


def _most_in_flight(stages, count):
    """How many micro-batches the first stage has sent on and not got back, at most, with one forward, one backward."""
    warm = min(stages, count)
    steps = [1] * warm + [-1, 1] * (count - warm) + [-1] * warm
    return max(itertools.accumulate(steps))


@exercise.oracle
def placed(model, layout, seq):
    """Matrix by matrix, token by token."""
    layers = -(-model["layers"] // layout["pp"])
    ranks = layout["dp"] * layout["cp"]
    weights = gradients = optimizer = 0.0
    for numbers, is_expert in _matrices(model, layers, 2 if layout["pp"] == 1 else 1):
        mine = numbers / layout["tp"] / (layout["ep"] if is_expert else 1)
        owners = ranks / (layout["ep"] if is_expert else 1)
        weights += 2 * mine / (owners if layout["zero"] == 3 else 1)
        gradients += 2 * mine / (owners if layout["zero"] in (2, 3) else 1)
        optimizer += 12 * mine / (owners if layout["zero"] else 1)
    token = 18 * model["hidden"] + 2 * model["matrices"] * model["active"] * model["ffn"]
    token += 0 if layout["flash"] else 5 * model["heads"] * seq
    of_tokens = layout["micro_batch"] * seq / layout["cp"] / layout["tp"]
    flying = _most_in_flight(layout["pp"], layout["micro_batches"])
    if layout["recompute"]:
        kept = of_tokens * (flying * layers * 2 * model["hidden"] + token)
    else:
        kept = of_tokens * flying * layers * token
    return {"weights": weights, "gradients": gradients, "optimizer": optimizer, "activations": kept}


def _states(out):
    return out["weights"] + out["gradients"] + out["optimizer"]


@exercise.law(
    "Without ZeRO it is 16 bytes a number; with stage 1, 2, 3 on many ranks it is 4, 2 and nothing but its share"
)
def table_of_zero(out, one, call):
    model, degrees, seq = one.args
    if model["experts"] > 1:
        return None
    many, numbers = 64, sum(stage_weights(model, degrees))
    shares = {0: 16, 1: 4 + 12 / many, 2: 2 + 14 / many, 3: 16 / many}
    for stage, bytes_a_number in shares.items():
        found = _states(call(model, degrees | {"dp": many, "cp": 1, "zero": stage}, seq)) / numbers
        if not math.isclose(found, bytes_a_number, rel_tol=1e-6):
            return f"stage {stage} on {many} ranks: {found:.3f} bytes a number, and it should be {bytes_a_number:.3f}"
    return True


@exercise.law("A GPT's layer keeps s b h (34 + 5 a s / h) / t bytes of activations")
def korthikanti(out, one, call):
    model, degrees, seq = one.args
    if model["ffn"] != 4 * model["hidden"] or model["matrices"] != 2:
        return None
    alone = degrees | {"pp": model["layers"], "micro_batches": 1, "cp": 1, "recompute": False, "flash": False}
    right = seq * degrees["micro_batch"] * model["hidden"] * (34 + 5 * model["heads"] * seq / model["hidden"])
    return math.isclose(call(model, alone, seq)["activations"], right / degrees["tp"], rel_tol=1e-6)


@exercise.law("More data ranks change no activations")
def data_ranks(out, one, call):
    model, degrees, seq = one.args
    more = call(model, degrees | {"dp": 3 * degrees["dp"]}, seq)
    return math.isclose(more["activations"], out["activations"], rel_tol=1e-9)


def _memory(
    per=(2, 2, 12),
    stages=(3, 2, 1),
    ranks=lambda d: d["dp"] * d["cp"],
    experts=lambda ranks, d: ranks / d["ep"],
    weights=stage_weights,
    flying=lambda d: min(d["pp"], d["micro_batches"]),
    layers=lambda m, d: math.ceil(m["layers"] / d["pp"]),
    token=lambda m, d, seq: (
        18 * m["hidden"] + 2 * m["matrices"] * m["active"] * m["ffn"] + (0 if d["flash"] else 5 * m["heads"] * seq)
    ),
    of_tokens=lambda d, seq: tokens(d, seq) / d["tp"],
    again=1,
    inputs=lambda m, d: 2 * m["hidden"],
):
    """Right as it stands. A mistake takes one of its parts another way."""

    def memory(model, layout, seq):
        common, own = weights(model, layout)
        many = ranks(layout)
        kinds = {}
        for kind, size, first in zip(("weights", "gradients", "optimizer"), per, stages, strict=True):
            split = layout["zero"] >= first
            kinds[kind] = size * (common / (many if split else 1) + own / (experts(many, layout) if split else 1))
        a, n = of_tokens(layout, seq), layers(model, layout)
        if layout["recompute"]:
            kept = flying(layout) * n * inputs(model, layout) + again * token(model, layout, seq)
        else:
            kept = flying(layout) * n * token(model, layout, seq)
        return kinds | {"activations": a * kept}

    return memory


exercise.alternative(_memory())


@exercise.alternative
def in_words(model, layout, seq):
    tp, pp, ep, stage = (layout[name] for name in ("tp", "pp", "ep", "zero"))
    n, ranks = -(-model["layers"] // pp), layout["dp"] * layout["cp"]
    parts = n * feed_forward_weights(model)
    here = [(n * attention_weights(model) + model["vocab"] * model["hidden"] * (1 + (pp == 1)), 1)]
    here.append((parts, 1) if model["experts"] == 1 else (parts * model["experts"], ep))
    sizes = [sum(x / (tp * cut) / (ranks / cut if stage >= s else 1) for x, cut in here) for s in (3, 2, 1)]
    t = layout["micro_batch"] * seq / (layout["cp"] * tp)
    whole = t * (18 * model["hidden"] + 2 * model["matrices"] * model["active"] * model["ffn"])
    if not layout["flash"]:
        whole += t * 5 * model["heads"] * seq
    each = 2 * t * model["hidden"] if layout["recompute"] else whole
    acts = each * n * min(pp, layout["micro_batches"]) + (whole if layout["recompute"] else 0)
    return {"weights": 2 * sizes[0], "gradients": 2 * sizes[1], "optimizer": 12 * sizes[2], "activations": acts}


exercise.mistake(
    "ZeRO's stages are taken the wrong way round: weights first",
    hint="Stage 1 cuts the optimizer state, 2 the gradients as well, 3 the weights as well.",
)(_memory(stages=(1, 2, 3)))
exercise.mistake("each stage of ZeRO cuts one kind alone", hint="Stage 3 cuts all three, stage 2 two of them.")(
    lambda model, layout, seq: {
        kind: _memory()(model, layout | {"zero": stage if layout["zero"] == stage else 0}, seq)[kind]
        for kind, stage in (("weights", 3), ("gradients", 2), ("optimizer", 1), ("activations", 0))
    }
)
exercise.mistake(
    "the optimizer is taken to hold 8 bytes a number",
    hint="Two moments of 4 bytes, and the master copy of the weights, 4 more.",
)(_memory(per=(2, 2, 8)))
exercise.mistake("weights and gradients are taken to have 4 bytes", hint="They are 16-bit numbers.")(
    _memory(per=(4, 4, 12))
)
exercise.mistake(
    "ZeRO is taken to cut by dp alone", hint="Context-parallel ranks hold the same weights, too: dp * cp."
)(_memory(ranks=lambda d: d["dp"]))
exercise.mistake("the states of experts are cut by all data ranks", hint="An expert has dp * cp / ep owners.")(
    _memory(experts=lambda ranks, d: ranks)
)


@exercise.mistake("every rank holds all experts", hint="ep cuts them: experts / ep on each.")
def all_experts(model, layout, seq):
    return _memory(weights=lambda m, d: stage_weights(m, d | {"ep": 1}))(model, layout, seq)


exercise.mistake("expert parallelism is taken to cut attention as well", hint="Only experts are cut by ep.")(
    _memory(weights=lambda m, d: (stage_weights(m, d)[0] / d["ep"], stage_weights(m, d)[1]))
)


def _both_ends(model, layout, ends):
    common, own = stage_weights(model, layout)
    had = 2 if layout["pp"] == 1 else 1
    return common + (ends - had) * model["vocab"] * model["hidden"] / layout["tp"], own


exercise.mistake(
    "both vocabulary matrices stand on the first stage", hint="With pp > 1 the last stage has the second."
)(_memory(weights=lambda m, d: _both_ends(m, d, 2)))
exercise.mistake("only one vocabulary matrix is counted, though there is one stage", hint="With pp = 1 both are here.")(
    _memory(weights=lambda m, d: _both_ends(m, d, 1))
)
exercise.mistake("the vocabulary matrices are left out", hint="They are weights like others.")(
    _memory(weights=lambda m, d: _both_ends(m, d, 0))
)


@exercise.mistake("the number of layers is rounded down", hint="The fullest stage has one more: round up.")
def rounded_down(model, layout, seq):
    fewer = model | {"layers": model["layers"] // layout["pp"] * layout["pp"]}
    return _memory()(fewer, layout, seq)


exercise.mistake(
    "one micro-batch is taken to be in flight", hint="The first stage has sent pp of them before one comes back."
)(_memory(flying=lambda d: 1))
exercise.mistake(
    "all micro-batches are taken to be in flight, as in GPipe",
    hint="One forward, one backward: never more than pp of them.",
)(_memory(flying=lambda d: d["micro_batches"]))
exercise.mistake("pp micro-batches are in flight, even where there are fewer", hint="min(pp, micro_batches).")(
    _memory(flying=lambda d: d["pp"])
)
exercise.mistake(
    "the activations are not cut by tp", hint="With sequence parallelism each of tp ranks keeps its share."
)(_memory(of_tokens=tokens))
exercise.mistake("the sequence is not cut by cp", hint="A context-parallel rank has seq / cp tokens of each sequence.")(
    _memory(of_tokens=lambda d, seq: d["micro_batch"] * seq / d["tp"])
)
exercise.mistake("the size of the micro-batch is left out", hint="Tokens: micro_batch * seq / cp.")(
    _memory(of_tokens=lambda d, seq: seq / d["cp"] / d["tp"])
)
exercise.mistake(
    "computing again is taken to keep nothing but inputs",
    hint="While one layer is computed again, all of its activations are there.",
)(_memory(again=0))
exercise.mistake("the inputs that recomputation keeps are not cut by tp", hint="2 * hidden bytes a token, cut by tp.")(
    _memory(inputs=lambda m, d: 2 * m["hidden"] * d["tp"])
)
exercise.mistake("`recompute` has no effect", hint="It keeps a layer's input alone: 2 bytes a number.")(
    lambda model, layout, seq: _memory()(model, layout | {"recompute": False}, seq)
)
exercise.mistake("the scores are kept in spite of flash", hint="Without flash only: 5 * heads * seq bytes a token.")(
    lambda model, layout, seq: _memory()(model, layout | {"flash": False}, seq)
)
exercise.mistake("the scores are never kept", hint="Without flash: 5 * heads * seq bytes a token.")(
    lambda model, layout, seq: _memory()(model, layout | {"flash": True}, seq)
)
exercise.mistake(
    "a query's scores are taken to be those with its own part of the sequence",
    hint="Context parallelism cuts the queries; each of them has scores with all seq keys.",
)(
    _memory(
        token=lambda m, d, seq: (
            18 * m["hidden"]
            + 2 * m["matrices"] * m["active"] * m["ffn"]
            + (0 if d["flash"] else 5 * m["heads"] * seq / d["cp"])
        )
    )
)
exercise.mistake(
    "a layer's activations are those of a GPT, 34 bytes a token and unit",
    hint="18 * hidden, and 2 bytes for each number that the active feed-forward parts make.",
)(_memory(token=lambda m, d, seq: 34 * m["hidden"] + (0 if d["flash"] else 5 * m["heads"] * seq)))
exercise.mistake("all experts keep activations of each token", hint="Only the active ones see it.")(
    _memory(
        token=lambda m, d, seq: (
            18 * m["hidden"] + 2 * m["matrices"] * m["experts"] * m["ffn"] + (0 if d["flash"] else 5 * m["heads"] * seq)
        )
    )
)
