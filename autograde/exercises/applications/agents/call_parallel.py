"""`call_parallel(calls, tools, at_most=4)`: Carry out several calls at the same time."""

from __future__ import annotations

import datetime
import json
import re
from concurrent.futures import ThreadPoolExecutor

import torch

from autograde.exercise import Draft, case
from autograde.exercises.applications.agents.shared import agrees, ascii_only, carried_out, failed, told
from autograde.exercises.applications.prompts_and_tools.shared import pick, words

exercise = Draft(
    "call_parallel",
    points=3,
    no_gradient="texts are no numbers",
    hints=[
        "Tools mostly wait: for a network, a disk, another program. What lets several functions wait at once?",
        "concurrent.futures.ThreadPoolExecutor(max_workers=at_most). Its map keeps the order of the calls.",
        "Write one function for one call that never raises, then list(pool.map(one, calls)). No call: an empty list.",
    ],
)

# Tools that meet: "meet" returns once as many of them have arrived as there should be, or gives up.
SOURCE = '''
import datetime
import threading

class NoAnswer(Exception):
    pass

class World:
    def __init__(self, parties):
        self.lock, self.arrived, self.inside, self.most, self.runs = threading.Condition(), 0, 0, 0, []
        self.parties, self.gone, self.caller = parties, False, threading.get_ident()

    def enter(self, name):
        with self.lock:
            self.runs.append(name)
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.arrived += 1
            self.lock.notify_all()

    def leave(self):
        with self.lock:
            self.inside -= 1

    def meet(self, name):
        self.enter(f"meet {name}")
        try:
            with self.lock:
                self.lock.wait_for(lambda: self.gone or self.arrived >= self.parties, timeout=self.patience())
                if self.gone or self.arrived < self.parties:
                    self.gone = True  # nobody else waits in vain
                    self.lock.notify_all()
                    raise TimeoutError("the others did not come")
            return f"{name} was there"
        finally:
            self.leave()

    def patience(self):
        """Whoever runs tools in the caller's own thread has hardly anybody else to wait for."""
        return 0.05 if threading.get_ident() == self.caller else 0.4

    def ring(self, number):
        self.enter(f"ring {number}")
        self.leave()
        raise NoAnswer(f"nobody at {number}")

    def day(self, year):
        self.enter(f"day {year}")
        self.leave()
        return datetime.date(year, 1, 1)

    def add(self, a, b=1):
        self.enter(f"add {a}")
        try:
            return {"sum": a + b, "ä": None}
        finally:
            self.leave()

    def find(self, key):
        self.enter(f"find {key}")
        try:
            return {"a": "b"}[key]
        finally:
            self.leave()

    def linger(self, name):
        """Stays a moment, so that one more than may be inside is seen."""
        self.enter(f"linger {name}")
        try:
            threading.Event().wait(0.008)  # not on the lock: whoever comes in wakes all who wait there
            return ""
        finally:
            self.leave()
'''


def call_of(tool, **arguments):
    return {"name": tool, "arguments": arguments}


@exercise.cases
def batches(g):
    n = int(torch.randint(2, 90, (), generator=g))
    names = [f"{words(g, 1, 2)} {i}" for i in torch.randperm(7, generator=g).tolist()]
    key = pick(g, ["x", "why", "tea"])

    def meeting(count):
        return [call_of("meet", name=name) for name in names[:count]]

    yield case(meeting(4), 4, SOURCE, label="four that wait for each other")
    yield case([call_of("add", a=n), call_of("find", key=key), call_of("add", a=n + 1)], 0, SOURCE, label="one fails")
    yield case([call_of("find", key=key), *meeting(3)], 3, SOURCE, label="the first one fails")
    yield case([call_of("add", a=n), *meeting(4)], 5, SOURCE, label="a short one, then four that wait for each other")
    mixed = [call_of("add", a=n, b=2), call_of("sub", a=n), call_of("add", c=n), call_of("find", key="a")]
    yield case(mixed, 0, SOURCE, label="an unknown tool, an unknown argument")
    yield case([call_of("linger", name=name) for name in names[:6]], 0, SOURCE, at_most=2, label="six, two at most")
    yield case([call_of("linger", name=name) for name in names], 0, SOURCE, label="seven, and nobody says how many")
    yield case([call_of("linger", name=name) for name in names[:3]], 0, SOURCE, at_most=1, label="one at most")
    yield case([call_of("add", a=n), call_of("add", a=n)], 0, SOURCE, label="the same call twice")
    ringing = [call_of("ring", number=n), call_of("add", a=n)]
    yield case(ringing, 0, SOURCE, label="a tool fails with an error of its own")
    yield case([call_of("day", year=1990 + n), call_of("add", a=n)], 0, SOURCE, label="a date comes back")
    yield case([], 0, SOURCE, label="no call")
    yield case([call_of("add", a=n)], 0, SOURCE, label="one call")
    yield case(meeting(6), 6, SOURCE, at_most=6, label="six at once")


