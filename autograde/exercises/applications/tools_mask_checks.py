"""What the token mask of 02_applications/04_prompts_and_tools is judged by: an oracle, cases and laws."""

from __future__ import annotations

import functools
import json

import torch

from autograde.exercise import case
from autograde.exercises.applications.prompts_checks import pick, words

_STRING = r'"[^"\\\x00-\x1f]*"'


def written(value):
    return json.dumps(value, ensure_ascii=False)


# ---- the oracle: the schema as a regular expression, and a library that matches prefixes --------------------------

def _pattern(schema):
    import regex

    if "anyOf" in schema:
        return f"(?:{'|'.join(map(_pattern, schema['anyOf']))})"
    if "enum" in schema:
        return f"(?:{'|'.join(regex.escape(written(value)) for value in schema['enum'])})"
    if schema["type"] == "object":
        pairs = (f"{regex.escape(written(name))}: {_pattern(inner)}" for name, inner in schema["properties"].items())
        return rf"\{{{', '.join(pairs)}\}}"
    return {"boolean": "(?:true|false)", "integer": "-?(?:0|[1-9][0-9]*)", "string": _STRING}[schema["type"]]


@functools.lru_cache(maxsize=256)
def _compiled(text):
    import regex

    return regex.compile(_pattern(json.loads(text)))


def matched(text, vocabulary, schema):
    """The regex module's partial match tells of every token whether a value may begin so."""
    pattern = _compiled(json.dumps(schema))

    def fits(token):
        if token is None:
            return pattern.fullmatch(text) is not None
        return token != "" and pattern.fullmatch(text + token, partial=True) is not None

    return torch.tensor([fits(token) for token in vocabulary], dtype=torch.bool)


# ---- cases ----------------------------------------------------------------------------------------------------------

_WHOLE, _TEXT, _TRUTH = {"type": "integer"}, {"type": "string"}, {"type": "boolean"}
_NOISE = [None, "", " ", "\n", '"', "\\", "{", "}", ", ", ",", ": ", "0", "7", "-", "true", "True", "null", "٣", '"}',
          "[", "'", "é", "\\u00e9", "a"]


def _object(**properties):
    return {"type": "object", "properties": properties}


def _call(name, **arguments):
    return _object(name={"enum": [name]}, arguments=_object(**arguments))


def _value(g, schema):
    """A value of the schema, at random."""
    if "anyOf" in schema:
        return _value(g, pick(g, schema["anyOf"]))
    if "enum" in schema:
        return pick(g, schema["enum"])
    if schema["type"] == "object":
        return {name: _value(g, inner) for name, inner in schema["properties"].items()}
    if schema["type"] == "boolean":
        return pick(g, [True, False])
    return int(torch.randint(-300, 3000, (), generator=g)) if schema["type"] == "integer" else words(g, 1, 2)


def _pieces(g, rest, schema):
    """Tokens: beginnings of what may follow, the same with something wrong at the end, and noise."""
    right = [rest[:n] for n in (1, 2, 3, 5, 9) if n <= len(rest)]
    other = written(_value(g, schema))
    wrong = [token + pick(g, ["x", '"', " ", "1", "}"]) for token in right]
    tokens = list(dict.fromkeys([*right, *wrong, rest, other, other[:4], *_NOISE]))
    return [tokens[i] for i in torch.randperm(len(tokens), generator=g).tolist()]


