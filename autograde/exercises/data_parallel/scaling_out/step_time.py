"""`step_time(flops, moved, sent, layout, machine)`: Seconds of one training step, and where they go."""

from __future__ import annotations

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.scaling_out.shared import layout
from autograde.exercises.shared import pick

exercise = Draft(
    "step_time",
    points=3,
    rtol=1e-9,
    atol=1e-12,
    no_gradient="seconds are plain numbers",
    hints=[
        "For each kind of messages first find the GPUs that talk: are they all in one node? Then bytes / speed.",
        "A group whose members are `inner` GPUs apart: within a node if inner * members <= node. Else, in a ring, "
        "node // inner members of each node share the way out, if more than one does.",
        "ring = lambda inner, n: fast if inner * n <= node else min(fast, slow * max(1, node // inner)); tp: ring(1, "
        "tp), cp: ring(tp, cp), dp: ring(tp * pp, dp * cp); ep, pp: fast if tp * cp * ep (tp * cp * pp) <= node else "
        "slow. bubble = (pp - 1) / (chunks * micro_batches) * (compute + tp).",
    ],
)


def machine(g, **other):
    """Round numbers, none of which is another's multiple."""
    base = {"peak": pick(g, 290, 310) * 1e12, "efficiency": pick(g, 55, 75) / 100, "memory": pick(g, 19, 21) * 1e11}
    return base | {"fast": pick(g, 280, 320) * 1e9, "slow": pick(g, 21, 29) * 1e9, "node": 8} | other


@exercise.cases
def steps(g):
    def some(label, machine, much=1, **degrees):
        kinds = {kind: float(pick(g, 10, 99) * 10**9) for kind in ("tp", "cp", "ep", "pp", "dp")}
        degrees = layout(**degrees)
        ranks = {"dp": degrees["dp"] * degrees["cp"]}
        kinds = {kind: size if ranks.get(kind, degrees[kind]) > 1 else 0.0 for kind, size in kinds.items()}
        work, moved = float(pick(g, 200, 900) * 10**13), float(pick(g, 200, 900) * much * 10**10)
        return case(work, moved, kinds, degrees, machine, label=label)

    yield some("one GPU", machine(g), much=40)
    yield some("tensor parallel in a node", machine(g), tp=8)
    yield some("tensor parallel over two nodes", machine(g), much=40, tp=16)
    yield some("data parallel in a node", machine(g), dp=8, micro_batches=3)
    yield some("data parallel, whole nodes", machine(g), much=40, dp=24)
    yield some("data parallel beside tensor parallel", machine(g), much=40, tp=4, dp=6, micro_batches=2)
    yield some("a way out that is wider than the node's", machine(g, slow=90e9), much=40, dp=16)
    yield some("pipeline over nodes", machine(g), tp=2, pp=6, dp=4, micro_batches=9)
    yield some("pipeline in chunks, in a node", machine(g), much=40, pp=4, dp=2, chunks=3, micro_batches=8)
    yield some(
        "pipeline, context and data parallel, hidden", machine(g), tp=2, cp=4, pp=3, dp=2, micro_batches=7, overlap=True
    )
    yield some("copies of a context, over nodes", machine(g), much=40, cp=4, dp=4)
    yield some("contexts that are four GPUs apart", machine(g), tp=4, cp=4, dp=2)
    yield some("experts and stages that are four GPUs apart", machine(g), tp=4, pp=4, dp=4, ep=4, micro_batches=3)
    yield some("experts and stages beside contexts", machine(g), much=40, cp=4, dp=4, ep=4, pp=2, micro_batches=3)
    yield some("experts over nodes", machine(g), dp=32, ep=16, micro_batches=2)
    yield some("experts in a node of four", machine(g, node=4), much=40, tp=2, dp=8, ep=2)
    yield some(
        "more to say than to compute, hidden",
        machine(g, slow=1e8),
        tp=2,
        dp=16,
        ep=16,
        pp=2,
        micro_batches=5,
        overlap=True,
    )


