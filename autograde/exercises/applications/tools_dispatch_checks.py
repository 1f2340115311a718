"""What dispatched tool calls of 02_applications/04_prompts_and_tools are judged by: tools, cases and laws."""

from __future__ import annotations

import functools
import json

import torch

from autograde.exercise import case
from autograde.exercises.applications.prompts_checks import hf_schema, pick, words
from autograde.exercises.applications.tools_checks import judged, wrote

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


def dispatched(dispatch, text, names, source):
    """The message that the learner's dispatch gives, and which of the source's functions ran."""
    namespace = {"__name__": "tools"}
    exec(source, namespace)
    message = dispatch(text, [namespace[name] for name in names])
    return {"message": message, "ran": list(namespace["calls"])}


def carried_out(text, names, source):
    """json, jsonschema and a plain call, in the words that the exercise asks for."""
    return json.loads(_carried_out(text, tuple(names), source))


@functools.lru_cache(maxsize=1024)
def _carried_out(text, names, source):
    return json.dumps(_answer(text, names, source))


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


def is_a_tool_message(out, one, call):
    message = out["message"]
    return message["role"] == "tool" and isinstance(message["content"], str) and len(message) == 2


def runs_once_at_most(out, one, call):
    """A tool may send money: it runs once, and not at all where the call is wrong."""
    wanted = carried_out(*one.args)["ran"]
    return out["ran"] == wanted or f"{len(out['ran'])} runs, where {len(wanted)} should be"


def errors_go_back(out, one, call):
    """Where something is wrong the message says so, and nothing is raised."""
    wanted = carried_out(*one.args)["message"]["content"]
    return out["message"]["content"].startswith("error: ") if wanted.startswith("error: ") else None


def nothing_else_can_run(out, one, call):
    """With no tool offered, none runs."""
    bare = call(one.args[0], [], one.args[2])
    return bare["ran"] == [] and bare["message"]["content"].startswith("error: ")
