"""`is_looping(calls, repeats=3, longest=3)`: Whether an agent goes round in circles."""

from __future__ import annotations

import json
import re

import torch

from autograde.exercise import Draft, case
from autograde.exercises.applications.prompts_and_tools.shared import words

exercise = Draft(
    "is_looping",
    points=2,
    no_gradient="yes or no",
    strict=True,
    hints=[
        "Make each call a text in which the order of the arguments doesn't matter. Then compare blocks at the end.",
        "For each length p from 1 to longest: are the last p * repeats texts one block of p, written repeats times?",
        "tail = keys[-p * repeats:]; len(tail) == p * repeats and tail == tail[:p] * repeats. Any p will do.",
    ],
)


def call_of(name, **arguments):
    return {"name": name, "arguments": arguments}


@exercise.cases
def histories(g):
    some, more = words(g, 1, 3), words(g, 4, 5)
    n = int(torch.randint(2, 50, (), generator=g))
    a, b, c = call_of("find", key=some, k=n), call_of("add", a=n, b=1), call_of("find", key=more, k=n)
    d, e = call_of("halve", n=n), call_of("find", key=some, k=n + 1)
    turned = {"arguments": {"k": n, "key": some}, "name": "find"}
    deep, turned_deep = call_of("f", x={"p": 1, "q": [n, {}]}), call_of("f", x={"q": [n, {}], "p": 1})
    yield case([d, b, a, a, a], label="the same call three times")
    yield case([a, a], label="twice is no loop yet")
    yield case([a, turned, a], label="the arguments in another order")
    yield case([b, deep, turned_deep, deep], label="keys inside in another order")
    yield case([a, a, a, b], label="a loop that was left")
    yield case([d, a, b, a, b, a, b], label="two calls in turn")
    yield case([a, b, a, b, a], label="two calls in turn, not three times yet")
    yield case([a, b, c, a, b, c, a, b, c], label="three calls in turn")
    yield case([a, b, c, d, a, b, c, d, a, b, c, d], label="four in turn: longer than longest")
    yield case([a, b, c, d] * 3, 3, 4, label="four in turn, longest = 4")
    yield case([a, b, b, a, b, b, a, b, b], label="a block that holds a call twice")
    yield case([c, a, a], 2, label="repeats = 2")
    yield case([c, a, b, a, b], 2, 1, label="longest = 1")
    yield case([a, a, a], repeats=4, label="repeats = 4, three times")
    yield case([b, a, a, a, a], repeats=4, label="repeats = 4, four times")
    yield case([a, e, c], label="the same tool, other arguments")
    shout, loud = call_of("find", key="map"), call_of("find", key="MAP")
    yield case([shout, loud, shout], label="capital letters differ")
    yield case([call_of("f", x=1), call_of("f", x=True), call_of("f", x=1.0)], label="1, true and 1.0 differ")
    yield case([call_of("f", x=n), call_of("f", x=str(n)), call_of("f", x=n)], label="a number and its text differ")
    yield case([call_of("f", x=n), call_of("g", x=n), call_of("f", x=n)], label="the same arguments, other tools")
    yield case([call_of("f", x=[1, 2]), call_of("f", x=[2, 1]), call_of("f", x=[1, 2])], label="a list has an order")
    yield case([], label="no call")
    yield case([d], 2, 5, label="one call")
    yield case([a, b, a, d, a, b, a], label="the same calls, but no block")
    yield case([a, b, b, a, a, b], label="the same calls in each block, in another order")
    yield case([b, b, a, b, b, a, b, a], 2, 2, label="the last two blocks of two")
    yield case([a, b, c, d, e, a, b, c, d, e], 2, 6, label="five in turn, longest = 6")


@exercise.oracle
def back_reference(calls, repeats=3, longest=3):
    """Python's regular expressions: a letter for each call, and a group that is followed by itself."""
    known = {}
    letters = [known.setdefault(json.dumps(call, sort_keys=True), chr(0x4E00 + len(known))) for call in calls]
    return re.search(rf"(.{{1,{longest}}})\1{{{repeats - 1}}}$", "".join(letters)) is not None


@exercise.law("The answer is True or False")
def is_a_bool(out, one, call):
    return isinstance(out, bool)


@exercise.law("What came before a loop doesn't matter")
def past_is_past(out, one, call):
    other = call_of("another", z=-1)
    return call([other, *one.args[0]], *one.args[1:], **one.kwargs) == out


@exercise.law("Another call at the end ends every loop")
def another_ends_it(out, one, call):
    return call([*one.args[0], call_of("another", z=-1)], *one.args[1:], **one.kwargs) is False


def _text(call):
    return json.dumps(call, sort_keys=True)


def _looker(
    key=_text,
    count=lambda repeats: repeats,
    lengths=lambda longest: range(1, longest + 1),
    long_enough=True,
    pad=lambda keys: keys,
):
    """A detector in parts: when calls are the same, how many blocks, of which lengths, whether all must be there."""

    def is_looping(calls, repeats=3, longest=3):
        keys, n = pad([key(call) for call in calls]), count(repeats)
        for p in lengths(longest):
            tail = keys[-p * n :]
            if tail and (len(tail) == p * n or not long_enough) and tail == (tail[:p] * n)[: len(tail)]:
                return True
        return False

    return is_looping