_INNER = {"tp": (), "cp": ("tp",), "dp": ("tp", "pp"), "ep": ("tp", "cp"), "pp": ("tp", "cp")}


def _product(layout, names):
    result = 1
    for name in names:
        result *= layout[name]
    return result


@exercise.oracle
def by_groups(flops, moved, sent, layout, machine):
    """The members of a group, by their numbers in the cluster; whoever shares a node shares its way out."""
    told = {"compute": flops / (machine["peak"] * machine["efficiency"]) + moved / machine["memory"]}
    for kind in ("tp", "cp", "ep", "pp", "dp"):
        inner = _product(layout, _INNER[kind])
        size = layout["dp"] * layout["cp"] if kind == "dp" else layout[kind]
        nodes = [inner * i // machine["node"] for i in range(size)]
        if inner * size <= machine["node"]:
            speed = machine["fast"]
        elif kind in ("ep", "pp"):
            speed = machine["slow"]
        else:
            together = max(1, machine["node"] // inner) if max(nodes) else size
            speed = min(machine["fast"], machine["slow"] * together)
        told[kind] = sent[kind] / speed
    told["bubble"] = (told["compute"] + told["tp"]) * (layout["pp"] - 1) / layout["micro_batches"] / layout["chunks"]
    beside = sum(told[kind] for kind in ("cp", "ep", "pp", "dp"))
    told["hidden"] = min(beside, told["compute"]) if layout["overlap"] else 0.0
    told["total"] = told["compute"] + told["tp"] + told["bubble"] + beside - told["hidden"]
    return told


def one_forward_one_backward(stages, count, forward=1.0, backward=2.0):
    """When a pipeline has finished: each stage does what is next on its list as soon as what it needs is there."""
    orders = []
    for s in range(stages):
        warm = min(stages - s, count)
        steady = [step for i in range(count - warm) for step in (("B", i), ("F", warm + i))]
        orders.append([("F", i) for i in range(warm)] + steady + [("B", i) for i in range(count - warm, count)])
    done, at, free = {}, [0] * stages, [0.0] * stages
    while any(at[s] < len(orders[s]) for s in range(stages)):
        for s in range(stages):
            if at[s] == len(orders[s]):
                continue
            kind, i = orders[s][at[s]]
            before = s - 1 if kind == "F" else s + 1
            needs = (kind, i, before) if 0 <= before < stages else ("F", i, s) if kind == "B" else None
            if needs and needs not in done:
                continue
            free[s] = max(free[s], done.get(needs, 0.0)) + (forward if kind == "F" else backward)
            done[kind, i, s], at[s] = free[s], at[s] + 1
    return max(free)


@exercise.law("With one chunk the bubble is that of a pipeline of one forward, one backward")
def simulated(out, one, call):
    flops, moved, sent, degrees, machine = one.args
    if degrees["pp"] == 1:
        return None
    found = call(flops, moved, sent, degrees | {"chunks": 1}, machine)
    count = degrees["micro_batches"]
    right = one_forward_one_backward(degrees["pp"], count) / (3 * count) - 1
    share = found["bubble"] / (found["compute"] + found["tp"])
    told = f"the bubble is {float(share):.3f} of the work, and in a simulated pipeline {right:.3f}"
    return bool(abs(share - right) < 1e-6) or told


@exercise.law("The parts add up to the total, less what is hidden")
def adds_up(out, one, call):
    parts = sum(out[kind] for kind in ("compute", "tp", "cp", "ep", "pp", "dp", "bubble")) - out["hidden"]
    return bool(abs(parts - out["total"]) <= 1e-9 * abs(out["total"]))


def _leaving(inner, m):
    return min(m["fast"], m["slow"] * max(1, m["node"] // inner))


def _step(
    compute=lambda flops, moved, m: flops / (m["peak"] * m["efficiency"]) + moved / m["memory"],
    ring=lambda inner, n, m: m["fast"] if inner * n <= m["node"] else _leaving(inner, m),
    direct=lambda inner, n, m: m["fast"] if inner * n <= m["node"] else m["slow"],
    inner=_INNER,
    replicas=lambda d: d["dp"] * d["cp"],
    bubble=lambda d: (d["pp"] - 1) / (d["chunks"] * d["micro_batches"]),
    work=("compute", "tp"),
    beside=("cp", "ep", "pp", "dp"),
    hides=lambda beside, t: min(beside, t["compute"]),
):
    """Right as it stands. A mistake takes one of its parts another way."""

    def step(flops, moved, sent, layout, machine):
        told = {"compute": compute(flops, moved, machine)}
        for kind in ("tp", "cp", "ep", "pp", "dp"):
            size = replicas(layout) if kind == "dp" else layout[kind]
            link = direct if kind in ("ep", "pp") else ring
            told[kind] = sent[kind] / link(_product(layout, inner[kind]), size, machine)
        told["bubble"] = bubble(layout) * sum(told[kind] for kind in work)
        whole = sum(told.values())
        told["hidden"] = hides(sum(told[kind] for kind in beside), told) if layout["overlap"] else 0.0
        return told | {"total": whole - told["hidden"]}

    return step


exercise.alternative(_step())


@exercise.alternative
def in_words(flops, moved, sent, layout, machine):
    tp, pp, cp, node = (*(layout[name] for name in ("tp", "pp", "cp")), machine["node"])
    fast, slow = machine["fast"], machine["slow"]

    def leaving(inner):
        return min(fast, slow * (node // inner if inner < node else 1))

    ranks = layout["dp"] * cp
    seconds = {
        "compute": flops / machine["peak"] / machine["efficiency"] + moved / machine["memory"],
        "tp": sent["tp"] / (fast if tp <= node else leaving(1)),
        "cp": sent["cp"] / (fast if tp * cp <= node else leaving(tp)),
        "ep": sent["ep"] / (fast if tp * cp * layout["ep"] <= node else slow),
        "pp": sent["pp"] / (fast if tp * cp * pp <= node else slow),
        "dp": sent["dp"] / (fast if tp * pp * ranks <= node else leaving(tp * pp)),
    }
    idle = (seconds["compute"] + seconds["tp"]) / layout["micro_batches"] * (pp - 1) / layout["chunks"]
    other = seconds["cp"] + seconds["ep"] + seconds["pp"] + seconds["dp"]
    hidden = min(other, seconds["compute"]) * bool(layout["overlap"])
    total = seconds["compute"] + seconds["tp"] + idle + other - hidden
    return {**seconds, "bubble": idle, "hidden": hidden, "total": total}


exercise.mistake("a GPU is taken to reach its peak", hint="Products reach `efficiency` of it.")(
    _step(compute=lambda flops, moved, m: flops / m["peak"] + moved / m["memory"])
)
exercise.mistake("a GPU is taken to be faster than its peak", hint="peak * efficiency operations a second.")(
    _step(compute=lambda flops, moved, m: flops / m["peak"] * m["efficiency"] + moved / m["memory"])
)
exercise.mistake("what is read and written costs no time", hint="moved / memory comes on top of the products.")(
    _step(compute=lambda flops, moved, m: flops / (m["peak"] * m["efficiency"]))
)
exercise.mistake("memory traffic is taken to run beside the products", hint="The planner adds the two.")(
    _step(compute=lambda flops, moved, m: max(flops / (m["peak"] * m["efficiency"]), moved / m["memory"]))
)
exercise.mistake("everything is sent at the speed within a node", hint="inner * members > node: that leaves the node.")(
    _step(ring=lambda inner, n, m: m["fast"], direct=lambda inner, n, m: m["fast"])
)
exercise.mistake("everything is sent at the speed between nodes", hint="Within a node links are faster.")(
    _step(ring=lambda inner, n, m: m["slow"], direct=lambda inner, n, m: m["slow"])
)
exercise.mistake(
    "a ring that leaves the node has one way out, however many of its members stand there",
    hint="node // inner members of one node each have a network card, and a ring can use them all.",
)(_step(ring=lambda inner, n, m: m["fast"] if inner * n <= m["node"] else m["slow"]))
exercise.mistake("every ring has all cards of a node", hint="Only as many as it has members there: node // inner.")(
    _step(ring=lambda inner, n, m: m["fast"] if inner * n <= m["node"] else min(m["fast"], m["slow"] * m["node"]))
)
exercise.mistake(
    "several cards together are taken to be faster than the links within the node",
    hint="min(fast, …): a ring is as fast as its slowest link.",
)(_step(ring=lambda inner, n, m: m["fast"] if inner * n <= m["node"] else m["slow"] * max(1, m["node"] // inner)))
exercise.mistake(
    "the groups are taken to be neighbors: what lies between their members is left out",
    hint="Members of a cp group are tp GPUs apart, those of a dp group tp * pp.",
)(_step(inner=dict.fromkeys(_INNER, ())))
exercise.mistake(
    "experts' messages use all cards of the node, like a ring",
    hint="Each GPU sends its own tokens through its own card.",
)(_step(direct=lambda inner, n, m: m["fast"] if inner * n <= m["node"] else _leaving(inner, m)))
exercise.mistake(
    "few members are taken to be in one node, however far apart they are",
    hint="Members * distance <= node: two GPUs with seven between them are not neighbors.",
)(_step(ring=lambda inner, n, m: m["fast"] if n <= m["node"] else _leaving(inner, m)))
exercise.mistake(
    "experts and stages are taken to be tp GPUs apart, contexts left out",
    hint="Between two experts of a group lie tp * cp GPUs, and between two stages as many.",
)(_step(inner=_INNER | {"ep": ("tp",), "pp": ("tp",)}))
exercise.mistake(
    "messages are hidden behind those of tp as well", hint="No longer than there is something to compute."
)(_step(hides=lambda beside, t: min(beside, t["compute"] + t["tp"])))
exercise.mistake("the ring of gradients has dp members alone", hint="dp * cp ranks hold the same weights.")(
    _step(replicas=lambda d: d["dp"])
)
exercise.mistake("the bubble has pp places instead of pp - 1", hint="The first stage starts at once.")(
    _step(bubble=lambda d: d["pp"] / (d["chunks"] * d["micro_batches"]) if d["pp"] > 1 else 0)
)
exercise.mistake(
    "the bubble's share of the whole step is taken for its share of the work",
    hint="(pp - 1) / m of the work; (pp - 1) / (m + pp - 1) is the share of the whole.",
)(_step(bubble=lambda d: (d["pp"] - 1) / (d["chunks"] * d["micro_batches"] + d["pp"] - 1)))
exercise.mistake("chunks make no difference to the bubble", hint="With v chunks it is v times as short.")(
    _step(bubble=lambda d: (d["pp"] - 1) / d["micro_batches"])
)
exercise.mistake("chunks make the bubble longer", hint="With v chunks it is v times as short.")(
    _step(bubble=lambda d: (d["pp"] - 1) * d["chunks"] / d["micro_batches"])
)
exercise.mistake("the bubble holds no messages of tp", hint="A waiting stage waits for compute and tp.")(
    _step(work=("compute",))
)
exercise.mistake("messages of tp are hidden, too", hint="The next product needs them: only cp, ep, pp and dp hide.")(
    _step(beside=("tp", "cp", "ep", "pp", "dp"))
)
exercise.mistake(
    "whatever is sent can be hidden, however long it takes", hint="No longer than there is something to compute."
)(_step(hides=lambda beside, t: beside))
exercise.mistake("messages are hidden also where the layout doesn't say so", hint="Only with overlap.")(
    lambda flops, moved, sent, layout, machine: _step()(flops, moved, sent, layout | {"overlap": True}, machine)
)
exercise.mistake("nothing is hidden", hint="With overlap: min(cp + ep + pp + dp, compute).")(
    _step(hides=lambda beside, t: 0.0)
)
