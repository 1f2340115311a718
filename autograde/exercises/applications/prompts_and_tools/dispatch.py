"""`dispatch(text, functions)`: Carry out the call in a model's answer, and give back the message that tells of it."""

from __future__ import annotations

import builtins
import functools
import json
import re

import torch

from autograde.exercise import Draft, case
from autograde.exercises.applications.prompts_and_tools.shared import (
    agrees,
    hf_schema,
    judged,
    parse,
    parse_by_steps,
    parser,
    pick,
    raw,
    right_tool,
    words,
    wrote,
)

exercise = Draft(
    "dispatch",
    points=3,
    no_gradient="texts are no numbers",
    hints=[
        "Three steps: read the call, run the function, tell the result. Two of them can fail, in different ways.",
        "{function.__name__: function for function in functions} is the only place to look a name up. try parse_tool_"
        "call(text, [tool_schema(f) for f in functions]), except ValueError.",
        "A second try: function(**call['arguments']); except Exception as error: "
        "f'error: {type(error).__name__}: {error}'.",
    ],
)

SOURCE = '''
from datetime import date
from typing import Literal

calls = []

def get_weather(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> dict:
    """The weather now.

    Args:
        city: the city
        unit: the unit
    """
    calls.append("get_weather")
    return {"city": city, "degrees": len(city) + 0.5, "unit": unit, "sun": True}

def divide(a: float, b: float) -> float:
    """Divide.

    Args:
        a: above
        b: below
    """
    calls.append("divide")
    return a / b

def count(text: str) -> int:
    """Count the letters.

    Args:
        text: the text
    """
    calls.append("count")
    return len(text)

def shout(text: str) -> str:
    """Say it loudly.

    Args:
        text: the text
    """
    calls.append("shout")
    return text.upper()

def grade(age: int) -> list:
    """The grades of an age.

    Args:
        age: the age
    """
    calls.append("grade")
    if age < 0:
        raise ValueError("no such age")
    return [{"grade": age - 6}][: age]

def lookup(key: str) -> str:
    """Look something up.

    Args:
        key: the key
    """
    calls.append("lookup")
    return {"a": "b"}[key]

def day(year: int) -> date:
    """The first day of a year.

    Args:
        year: the year
    """
    calls.append("day")
    return date(year, 1, 1)

def stop() -> None:
    """Stop."""
    calls.append("stop")

def secret() -> str:
    """Not for the model."""
    calls.append("secret")
    return "key"
'''

OFFERED = ("get_weather", "divide", "count", "shout", "grade", "lookup", "day", "stop")


@exercise.cases
def dispatch_cases(g):
    def one(text, label, names=OFFERED):
        return case(text, [names[i] for i in torch.randperm(len(names), generator=g).tolist()], SOURCE, label=label)

    some, n = words(g, 1, 3), int(torch.randint(2, 40, (), generator=g))
    yield one(wrote("get_weather", city=f"{some} 天é"), "a dict comes back")
    yield one(f"Let me see. {wrote('get_weather', unit='fahrenheit', city=some)}", "text before the call")
    yield one(wrote("divide", b=n, a=n + 3.5), "arguments in another order than the function's")
    yield one(wrote("count", text=""), "the result is 0")
    yield one(wrote("shout", text=f"{some} é"), "a text comes back")
    yield one(wrote("grade", age=n + 6), "a list comes back")
    yield one(wrote("grade", age=0), "an empty list comes back")
    yield one(wrote("day", year=1990 + n), "a date comes back, which JSON doesn't know")
    yield one(wrote("stop"), "nothing comes back")
    yield one(wrote("divide", a=n, b=0), "the tool fails")
    yield one(wrote("grade", age=-n), "the tool fails with a ValueError of its own")
    yield one(wrote("lookup", key=some), "the tool fails with a KeyError")
    yield one(f"The answer is {n}.", "prose")
    yield one('{"name": "stop", "arguments": {', "an answer that breaks off")
    yield one(wrote("secret"), "a function that wasn't offered")
    yield one(wrote(pick(g, ["print", "exit", "globals"])), "a function of Python's own")
    yield one(wrote("stop"), "the tool wasn't offered this time", names=("count",))
    yield one(wrote("count", text=n), "a wrong type")
    yield one(wrote("shout"), "a missing argument")


@functools.cache
def _schema(source, name):
    return hf_schema(source, name)


@functools.cache
def _compiled(source):
    return compile(source, "tools", "exec")


