"""`bucket_timeline(ready, sizes, alpha, beta)`: When each bucket travels, and how long each rank waits at the end."""

from __future__ import annotations

from autograde.exercise import Draft, case
from autograde.exercises.shared import pick

exercise = Draft(
    "bucket_timeline",
    points=3,
    rtol=1e-6,
    atol=1e-9,
    no_gradient="seconds are plain numbers",
    hints=[
        "Two things hold a bucket back: its slowest rank, and the bucket before it.",
        "start = max(the latest rank's ready time of this bucket, end of the bucket before); end = start + the ring's "
        "2 (n - 1) (alpha + size / (n · beta)).",
        "Go through the buckets in order and keep `free`, when the link is free again. At the end rank r waits "
        "free - max(ready[r]).",
    ],
)


@exercise.cases
def step_cases(g):
    def some(ranks, buckets, label, slow=None, jumbled=False, alpha=None, tight=False):
        gaps = [[pick(g, 1, 40) / (400 if tight else 10) for _ in range(buckets)] for _ in range(ranks)]
        if slow is not None:
            gaps[slow] = [gap + 5 for gap in gaps[slow]]
        ready = [[round(sum(row[: b + 1]), 4) for b in range(buckets)] for row in gaps]
        if jumbled:  # some rank has its second bucket before the first
            ready[0][:2] = ready[0][1] + 6, ready[0][0]
        sizes = [8 * pick(g, 100, 999) for _ in range(buckets)]
        alpha = pick(g, 1, 9) / 100 if alpha is None else alpha
        return case(ready, sizes, alpha, 100.0 * pick(g, 8, 20), label=label)

    yield some(2, 3, "two ranks, three buckets")
    yield some(4, 4, "a slow rank", slow=pick(g, 1, 3))
    yield some(3, 5, "the link is slower than the backward pass", tight=True)
    yield some(3, 3, "a later bucket is ready first", jumbled=True)
    yield some(pick(g, 5, 7), 2, "more ranks, no latency", alpha=0.0)
    yield some(3, 1, "one bucket")
    yield some(1, 3, "one rank alone: nothing travels")
    yield case([[1.0, 1.5], [2.0, 2.25]], [0, 400], 0.25, 100.0, label="a bucket of no bytes")


@exercise.oracle
def longest_path(ready, sizes, alpha, beta):
    """An event comes as late as the longest chain of what has to be before it: networkx finds that."""
    import networkx as nx

    n, chains = len(ready), nx.DiGraph()
    chains.add_node("end -1")
    for b, size in enumerate(sizes):
        for r in range(n):
            chains.add_edge("begin", f"{r} has {b}", weight=ready[r][b])
            chains.add_edge(f"{r} has {b}", f"start {b}", weight=0.0)
        chains.add_edge(f"end {b - 1}", f"start {b}", weight=0.0)
        chains.add_edge(f"start {b}", f"end {b}", weight=2 * (n - 1) * (alpha + size / (n * beta)))
    when = {"begin": 0.0, "end -1": 0.0}
    for event in nx.topological_sort(chains):
        before = [when[e] + chains.edges[e, event]["weight"] for e in chains.predecessors(event)]
        when[event] = max(before, default=when.get(event, 0.0))
    spans = [(when[f"start {b}"], when[f"end {b}"]) for b in range(len(sizes))]
    return spans, [spans[-1][1] - max(row) for row in ready]


@exercise.law("A second later everywhere is a second later at the end")
def _shifts(out, one, call):
    ready, *rest = one.args
    spans, waits = call([[t + 1 for t in row] for row in ready], *rest)
    moved = all(abs(a - b - 1) < 1e-6 for x, y in zip(spans, out[0], strict=True) for a, b in zip(x, y, strict=True))
    return moved and all(abs(a - b) < 1e-6 for a, b in zip(waits, out[1], strict=True))


@exercise.law("No bucket starts before all ranks have it, nor before the one in front of it has arrived")
def _in_order(out, one, call):
    ready, spans = one.args[0], out[0]
    there = all(row[b] <= spans[b][0] + 1e-9 for row in ready for b in range(len(spans)))
    return there and all(a[1] <= b[0] + 1e-9 for a, b in zip(spans, spans[1:], strict=False))


def _timeline(ready, sizes, alpha, beta, has=None, seconds=None, queue=True, order=None, waits=None):
    """Right as it stands; a mistake replaces a part."""
    n, free, spans = len(ready), 0.0, {}
    for b in range(len(sizes)) if order is None else order(ready):
        there = max(row[b] for row in ready) if has is None else has(ready, b)
        start = max(there, free) if queue else there
        free = start + (2 * (n - 1) * (alpha + sizes[b] / (n * beta)) if seconds is None else seconds(n, sizes[b]))
        spans[b] = (start, free)
    spans, end = [spans[b] for b in range(len(sizes))], max(span[1] for span in spans.values())
    return spans, [end - max(row) for row in ready] if waits is None else waits(ready, spans)


@exercise.alternative
def timeline_in_order(ready, sizes, alpha, beta):
    """Right: bucket by bucket."""
    return _timeline(ready, sizes, alpha, beta)


@exercise.alternative
def timeline_by_sums(ready, sizes, alpha, beta):
    """Right: a bucket starts at the latest of (ready time of an earlier one, plus all that traveled in between)."""
    n = len(ready)
    took = [2 * (n - 1) * alpha + 2 * (n - 1) / n * size / beta for size in sizes]
    there = [max(row[b] for row in ready) for b in range(len(sizes))]
    starts = [max(there[a] + sum(took[a:b]) for a in range(b + 1)) for b in range(len(sizes))]
    spans = [[start, start + seconds] for start, seconds in zip(starts, took, strict=True)]
    return spans, tuple(spans[-1][1] - max(row) for row in ready)


