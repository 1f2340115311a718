"""`best_layout(gpus, node, model, batch, limit, memory, seconds)`: The fastest layout that fits; ValueError if none."""

from __future__ import annotations

import itertools

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.scaling_out.shared import dense, grouped
from autograde.exercises.shared import pick

exercise = Draft(
    "best_layout",
    points=3,
    no_gradient="a search",
    hints=[
        "Four loops: tp, pp, micro_batch and recompute; dp and micro_batches follow from them. Which combinations are "
        "impossible before you ask for memory or seconds?",
        "tp divides node, heads and kv_heads; pp divides layers; tp * pp divides gpus; dp * micro_batch divides batch. "
        "Ask memory first, and seconds only for what fits.",
        "found = [(seconds(x), i, x) for i, x in enumerate(candidates) if memory(x) <= limit]; raise ValueError if it "
        "is empty, else min(found)[2].",
    ],
)


@exercise.cases
def searches(g):
    def some(label, gpus, node, model, batch, limit, **taste):
        taste = {"tp": 0.3, "pp": 0.2, "micro": 0.6, "again": 0.34, "kept": 12.0} | taste
        return case(gpus, node, model, batch, limit, taste | {"grain": pick(g, 3, 9) / 1000}, label=label)

    few, wide = dense(g, layers=6, heads=4), dense(g, layers=8, heads=8)
    yield some("everything fits", 8, 4, few, 24, 1e9)
    yield some("only what is cut fits", 8, 4, few, 24, 14.0)
    yield some("tensor parallelism is dear", 16, 8, wide, 32, 14.0, tp=5.0)
    yield some("pipelines are dear", 16, 8, wide, 32, 14.0, pp=9.0)
    yield some("pipelines are dear, nodes small", 16, 2, wide, 32, 14.0, pp=9.0)
    yield some("only computing again fits", 4, 4, few, 8, 14.0, kept=30.0)
    yield some("two key heads", 8, 8, grouped(g, layers=4), 16, 25.0, pp=9.0)
    yield some("a batch that few layouts divide", 12, 4, dense(g, layers=12, heads=4), 9, 60.0, micro=5.0)
    yield some("no power of two", 18, 6, dense(g, layers=9, heads=6), 36, 14.0)
    yield some("three stages are fastest", 6, 1, dense(g, layers=6, heads=4), 12, 26.0)
    yield some("three heads on a node of four", 12, 4, dense(g, layers=4, heads=3), 12, 14.0)
    yield some("larger micro-batches are faster", 4, 2, few, 48, 200.0, micro=3.0)
    yield some("computing again is faster, as less is moved", 8, 4, few, 16, 1e9, again=-0.2)
    yield some("fewer micro-batches than stages", 8, 4, dense(g, layers=8, heads=3), 4, 11.1)
    yield some("one GPU", 1, 8, few, 5, 1e9)
    yield some("exactly what there is", 1, 8, few, 1, 52.0)
    yield some("nothing fits", 8, 4, few, 24, 0.5)
    yield some("no layout divides the batch", 7, 1, dense(g, layers=5, heads=4), 3, 1e9)