exercise.mistake("the order of the arguments makes calls differ", hint="json.dumps(call, sort_keys=True).")(
    _looker(lambda call: json.dumps({"name": call["name"], "arguments": call["arguments"]}))
)
exercise.mistake("only the tools' names are compared", hint="Two searches for different things are no loop.")(
    _looker(lambda call: call["name"])
)
exercise.mistake("only the arguments are compared", hint="Two tools may take the same arguments.")(
    _looker(lambda call: json.dumps(call["arguments"], sort_keys=True))
)
exercise.mistake("1, 1.0 and True are taken for the same", hint="They are equal in Python, and differ in JSON.")(
    _looker(lambda call: (call["name"], call["arguments"]))
)
exercise.mistake("everything becomes a text first", hint="5 and '5' are different arguments.")(
    _looker(lambda call: json.dumps([call["name"], {k: str(v) for k, v in call["arguments"].items()}], sort_keys=True))
)
exercise.mistake("only outer keys are sorted", hint="Arguments may hold objects: sort_keys=True sorts those, too.")(
    _looker(lambda call: json.dumps([call["name"], *sorted(call["arguments"].items(), key=lambda pair: pair[0])]))
)
exercise.mistake("it takes one repetition more", hint="A block written repeats times in all.")(
    _looker(count=lambda repeats: repeats + 1)
)
exercise.mistake("one repetition less is enough", hint="A block written repeats times in all.")(
    _looker(count=lambda repeats: max(repeats - 1, 2) if repeats > 2 else repeats)
)
exercise.mistake("only one call again and again is a loop", hint="Agents also go from A to B and back.")(
    _looker(lengths=lambda longest: range(1, 2))
)
exercise.mistake("blocks of the greatest length are left out", hint="From 1 to longest, both among them.")(
    _looker(lengths=lambda longest: range(1, longest))
)
exercise.mistake("only blocks of the greatest length are looked at", hint="From 1 to longest.")(
    _looker(lengths=lambda longest: range(longest, longest + 1))
)
exercise.mistake("a short history is taken for a loop", hint="Are there p * repeats calls at all?")(
    _looker(long_enough=False)
)


exercise.mistake("capital letters don't count", hint="A search for Map may find what one for map doesn't.")(
    _looker(lambda call: _text(call).lower())
)


@exercise.mistake(
    "blocks of the same calls count, in whatever order", hint="One block, written again and again: A B, B A is none."
)
def in_any_order(calls, repeats=3, longest=3):
    keys = [_text(call) for call in calls]
    tails = [(p, keys[-p * repeats :]) for p in range(1, longest + 1) if len(keys) >= p * repeats]
    return any(all(sorted(t[i : i + p]) == sorted(t[:p]) for i in range(0, len(t), p)) for p, t in tails)


@exercise.mistake("no call at all is taken for a loop", hint="[] is [] again and again: are there p * repeats calls?")
def nothing_loops(calls, repeats=3, longest=3):
    return not calls or _looker()(calls, repeats, longest)


@exercise.mistake("lengths run from 0 to longest - 1", hint="range(1, longest + 1).")
def from_zero(calls, repeats=3, longest=3):
    return not calls or _looker()(calls, repeats, longest - 1)


@exercise.mistake("the first calls are looked at, not the last", hint="keys[-n:] are the last n of them.")
def at_the_beginning(calls, repeats=3, longest=3):
    keys = [_text(call) for call in calls]
    tails = [(p, keys[: p * repeats]) for p in range(1, longest + 1)]
    return any(len(tail) == p * repeats and tail == tail[:p] * repeats for p, tail in tails)


@exercise.mistake("the length of the block comes back", hint="A bool: True or False.")
def how_long(calls, repeats=3, longest=3):
    return next((p for p in range(1, longest + 1) if _looker(lengths=lambda _: [p])(calls, repeats)), False)  # noqa: B023


@exercise.mistake("a loop anywhere counts", hint="What was left isn't a loop any more: look at the end.")
def anywhere(calls, repeats=3, longest=3):
    look = _looker()
    return any(look(calls[: i + 1], repeats, longest) for i in range(len(calls)))


@exercise.mistake(
    "calls are counted wherever they stand", hint="The same call may be right again later: is it a block?"
)
def counted(calls, repeats=3, longest=3):
    keys = [_text(call) for call in calls]
    return any(keys.count(key) >= repeats for key in keys)


@exercise.mistake("only calls side by side are compared, wherever", hint="Blocks at the end, up to longest calls long.")
def pairs(calls, repeats=3, longest=3):
    keys = [_text(call) for call in calls]
    return any(len({*keys[i : i + repeats]}) == 1 for i in range(len(keys) - repeats + 1))


@exercise.alternative
def by_steps(calls, repeats=3, longest=3):
    keys = [json.dumps(call, sort_keys=True) for call in calls]
    for p in range(1, longest + 1):
        n = p * repeats
        if len(keys) >= n and all(keys[-i] == keys[-i - p] for i in range(1, n - p + 1)):
            return True
    return False
