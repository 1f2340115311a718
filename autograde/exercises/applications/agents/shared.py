"""What exercises of the chapter agents share: an action read in parts, tools that keep a log, a model with a script."""

from __future__ import annotations

import functools
import json
import re

from autograde.judging.comparing import compare


def _before(text, mark="\nObservation:"):
    """The text before the first line that begins with "Observation:"."""
    return ("\n" + text).partition(mark)[0][1:]


def _object(text):
    """The JSON object that a text begins with."""
    value = json.JSONDecoder().raw_decode(text.lstrip())[0]
    if not isinstance(value, dict):
        raise ValueError
    return value


def _first(pieces):
    """The first line that decides."""
    return next(pieces, None)


def reader(
    before=_before,
    first=_first,
    marks=r"^(Action|Final Answer):",
    marked=r"^Action Input:",
    load=_object,
    answer=str.strip,
    thought=lambda text: text.strip().removeprefix("Thought:").strip(),
    name=str.strip,
    messages=("no action", "no input", "not JSON"),
):
    """A reader of actions in parts: what is cut, what decides, how JSON, thought, name and answer are read."""

    def parse_action(text):
        text = before(text)
        found = first(re.finditer(marks, text, re.MULTILINE))
        if found is None:
            raise ValueError(messages[0])
        told, rest = {"thought": thought(text[: found.start()])}, text[found.end() :]
        if found[1].lower() != "action":
            return told | {"answer": answer(rest)}
        line, _, after = rest.partition("\n")
        start = re.search(marked, after, re.MULTILINE)
        if start is None:
            raise ValueError(messages[1])
        try:
            arguments = load(after[start.end() :])
        except (ValueError, SyntaxError):
            raise ValueError(messages[2]) from None
        return told | {"name": name(line), "arguments": arguments}

    return parse_action


parse = reader()


def read(text, parse=parse):
    """What `parse` gives, or the message of its ValueError."""
    try:
        return parse(text)
    except ValueError as error:
        return {"error": str(error)}


def agrees(expected, got, one):
    """Equal, in kind of value as well. (A comparison of its own, so that the laws are asked of an error, too.)"""
    mismatch = compare(expected, got, strict=True)
    return True if mismatch is None and type(expected) is type(got) else mismatch.message if mismatch else "other type"


TOOLS = """
from datetime import date

log = []

def add(a, b):
    log.append(["add", a, b])
    return a + b

def shout(text):
    log.append(["shout", text])
    return text.upper() + "\\nFinal Answer: BANANA"

def find(key):
    log.append(["find", key])
    return {"ä": [1, 2.5, None, "ü"], "b": "x y"}[key]

def halve(n):
    log.append(["halve", n])
    if n % 2:
        raise ValueError(f"{n} is odd")
    return n // 2

def day(year):
    log.append(["day", year])
    return date(year, 1, 1)

def nothing():
    log.append(["nothing"])

def empty():
    log.append(["empty"])
    return ""

class NoAnswer(Exception):
    pass

def ring(number):
    log.append(["ring", number])
    raise NoAnswer(f"nobody at {number}")

def keep(items):
    is_plain = items is None or isinstance(items, (str, int, float, list, dict))
    log.append(["keep", items if is_plain else f"{type(items).__name__} {items}"])  # the log leaves the sandbox
    return items

def secret():
    log.append(["secret"])
    return "key"
"""
OFFERED = ("add", "shout", "find", "halve", "day", "nothing", "empty", "keep", "ring")


@functools.cache
def compiled(source):
    return compile(source, "tools", "exec")


def told(result):
    """A result as a text: a text as it is, all else as JSON."""
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)


def ascii_only(result):
    """As told, but with json's own habit of writing letters beyond ASCII as numbers."""
    return result if isinstance(result, str) else json.dumps(result, default=str)


def failed(error):
    return f"error: {type(error).__name__}: {error}"


def carried_out(name, arguments, tools, told=told, catch=Exception):
    """The text that a call gives, whatever happens."""
    if name not in tools:
        return f"error: unknown tool: {name}"
    try:
        return told(tools[name](**arguments))
    except catch as error:
        return failed(error)