@exercise.probe
def searched(best_layout, gpus, node, model, batch, limit, taste):
    """Let it search with made-up bytes and seconds, which note what they are asked; say what it found or refused."""
    names = ("tp", "pp", "dp", "micro_batch", "micro_batches", "recompute")
    asked = []

    def memory(x):
        here = 1.0 / (x["tp"] * x["pp"])
        kept = taste["kept"] * x["micro_batch"] * min(x["pp"], x["micro_batches"])
        held = here * (40.0 + kept * (0.2 if x["recompute"] else 1.0))
        asked.append(("memory", *(x[name] for name in names), held))
        return held

    def seconds(x):
        work = 1.0 + (taste["again"] if x["recompute"] else 0.0)
        work *= (1 + taste["tp"] * (x["tp"] - 1) / x["tp"]) * (1 + taste["micro"] / x["micro_batch"])
        idle = 1 + (x["pp"] - 1) / x["micro_batches"] + taste["pp"] * (x["pp"] - 1)
        wish = 0.31 * x["tp"] + 0.17 * x["pp"] + 0.05 * x["micro_batch"] + 0.011 * x["recompute"]
        asked.append(("seconds", *(x[name] for name in names), 0.0))
        return work * idle + taste["grain"] * wish

    try:
        found = best_layout(gpus, node, dict(model), batch, limit, memory, seconds)
    except ValueError:
        return {"layout": "refused", "asked": asked}
    if not isinstance(found, dict):
        return {"layout": "no dict", "asked": asked}
    if not all(isinstance(one[-2], bool) for one in asked):
        return {"layout": "recompute is no bool", "asked": asked}
    more = {str(key): "not asked for" for key in found if key not in names}
    return {"layout": {name: found.get(name, "missing") for name in names} | more, "asked": asked}


