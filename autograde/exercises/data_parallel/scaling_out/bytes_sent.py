"""`bytes_sent(model, layout, seq)`: Bytes that a GPU sends in one training step, by what it sends them for."""

from __future__ import annotations

import math

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.scaling_out.shared import dense, grouped, layout, mixture, stage_weights, tokens
from autograde.exercises.shared import pick

exercise = Draft(
    "bytes_sent",
    points=4,
    rtol=1e-9,
    atol=1e-6,
    no_gradient="a count of bytes",
    hints=[
        "Take the five one by one. For each: what is one message, how often a micro-batch, for how many layers, and "
        "which part of it does a ring really send?",
        "t = micro_batch * seq / cp. tp: 4 all-reduces of 2 * t * hidden bytes (6 with recompute), 2 (tp - 1) / tp of "
        "each. cp: (cp - 1) times K and V, 3 times (4). ep: 4 exchanges (6) of 2 * t / tp * active * hidden bytes, "
        "(ep - 1) / ep of them leave.",
        "pp: 4 * t * hidden / tp * chunks for each micro-batch. dp: 2 * numbers * (n - 1) / n, two times a step; with "
        "ZeRO 3 three times a micro-batch; n = dp * cp, and dp * cp / ep for what experts hold.",
    ],
)


@exercise.cases
def sent(g):
    def some(label, model, **degrees):
        return case(model, layout(**degrees), 8 * pick(g, 5, 9), label=label)

    yield some("one GPU", dense(g), micro_batches=3)
    yield some("tensor parallel", dense(g, heads=4), tp=4, micro_batch=3, micro_batches=2)
    yield some("tensor parallel, computed again", dense(g, heads=4), tp=2, recompute=True, micro_batches=5)
    yield some("pipeline, layers that don't divide", dense(g, layers=7), pp=3, micro_batches=4)
    yield some("pipeline in chunks, with tensor parallel", dense(g, layers=6), pp=3, tp=2, chunks=2, micro_batches=3)
    yield some("context parallel", grouped(g), cp=4, tp=2, micro_batches=2)
    yield some("context parallel, computed again", grouped(g), cp=2, dp=3, recompute=True)
    yield some("data parallel", dense(g), dp=5, zero=pick(g, 0, 1), micro_batches=3)
    yield some("ZeRO 2", dense(g), dp=pick(g, 2, 4), zero=2, micro_batches=3)
    yield some("ZeRO 3", grouped(g, layers=4), dp=3, cp=2, zero=3, pp=2, micro_batches=4)
    yield some("experts", mixture(g, active=3), dp=8, ep=4, micro_batch=2, micro_batches=3)
    yield some("experts, ZeRO 3, computed again", mixture(g), dp=3, cp=4, ep=6, tp=2, zero=3, recompute=True)
    yield some("an expert-parallel degree, and one expert", dense(g), dp=4, ep=2)
    yield some("every expert on every rank", mixture(g), dp=3)
    yield some("all at once", mixture(g, layers=5), tp=2, pp=2, dp=2, cp=2, ep=2, chunks=2, zero=1, micro_batches=6)
    yield some(
        "pipeline and context, computed again", mixture(g, layers=4), tp=4, pp=2, dp=3, cp=2, ep=2, recompute=True
    )


def _ring_pass(numbers, ranks):
    """What rank 0 sends in a reduce-scatter or an all-gather of so many numbers: n - 1 chunks of 2 bytes each."""
    return sum(2 * numbers / ranks for _ in range(round(ranks) - 1))