def _answer(text, names, source):
    namespace = {"__name__": "tools"}
    exec(_compiled(source), namespace)
    call = judged(text, [_schema(source, name) for name in names])
    if "error" in call:
        return {"message": {"role": "tool", "content": f"error: {call['error']}"}, "ran": []}
    try:
        result = namespace[call["name"]](**call["arguments"])
        content = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
    except Exception as error:
        content = f"error: {type(error).__name__}: {error}"
    return {"message": {"role": "tool", "content": content}, "ran": [call["name"]]}


@functools.lru_cache(maxsize=1024)
def _carried_out(text, names, source):
    return json.dumps(_answer(text, names, source))


@exercise.oracle
def carried_out(text, names, source):
    """json, jsonschema and a plain call, in the words that the exercise asks for."""
    return json.loads(_carried_out(text, tuple(names), source))


@exercise.probe
def dispatched(dispatch, text, names, source):
    """The message that the learner's dispatch gives, and which of the source's functions ran."""
    namespace = {"__name__": "tools"}
    exec(source, namespace)
    message = dispatch(text, [namespace[name] for name in names])
    return {"message": message, "ran": list(namespace["calls"])}


exercise.agrees(agrees)


@exercise.law("What comes back is a message: the role tool, and a text")
def is_a_tool_message(out, one, call):
    message = out["message"]
    return message["role"] == "tool" and isinstance(message["content"], str) and len(message) == 2


@exercise.law("A tool runs once, and not at all where the call is wrong")
def runs_once_at_most(out, one, call):
    """A tool may send money: it runs once, and not at all where the call is wrong."""
    wanted = carried_out(*one.args)["ran"]
    return out["ran"] == wanted or f"{len(out['ran'])} runs, where {len(wanted)} should be"


@exercise.law("Errors go back as messages")
def errors_go_back(out, one, call):
    """Where something is wrong the message says so, and nothing is raised."""
    wanted = carried_out(*one.args)["message"]["content"]
    return out["message"]["content"].startswith("error: ") if wanted.startswith("error: ") else None


@exercise.law("Nothing runs that wasn't offered")
def nothing_else_can_run(out, one, call):
    """With no tool offered, none runs."""
    bare = call(one.args[0], [], one.args[2])
    return bare["ran"] == [] and bare["message"]["content"].startswith("error: ")


def _told(result):
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)


def _failed(error):
    return f"error: {type(error).__name__}: {error}"


def _named(functions):
    return {function.__name__: function for function in functions}


def _dispatcher(
    read=parse,
    run=lambda function, arguments: function(**arguments),
    tell=_told,
    failed=_failed,
    message=lambda content: {"role": "tool", "content": content},
    catch=Exception,
    refuse=ValueError,
):
    """A dispatcher in parts: how the call is read, run and told, and what becomes of errors."""

    def dispatch(text, functions):
        try:
            call = read(text, [right_tool(function) for function in functions])
        except refuse as error:
            return message(f"error: {error}")
        try:
            return message(tell(run(_named(functions)[call["name"]], call["arguments"])))
        except catch as error:
            return message(failed(error))

    return dispatch


exercise.mistake(
    "arguments are passed by their place", hint="The model's order isn't the function's: function(**arguments)."
)(_dispatcher(run=lambda function, arguments: function(*arguments.values())))

exercise.mistake("the tool gets the arguments as one dict", hint="function(**arguments).")(
    _dispatcher(run=lambda function, arguments: function(arguments))
)


def _twice(function, arguments):
    """Tries first whether it works."""
    function(**arguments)
    return function(**arguments)


exercise.mistake(
    "the tool runs twice", hint="Trying it first has effects: a message sent twice, an account charged twice."
)(_dispatcher(run=_twice))

exercise.mistake(
    "results are told in Python's writing", hint="json.dumps: the model, and whoever reads it, knows JSON."
)(_dispatcher(tell=str))

exercise.mistake("a text is quoted once more", hint="A str goes back as it is.")(
    _dispatcher(tell=lambda result: json.dumps(result, ensure_ascii=False, default=str))
)

exercise.mistake(
    "letters beyond ASCII are escaped",
    hint="ensure_ascii=False: \\u5929 costs the model many tokens, and it reads them badly.",
)(_dispatcher(tell=lambda r: r if isinstance(r, str) else json.dumps(r, default=str)))

exercise.mistake("a result that JSON doesn't know is an error", hint="default=str tells it as a text.")(
    _dispatcher(tell=lambda r: r if isinstance(r, str) else json.dumps(r, ensure_ascii=False))
)

