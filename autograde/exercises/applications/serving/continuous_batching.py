"""`continuous_batching(requests, max_batch, read, compute)`

When every request gets its first and its last token, with a scheduler that decides anew before each step.
"""

from __future__ import annotations

import heapq

import torch

from autograde.exercise import Draft, case
from autograde.exercises.shared import pick

exercise = Draft(
    "continuous_batching",
    points=4,
    rtol=1e-6,
    atol=1e-9,
    no_gradient="a schedule is no function to train through",
    hints=[
        "Keep the clock, the requests that run (with the tokens they still need), and who is the next one to come.",
        "Before each step: is nobody there? Then the clock goes to the next arrival. Admit who has arrived, while "
        "there is room. The step's tokens are the prompts of the admitted and one for each of the others.",
        "clock += max(read, compute * tokens). Then every running request has one token more: note `first` for those "
        "just admitted, and for those that need no more note `last` and drop them.",
    ],
)


@exercise.cases
def traces(g):
    def some(arrivals, prompts, outputs, max_batch, read, compute, label):
        return case(list(zip(arrivals, prompts, outputs, strict=True)), max_batch, read, compute, label=label)

    def uneven(n, high):
        return [1 + int(i) for i in torch.randperm(high, generator=g)[:n]]

    yield some([0.0], [5], [3], 4, 1.0, 0.25, "one request")
    yield some([0.0, 0.0, 0.0], [3, 2, 4], [2, 5, 3], 2, 1.0, 0.125, "three requests, room for two")
    yield some([0.5, 3.25, 3.5], [2, 3, 2], [2, 3, 2], 4, 1.0, 0.125, "the clock begins before the first arrives")
    yield some([0.0, 50.0], [4, 2], [3, 2], 4, 1.0, 0.125, "a long pause in between")
    yield some([0.0, 0.5, 1.5, 2.5], [2, 2, 2, 2], [6, 1, 4, 2], 3, 1.0, 0.125, "requests that come during steps")
    yield some([0.0, 1.0, 1.0], [2, 40, 3], [6, 2, 4], 4, 1.0, 0.125, "a long prompt stops the others")
    yield some([0.0, 0.0, 0.0, 0.0], [2, 3, 4, 5], [1, 1, 1, 1], 2, 1.0, 0.5, "one token each")
    yield some([0.0, 0.0, 0.0], [3, 2, 4], [2, 4, 3], 1, 1.0, 0.125, "room for one")
    yield some([0.0, 0.25, 0.25], [3, 2, 4], [2, 4, 3], 8, 0.0, 0.5, "the weights cost nothing to read")
    yield some([0.0, 2.0], [3, 2], [2, 4], 2, 2.0, 0.125, "one arrives just when a step ends")
    yield case([], 4, 1.0, 0.25, label="no request")
    for label, n, room in (("twenty requests", 20, 4), ("a hundred requests", 100, 16)):
        times = torch.rand(n, generator=g).mul(4 * n).sort().values.tolist()
        yield some(times, uneven(n, 120), uneven(n, 110), room, 1.0 + pick(g, 1, 9) / 8, 0.0625, label)


@exercise.oracle
def by_events(requests, max_batch, read, compute):
    """A heap of (when it is free again, place): steps counted, so that a request's end is known when it enters."""
    if max_batch < 1 or any(output < 1 for *_, output in requests):
        raise ValueError("nobody would ever be served")  # a diagnosis may ask what other arguments would give
    first, last = [0.0] * len(requests), [0.0] * len(requests)
    clock, step, coming, leaving = 0.0, 0, 0, []
    while coming < len(requests) or leaving:
        if not leaving:
            clock = max(clock, requests[coming][0])
        old, fresh = len(leaving), []
        while coming < len(requests) and requests[coming][0] <= clock and len(leaving) < max_batch:
            heapq.heappush(leaving, (step + requests[coming][2], coming))
            fresh.append(coming)
            coming += 1
        clock += max(read, compute * (old + sum(requests[i][1] for i in fresh)))
        step += 1
        for i in fresh:
            first[i] = clock
        while leaving and leaving[0][0] == step:
            last[heapq.heappop(leaving)[1]] = clock
    return first, last


@exercise.law("Nobody gets a token before it has come and its prompt could be read")
def _after_arrival(out, one, call):
    requests, _, read, compute = one.args
    pairs = zip(requests, out[0], strict=True)
    return all(t >= arrival + max(read, compute * prompt) - 1e-9 for (arrival, prompt, _), t in pairs)


@exercise.law("Who comes first is first to get a token")
def _in_order(out, one, call):
    return all(a <= b + 1e-9 for a, b in zip(out[0], out[0][1:], strict=False))


@exercise.law("A request of one token ends with its first, any other later")
def _one_token(out, one, call):
    trios = zip(one.args[0], *out, strict=True)
    return all((last == first) if n == 1 else (last > first) for (_, _, n), first, last in trios)