def _candidates(gpus, node, model, batch, tps=None, allowed=None):
    """Every layout, from all numbers there are."""
    dividing = allowed or (
        lambda tp, pp, micro: all(
            whole % part == 0
            for whole, part in (
                (node, tp),
                (model["heads"], tp),
                (model["kv_heads"], tp),
                (model["layers"], pp),
                (gpus, tp * pp),
                (batch * tp * pp, gpus * micro),
            )
        )
    )
    for tp, pp, micro in itertools.product(range(1, node + 1), range(1, model["layers"] + 1), range(1, batch + 1)):
        if dividing(tp, pp, micro):
            dp = gpus // (tp * pp)
            for again in (False, True):
                rest = {"dp": dp, "micro_batch": micro, "micro_batches": batch // (dp * micro), "recompute": again}
                yield {"tp": tp, "pp": pp} | rest


def _fastest(gpus, node, model, batch, limit, memory, seconds):
    fitting = [x for x in _candidates(gpus, node, model, batch) if memory(x) <= limit]
    if not fitting:
        raise ValueError("nothing fits")
    return min(fitting, key=seconds)


@exercise.oracle
def tried_out(*inputs):
    """All that there are, one after the other."""
    return searched(_fastest, *inputs)


@exercise.agrees
def same_layout(expected, got, one):
    if not isinstance(got, dict):
        return "is not what was expected"
    right, found = expected["layout"], got["layout"]
    if right == found:
        return True
    if found == "refused":
        return f"{one.label}: it is refused, and {right} fits"
    return f"{one.label}: {found}, and it should be {right}"


def _nothing_tried(out, one):
    """A sentence where there are layouts, and none was asked about."""
    tried = out["asked"] or next(_candidates(*one.args[:4]), None) is None
    return "" if tried else f"{one.label}: no layout is tried"


@exercise.law("Nothing is asked about a layout that doesn't come out even", essential=True)
def even(out, one, call):
    gpus, node, model, batch, *_ = one.args
    if told := _nothing_tried(out, one):
        return told
    for _, tp, pp, dp, micro, count, _, _ in out["asked"]:
        wrong = []
        wrong += ["tp * pp * dp are not the GPUs"] * (tp * pp * dp != gpus)
        wrong += ["dp * micro_batch * micro_batches are not the batch"] * (dp * micro * count != batch)
        wrong += ["tp doesn't divide the node"] * (node % tp != 0)
        wrong += ["tp doesn't divide the heads"] * (model["heads"] % tp + model["kv_heads"] % tp != 0)
        wrong += ["pp doesn't divide the layers"] * (model["layers"] % pp != 0)
        if wrong:
            return f"{one.label}: tp {tp}, pp {pp}, dp {dp}, {count} micro-batches of {micro}: {wrong[0]}"
    return True


@exercise.law("Seconds are asked only about what fits")
def fits_first(out, one, call):
    limit = one.args[4]
    if told := _nothing_tried(out, one):
        return told
    held = {key[:-1]: key[-1] for _, *key in map(tuple, out["asked"]) for key in [tuple(key)] if key[-1]}
    for kind, *key, _ in out["asked"]:
        if kind == "seconds" and held.get(tuple(key), 0.0) > limit:
            return f"{one.label}: seconds of tp {key[0]}, pp {key[1]}, which needs {held[tuple(key)]:.1f} of {limit}"
    return True


def _search(keep=lambda x: True, fits=lambda held, limit: held <= limit, choose=min, key=None, allowed=None, none=None):
    """Right as it stands. A mistake leaves candidates out, or compares another way."""

    def search(gpus, node, model, batch, limit, memory, seconds):
        found = [
            x
            for x in _candidates(gpus, node, model, batch, allowed=allowed and allowed(gpus, node, model, batch))
            if keep(x) and fits(memory(x), limit)
        ]
        if not found:
            if none:
                return none(gpus, batch)
            raise ValueError(f"none of the layouts of {gpus} GPUs fits {limit} bytes")
        return choose(found, key=(lambda x: key(x, memory, seconds)) if key else seconds)

    return search


exercise.alternative(_search())


@exercise.alternative
def by_divisors(gpus, node, model, batch, limit, memory, seconds):
    def divisors(n):
        return [i for i in range(1, n + 1) if n % i == 0]

    best, needed = None, float("inf")
    for pp in divisors(model["layers"]):
        for tp in divisors(node):
            if gpus % (tp * pp) or model["heads"] % tp or model["kv_heads"] % tp or batch % (gpus // tp // pp):
                continue
            dp = gpus // tp // pp
            for micro in divisors(batch // dp):
                for again in (True, False):
                    split = {"micro_batch": micro, "micro_batches": batch // dp // micro, "recompute": again}
                    x = {"tp": tp, "pp": pp, "dp": dp} | split
                    if memory(x) <= limit and (best is None or seconds(x) < needed):
                        best, needed = x, seconds(x)
    if best is None:
        raise ValueError("nothing fits")
    return best


exercise.mistake("the memory is not asked", hint="A layout that doesn't fit is no layout.")(
    _search(fits=lambda held, limit: True)
)
exercise.mistake("a layout that needs exactly what there is counts as too large", hint="At most `limit` bytes.")(
    _search(fits=lambda held, limit: held < limit)
)
exercise.mistake("the layout that needs least memory is taken", hint="Of those that fit, the fastest.")(
    _search(key=lambda x, memory, seconds: memory(x))
)
exercise.mistake("the slowest is taken", hint="The fewest seconds.")(_search(choose=max))


@exercise.mistake("the first layout that fits is taken", hint="Go on: a later one may be faster.")
def first_that_fits(gpus, node, model, batch, limit, memory, seconds):
    for x in _candidates(gpus, node, model, batch):
        if memory(x) <= limit:
            return x
    raise ValueError("nothing fits")


exercise.mistake("pipelines are never tried", hint="pp: every divisor of layers.")(_search(keep=lambda x: x["pp"] == 1))
exercise.mistake("tensor parallelism is never tried", hint="tp: every common divisor of node, heads and kv_heads.")(
    _search(keep=lambda x: x["tp"] == 1)
)
exercise.mistake(
    "tensor parallelism is tried only over the whole node", hint="tp: every common divisor, not the ends alone."
)(lambda gpus, node, *rest: _search(keep=lambda x: x["tp"] in (1, node))(gpus, node, *rest))
exercise.mistake("data parallelism is never tried", hint="dp is what is left of the GPUs: gpus / (tp * pp).")(
    _search(keep=lambda x: x["dp"] == 1)
)
exercise.mistake("micro-batches of one sequence only are tried", hint="micro_batch: every divisor of batch / dp.")(
    _search(keep=lambda x: x["micro_batch"] == 1)
)
exercise.mistake("a single micro-batch is tried", hint="micro_batch: every divisor of batch / dp.")(
    _search(keep=lambda x: x["micro_batches"] == 1)
)
exercise.mistake("computing again is never tried", hint="It is slower, but may be what makes it fit.")(
    _search(keep=lambda x: not x["recompute"])
)
exercise.mistake("everything is computed again", hint="Where it fits without, that is faster.")(
    _search(keep=lambda x: x["recompute"])
)
exercise.mistake(
    "computing again is tried only where nothing else fits", hint="All layouts are tried, with recompute and without."
)(_search(key=lambda x, memory, seconds: (x["recompute"], seconds(x))))
exercise.mistake(
    "a pipeline is tried only with as many micro-batches as stages",
    hint="Fewer leave a long bubble, but it may be all that fits.",
)(_search(keep=lambda x: x["pp"] <= x["micro_batches"]))
exercise.mistake("only powers of two are tried", hint="Nine layers have three thirds.")(
    _search(keep=lambda x: all(x[name] & (x[name] - 1) == 0 for name in ("tp", "pp")))
)
exercise.mistake(
    "where nothing fits, one GPU's layout is given back", hint="Raise ValueError: it must not be started."
)(_search(none=lambda gpus, batch: next(_candidates(gpus, 1, {"heads": 1, "kv_heads": 1, "layers": 1}, gpus))))
exercise.mistake("where nothing fits, nothing is said", hint="Raise ValueError: it must not be started.")(
    _search(none=lambda gpus, batch: None)
)


def _ignoring(rule):
    def allowed(gpus, node, model, batch):
        rules = {
            "node": lambda tp, pp, micro: node % tp,
            "heads": lambda tp, pp, micro: model["heads"] % tp,
            "keys": lambda tp, pp, micro: model["kv_heads"] % tp,
            "layers": lambda tp, pp, micro: model["layers"] % pp,
            "batch": lambda tp, pp, micro: batch * tp * pp % (gpus * micro),
        }
        kept = [broken for name, broken in rules.items() if name != rule]
        return lambda tp, pp, micro: (
            gpus % (tp * pp) == 0
            and batch * tp * pp >= gpus * micro
            and not any(broken(tp, pp, micro) for broken in kept)
        )

    return allowed


exercise.mistake("pipelines are tried with powers of two only", hint="pp: every divisor of layers, three of six, too.")(
    _search(keep=lambda x: x["pp"] & (x["pp"] - 1) == 0)
)
exercise.mistake("micro-batches are tried with powers of two only", hint="micro_batch: every divisor of batch / dp.")(
    _search(keep=lambda x: x["micro_batch"] & (x["micro_batch"] - 1) == 0)
)
exercise.mistake("tensor parallelism over a whole node is never tried", hint="tp divides node: node itself does, too.")(
    lambda gpus, node, *rest: _search(keep=lambda x: x["tp"] < max(node, 2))(gpus, node, *rest)
)
exercise.mistake("tp is any number up to the GPUs of a node", hint="tp divides node, else a group spreads over two.")(
    _search(allowed=_ignoring("node"))
)


@exercise.mistake("the layout comes with its seconds", hint="A dict with the six keys, and nothing more.")
def with_seconds(gpus, node, model, batch, limit, memory, seconds):
    found = _search()(gpus, node, model, batch, limit, memory, seconds)
    return found | {"seconds": seconds(found)}


exercise.mistake("layers are divided unevenly among the stages", hint="pp divides layers.")(
    _search(allowed=_ignoring("layers"))
)
exercise.mistake("the batch is divided unevenly", hint="dp * micro_batch * micro_batches is the batch, exactly.")(
    _search(allowed=_ignoring("batch"))
)
exercise.mistake("a tensor-parallel rank gets a part of a key head", hint="tp divides kv_heads, too.")(
    _search(allowed=_ignoring("keys"))
)
