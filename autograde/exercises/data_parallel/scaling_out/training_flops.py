"""`training_flops(model, seq, recompute=False)`: Operations of one training step for one sequence: matrix products."""

from __future__ import annotations

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.scaling_out.shared import (
    attention_weights,
    dense,
    feed_forward_weights,
    grouped,
    mixture,
)
from autograde.exercises.shared import pick

exercise = Draft(
    "training_flops",
    points=3,
    no_gradient="a count of operations",
    hints=[
        "Which numbers does one token meet? Each weight of a matrix costs a multiplication and an addition; a score "
        "costs head_dim of them, and there are seq of them for each head.",
        "Forward: 2 * seq * weights of a layer that a token meets + 4 * heads * head_dim * seq * seq, for every layer; "
        "then 2 * seq * hidden * vocab. A training step is three times that.",
        "attention = 2 * hidden * head_dim * (heads + kv_heads); part = matrices * hidden * ffn; layers * (3, or 4 "
        "with recompute) * (2 * seq * (attention + active * part) + 4 * heads * head_dim * seq**2) + 6 * seq * hidden "
        "* vocab.",
    ],
)


@exercise.cases
def models(g):
    yield case(dense(g), pick(g, 20, 40), label="a GPT")
    yield case(dense(g), pick(g, 20, 40), recompute=True, label="a GPT whose layers are computed again")
    yield case(grouped(g), pick(g, 20, 40), label="gated, fewer key heads, heads wider than hidden / heads")
    yield case(mixture(g), pick(g, 20, 40), label="two of eight experts")
    yield case(mixture(g, experts=6, active=3), pick(g, 20, 40), recompute=True, label="three of six, computed again")
    yield case(dense(g, layers=1), 1, label="one layer, one token")
    yield case(grouped(g), pick(g, 4000, 6000), label="a long sequence")
    big = {"layers": 3, "hidden": 16384, "heads": 128, "kv_heads": 8, "head_dim": 128, "ffn": 53248, "matrices": 3}
    yield case(big | {"experts": 1, "active": 1, "vocab": 128256}, 8192, label="three layers of a 405B")


def _products(model, seq):
    """Shapes [rows, inner], [inner, columns] of a layer's products, and how many of each there are."""
    wide, narrow = (model[name] * model["head_dim"] for name in ("heads", "kv_heads"))
    projections = [((seq, model["hidden"]), (model["hidden"], n), 1) for n in (wide, narrow, narrow)]
    scores = ((seq, model["head_dim"]), (model["head_dim"], seq), model["heads"])
    mixing = ((seq, seq), (seq, model["head_dim"]), model["heads"])
    inner = ((seq, model["hidden"]), (model["hidden"], model["ffn"]), (model["matrices"] - 1) * model["active"])
    outer = ((seq, model["ffn"]), (model["ffn"], model["hidden"]), model["active"])
    return [*projections, scores, mixing, ((seq, wide), (wide, model["hidden"]), 1), inner, outer]


@exercise.oracle
def counted_by_torch(model, seq, recompute=False):
    """Every product of a forward and a backward pass, with the formula of torch's own counter."""
    from torch.utils.flop_counter import mm_flop

    def both(a, b):
        (rows, inner), (_, columns) = a, b
        return mm_flop(a, b), mm_flop((rows, columns), (columns, inner)) + mm_flop((inner, rows), (rows, columns))

    total = sum(both((seq, model["hidden"]), (model["hidden"], model["vocab"])))
    for _ in range(model["layers"]):
        for a, b, count in _products(model, seq):
            forward, backward = both(a, b)
            total += count * ((2 if recompute else 1) * forward + backward)
    return total


@exercise.law("A GPT computed again costs 96 B s l h² (1 + s / 6h + V / 16lh), as Megatron's equation 3 has it")
def megatron(out, one, call):
    model, seq = one.args
    if model["ffn"] != 4 * model["hidden"] or model["matrices"] != 2 or model["experts"] > 1:
        return None
    s, n, h, v = seq, model["layers"], model["hidden"], model["vocab"]
    right = 96 * s * n * h * h * (1 + s / (6 * h) + v / (16 * n * h))
    found = call(model, seq, recompute=True)
    return bool(abs(found - right) <= 1e-9 * right) or f"{found:,} operations, and the formula gives {right:,.0f}"


@exercise.law("An expert that a token doesn't visit costs nothing")
def idle_experts(out, one, call):
    model, seq = one.args
    return bool(call(model | {"experts": 2 * model["experts"]}, seq, **one.kwargs) == out)