@exercise.law("With room for one, requests are served one after the other", essential=True)
def _one_by_one(out, one, call):
    requests, _, read, compute = one.args
    if not 0 < len(requests) < 10:
        return None
    clock, ends = 0.0, []
    for arrival, prompt, n in requests:
        clock = max(clock, arrival) + max(read, compute * prompt) + (n - 1) * max(read, compute)
        ends.append(clock)
    got = call(requests, 1, read, compute)[1]
    return len(got) == len(ends) and all(abs(a - b) < 1e-6 * (1 + b) for a, b in zip(got, ends, strict=True))


def _scheduler(
    admit=None,
    tokens=lambda prompts, old: sum(prompts) + old,
    seconds=lambda read, compute, n, rows: max(read, compute * n),
    start=lambda clock, arrival: max(clock, arrival),
    after_prompt=1,
    late=False,
    pick_next=0,
    times=lambda found, requests: found,
):
    """A wrong scheduler: the right one with a part replaced. `admit(running, room)` says how many may enter."""

    def continuous_batching(requests, max_batch, read, compute):
        if max_batch < 1:
            raise ValueError("nobody may run")
        first, last = [0.0] * len(requests), [0.0] * len(requests)
        waiting, running, clock = list(enumerate(requests)), {}, 0.0
        while waiting or running:
            if not running:
                clock = start(clock, waiting[0][1][0])
            fresh, old = [], len(running)
            places = admit(len(running), max_batch) if admit else max_batch - len(running)
            while waiting and len(fresh) < places:
                there = [pair for pair in waiting if pair[1][0] <= clock]
                if not there:
                    break
                fresh.append(there[pick_next])
                waiting.remove(there[pick_next])
            if not fresh and not running:  # nobody has come yet
                clock += read or 1.0
                continue
            clock += seconds(read, compute, tokens([request[1] for _, request in fresh], old), old + len(fresh))
            for i in list(running):
                first[i] = clock if late and running[i] == requests[i][2] else first[i]
                running[i] -= 1
            for i, request in fresh:
                running[i], first[i] = request[2] - after_prompt, clock
            for i in [i for i, left in running.items() if left <= 0]:
                last[i] = clock
                del running[i]
        return times((first, last), requests)

    return continuous_batching


exercise.mistake(
    "the batch is static: nobody enters until all are done",
    hint="A place that gets free is filled before the next step, whoever else still runs.",
)(_scheduler(admit=lambda running, room: 0 if running else room))

exercise.mistake(
    "one request enters a step", hint="Before each step as many enter as have come and as there is room for."
)(_scheduler(admit=lambda running, room: min(1, room - running)))

exercise.mistake("more run at once than max_batch", hint="max_batch is the most that may run, the old ones included.")(
    _scheduler(admit=lambda running, room: room)
)

exercise.mistake(
    "who has come last enters first", hint="In the order of arrival: the docstring asks for first come, first served."
)(_scheduler(pick_next=-1))

exercise.mistake(
    "a prompt is taken to give no token", hint="The step that reads the prompt gives the first token of the answer."
)(_scheduler(after_prompt=0))

exercise.mistake(
    "the first token comes a step after the prompt's", hint="The step that reads the prompt gives the first token."
)(_scheduler(after_prompt=0, late=True))

exercise.mistake("a prompt costs as much as one token", hint="All its tokens are computed in that step.")(
    _scheduler(tokens=lambda prompts, old: len(prompts) + old)
)

exercise.mistake(
    "the requests that already run are left out of a step's tokens", hint="Each of them computes one token, too."
)(_scheduler(tokens=lambda prompts, old: sum(prompts) or old))

exercise.mistake(
    "only the longest prompt of a step is counted", hint="The tokens of all prompts are computed: add them up."
)(_scheduler(tokens=lambda prompts, old: max(prompts, default=0) + old))

exercise.mistake(
    "reading the weights and computing are added", hint="They overlap: the longer of the two is the step's time."
)(_scheduler(seconds=lambda read, compute, n, rows: read + compute * n))

exercise.mistake(
    "the weights are read for every token", hint="Once a step, whatever the batch: that is why batching pays."
)(_scheduler(seconds=lambda read, compute, n, rows: n * max(read, compute)))

exercise.mistake(
    "the weights are read for every request", hint="Once a step, whoever runs in it: that is why batching pays."
)(_scheduler(seconds=lambda read, compute, n, rows: max(read * rows, compute * n)))

exercise.mistake("every step takes as long as reading the weights", hint="Many tokens take compute seconds each.")(
    _scheduler(seconds=lambda read, compute, n, rows: read)
)

exercise.mistake(
    "an idle server waits in whole steps",
    hint="When nobody runs, the clock goes straight to the next arrival.",
)(_scheduler(start=lambda clock, arrival: clock))

exercise.mistake(
    "the times are counted from each request's arrival",
    hint="Times of the clock are asked for. The time to first token is first - arrival.",
)(
    _scheduler(
        times=lambda found, requests: tuple(
            [t - request[0] for t, request in zip(of, requests, strict=True)] for of in found
        )
    )
)

exercise.mistake("all requests are taken to be there from the start", hint="Nobody enters before it has arrived.")(
    lambda requests, *rest: _scheduler()([(0.0, *request[1:]) for request in requests], *rest)
)