@exercise.probe
def met(call_parallel, calls, parties, source, **settings):
    """What comes back, which tools ran, and how many at once at most."""
    import copy

    space = {"__name__": "tools"}
    exec(source, space)
    world = space["World"](parties)
    tools = {name: getattr(world, name) for name in ("meet", "add", "find", "linger", "day", "ring")}
    before = copy.deepcopy(calls)
    results = call_parallel(calls, tools, **settings)
    return {
        "results": list(results) if isinstance(results, (list, tuple)) else results,
        "ran": sorted(world.runs),
        "crowded": world.most > settings.get("at_most", 4),
        "kept": calls == before,
    }


class NoAnswer(Exception):
    pass


def _rings_in_vain(number):
    raise NoAnswer(f"nobody at {number}")


@exercise.oracle
def as_told(calls, parties, source, at_most=4):
    """What each call gives, worked out alone: the others don't matter."""
    known = {
        "meet": lambda name: f"{name} was there",
        "add": lambda a, b=1: {"sum": a + b, "ä": None},
        "find": lambda key: {"a": "b"}[key],
        "linger": lambda name: "",
        "ring": _rings_in_vain,
        "day": lambda year: datetime.date(year, 1, 1),
    }
    ran = [one for one in calls if one["name"] in known and "c" not in one["arguments"]]
    results = [carried_out(one["name"], one["arguments"], known) for one in calls]
    own = "as_told.<locals>.<lambda>()"
    return {
        "results": [text.replace(own, "World.add()") for text in results],
        "ran": sorted(f"{one['name']} {next(iter(one['arguments'].values()))}" for one in ran),
        "crowded": False,
        "kept": True,
    }


exercise.agrees(agrees)


@exercise.law("Calls that wait for each other all get their result", essential=True)
def all_at_once(out, one, call):
    waiting = [text for text, asked in zip(out["results"] or [], one.args[0], strict=False) if asked["name"] == "meet"]
    if not any(asked["name"] == "meet" for asked in one.args[0]):
        return None
    late = sum("did not come" in text for text in waiting)
    return bool(waiting) and (not late or f"{late} waited in vain: fewer run at once than may")


@exercise.law("Never more than at_most at once")
def not_crowded(out, one, call):
    return isinstance(out["results"], list) and not out["crowded"]


@exercise.law("Each call runs once")
def runs_once(out, one, call):
    wanted = as_told(*one.args, **one.kwargs)["ran"]
    return isinstance(out["results"], list) and (out["ran"] == wanted or f"{len(out['ran'])} runs, not {len(wanted)}")


def _pooled(work, most=lambda at_most, calls: at_most, run=carried_out):
    """A caller in parts: how the results are gathered, how many threads there are, and how one call is carried out."""

    def call_parallel(calls, tools, at_most=4):
        def one(call):
            return run(call["name"], call["arguments"], tools)

        if not calls:
            return []
        with ThreadPoolExecutor(most(at_most, calls)) as pool:
            return work(pool, one, calls)

    return call_parallel


def _mapped(pool, one, calls):
    return list(pool.map(one, calls))


@exercise.mistake(
    "the calls run one after the other, or fewer at once than at_most",
    hint="Each waits for the one before. A pool of at_most threads lets them wait together.",
)
def in_turn(calls, tools, at_most=4):
    return [carried_out(one["name"], one["arguments"], tools) for one in calls]


def _as_they_come(pool, one, calls):
    """In another order: the last one first."""
    return [future.result() for future in reversed([pool.submit(one, call) for call in calls])]


exercise.mistake("the results come in another order", hint="In the order of the calls, whichever ends first.")(
    _pooled(_as_they_come)
)
exercise.mistake(
    "more run at once than at_most", hint="max_workers=at_most: a service that is asked too often refuses."
)(_pooled(_mapped, most=lambda at_most, calls: len(calls)))
exercise.mistake("at most four run at once, whatever at_most is", hint="max_workers=at_most.")(
    _pooled(_mapped, most=lambda at_most, calls: 4)
)