@exercise.law("With one token it is six operations a weight, and little more")
def six_n(out, one, call):
    model, _ = one.args
    weights = model["layers"] * (attention_weights(model) + model["active"] * feed_forward_weights(model))
    weights += model["hidden"] * model["vocab"]
    scores = 12 * model["layers"] * model["heads"] * model["head_dim"]
    return bool(call(model, 1) == 6 * weights + scores)


def _count(scores=4, passes=(3, 4), head=3, per=2, width=None, kv=None, matrices=None, parts="active", vocab=1):
    """Right as it stands. A mistake counts one of its parts another way."""

    def count(model, seq, recompute=False):
        m = dict(model)
        m["head_dim"] = m["hidden"] // m["heads"] if width else m["head_dim"]
        m["kv_heads"] = m["heads"] if kv else m["kv_heads"]
        m["matrices"] = matrices or m["matrices"]
        layer = per * seq * (attention_weights(m) + m[parts] * feed_forward_weights(m))
        layer += scores * m["heads"] * m["head_dim"] * seq * seq
        return m["layers"] * passes[recompute] * layer + head * per * seq * vocab * m["hidden"] * m["vocab"]

    return count


exercise.alternative(_count())


@exercise.alternative
def token_by_token(model, seq, recompute=False):
    weights, scores = 0, 0
    for _ in range(model["layers"]):
        weights += model["hidden"] * model["head_dim"] * model["heads"] * 2
        weights += model["hidden"] * model["head_dim"] * model["kv_heads"] * 2
        weights += model["hidden"] * model["ffn"] * model["matrices"] * model["active"]
        scores += 2 * model["heads"] * model["head_dim"] * seq
    forward = 2 * (weights + scores)
    return seq * (forward * (4 if recompute else 3) + 6 * model["hidden"] * model["vocab"])


exercise.mistake(
    "the scores and the mixing of values are left out", hint="6 N D knows no seq × seq. Which products have it?"
)(_count(scores=0))

exercise.mistake(
    "half of the work with the scores is left out",
    hint="Q Kᵀ is one product, weights times V another; and all seq × seq pairs count, masked or not.",
)(_count(scores=2))


@exercise.mistake(
    "the pairs that a causal mask hides are left out", hint="All seq × seq pairs count, as in most papers' MFU."
)
def causal(model, seq, recompute=False):
    seen = 2 * model["heads"] * model["head_dim"] * seq * (seq + 1)
    return _count(scores=0)(model, seq, recompute) + model["layers"] * (4 if recompute else 3) * seen


exercise.mistake(
    "a backward pass is taken to cost as much as a forward one",
    hint="Going back there is one product for the gradient of the inputs, and one for that of the weights.",
)(_count(passes=(2, 3), head=2))

exercise.mistake(
    "a multiplication with its addition counts as one", hint="FLOPs count both: 2 for a weight and a token."
)(_count(per=1, scores=2))

exercise.mistake("all experts are counted", hint="A token visits `active` of them.")(_count(parts="experts"))


@exercise.mistake("one expert is counted, however many are active", hint="A token visits `active` feed-forward parts.")
def one_expert(model, seq, recompute=False):
    return _count()(model | {"active": 1}, seq, recompute)


exercise.mistake("keys and values are taken to have as many heads as queries", hint="K and V have kv_heads.")(
    _count(kv=True)
)

exercise.mistake("a head is taken to be hidden / heads wide", hint="head_dim says how wide a head is.")(
    _count(width=True)
)

exercise.mistake("a gated feed-forward part is taken to have two matrices", hint="`matrices` says how many.")(
    _count(matrices=2)
)

exercise.mistake("the output matrix is left out", hint="[hidden → vocab] is a product, too.")(_count(vocab=0))

exercise.mistake("the embedding is counted like a product", hint="Looking up a row multiplies nothing.")(
    _count(vocab=2)
)

exercise.mistake("`recompute` has no effect", hint="It is a fourth pass over the layers.")(_count(passes=(3, 3)))


@exercise.mistake("the output matrix is computed again as well", hint="Only the layers are computed again.")
def head_again(model, seq, recompute=False):
    return _count(head=4 if recompute else 3)(model, seq, recompute)


exercise.mistake("computing again is taken to double the work", hint="It is one more forward pass: a third on top.")(
    _count(passes=(3, 6))
)