def mask_cases(g):
    def within(schema):
        """A value of the schema, broken off at a random place."""
        text = written(_value(g, schema))
        cut = int(torch.randint(len(text), (), generator=g))
        return text[:cut], _pieces(g, text[cut:], schema), schema

    city = _call("get_weather", city=_TEXT, unit={"enum": ["celsius", "fahrenheit"]})
    timer, stop = _call("set_timer", minutes=_WHOLE, loud=_TRUTH), _call("stop")
    yield case("", [*_NOISE, "12", "-4", "00", "1.5", "1e3", "-x"], _WHOLE, label="an integer, nothing written yet")
    yield case("-", [*_NOISE, "12", "01", "0x", "--"], _WHOLE, label="an integer, after the minus sign")
    yield case(pick(g, ["0", "-0"]), [*_NOISE, "12", "00"], _WHOLE, label="an integer, after a zero")
    yield case(str(int(torch.randint(1, 99, (), generator=g))), [*_NOISE, "12", "5 "], _WHOLE,
               label="an integer that may end or go on")
    yield case("", [*_NOISE, "tr", "false", "fals3", "t"], _TRUTH, label="a boolean")
    yield case("", [*_NOISE, '"a', '"a"', '"a" ', '""', '"a\n', '"\\'], _TEXT, label="a string")
    yield case(f'"{words(g)}', [*_NOISE, 'b"', 'b" ', "天", "\x7f", "\t", "a\\"], _TEXT, label="inside a string")
    yield case("", [*_NOISE, "1", "12", "120", "1203", '"in', '"é', '"\\u00'], {"enum": [1, 12, 120, "in", "é"]},
               label="a choice, one value the beginning of another")
    yield case("1", [*_NOISE, "2", "20", "203"], {"enum": [1, 12, 120, "in"]}, label="within a choice")
    yield case("", [*_NOISE, "{}", "{ }", "{}}"], _object(), label="an object without properties")
    yield case('{"n": 4', [*_NOISE, '2, "', ', "ok": t', ', "n', "}}", '4, "ok":'], _object(n=_WHOLE, ok=_TRUTH),
               label="an object, after an integer")
    yield case(*within(city), label="a call, anywhere")
    yield case(*within({"anyOf": [city, timer, stop]}), label="one of three tools, anywhere")
    yield case('{"name": "s', [*_NOISE, "et", "top", 'top", ', 'top", "arguments": {}}', "et_weather", "tart"],
               {"anyOf": [city, timer, stop]}, label="two tools whose names begin alike")
    either = {"anyOf": [_object(a=_WHOLE), _object(a=_TEXT), _WHOLE]}
    yield case('{"a": ', [*_NOISE, '"b', "12", "3}", '3"'], either, label="two objects that begin alike")
    whole = written(_value(g, city))
    yield case(whole, [*_NOISE, "}}"], city, label="a call that is complete")
    yield case('{"n": 04', _NOISE, _object(n=_WHOLE), label="a text that no value begins with")


# ---- laws -----------------------------------------------------------------------------------------------------------

def ends_in_a_value(out, one, call):
    """Where the text may end, it is JSON, and jsonschema accepts it."""
    import jsonschema

    text, vocabulary, schema = one.args
    if not any(bool(fits) for fits, token in zip(out, vocabulary, strict=True) if token is None):
        return None
    try:
        value = json.loads(text)
        jsonschema.validate(value, schema)
    except (json.JSONDecodeError, jsonschema.ValidationError):
        return f"the text may end after {text!r}"
    return True


def ends_where_a_value_does(out, one, call):
    """A text that json.dumps wrote of a value is allowed to end."""
    g = torch.Generator().manual_seed(len(one.args[0]))
    schema = one.args[2]
    text = written(_value(g, schema))
    return bool(call(text, [None], schema)[0]) or f"the text may not end after {text!r}"


def each_token_by_itself(out, one, call):
    text, vocabulary, schema = one.args
    return torch.equal(call(text, vocabulary[::-1], schema).flip(0), out)


def beginnings_are_allowed(out, one, call):
    """Of an allowed token every beginning is allowed as well."""
    text, vocabulary, schema = one.args
    allowed = [token for fits, token in zip(out.tolist(), vocabulary, strict=True) if fits and token]
    parts = sorted({token[:n] for token in allowed for n in range(1, len(token))})
    fits = call(text, parts, schema).tolist() if parts else []
    wrong = [part for part, fit in zip(parts, fits, strict=True) if not fit]
    return f"{wrong[0]!r} is refused, and something that begins so isn't" if wrong else True


def never_empty(out, one, call):
    """A token without letters would be chosen for ever."""
    text, _, schema = one.args
    return not bool(call(text, [""], schema)[0])