def _in_batches(calls, tools, at_most=4):
    batches = [calls[i : i + at_most] for i in range(0, len(calls), at_most)]
    return [text for some in batches for text in _pooled(_mapped)(some, tools, at_most)]


exercise.mistake(
    "the calls run in batches, and the slowest of each holds up the next",
    hint="Where one ends, the next begins at once.",
)(_in_batches)


def _without_default(result):
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def _raised(name, arguments, tools):
    return told(tools[name](**arguments))


exercise.mistake("one failure takes all results with it", hint="Catch inside the function that runs in the pool.")(
    _pooled(_mapped, run=_raised)
)


def _left_out(pool, one, calls):
    return [text for text in pool.map(one, calls) if not text.startswith("error")]


exercise.mistake(
    "only some kinds of errors are caught", hint="except Exception: a tool may raise whatever it likes."
)(_pooled(_mapped, run=lambda *call: carried_out(*call, catch=(ValueError, TypeError, KeyError, OSError))))
exercise.mistake("failed calls are left out", hint="One text for each call: zip would join the wrong ones.")(
    _pooled(_left_out)
)


def _keyed(name, arguments, tools):
    try:
        return told(tools[name](**arguments))
    except Exception as error:
        return failed(error)


exercise.mistake("an unknown tool is a KeyError", hint="error: unknown tool: NAME")(_pooled(_mapped, run=_keyed))
exercise.mistake("letters beyond ASCII become numbers", hint="json.dumps(…, ensure_ascii=False): ü is one letter.")(
    _pooled(_mapped, run=lambda *call: carried_out(*call, told=ascii_only))
)
exercise.mistake("texts are written as JSON, too", hint="A str as it is: without quotes around it.")(
    _pooled(_mapped, run=lambda *call: carried_out(*call, told=lambda result: told([result])[1:-1]))
)
exercise.mistake("results are told in Python's writing", hint="A str as it is, anything else as JSON.")(
    _pooled(_mapped, run=lambda *call: carried_out(*call, told=str))
)
exercise.mistake("what JSON doesn't know is an error", hint="default=str: a date is told as it prints.")(
    _pooled(_mapped, run=lambda *call: carried_out(*call, told=_without_default))
)
exercise.mistake("the error's type isn't told", hint="KeyError: 'x' says more than 'x'.")(
    _pooled(_mapped, run=lambda *call: re.sub(r"^error: \w+Error: ", "error: ", carried_out(*call)))
)
exercise.mistake("the results aren't texts", hint="A str as it is, anything else as JSON.")(
    _pooled(_mapped, run=lambda name, arguments, tools: _kept(name, arguments, tools))
)


def _kept(name, arguments, tools):
    text = carried_out(name, arguments, tools)
    return json.loads(text) if text.startswith("{") else text


def _once(pool, one, calls):
    keys = {json.dumps(call, sort_keys=True): call for call in calls}
    found = dict(zip(keys, pool.map(one, keys.values()), strict=True))
    return [found[json.dumps(call, sort_keys=True)] for call in calls]


exercise.mistake("equal calls run once", hint="Two orders are two orders: each call runs.")(_pooled(_once))


def _tried_again(name, arguments, tools):
    text = carried_out(name, arguments, tools)
    return carried_out(name, arguments, tools) if text.startswith("error: KeyError") else text


exercise.mistake("a failed call is tried again", hint="A tool that failed may have done half of its work: once.")(
    _pooled(_mapped, run=_tried_again)
)

exercise.alternative(_pooled(_mapped))


@exercise.alternative
def with_asyncio(calls, tools, at_most=4):
    import asyncio

    async def all_of_them():
        free = asyncio.Semaphore(at_most)

        async def one(call):
            async with free:
                return await asyncio.to_thread(carried_out, call["name"], call["arguments"], tools)

        return await asyncio.gather(*map(one, calls))

    return asyncio.new_event_loop().run_until_complete(all_of_them())


@exercise.alternative
def with_threads(calls, tools, at_most=4):
    import threading

    free, results = threading.BoundedSemaphore(at_most), [""] * len(calls)

    def one(i, call):
        with free:
            results[i] = carried_out(call["name"], call["arguments"], tools)

    threads = [threading.Thread(target=one, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