exercise.mistake(
    "the last token's time is counted from the first token",
    hint="Both are times of the clock; their difference is how long the answer ran.",
)(_scheduler(times=lambda found, requests: (found[0], [b - a for a, b in zip(*found, strict=True)])))

exercise.mistake("a pair for each request is returned", hint="Two lists, one of the first times and one of the last.")(
    _scheduler(times=lambda found, requests: list(zip(*found, strict=True)))
)

exercise.mistake("one more runs than max_batch", hint="Fewer than max_batch run: only then may another enter.")(
    _scheduler(admit=lambda running, room: room + 1 - running)
)

exercise.mistake(
    "a prompt's last token is not counted", hint="The prompt's tokens are all computed; the new one comes for free."
)(_scheduler(tokens=lambda prompts, old: sum(max(1, n - 1) for n in prompts) + old))

exercise.mistake(
    "the step with the prompt computes the first token on top", hint="The prompt's tokens are all that is computed."
)(_scheduler(tokens=lambda prompts, old: sum(prompts) + len(prompts) + old))


@exercise.mistake("prompt and output are taken for each other", hint="(arrival, prompt, output), in this order.")
def lengths_swapped(requests, *rest):
    return _scheduler()([(arrival, output, prompt) for arrival, prompt, output in requests], *rest)


@exercise.mistake(
    "of those that come together the one with the shortest prompt enters first",
    hint="First come, first served: in the order of the list.",
)
def shortest_first(requests, *rest):
    order = sorted(range(len(requests)), key=lambda i: requests[i][:2])
    times = _scheduler()([requests[i] for i in order], *rest)
    return tuple([of[order.index(i)] for i in range(len(requests))] for of in times)


@exercise.mistake("max_batch has no influence", hint="At most max_batch requests run at once.")
def no_limit(requests, max_batch, read, compute):
    return _scheduler()(requests, len(requests) + 1, read, compute)


@exercise.mistake("requests are served one after the other", hint="Up to max_batch requests share each step.")
def one_at_a_time(requests, max_batch, read, compute):
    return _scheduler()(requests, 1, read, compute)


@exercise.mistake("the clock begins with the first arrival", hint="It begins at 0, and goes on to the first arrival.")
def from_the_first(requests, *rest):
    begin = requests[0][0] if requests else 0.0
    return _scheduler()([(arrival - begin, *more) for arrival, *more in requests], *rest)


exercise.mistake("first and last are swapped", hint="Two lists: of the first tokens, then of the last.")(
    _scheduler(times=lambda found, requests: found[::-1])
)


@exercise.mistake(
    "who arrives just at the start of a step has to wait for the next one", hint="arrival <= clock: it is there."
)
def strictly_before(requests, max_batch, read, compute):
    later = [(arrival + 1e-9 if i else arrival, *rest) for i, (arrival, *rest) in enumerate(requests)]
    return _scheduler()(later, max_batch, read, compute)


@exercise.mistake(
    "a place that got free is filled one step late", hint="Who is done leaves at the end of the step, before the next."
)
def place_kept(requests, max_batch, read, compute):
    first, last = [0.0] * len(requests), [0.0] * len(requests)
    clock, coming, running = 0.0, 0, {}
    while coming < len(requests) or running:
        if not any(left > 0 for left in running.values()):
            running = {i: left for i, left in running.items() if left > 0}
            if coming == len(requests):
                break
            clock = max(clock, requests[coming][0])
        room, fresh = max_batch - len(running), []
        running = {i: left for i, left in running.items() if left > 0}
        while coming < len(requests) and requests[coming][0] <= clock and len(fresh) < room:
            fresh.append(coming)
            coming += 1
        clock += max(read, compute * (len(running) + sum(requests[i][1] for i in fresh)))
        running = {i: left - 1 for i, left in running.items()} | {i: requests[i][2] - 1 for i in fresh}
        for i, left in running.items():
            first[i] = clock if i in fresh else first[i]
            last[i] = clock if left == 0 else last[i]
    return first, last


exercise.alternative(_scheduler())


@exercise.alternative
def by_tensors(requests, max_batch, read, compute):
    """Right: one vector of the tokens that are still to come, for all requests."""
    if not requests:
        return [], []
    arrival, prompt, left = torch.tensor(requests, dtype=torch.float64).T
    left = left.clone()
    first, last = torch.full_like(arrival, -1.0), torch.full_like(arrival, -1.0)
    clock = 0.0
    while bool((left > 0).any()):
        running = (first >= 0) & (left > 0)
        waiting = first < 0
        if not running.any():
            clock = max(clock, float(arrival[waiting][0]))
        room = max_batch - int(running.sum())
        fresh = waiting & (arrival <= clock) & (waiting.cumsum(0) <= room)
        clock += max(read, compute * (float(prompt[fresh].sum()) + int(running.sum())))
        first[fresh] = clock
        left[running | fresh] -= 1
        last[(running | fresh) & (left == 0)] = clock
    return first.tolist(), last.tolist()