@exercise.mistake(
    "a bucket leaves as soon as the first rank has it",
    hint="An all-reduce adds up everybody's numbers: it needs the last rank's, too.",
)
def timeline_first_rank(ready, sizes, alpha, beta):
    return _timeline(ready, sizes, alpha, beta, has=lambda ready, b: min(row[b] for row in ready))


@exercise.mistake("only rank 0's ready times count", hint="The slowest rank decides, whichever it is.")
def timeline_rank_0(ready, sizes, alpha, beta):
    return _timeline(ready, sizes, alpha, beta, has=lambda ready, b: ready[0][b])


@exercise.mistake(
    "the mean of the ranks' ready times is taken", hint="The others don't make up for a slow one: take the maximum."
)
def timeline_mean(ready, sizes, alpha, beta):
    return _timeline(ready, sizes, alpha, beta, has=lambda ready, b: sum(row[b] for row in ready) / len(ready))


@exercise.mistake(
    "no bucket leaves before the whole backward pass is over",
    hint="That is a step without overlap: a bucket leaves when all ranks have *it*.",
)
def timeline_no_overlap(ready, sizes, alpha, beta):
    return _timeline(ready, sizes, alpha, beta, has=lambda ready, b: max(max(row) for row in ready))


@exercise.mistake(
    "buckets travel side by side, as if each had a link of its own",
    hint="There is one link: a bucket also waits for the end of the one before it.",
)
def timeline_side_by_side(ready, sizes, alpha, beta):
    return _timeline(ready, sizes, alpha, beta, queue=False)


@exercise.mistake(
    "buckets leave in the order in which they are ready",
    hint="Collectives are matched by their order alone: bucket 0 first, also where bucket 1 is ready before it.",
)
def timeline_by_readiness(ready, sizes, alpha, beta):
    def order(ready):
        return sorted(range(len(ready[0])), key=lambda b: max(row[b] for row in ready))

    return _timeline(ready, sizes, alpha, beta, order=order)


def _seconds(alpha, beta, steps, share, latencies=None):
    return lambda n, size: (steps(n) if latencies is None else latencies(n)) * alpha + steps(n) * share(n) * size / beta


@exercise.mistake(
    "every one of the ring's messages carries the whole bucket", hint="A ring cuts it: size / n bytes a message."
)
def timeline_whole_messages(ready, sizes, alpha, beta):
    ring = _seconds(alpha, beta, lambda n: 2 * (n - 1), lambda n: 1)
    return _timeline(ready, sizes, alpha, beta, seconds=ring)


@exercise.mistake(
    "only one way round the ring is counted", hint="n - 1 steps to add up and n - 1 to hand out the sums: 2 (n - 1)."
)
def timeline_one_way(ready, sizes, alpha, beta):
    ring = _seconds(alpha, beta, lambda n: n - 1, lambda n: 1 / n)
    return _timeline(ready, sizes, alpha, beta, seconds=ring)


@exercise.mistake(
    "a bucket is one message, alpha + size / beta, on however many ranks",
    hint="Once round the ring to add up and once to hand out: 2 (n - 1) messages of size / n bytes.",
)
def timeline_one_message(ready, sizes, alpha, beta):
    return _timeline(ready, sizes, alpha, beta, seconds=lambda n, size: alpha + size / beta)


@exercise.mistake("the latency is paid once a bucket", hint="Each of the ring's 2 (n - 1) messages pays alpha.")
def timeline_latency_once(ready, sizes, alpha, beta):
    ring = _seconds(alpha, beta, lambda n: 2 * (n - 1), lambda n: 1 / n, lambda n: min(n - 1, 1))
    return _timeline(ready, sizes, alpha, beta, seconds=ring)


@exercise.mistake("the latency is left out", hint="Every message costs alpha + bytes / beta.")
def timeline_without_latency(ready, sizes, alpha, beta):
    ring = _seconds(0.0, beta, lambda n: 2 * (n - 1), lambda n: 1 / n)
    return _timeline(ready, sizes, alpha, beta, seconds=ring)


@exercise.mistake("2 n messages are counted where 2 (n - 1) travel", hint="Visiting n ranks takes n - 1 hops.")
def timeline_n_steps(ready, sizes, alpha, beta):
    ring = _seconds(alpha, beta, lambda n: 2 * n, lambda n: 1 / n)
    return _timeline(ready, sizes, alpha, beta, seconds=ring)


@exercise.mistake(
    "the wait is counted against the slowest rank's backward pass, not to the end of the last bucket",
    hint="The optimizer needs all gradients: a rank waits from its own last ready time to the last bucket's end.",
)
def timeline_waits_for_compute(ready, sizes, alpha, beta):
    def waits(ready, spans):
        return [max(max(row) for row in ready) - max(row) for row in ready]

    return _timeline(ready, sizes, alpha, beta, waits=waits)


@exercise.mistake(
    "a rank's wait begins when its last bucket is ready, though an earlier bucket is ready later",
    hint="A rank is busy until the latest of its ready times: max(ready[r]), not ready[r][-1].",
)
def timeline_last_in_the_list(ready, sizes, alpha, beta):
    return _timeline(ready, sizes, alpha, beta, waits=lambda ready, spans: [spans[-1][1] - row[-1] for row in ready])


@exercise.mistake(
    "the wait is the sum of all messages' seconds", hint="What travels while a rank still computes costs it nothing."
)
def timeline_waits_for_all(ready, sizes, alpha, beta):
    return _timeline(
        ready, sizes, alpha, beta, waits=lambda ready, spans: [sum(end - start for start, end in spans) for _ in ready]
    )