@exercise.oracle
def message_by_message(model, layout, seq):
    """Every message of every layer and micro-batch of one GPU, added up in the order in which they go."""
    told = dict.fromkeys(("tp", "cp", "ep", "pp", "dp"), 0.0)
    tp, cp, ep, again = layout["tp"], layout["cp"], layout["ep"], layout["recompute"]
    t = layout["micro_batch"] * seq / cp
    common, own = stage_weights(model, layout)
    ranks = layout["dp"] * cp

    def both_ways():
        """One pass of a ring over the weights of this stage, or their gradients."""
        return _ring_pass(common, ranks) + _ring_pass(own, ranks / ep)

    passes = ["forward", "forward", "backward"] if again else ["forward", "backward"]
    for _ in range(layout["micro_batches"]):
        for direction in passes:
            for _ in range(-(-model["layers"] // layout["pp"])):
                for _ in ("attention", "feed-forward"):
                    told["tp"] += 2 * _ring_pass(t * model["hidden"], tp)
                kv = 2 * 2 * t * model["kv_heads"] * model["head_dim"] / tp
                told["cp"] += sum(kv * (1 if direction == "forward" else 2) for _ in range(cp - 1))
                if model["experts"] > 1:
                    for _ in ("dispatch", "combine"):
                        told["ep"] += 2 * t / tp * model["active"] * model["hidden"] * (1 - 1 / ep)
        if layout["pp"] > 1:
            told["pp"] += sum(2 * t * model["hidden"] / tp for _ in range(2 * layout["chunks"]))
        if layout["zero"] == 3:
            told["dp"] += both_ways() + both_ways() + both_ways()
    if layout["zero"] < 3:
        told["dp"] += both_ways() + both_ways()
    return told


@exercise.law("A degree of 1 sends nothing")
def alone(out, one, call):
    model, degrees, seq = one.args
    for kind in ("tp", "cp", "ep", "pp"):
        found = call(model, degrees | {kind: 1}, seq)[kind]
        if found:
            return f"{kind} = 1 still sends {found:,.0f} bytes"
    return bool(call(model, degrees | {"dp": 1, "cp": 1, "ep": 1}, seq)["dp"] == 0)


@exercise.law("What dp sends hardly depends on how many ranks there are; what tp sends depends on the tokens")
def scaling(out, one, call):
    model, degrees, seq = one.args
    few, many = (call(model, degrees | {"dp": n, "cp": 1, "ep": 1}, seq)["dp"] for n in (64, 4096))
    twice = call(model, degrees, 2 * seq)["tp"]
    return bool(1 < many / few < 1.02) and math.isclose(twice, 2 * out["tp"], rel_tol=1e-9)


def _sent(
    reduces=lambda again: 6 if again else 4,
    ring=lambda n: 2 * (n - 1) / n,
    rounds=lambda again: 4 if again else 3,
    heads="kv_heads",
    exchanges=lambda again: 6 if again else 4,
    copies="active",
    leaves=lambda ep: 1 - 1 / ep,
    spread=lambda d: d["tp"],
    stage=lambda d: 4 * d["chunks"],
    share=lambda d: 2 * (3 * d["micro_batches"] if d["zero"] == 3 else 2),
    ranks=lambda d: d["dp"] * d["cp"],
    owners=lambda n, d: n / d["ep"],
    layers=lambda m, d: math.ceil(m["layers"] / d["pp"]),
    times=lambda d: d["micro_batches"],
    of=tokens,
    weights=stage_weights,
    blocks=lambda cp: cp - 1,
):
    """Right as it stands. A mistake takes one of its parts another way."""

    def sent(model, layout, seq):
        t, again = of(layout, seq), layout["recompute"]
        n, each = ranks(layout), times(layout) * layers(model, layout)
        common, own = weights(model, layout)
        kv = 4 * t * model[heads] * model["head_dim"] / layout["tp"]
        moe = 2 * t / spread(layout) * model[copies] * model["hidden"] * leaves(layout["ep"])
        data = common * (1 - 1 / n) + own * (1 - 1 / owners(n, layout))
        return {
            "tp": each * reduces(again) * ring(layout["tp"]) * 2 * t * model["hidden"],
            "cp": each * rounds(again) * blocks(layout["cp"]) * kv,
            "ep": each * exchanges(again) * moe if model["experts"] > 1 else 0,
            "pp": times(layout) * stage(layout) * t * model["hidden"] / layout["tp"] if layout["pp"] > 1 else 0,
            "dp": share(layout) * data,
        }

    return sent


exercise.alternative(_sent())


@exercise.alternative
def in_numbers_of_two_bytes(model, layout, seq):
    tp, pp, cp, ep, m = (layout[name] for name in ("tp", "pp", "cp", "ep", "micro_batches"))
    act = 2 * layout["micro_batch"] * seq * model["hidden"] / cp
    n, forwards = -(-model["layers"] // pp), 1 + bool(layout["recompute"])
    common, own = stage_weights(model, layout)
    data = layout["dp"] * cp
    each_way = common * (data - 1) / data + own * (data - ep) / data
    kv = 2 * act / model["hidden"] * model["kv_heads"] * model["head_dim"] / tp
    dispatch = act / tp * model["active"] * (ep - 1) / ep if model["experts"] > 1 else 0.0
    return {
        "tp": m * n * (forwards + 1) * 2 * (2 * act * (tp - 1) / tp),
        "cp": m * n * (forwards + 2) * (cp - 1) * kv,
        "ep": m * n * (forwards + 1) * 2 * dispatch,
        "pp": m * layout["chunks"] * 2 * act / tp if pp > 1 else 0.0,
        "dp": 2 * each_way * (3 * m if layout["zero"] == 3 else 2),
    }


exercise.mistake(
    "tensor parallelism is taken to talk in the forward pass alone",
    hint="Two all-reduces a layer forward, two backward.",
)(_sent(reduces=lambda again: 4 if again else 2))
exercise.mistake(
    "tp sends half as much: one all-reduce a layer, or one way round the ring",
    hint="One behind attention, one behind the feed-forward part; each is a reduce-scatter and an all-gather.",
)(_sent(reduces=lambda again: 3 if again else 2))
exercise.mistake(
    "computing again is taken to send nothing for tp", hint="A forward pass has its all-reduces, also the second time."
)(_sent(reduces=lambda again: 4))
exercise.mistake(
    "an all-reduce is taken to send its tensor once", hint="A ring passes it twice, all but one chunk: 2 (n - 1) / n."
)(_sent(ring=lambda n: 1 if n > 1 else 0))
exercise.mistake("an all-reduce is taken to send the tensor to everybody", hint="A ring: 2 (n - 1) / n of it.")(
    _sent(ring=lambda n: 2 * (n - 1))
)
exercise.mistake(
    "queries go round the ring as well, or as many heads of keys as of queries",
    hint="Only keys and values travel: kv_heads of them.",
)(_sent(heads="heads"))
exercise.mistake(
    "computing again is taken to send nothing for cp", hint="The second forward pass needs all keys and values again."
)(_sent(rounds=lambda again: 3))
exercise.mistake(
    "computing again is taken to send nothing for ep", hint="The second forward pass dispatches and combines again."
)(_sent(exchanges=lambda again: 4))
exercise.mistake("keys and values are passed on cp times", hint="cp - 1 times: the own block is there already.")(
    _sent(blocks=lambda cp: cp if cp > 1 else 0)
)
exercise.mistake(
    "the ring's way back is taken to cost as much as the way forth",
    hint="Backward, keys and values travel again, and their gradients with them.",
)(_sent(rounds=lambda again: 3 if again else 2))
exercise.mistake("tokens are taken to visit one expert", hint="`active` copies of each token leave.")(
    lambda model, layout, seq: _sent()(model | {"active": 1}, layout, seq)
)
exercise.mistake("tokens are sent to all experts", hint="To those that are active for them.")(_sent(copies="experts"))
exercise.mistake("tokens are sent, and never come back", hint="Dispatch and combine, forward and backward.")(
    _sent(exchanges=lambda again: 3 if again else 2)
)
exercise.mistake("what stays on its own rank is counted as sent", hint="1 / ep of the copies stay.")(
    _sent(leaves=lambda ep: 1 if ep > 1 else 0)
)
exercise.mistake(
    "each of the tp ranks is taken to send all tokens to the experts",
    hint="With sequence parallelism each has t / tp of them.",
)(_sent(spread=lambda d: 1))
exercise.mistake("only activations are sent between stages, no gradients", hint="Forward one message, backward one.")(
    _sent(stage=lambda d: 2 * d["chunks"])
)
exercise.mistake(
    "computing again is taken to send between stages as well",
    hint="What a stage was sent it still has: one activation on, one gradient back.",
)(lambda model, layout, seq: _again_between_stages(_sent()(model, layout, seq), layout))


def _again_between_stages(told, layout):
    return told | {"pp": told["pp"] * (1.5 if layout["recompute"] else 1)}


exercise.mistake("chunks are taken to cost no messages", hint="A stage with v chunks passes on v times.")(
    _sent(stage=lambda d: 4)
)
exercise.mistake(
    "gradients are taken to be averaged after each micro-batch",
    hint="Once a step; only ZeRO 3 talks for each micro-batch.",
)(_sent(share=lambda d: 2 * (3 if d["zero"] == 3 else 2) * d["micro_batches"]))
exercise.mistake(
    "ZeRO 3 is taken to gather once a step",
    hint="Weights are dropped after use: each micro-batch gathers them twice and scatters gradients once.",
)(_sent(share=lambda d: 2 * (3 if d["zero"] == 3 else 2)))
exercise.mistake(
    "ZeRO 2 is taken to send as much as ZeRO 3",
    hint="Its weights are whole: a reduce-scatter and an all-gather once a step, together an all-reduce.",
)(_sent(share=lambda d: 2 * (3 * d["micro_batches"] if d["zero"] > 1 else 2)))
exercise.mistake(
    "ZeRO 3 is taken to send as much as an all-reduce",
    hint="Two gathers of the weights and a scatter of gradients: three passes.",
)(_sent(share=lambda d: 4 * (d["micro_batches"] if d["zero"] == 3 else 1)))
exercise.mistake("gradients are taken to have 4 bytes", hint="2 bytes each.")(
    _sent(share=lambda d: 4 * (3 * d["micro_batches"] if d["zero"] == 3 else 2))
)
exercise.mistake(
    "gradients are averaged over dp ranks alone",
    hint="Context-parallel ranks saw other tokens with the same weights: dp * cp.",
)(_sent(ranks=lambda d: d["dp"], owners=lambda n, d: max(1, n / d["ep"])))
exercise.mistake("the gradients of experts are averaged over all ranks", hint="An expert has dp * cp / ep owners.")(
    _sent(owners=lambda n, d: n)
)
exercise.mistake("the gradients of dp are not cut by tp", hint="A GPU holds 1 / tp of each matrix, and its gradients.")(
    _sent(weights=lambda m, d: tuple(numbers * d["tp"] for numbers in stage_weights(m, d)))
)
exercise.mistake("the number of layers is not rounded up", hint="The fullest stage has ⌈layers / pp⌉.")(
    _sent(layers=lambda m, d: m["layers"] / d["pp"])
)
exercise.mistake("one micro-batch is counted", hint="A step has micro_batches of them.")(_sent(times=lambda d: 1))
exercise.mistake("the sequence is not cut by cp", hint="t = micro_batch * seq / cp.")(
    _sent(of=lambda d, seq: d["micro_batch"] * seq)
)
exercise.mistake("the size of the micro-batch is left out", hint="t = micro_batch * seq / cp.")(
    _sent(of=lambda d, seq: seq / d["cp"])
)
exercise.mistake("the vocabulary matrix has no gradients", hint="The first stage has one, and a single stage both.")(
    _sent(
        weights=lambda m, d: (
            stage_weights(m, d)[0] - m["vocab"] * m["hidden"] * (2 if d["pp"] == 1 else 1) / d["tp"],
            stage_weights(m, d)[1],
        )
    )
)