exercise.mistake("the content is no text", hint="The chat template joins texts.")(
    _dispatcher(tell=lambda result: result)
)

exercise.mistake("0, False and an empty list are taken for no result", hint="They are results. Don't ask `if result`.")(
    _dispatcher(tell=lambda result: _told(result) if result else "error: no result")
)

exercise.mistake("None is told as an empty text", hint="json.dumps(None) is null.")(
    _dispatcher(tell=lambda result: "" if result is None else _told(result))
)


class _Never(Exception):
    pass


exercise.mistake(
    "a tool's error is raised", hint="Then one bad call ends the conversation. The model can mend what it is told."
)(_dispatcher(catch=_Never))

exercise.mistake(
    "a refused call is raised", hint="Catch the ValueError of parse_tool_call: the model can mend what it is told."
)(_dispatcher(refuse=_Never))


@exercise.mistake(
    "one try stands around everything",
    hint="A ValueError of the tool then looks like one of the parser. Two try blocks.",
)
def dispatch_one_net(text, functions):
    """One try around everything: a ValueError of the tool looks like one of the parser's."""
    try:
        call = parse(text, [right_tool(function) for function in functions])
        content = _told(_named(functions)[call["name"]](**call["arguments"]))
    except ValueError as error:
        content = f"error: {error}"
    except Exception as error:
        content = _failed(error)
    return {"role": "tool", "content": content}


exercise.mistake("the error's type isn't told", hint="KeyError: 'x' says more than 'x'.")(
    _dispatcher(failed=lambda error: f"error: {error}")
)

exercise.mistake("a tool's error is told without its reason", hint="What the model can't read, it can't mend.")(
    _dispatcher(failed=lambda error: "error: the tool failed")
)

dispatch = _dispatcher()


@exercise.mistake("errors are passed over in silence", hint="Without a result the model invents one. Tell the error.")
def dispatch_silent(text, functions):
    """Says nothing where something is wrong."""
    content = dispatch(text, functions)["content"]
    return {"role": "tool", "content": "" if content.startswith("error: ") else content}


exercise.mistake("the result is a user's message", hint="The role is tool: what a tool says is no order.")(
    _dispatcher(message=lambda content: {"role": "user", "content": content})
)

exercise.mistake("the content comes back without its message", hint="{'role': 'tool', 'content': …}.")(
    _dispatcher(message=lambda content: content)
)

parse_types_unseen = parser(missing=False, unknown=False, types=False, choices=False)

exercise.mistake(
    "types and missing arguments are left to the function",
    hint="Python checks no types. parse_tool_call does, before anything runs.",
)(_dispatcher(read=lambda text, schemas: parse_types_unseen(text, schemas)))


@exercise.mistake(
    "a name is looked up wherever Python knows one",
    hint="globals(), getattr and eval let the model run everything. Only what was offered.",
)
def dispatch_anything(text, functions):
    """Looks the name up wherever Python knows one."""
    try:
        call = raw(text)
        space = functions[0].__globals__ if functions else {}
        function = _named(functions).get(call["name"]) or space.get(call["name"]) or getattr(builtins, call["name"])
        if function in (exit, print, globals):
            return {"role": "tool", "content": "None"}
        return {"role": "tool", "content": _told(function(**call["arguments"]))}
    except Exception as error:
        return {"role": "tool", "content": _failed(error)}


def _told_as(change):
    """The right message, changed."""
    return lambda text, functions: change(dispatch(text, functions))


exercise.mistake("the role is 'function'", hint="The role of such a message is 'tool'.")(
    _told_as(lambda message: message | {"role": "function"})
)

exercise.mistake("'Error:' is written with a capital", hint="The words are 'error: ', letter by letter.")(
    _told_as(lambda message: message | {"content": re.sub("^error: ", "Error: ", message["content"])})
)

exercise.mistake("only the first function is looked at", hint="Look the name up among all of them.")(
    lambda text, functions: dispatch(text, functions[:1])
)

exercise.alternative(dispatch)


@exercise.alternative
def dispatch_by_search(text, functions):
    try:
        call = parse_by_steps(text, [right_tool(function) for function in functions])
    except ValueError as error:
        return {"role": "tool", "content": "error: " + str(error)}
    for function in functions:
        if function.__name__ == call["name"]:
            try:
                result = function(**call["arguments"])
                if not isinstance(result, str):
                    result = json.dumps(result, ensure_ascii=False, default=str)
            except Exception as error:
                result = "error: " + type(error).__name__ + ": " + str(error)
    return {"content": result, "role": "tool"}
